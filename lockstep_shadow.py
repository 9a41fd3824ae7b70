"""A script called pipeline.py hides the package: its imports then say so, where Python would not.

Python puts a script's folder before site-packages, so no code of the package runs. This file is
run as each interpreter starts (by lockstep_shadow.pth), and does nothing but watch that one name.
"""

import sys
from _frozen_importlib_external import PathFinder  # importlib's own, without the cost of importlib


class Shadow:
    """Finds a module `pipeline` that is no package, and gives it a word for names of ours."""

    # fmt: off
    NAMES = frozenset(
        {
            "ArrayRecordSource", "ArrowIpcSource", "BagzSource", "Block", "Columns", "Dataset",
            "FilesSource", "JaxFeed", "JsonLinesSource", "LinesSource", "Loader",
            "MegatronSource", "MemorySource", "ParquetSource", "Processes", "Ray", "Scanned",
            "SequenceSource", "Serial", "Source", "Storage", "TFRecordSource", "Threads",
            "TokenDocumentSource", "TokenSource", "TorchFeed", "WebDatasetSource", "WindowSource",
            "concatenate", "errors", "interleave", "merge", "mix", "pad_to", "padding_share",
            "parse_example", "parse_sequence_example", "scan", "zip_datasets",
        }
    )
    # fmt: on

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        spec = PathFinder.find_spec(name) if name == "pipeline" and path is None else None
        if spec is None or spec.loader is None or spec.submodule_search_locations is not None:
            return None
        run, origin = spec.loader.exec_module, spec.origin

        def missing(attribute):
            if attribute in cls.NAMES:
                raise ImportError(
                    f"{origin} hides Lockstep's package 'pipeline', which has {attribute!r}: "
                    "rename the file."
                )
            raise AttributeError(f"module 'pipeline' has no attribute {attribute!r}")

        def exec_module(module):
            module.__dict__["__getattr__"] = missing
            run(module)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Shadow)
