"""Converting records to files of another format: in shards, in parallel, and safe to kill.

Begin with conversion.py, which has the whole process; writers/ has a writer for each format.
"""

from pipeline.tools.convert.conversion import Conversion, convert
from pipeline.tools.convert.tokenize import Tokenize
from pipeline.tools.convert.writers import WRITERS, Writer

__all__ = ["WRITERS", "Conversion", "Tokenize", "Writer", "convert"]
