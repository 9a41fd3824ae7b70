"""Versions of the installed packages that functions use: recorded beside a fingerprint.

They need not be the same, since another version may well compute the same: a change is a warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.sources.complaints import warn_once
from pipeline.transforms.ownership import version_of


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Packages by the names that they are imported by, and their versions here.

    >>> import numpy as np
    >>> versions(["numpy"]) == {"numpy": np.__version__}
    True
    """
    return {package: version_of(package) for package in sorted(set(packages))}


def warn_of_versions(what: str, was: Any, now: Mapping[str, str]) -> None:
    """Log a warning, once, if packages have other versions than when something was written.

    Args:
        what: what was written, for the message.
        was: the versions that it tells; older files have none, and no mapping here.
        now: the versions here of the packages that its functions use.
    """
    if not isinstance(was, Mapping):
        return
    changed = [
        f"{package} {str(was[package])[:40]} -> {version}"
        for package, version in now.items()
        if was.get(package, version) != version
    ]
    if changed:
        warn_once(
            f"{what} was written with other versions of packages that its functions use: "
            f"{', '.join(changed)}. They may compute something else: install the versions of then, "
            "or check that results are the same."
        )
