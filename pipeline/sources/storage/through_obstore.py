"""How one request is made through obstore: gs, s3, az and http, in Rust, beside the GIL."""

from __future__ import annotations

import atexit
import os
import re
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from pipeline.errors import SourceError, need
from pipeline.sources.storage.location import Stat

_BUCKET = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*://[^/]+)/(.*)", re.DOTALL)
_ONCE: Any = {"max_retries": 0, "retry_timeout": timedelta(0)}  # `remote` decides on tries
_MOMENT = 0.1  # seconds
_FIRST: list[int] = []  # the process in which obstore's threads were started


def open_obstore(url: str, options: Mapping[str, Any]) -> Bucket:
    """The bucket of a URL.

    Raises:
        MissingExtraError: obstore is not installed.
        SourceError: obstore has no such protocol or option, or this process was forked from one
            that used it.
    """
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError as e:
        raise need("obstore", "obstore") from e
    if not _FIRST:
        _FIRST.append(os.getpid())
        atexit.register(_settle)
    elif _FIRST[0] != os.getpid():
        raise SourceError(
            f"{url} cannot be read: this process was forked from one that used obstore, whose "
            'threads are gone. Start workers by spawn, or use Storage(engine="fsspec").'
        )
    head, _ = split(url)
    try:
        store = from_url(head, retry_config=_ONCE, **_translated(head, options))
    except (BaseError, ValueError, TypeError) as e:
        reason = " ".join(str(e).split())
        raise SourceError(
            f"{url} cannot be read through obstore: {reason}. See Storage(options=), "
            'or use engine="fsspec".'
        ) from e
    return Bucket(head, store)


def _settle() -> None:
    # its threads let go of Python's objects a little after an answer: whoever does so while the
    # interpreter ends aborts the process (9 of 120 that read and ended on a busy machine)
    time.sleep(_MOMENT)


def split(url: str) -> tuple[str, str]:
    """("gs://bucket", "name") of a URL.

    >>> split("gs://bucket/a/b")
    ('gs://bucket', 'a/b')
    """
    found = _BUCKET.match(url)
    if not found:
        raise SourceError(f"{url} names a bucket, no file. Give the URL of files: {url}/*")
    return found[1], found[2]


class Bucket:
    """One bucket; a tag is the object's etag, which each request repeats."""

    def __init__(self, head: str, store: Any) -> None:
        self.head, self.store = head, store

    async def info(self, url: str) -> Stat:
        """Size and tag of one file."""
        import obstore

        return self._as_stat(await obstore.head_async(self.store, split(url)[1]))

    async def list(self, pattern: str) -> list[Stat]:
        """The files that a pattern matches, sorted by name."""
        import obstore
        from fsspec.utils import glob_translate

        name = split(pattern)[1]
        folder = re.split(r"[*?\[]", name, maxsplit=1)[0].rpartition("/")[0]
        found = await obstore.list(self.store, folder or None).collect_async()
        wanted = re.compile(glob_translate(name))
        files = sorted((f for f in found if wanted.match(f["path"])), key=lambda f: f["path"])
        return [self._as_stat(f) for f in files]

    async def get(self, url: str, start: int, stop: int, tag: str) -> bytes:
        """The bytes [start, stop) of the file that has this tag, or fewer if it is shorter."""
        import obstore

        asked: Any = {"range": (start, stop)} | ({"if_match": tag} if tag else {})
        answer = await obstore.get_async(self.store, split(url)[1], options=asked)
        return bytes(await answer.bytes_async())

    async def put(self, url: str, data: bytes) -> None:
        """Write a whole file."""
        import obstore

        await obstore.put_async(self.store, split(url)[1], data)

    def _as_stat(self, found: Mapping[str, Any]) -> Stat:
        tag = found["e_tag"] or str(found["last_modified"])
        return Stat(f"{self.head}/{found['path']}", found["size"], tag)


def _translated(head: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The names that gcsfs and s3fs know, as obstore's; others are obstore's own."""
    more = dict(options)
    google = head.startswith(("gs://", "gcs://"))
    url = more.pop("endpoint_url", None)
    if google:
        url = url or os.environ.get("STORAGE_EMULATOR_HOST")
        url = url if not url or "://" in url else f"http://{url}"
    if url:
        more["base_url" if google else "endpoint"] = url
        client = {"allow_http": url.startswith("http://")}
        more["client_options"] = client | more.get("client_options", {})
    emulated = google and os.environ.get("STORAGE_EMULATOR_HOST")
    if more.pop("token", "anon" if emulated else None) == "anon" or more.pop("anon", False):
        more["skip_signature"] = True
    for theirs, ours in (("key", "access_key_id"), ("secret", "secret_access_key")):
        if theirs in more:
            more[ours] = more.pop(theirs)
    return more
