"""Manifests beside data, with which thousands of files open from one listing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.errors import SourceError
from pipeline.sources import Storage
from pipeline.sources.storage import manifest
from pipeline.sources.storage.files import Files
from pipeline.tools.inspection.opening import files_of, format_of, opened
from pipeline.tools.inspection.words import listed, many


@dataclass(frozen=True)
class ManifestReport:
    """A comparison of manifests with the files beside them.

    Attributes:
        manifests: their paths.
        files: how many files were compared.
        records: in these files.
        stale: files that are listed with another size or tag.
        unknown: files that are not listed.
        gone: files that are listed but do not exist; a glob that matches one is refused.
    """

    manifests: tuple[str, ...]
    files: int
    records: int
    stale: tuple[str, ...]
    unknown: tuple[str, ...]
    gone: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether opening needs nothing but a listing and the manifests."""
        return not (self.stale or self.unknown or self.gone)

    def as_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return {**asdict(self), "ok": self.ok}

    def lines(self) -> Iterator[str]:
        """The report for people."""
        yield from self.manifests
        yield from listed("STALE", self.stale)
        yield from listed("UNKNOWN", self.unknown)
        yield from listed("gone", self.gone)
        known = self.files - len(self.stale) - len(self.unknown)
        yield (
            f"{many(self.records, 'record')} in {many(self.files, 'file')}: {known:,} known"
            + ("" if self.ok else ". Write it anew: python -m pipeline manifest …")
        )


def write_manifest(data: Any, *, storage: Storage | None = None) -> ManifestReport:
    """Write manifests beside files, with their record counts and what else opening them needs.

    Opening then costs one listing and one small file, for every reader. An entry is valid as long
    as the file's size and tag (modification time if local) are unchanged. Entries of other files
    are kept.

    Args:
        data: a path or glob, or a Dataset, whose sources' files are used.
        storage: how URLs are read.

    Raises:
        SourceError: a file cannot be opened, or its format has no manifests.
        OSError: a manifest cannot be written.

    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for i in range(3):
    ...     _ = (folder / f"{i}.txt").write_text("to be\\nor not\\n")
    >>> report = write_manifest(str(folder / "*.txt"))
    >>> report.files, report.records, report.ok, check_manifest(str(folder / "*.txt")).ok
    (3, 6, True, True)
    >>> _ = (folder / "1.txt").write_text("to be")
    >>> [pathlib.Path(f).name for f in check_manifest(str(folder / "*.txt")).stale]
    ['1.txt']
    """
    for files in (every := _files(data, storage)):
        files.write_manifest()
    return _report(every)


def check_manifest(data: Any, *, storage: Storage | None = None) -> ManifestReport:
    """Compare the manifests beside files with the files as they are now.

    Args:
        data: a path or glob, or a Dataset, whose sources' files are used.
        storage: how URLs are read.

    Raises:
        SourceError: a file cannot be opened, or its format has no manifests.
    """
    return _report(_files(data, storage))


def _files(data: Any, storage: Storage | None) -> list[Files]:
    what = opened(data, storage)
    for broken in what.broken:
        raise SourceError(broken.error)
    found: list[Files] = []
    for component in what.components:
        files, kind = files_of(component.source), format_of(component.source)
        if files is None:
            raise SourceError(f"{kind} records lie in no files: there is nothing to note of them.")
        if not files.kind:
            raise SourceError(
                f"{files.paths[0]}: {kind} files keep no manifest, as a start looks into each "
                "all the same. Convert them to .array_record or .parquet, which keep one."
            )
        found.append(files)
    return found


def _report(every: list[Files]) -> ManifestReport:
    compared = [
        manifest.compare(f.kind, [f.stat(i) for i in range(len(f.paths))], f.storage) for f in every
    ]
    return ManifestReport(
        tuple(dict.fromkeys(path for c in compared for path in c.manifests)),
        sum(len(files.paths) for files in every),
        sum(len(files) for files in every),
        tuple(path for c in compared for path in c.stale),
        tuple(path for c in compared for path in c.unknown),
        tuple(dict.fromkeys(path for c in compared for path in c.gone)),
    )
