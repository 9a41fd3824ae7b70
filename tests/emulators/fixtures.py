"""`gcs` and `s3`: a bucket over HTTP, files put into it, and what may go wrong on the way."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from pipeline.sources import Storage

_ROOT = Path(__file__).parents[2]
_NUMBERS = itertools.count()
_AWS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}


class Store:
    """An object store in a process of its own; it ends with this one.

    Attributes:
        url: where its server answers, like http://127.0.0.1:4711.
        bucket: this test's part of it, like gs://bucket/3: no other test writes there.
        options: for `Storage(options=...)` or `fsspec.filesystem(protocol, **options)`.
    """

    scheme, module = "", ""
    options: dict[str, Any]

    def __init__(self) -> None:
        env = os.environ | {"PYTHONPATH": str(_ROOT)} | _AWS
        command = [sys.executable, "-W", "ignore", "-m", self.module, "bucket"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, cwd=_ROOT
        )
        assert self._process.stdout
        self.url = self._process.stdout.readline().strip()
        assert self.url.startswith("http"), f"{self.module} did not start"
        self.turn()

    def turn(self) -> None:
        """Begin another test: a folder of its own."""
        self.folder = str(next(_NUMBERS))
        self.bucket = f"{self.scheme}://bucket/{self.folder}"

    def storage(self, **more: Any) -> Storage:
        """A Storage that reaches it."""
        return Storage(options=self.options, **more)

    def put(self, name: str, data: bytes) -> str:
        """Upload, and give the URL: gs://bucket/3/name."""
        status, _ = self.ask("PUT", f"/bucket/{self.folder}/{quote(name)}", data)
        assert status == 200, status
        return f"{self.bucket}/{name}"

    def upload(self, path: str | os.PathLike[str], name: str | None = None) -> str:
        """Upload a file under its base name (or another), and give the URL."""
        return self.put(name or os.path.basename(path), Path(path).read_bytes())

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """One request of the test's own: status and body."""
        kind = {"Content-Type": "application/octet-stream"}
        # a connection each: the server closes those that are long idle
        with closing(http.client.HTTPConnection(urlsplit(self.url).netloc)) as client:
            client.request(method, path, body, kind)
            answer = client.getresponse()
            return answer.status, answer.read()

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()


class Gcs(Store):
    """gs:// with faults (see `faults.Faults`), latency, bandwidth and a log of its requests."""

    scheme, module = "gs", "tests.emulators.gcs_server"

    @property
    def options(self) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return {"endpoint_url": self.url, "token": "anon"}

    def turn(self) -> None:
        super().turn()
        self.control(faults=[], latency=0, bandwidth=0, forget=True)

    def control(self, **wanted: Any) -> None:
        """Set `latency` (seconds a request), `bandwidth` (bytes/s in all), `faults`, `forget`."""
        status, _ = self.ask("POST", "/_control", json.dumps(wanted).encode())
        assert status == 200, status

    def faults(self, *rules: dict[str, Any], match: str = "GET|HEAD") -> None:
        """Let requests go wrong by rules, e.g. `dict(kind="status", status=503, rate=0.05)`."""
        self.control(faults=[{"match": match} | rule for rule in rules])

    def log(self) -> list[tuple[str, str, str]]:
        """(method, path, Range header) of each request since the test began, or `forget`."""
        found = json.loads(self.ask("GET", "/_log")[1])
        return [(m, path, asked) for m, path, asked in found if m != "PUT"]

    def most(self) -> int:
        """Requests that were in flight at once since the test began, or `forget`."""
        return json.loads(self.ask("GET", "/_most")[1])

    def alone(self) -> int:
        """Requests beside which there was no other, likewise: each costs a round trip."""
        return json.loads(self.ask("GET", "/_alone")[1])

    def forget(self) -> None:
        """Empty the log."""
        self.control(forget=True)


class S3(Store):
    """s3:// through moto's server."""

    scheme, module = "s3", "tests.emulators.s3_server"

    def __init__(self) -> None:
        super().__init__()
        self._filesystem().mkdir("bucket")

    def _filesystem(self) -> Any:
        import fsspec

        return fsspec.filesystem("s3", **self.options)

    def put(self, name: str, data: bytes) -> str:
        url = f"{self.bucket}/{name}"
        self._filesystem().pipe_file(url, data)  # signed, as anybody else may not write
        return url

    @property
    def options(self) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return {"endpoint_url": self.url, "key": "test", "secret": "test"}


@pytest.fixture(scope="session")
def _gcs_server() -> Iterator[Gcs]:
    store = Gcs()
    yield store
    store.close()


@pytest.fixture(scope="session")
def _s3_server() -> Iterator[S3]:
    store = S3()
    yield store
    store.close()


@pytest.fixture
def gcs(_gcs_server: Gcs) -> Iterator[Gcs]:
    """A Google Cloud Storage of this process, with a folder for this test and no faults."""
    _gcs_server.turn()
    yield _gcs_server
    _gcs_server.control(faults=[], latency=0, bandwidth=0)


@pytest.fixture
def s3(_s3_server: S3) -> S3:
    """An S3 of this process, with a folder for this test."""
    _s3_server.turn()
    return _s3_server
