"""Single requests through obstore: gs, s3, az and http, in Rust, without the GIL."""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import re
import time
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from pipeline.errors import SourceError, need
from pipeline.sources.storage.location import Answer, Stat, protocol
from pipeline.sources.storage.verdict import status_of

_BUCKET = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*://[^/]+)/(.*)", re.DOTALL)
_SCHEMES = ("gs", "gcs", "s3", "s3a", "az", "azure", "abfs", "abfss", "adl")
_WEB = ("http", "https")
_ONCE: Any = {"max_retries": 0, "retry_timeout": timedelta(0)}  # `remote` decides on retries
_CHUNK = 8 << 20  # bytes of one part of an upload
_PARTS = 9000  # of 10,000 that S3 allows
_MOMENT = 0.1  # seconds
_FIRST: list[int] = []  # [pid] of the process that started obstore's threads
_GOOGLE_TOKENS = (None, "google_default")  # tokens for which obstore looks up credentials itself


def serves(url: str, options: Mapping[str, Any]) -> bool:
    """Whether engine "auto" may use obstore for a URL.

    It leaves to fsspec: web addresses with a query, an escape or options, names with an empty part
    as in "a//b", and S3 where the credentials are only in boto's files, which obstore does not
    read.
    """
    scheme = protocol(url)
    if "//" in url.partition("://")[2]:
        return False
    if scheme in _WEB:
        return not options and not re.search(r"[?%#]", url)
    if scheme in ("s3", "s3a"):
        stated = options.keys() & {"key", "anon", "access_key_id", "aws_access_key_id"}
        return bool(stated) or "AWS_ACCESS_KEY_ID" in os.environ or not _has_boto_files()
    return scheme in _SCHEMES


def _has_boto_files() -> bool:
    names = (("AWS_SHARED_CREDENTIALS_FILE", "credentials"), ("AWS_CONFIG_FILE", "config"))
    return any(
        os.path.exists(os.path.expanduser(os.environ.get(variable) or f"~/.aws/{name}"))
        for variable, name in names
    )


def open_obstore(url: str, options: Mapping[str, Any], deadline: float = 60.0) -> Bucket:
    """A client for the bucket of a URL.

    Args:
        url: of a file, or a pattern.
        options: as for `Storage.options`.
        deadline: seconds that a single request may take.

    Raises:
        MissingExtraError: obstore is not installed.
        SourceError: obstore does not know the protocol or an option, or this process was forked
            from one that used it.
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
        named = re.sub("^gcs:", "gs:", protocol(head) + head[len(protocol(head)) :])
        store = from_url(named, retry_config=_ONCE, **_translated(named, options, deadline))
    except (BaseError, ValueError, TypeError) as e:
        reason = " ".join(str(e).split())
        raise SourceError(
            f"{url} cannot be read through obstore: {reason}. See Storage(options=), "
            'or use engine="fsspec".'
        ) from e
    return (Web if protocol(url) in _WEB else Bucket)(head, store)


def _settle() -> None:
    # obstore's threads release Python objects shortly after a response; if the interpreter is
    # ending just then, the process aborts (9 of 120 that read and ended on a busy machine)
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


def _folders(paths: Iterable[str]) -> set[str]:
    """Every folder that one of these paths lies in.

    >>> sorted(_folders(["a/b/c", "a/d", "e"]))
    ['a', 'a/b']
    """
    found: set[str] = set()
    for path in paths:
        while (path := path.rpartition("/")[0]) and path not in found:
            found.add(path)
    return found


class Bucket:
    """One bucket. A tag is the object's etag, which each request sends as a condition."""

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
        from obstore.exceptions import InvalidPathError

        name = split(pattern)[1]
        folder = re.split(r"[*?\[]", name, maxsplit=1)[0].rpartition("/")[0]
        try:
            found = await obstore.list(self.store, folder or None).collect_async()
        except InvalidPathError as e:
            raise SourceError(
                f"{pattern} cannot be listed: {' '.join(str(e).split())}. obstore knows no such "
                'names: use Storage(engine="fsspec").'
            ) from e
        wanted, folders = re.compile(glob_translate(name)), _folders(f["path"] for f in found)
        files = [f for f in found if wanted.match(f["path"])]
        # consoles and other programs mark a folder by an empty object of its name
        files = [f for f in files if f["size"] or f["path"] not in folders]
        return [self._as_stat(f) for f in sorted(files, key=lambda f: f["path"])]

    async def get(self, url: str, start: int, stop: int, tag: str) -> Answer:
        """Bytes `[start, stop)` of the file with this tag, or fewer if it is shorter."""
        import obstore

        asked: Any = {"range": (start, stop)}
        if tag.startswith('"'):  # a weak etag or a time can only be compared with the answer
            asked["if_match"] = tag
        answer = await obstore.get_async(self.store, split(url)[1], options=asked)
        data = bytes(await answer.bytes_async())
        return Answer(data, answer.range[0], answer.meta["size"], _tag(answer.meta))

    async def put(self, url: str, data: bytes) -> None:
        """Write a whole file."""
        import obstore

        await obstore.put_async(self.store, split(url)[1], data)

    async def upload(self, url: str, path: str) -> None:
        """Write a whole file from a local one, in parts."""
        import obstore

        chunk = max(_CHUNK, os.path.getsize(path) // _PARTS)
        await obstore.put_async(self.store, split(url)[1], Path(path), chunk_size=chunk)

    async def remove(self, url: str) -> None:
        """Remove a file."""
        import obstore

        await obstore.delete_async(self.store, split(url)[1])

    def _as_stat(self, found: Mapping[str, Any]) -> Stat:
        return Stat(f"{self.head}/{found['path']}", found["size"], _tag(found))


class Web(Bucket):
    """http(s)://. A request for one byte tells size and tag, as some servers refuse HEAD."""

    async def info(self, url: str) -> Stat:
        import obstore

        try:
            asked: Any = {"range": (0, 1)}
            answer = await obstore.get_async(self.store, split(url)[1], options=asked)
        except Exception as e:
            if status_of(e) == 416:  # the file is empty
                return Stat(url, 0)
            raise
        return Stat(url, answer.meta["size"], _tag(answer.meta))

    async def list(self, pattern: str) -> list[Stat]:
        from pipeline.sources.storage.through_fsspec import open_fsspec

        # links of a page, which obstore does not look for
        return await (await asyncio.to_thread(open_fsspec, pattern, {}, 1)).list(pattern)


def _tag(meta: Mapping[str, Any]) -> str:
    etag = meta["e_tag"] or ""
    return etag if etag and not etag.startswith("W/") else str(meta["last_modified"])


def _translated(head: str, options: Mapping[str, Any], deadline: float) -> dict[str, Any]:
    """Options as obstore names them. Those named as in gcsfs and s3fs are translated.

    Raises:
        ValueError: an option has no counterpart.
    """
    more = dict(options)
    google = protocol(head) in ("gs", "gcs")
    url = more.pop("endpoint_url", None)
    if google:
        url = url or os.environ.get("STORAGE_EMULATOR_HOST")
        url = url if not url or "://" in url else f"http://{url}"
    client: dict[str, Any] = {"timeout": timedelta(seconds=deadline)}
    if url:
        more["base_url" if google else "endpoint"] = url
    if (url or head).startswith("http://"):
        client["allow_http"] = True
    more["client_options"] = client | more.get("client_options", {})
    emulated = google and os.environ.get("STORAGE_EMULATOR_HOST")
    token = more.pop("token", "anon" if emulated else None)
    if token == "anon" or more.pop("anon", False):
        more["skip_signature"] = True
        if google:  # else a write would look for credentials, though nothing is signed
            more["credential_provider"] = _nobody
    elif google:
        more |= _google_credentials(token)
    elif token:
        more["session_token"] = token
    for theirs, ours in (("key", "access_key_id"), ("secret", "secret_access_key")):
        if theirs in more:
            more[ours] = more.pop(theirs)
    return more


def _nobody() -> dict[str, Any]:
    return {"token": "anonymous", "expires_at": None}


def _google_credentials(token: Any) -> dict[str, Any]:
    if token in _GOOGLE_TOKENS:
        return {}
    if isinstance(token, dict):
        return {"service_account_key": json.dumps(token)}
    if isinstance(token, str) and os.path.isfile(token):
        return {"service_account": token}
    raise ValueError(f"token of type {type(token).__name__} is one that only gcsfs knows")
