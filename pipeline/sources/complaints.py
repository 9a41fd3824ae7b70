"""What is said of a file that cannot be used, and what its user can do."""

from __future__ import annotations

from pipeline.errors import MissingFileError, SourceError, StorageError


def unreadable(path: str, reason: object) -> SourceError:
    """The error for a file that cannot be opened or is not what its source expects."""
    if isinstance(reason, SourceError):  # it names the file and its own remedy
        return type(reason)(str(reason))
    text = " ".join(str(reason).split()).rstrip(".") or "no reason given"
    return SourceError(f"cannot read {path}: {text}. Rewrite it, or remove it from paths.")


def changed(path: str, was: str, now: str) -> SourceError:
    """The error for a file that is not the one whose records were counted."""
    return SourceError(
        f"{path} has changed since its records were counted: it had {was}, now {now}. "
        "Restore the file, or build the source anew."
    )


def missing(path: str) -> MissingFileError:
    """The error for a URL that leads nowhere."""
    return MissingFileError(
        f"{path} does not exist: the store knows no such object or bucket (404). "
        "Correct the path, or remove it from paths."
    )


def forbidden(path: str, reason: str) -> StorageError:
    """The error for a request that the store refuses to this user."""
    return StorageError(
        f"{path} may not be read: {reason}. "
        "Log in or ask for the right to read it, or give credentials in Storage(options=...)."
    )


def refused(path: str, reason: str) -> StorageError:
    """The error for a request that no other try would make succeed."""
    return StorageError(f"{path} cannot be read: {reason}. Correct the path or Storage(options=).")


def out_of_reach(
    path: str, reason: str, tries: int, seconds: float, deadline: float
) -> StorageError:
    """The error for a request that failed until its deadline."""
    counted = "1 try" if tries == 1 else f"{tries} tries"
    return StorageError(
        f"{path} cannot be reached: {reason}; {counted} in {seconds:.1f} s. "
        f"See the network and the name of the host, or raise Storage(deadline={deadline:g})."
    )
