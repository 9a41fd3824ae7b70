"""Every error class, one for each remedy; messages show the values, then what to do."""

from __future__ import annotations


class PipelineError(Exception):
    """The parent of every error that Lockstep raises on purpose."""


class ChainError(PipelineError, ValueError):
    """A dataset was chained in a way that cannot work: change the chain."""


class OptionError(PipelineError, TypeError):
    """There is no option of that name here: use the one that the message names."""


class PositionError(PipelineError, IndexError):
    """A record, row or step lies outside its range: ask for one inside."""


class LengthError(PipelineError, TypeError):
    """The dataset has no length: it is endless, or its rows are counted as they come."""


class SourceError(PipelineError):
    """A source cannot be opened or its files disagree: repair or replace the file it names."""


class StorageError(SourceError, OSError):
    """A file cannot be reached, all tries included: see the network, the rights or the options."""


class MissingFileError(StorageError, FileNotFoundError):
    """There is no such file, or no such bucket: correct the path."""


class RecordError(SourceError):
    """One record cannot be read or decoded: skip, repair or rewrite it.

    Attributes:
        alike: the source's records that fail for the same reason, if that is known.
    """

    alike: range | None = None


class ScanError(PipelineError, ValueError):
    """A scan is missing, damaged, or of another dataset or function: scan again."""


class CollateError(PipelineError, ValueError):
    """Rows do not stack into one batch: make their fields equal, pack them, or pass collate=."""


class BatchError(PipelineError, ValueError):
    """A batch size or remainder rule does not fit the hosts, lanes or devices: choose another."""


class HostsError(PipelineError, ValueError):
    """The loader's place among the processes is unclear: give feed= or host=, hosts=."""


class LanesError(PipelineError, ValueError):
    """A counted dataset cannot be split over that many hosts: choose lanes or hosts."""


class StateError(PipelineError, ValueError):
    """A saved state is damaged or incomplete: use another, or merge the hosts' parts."""


class MismatchError(StateError):
    """A state belongs to another dataset: restore that dataset, or allow the difference."""


class StreamEndError(PipelineError):
    """A counted stream ended before the promised steps: lower steps= or repeat the dataset."""


class WorkerError(PipelineError, RuntimeError):
    """Workers die or hang over some records, or cannot start: see what it names."""


class FeedError(PipelineError, TypeError):
    """A batch cannot be placed on devices: drop or convert the field it names."""


class MissingExtraError(PipelineError, ImportError):
    """An optional package is not installed: install the extra that the message names."""


def need(extra: str, package: str) -> MissingExtraError:
    """The error for an optional package that is missing.

    >>> print(need("harness", "jax"))
    this needs jax, which is not installed: pip install 'lockstep[harness]'
    """
    return MissingExtraError(
        f"this needs {package}, which is not installed: pip install 'lockstep[{extra}]'"
    )
