"""How records of one format become files of another: in shards, in parallel, safe to kill.

Begin with conversion.py, the whole of one; writers.py has a writer for each format.
"""

from pipeline.tools.convert.conversion import Conversion, convert
from pipeline.tools.convert.tokenize import Tokenize
from pipeline.tools.convert.writers import WRITERS, Writer

__all__ = ["WRITERS", "Conversion", "Tokenize", "Writer", "convert"]
