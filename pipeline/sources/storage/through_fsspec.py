"""Single requests through fsspec: native coroutines for gs, s3 and http, threads for the rest.

The libraries' own retries and listing caches are off: `remote` decides on retries and deadlines.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

from pipeline.errors import SourceError, need
from pipeline.sources.complaints import unreadable
from pipeline.sources.storage.location import Answer, Stat, protocol
from pipeline.sources.storage.verdict import WHOLE, RangesIgnoredError

_TAGS = ("generation", "ETag", "etag", "Last-Modified", "LastModified", "mtime", "created")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)$")
_BUCKETS = ("gs", "gcs", "s3", "s3a")  # one client reads all buckets
_EXTRAS = {
    "gs": ("gcs", "gcsfs"),
    "gcs": ("gcs", "gcsfs"),
    "s3": ("s3", "s3fs"),
    "s3a": ("s3", "s3fs"),
    "http": ("gcs", "aiohttp"),
    "https": ("gcs", "aiohttp"),
}


def client_of(url: str) -> str:
    """Which URLs share a client: those of a protocol, or of one host where it belongs to that.

    >>> client_of("s3://bucket/a"), client_of("sftp://host:22/a")
    ('s3', 'sftp://host:22')
    """
    scheme = protocol(url)
    return scheme if scheme in _BUCKETS else "/".join(url.split("/")[:3])


def open_fsspec(url: str, options: Mapping[str, Any], flight: int) -> Plain:
    """A client for the filesystem of a URL. May look for credentials, which can be slow.

    Raises:
        MissingExtraError: the filesystem's package is not installed.
        SourceError: the protocol is unknown.
    """
    scheme = protocol(url)
    more = {"use_listings_cache": False} | dict(options)
    try:
        if scheme in ("gs", "gcs"):
            return _Gcs(_patient_gcs(more))
        if scheme in ("s3", "s3a"):
            return _S3(_patient_s3(more, flight))
        import fsspec

        kind = fsspec.get_filesystem_class(scheme)
        fs = kind(**kind._get_kwargs_from_urls(url) | more)  # such as the host of sftp://host/a
    except ImportError as e:
        if scheme in _EXTRAS:
            raise need(*_EXTRAS[scheme]) from e
        raise SourceError(f"{url} cannot be read: {e}. Install the package it names.") from e
    except ValueError as e:
        raise SourceError(f"{url} cannot be read: {e}. Correct the part before the ://.") from e
    return _Http(fs) if scheme in ("http", "https") else Plain(fs)


class Plain:
    """Any fsspec filesystem, through its blocking calls, each in a thread."""

    def __init__(self, fs: Any) -> None:
        self.fs = fs

    async def info(self, url: str) -> Stat:
        """Size and tag of one file."""
        return _as_stat(url, await asyncio.to_thread(self.fs.info, url))

    async def list(self, pattern: str) -> list[Stat]:
        """The files that a pattern matches, sorted by name."""
        found = await asyncio.to_thread(self.fs.glob, pattern, detail=True)
        return self._as_stats(pattern, found)

    async def get(self, url: str, start: int, stop: int, tag: str) -> Answer:
        """Bytes `[start, stop)`, fewer if the body was truncated.

        Subclasses send the tag with the request. Here it is looked up once more afterwards.
        """
        data = await asyncio.to_thread(self.fs.cat_file, url, start=start, end=stop)
        now = await self.info(url) if tag else None
        return Answer(data, start, now and now.size, now.tag if now else "")

    async def put(self, url: str, data: bytes) -> None:
        """Write a whole file."""
        await asyncio.to_thread(self.fs.pipe_file, url, data)

    async def upload(self, url: str, path: str) -> None:
        """Write a whole file from a local one."""
        await asyncio.to_thread(self.fs.put_file, path, url)

    async def remove(self, url: str) -> None:
        """Remove a file."""
        await asyncio.to_thread(self.fs.rm_file, url)

    def _as_stats(self, pattern: str, found: Mapping[str, Any]) -> list[Stat]:
        # names come without the protocol, some also without the host
        inner = self.fs._strip_protocol(pattern)
        head = pattern.removesuffix(inner)
        # an empty object whose name ends in "/" marks a folder
        every = ((name, info) for name, info in found.items() if not name.endswith("/"))
        files = sorted((name, info) for name, info in every if info["type"] == "file")
        return [_as_stat(head + name, info) for name, info in files]


class _Gcs(Plain):
    """gs://, one request each. A tag is the etag that obstore sees, else the generation."""

    async def info(self, url: str) -> Stat:
        path = self.fs._strip_protocol(url)
        return _as_stat(url, await self.fs._get_object(path))

    async def list(self, pattern: str) -> list[Stat]:
        return self._as_stats(pattern, await self.fs._glob(pattern, detail=True))

    async def get(self, url: str, start: int, stop: int, tag: str) -> Answer:
        path, asked = self.fs._strip_protocol(url), {"Range": f"bytes={start}-{stop - 1}"}
        where = self.fs.url(path, generation=tag or None)
        if tag.startswith('"'):  # the etag of the XML API; the JSON API has another one
            bucket, key, _ = self.fs.split_path(path)
            where, asked["If-Match"] = f"{self.fs._location}/{bucket}/{quote(key)}", tag
        headers, data = await self.fs._call("GET", where, headers=asked)
        return _answer(data, headers, headers.get("ETag", "") if tag.startswith('"') else "")

    async def put(self, url: str, data: bytes) -> None:
        await self.fs._pipe_file(url, data)


class _S3(Plain):
    """s3://. A tag is the object's etag, which each request sends as a condition."""

    async def info(self, url: str) -> Stat:
        return _as_stat(url, await self.fs._info(url))

    async def list(self, pattern: str) -> list[Stat]:
        return self._as_stats(pattern, await self.fs._glob(pattern, detail=True))

    async def get(self, url: str, start: int, stop: int, tag: str) -> Answer:
        bucket, key, _ = self.fs.split_path(url)
        wanted = {"Bucket": bucket, "Key": key, "Range": f"bytes={start}-{stop - 1}"}
        answer = await self.fs._call_s3("get_object", **wanted, **({"IfMatch": tag} if tag else {}))
        async with answer["Body"] as body:
            headers = {"Content-Range": answer.get("ContentRange", "")}
            return _answer(await body.read(), headers, answer.get("ETag", ""))

    async def put(self, url: str, data: bytes) -> None:
        await self.fs._pipe_file(url, data)


class _Http(Plain):
    """http(s)://. A request for one byte tells size and tag, and whether ranges are supported."""

    async def info(self, url: str) -> Stat:
        session = await self.fs.set_session()
        async with session.get(self.fs.encode_url(url), **self._asking(0, 1)) as answer:
            if answer.status == 416:  # the file is empty
                return Stat(url, 0)
            _check_plain(answer)
            whole = answer.headers.get("Content-Range", "").rpartition("/")[2]
            size = whole if answer.status == 206 else answer.headers.get("Content-Length", "")
            if not size.isdecimal():
                raise RangesIgnoredError("the server does not tell its size")
            return Stat(url, int(size), _http_tag(answer.headers))

    async def list(self, pattern: str) -> list[Stat]:
        found = sorted(await self.fs._glob(pattern))  # links of a page, which carry names only
        return list(await asyncio.gather(*(self.info(url) for url in found)))

    async def get(self, url: str, start: int, stop: int, tag: str) -> Answer:
        session = await self.fs.set_session()
        asked = self._asking(start, stop)
        if tag:
            asked["headers"]["If-Match" if tag.startswith('"') else "If-Unmodified-Since"] = tag
        async with session.get(self.fs.encode_url(url), **asked) as answer:
            _check_plain(answer)
            if answer.status == 200 and (start or answer.content_length != stop - start):
                raise RangesIgnoredError(WHOLE)
            return _answer(await answer.read(), answer.headers, _http_tag(answer.headers))

    def _asking(self, start: int, stop: int) -> dict[str, Any]:
        # arguments of a request; a compressed answer would have other bytes in a range
        plain = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
        return self.fs.kwargs | {"headers": self.fs.kwargs.get("headers", {}) | plain}


def _check_plain(answer: Any) -> None:
    answer.raise_for_status()
    if (how := answer.headers.get("Content-Encoding", "identity")) != "identity":
        raise RangesIgnoredError(
            f"the server compresses what it sends ({how}), although it was asked not to"
        )


def _answer(data: bytes, headers: Mapping[str, str], tag: str) -> Answer:
    said = _CONTENT_RANGE.match(headers.get("Content-Range", ""))
    if said is None:
        return Answer(data, None, tag=tag)
    return Answer(data, int(said[1]), int(said[2]) if said[2].isdecimal() else None, tag)


def _http_tag(headers: Mapping[str, str]) -> str:
    etag = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers.get("Last-Modified", "")  # no weak etags


def _patient_gcs(options: dict[str, Any]) -> Any:
    # otherwise each look-up first asks for the bucket's layout, which can hang for a minute
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    import gcsfs.core

    if os.environ.get("STORAGE_EMULATOR_HOST"):
        options.setdefault("token", "anon")

    class Once(gcsfs.core.GCSFileSystem):
        """gcsfs without its own retries, which outlast any deadline and log tracebacks."""

        _request = getattr(
            gcsfs.core.GCSFileSystem._request, "__wrapped__", gcsfs.core.GCSFileSystem._request
        )

    return Once(**options)


def _patient_s3(options: dict[str, Any], flight: int) -> Any:
    import s3fs

    tries = {"retries": {"total_max_attempts": 1}, "max_pool_connections": flight}
    options["config_kwargs"] = tries | options.get("config_kwargs", {})
    fs = s3fs.S3FileSystem(**options)
    fs.retries = 1
    return fs


def _as_stat(url: str, info: Mapping[str, Any]) -> Stat:
    if info.get("type") == "directory":
        raise SourceError(f"{url} is a directory. Name its files with a glob: {url.rstrip('/')}/*")
    if info.get("size") is None:
        raise unreadable(url, "the store does not tell its size")
    tag = next((info[name] for name in _TAGS if info.get(name)), "")
    if isinstance(tag, datetime):  # memory:// lists a time as a number, and tells it as this
        tag = tag.timestamp()
    if info.get("md5Hash") and "generation" in info:  # how the XML API makes an object's etag
        tag = f'"{base64.b64decode(info["md5Hash"]).hex()}"'
    return Stat(url, int(info["size"]), str(tag))
