"""How records of one format become files of another: in shards, in parallel, safe to kill."""

from pipeline.convert.conversion import Converted, convert
from pipeline.convert.tokenize import Tokenize
from pipeline.convert.writers import WRITERS, Writer

__all__ = ["WRITERS", "Converted", "Tokenize", "Writer", "convert"]
