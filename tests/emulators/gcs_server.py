"""A Google Cloud Storage over HTTP: PyPI's gcp-storage-emulator, threaded, with media and faults.

Run as a program it prints its URL and serves until its standard input ends.
"""

from __future__ import annotations

import base64
import json
import re
import socket
import struct
import sys
import threading
import time
from functools import partial
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from gcp_storage_emulator.handlers import buckets, objects
from gcp_storage_emulator.server import RequestHandler
from gcp_storage_emulator.storage import Storage

from tests.emulators.faults import Faults

_MEDIA = re.compile(r"(?:/download)?/storage/v1/b/([^/]+)/o/([^/]+)$")
_OBJECT = re.compile(r"/storage/v1/b/([^/]+)/o/[^/]+$")
_LIST = re.compile(r"/storage/v1/b/([^/]+)/o$")
_XML = re.compile(r"/([a-z0-9][-.\w]*)/(.+)$", re.DOTALL)
_XML_LIST = re.compile(r"/([a-z0-9][-.\w]*)/?$")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)$")
_DATE = "Fri, 20 Nov 2026 00:00:00 GMT"
_RESET = struct.pack("ii", 1, 0)  # closing sends RST, as a lost connection does


class Objects(Storage):
    """In memory, without the copy of all metadata to a file at each upload."""

    def _write_config_to_file(self) -> None:
        pass


class Weather:
    """What the server does to its requests, and what it saw of them."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.latency = 0.0
        self.bandwidth = 0.0  # bytes a second, all connections together; 0 for no limit
        self.log: list[tuple[str, str, str]] = []
        self.most = 0  # requests at once
        self.alone = 0  # requests beside which there was no other
        self._now = self._begun = 0
        self._lock = threading.Lock()
        self._free = 0.0

    def control(self, wanted: dict[str, Any]) -> None:
        self.latency = float(wanted.get("latency", self.latency))
        self.bandwidth = float(wanted.get("bandwidth", self.bandwidth))
        if "faults" in wanted:
            self.faults.set(wanted["faults"])
        if wanted.get("forget"):
            self.log.clear()
            self.most = self.alone = 0

    def delay(self) -> None:
        """Wait for the latency, counted as one more request in flight."""
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
            self._begun += 1
            first, begun = self._now == 1, self._begun
        time.sleep(self.latency)
        with self._lock:
            self._now -= 1
            self.alone += first and begun == self._begun

    def send(self, size: int) -> None:
        """Wait until a line of this bandwidth has carried so many bytes."""
        if not self.bandwidth:
            return
        with self._lock:
            self._free = max(self._free, time.monotonic()) + size / self.bandwidth
            wait = self._free - time.monotonic()
        time.sleep(max(0.0, wait))


class Handler(RequestHandler):
    """The emulator's requests, and our own answers where bytes, pages or faults matter."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body in one packet
    timeout = 60

    def __init__(self, weather: Weather, storage: Storage, *args: Any) -> None:
        self.weather = weather
        super().__init__(storage, *args)

    def parse_request(self) -> bool:
        if not super().parse_request():
            return False
        self.fault: dict[str, Any] | None = None
        if self.path.startswith("/_"):
            return True
        self.weather.log.append((self.command, self.path, self.headers.get("Range") or ""))
        if self.command == "PUT":  # tests' own uploads are spared
            return True
        self.weather.delay()
        self.fault = self.weather.faults.decide(f"{self.command} {unquote(self.path)}")
        return self._spared()

    def _spared(self) -> bool:
        """Whether the request is to be answered at all; faults of bodies come later."""
        fault = self.fault or {"kind": ""}
        if fault["kind"] == "slow":
            time.sleep(fault["seconds"])
        elif fault["kind"] == "hang":
            self.connection.recv(1)  # until the client gives up
            self.close_connection = True
            return False
        elif fault["kind"] == "drop":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.close_connection = True
            self.connection.close()
            return False
        elif fault["kind"] == "status":
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            error = {"error": {"code": fault["status"], "message": "injected"}}
            self._answer(fault["status"], json.dumps(error).encode())
            return False
        return True

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(url.query, keep_blank_values=True).items()}
        if url.path in ("/_most", "/_alone"):
            return self._answer(200, json.dumps(getattr(self.weather, url.path[2:])).encode())
        if url.path == "/_log":
            return self._answer(200, json.dumps(self.weather.log).encode())
        if m := _LIST.match(url.path):
            return self._list(m[1], query)
        if (m := _MEDIA.match(url.path)) and (
            url.path.startswith("/download") or query.get("alt") == "media"
        ):
            return self._media(m[1], unquote(m[2]), query)
        if (m := _OBJECT.match(url.path)) and m[1] not in self.storage.buckets:
            return self._missing()
        plain = unquote(url.path)
        if m := _XML_LIST.match(plain):
            return self._list_xml(m[1], query)
        if not url.path.startswith(("/storage/", "/b/")) and (m := _XML.match(plain)):
            return self._media(m[1], m[2], query)
        return super().do_GET()

    def do_PUT(self) -> None:
        found = _XML.match(unquote(urlsplit(self.path).path))
        if self.path.startswith("/upload") or not found:
            return super().do_PUT()
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kind = self.headers.get("Content-Type", "application/octet-stream")
        made = objects._make_object_resource("", found[1], found[2], kind, str(len(data)))
        if found[1] not in self.storage.buckets:
            return self._missing()
        made = objects._checksums(data, made)
        self.storage.create_file(found[1], found[2], data, made)
        return self._answer(200, b"", ETag=_etag(made))

    def do_DELETE(self) -> None:
        found = _XML.match(unquote(urlsplit(self.path).path))
        if self.path.startswith(("/storage/", "/b/")) or not found:
            return super().do_DELETE()
        if self.storage.objects.get(found[1], {}).get(found[2]) is None:
            return self._missing()
        self.storage.delete_file(found[1], found[2])
        return self._answer(204, b"")

    def do_POST(self) -> None:
        if self.path != "/_control":
            return super().do_POST()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.weather.control(json.loads(body))
        return self._answer(200, b"{}")

    def _answer(self, status: int, body: bytes, kind: str = "application/json", **headers: Any):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(headers.pop("length", len(body))))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def _missing(self) -> None:
        error = {"error": {"code": 404, "message": "No such object"}}
        self._answer(404, json.dumps(error).encode())

    # ---- listings

    def _page(self, bucket: str, query: dict[str, str]) -> tuple[list[Any], list[str], str]:
        prefix, sign = query.get("prefix", ""), query.get("delimiter") or None
        files, folders = self.storage.get_file_list(bucket, prefix, sign)
        files = sorted(files, key=lambda f: f["name"])
        after = query.get("pageToken") or query.get("continuation-token") or ""
        most = int(query.get("maxResults") or query.get("max-keys") or 1000)
        rest = [f for f in files if f["name"] > after]
        token = rest[most - 1]["name"] if len(rest) > most else ""
        return rest[:most], sorted(folders or ()) if not after else [], token

    def _list(self, bucket: str, query: dict[str, str]) -> None:
        if bucket not in self.storage.buckets:
            return self._missing()
        items, prefixes, token = self._page(bucket, query)
        page = {"kind": "storage#objects", "items": items, "prefixes": prefixes}
        page |= {"nextPageToken": token} if token else {}
        return self._answer(200, json.dumps(page).encode())

    def _list_xml(self, bucket: str, query: dict[str, str]) -> None:
        if bucket not in self.storage.buckets:
            return self._missing()
        items, prefixes, token = self._page(bucket, query)
        rows = [
            f"<Contents><Key>{escape(f['name'])}</Key><Size>{f['size']}</Size>"
            f"<LastModified>2026-11-20T00:00:00.000Z</LastModified>"
            f"<ETag>{escape(_etag(f))}</ETag></Contents>"
            for f in items
        ]
        rows += [f"<CommonPrefixes><Prefix>{escape(p)}</Prefix></CommonPrefixes>" for p in prefixes]
        if token:
            rows.append(f"<NextContinuationToken>{escape(token)}</NextContinuationToken>")
        body = f"<ListBucketResult>{''.join(rows)}</ListBucketResult>"
        return self._answer(200, body.encode(), "application/xml")

    # ---- bytes

    def _media(self, bucket: str, name: str, query: dict[str, str]) -> None:
        found = self.storage.objects.get(bucket, {}).get(name)
        wanted = query.get("generation")
        if found is None or (wanted and wanted != found["generation"]):
            return self._missing()
        condition = self.headers.get("If-Match")
        if condition not in (None, "*", _etag(found)):
            return self._answer(412, b"{}")
        data = self.storage.get_file(bucket, name)
        headers: dict[str, Any] = {
            "ETag": _etag(found),
            "Last_Modified": _DATE,
            "Accept_Ranges": "bytes",
            "x_goog_generation": found["generation"],
            "x_goog_hash": f"crc32c={found['crc32c']},md5={found['md5Hash']}",
        }
        status, asked = 200, self.headers.get("Range")
        if asked:
            bounds = _bounds(asked, len(data))
            if bounds is None:
                return self._answer(416, b"", Content_Range=f"bytes */{len(data)}")
            start, stop = bounds
            kind = (self.fault or {"kind": ""})["kind"]
            if kind == "whole":
                return self._body(200, data, headers)
            if kind == "retagged":
                headers["ETag"] = '"another"'
            shift = 1 if kind == "elsewhere" else 0
            size = len(data) + (kind == "grown")
            headers["Content_Range"] = f"bytes {start + shift}-{stop - 1 + shift}/{size}"
            if kind == "unsaid":
                del headers["Content_Range"]
            status, data = 206, data[start + shift : stop + shift]
        return self._body(status, data, headers)

    def _body(self, status: int, data: bytes, headers: dict[str, Any]) -> None:
        kind = (self.fault or {"kind": ""})["kind"]
        length = len(data)
        if kind in ("truncate", "short"):
            data = data[: length // 2]
        elif kind == "corrupt" and data:
            data = bytes([data[0] ^ 1]) + data[1:]
        if self.command != "HEAD":
            self.weather.send(len(data))
        stated = len(data) if kind == "short" else length
        self._answer(status, data, "application/octet-stream", length=stated, **headers)
        if kind == "truncate":
            self.close_connection = True


def _etag(found: dict[str, Any]) -> str:
    return '"' + base64.b64decode(found["md5Hash"]).hex() + '"'


def _bounds(asked: str, size: int) -> tuple[int, int] | None:
    m = _RANGE.match(asked.strip())
    if not m or not (m[1] or m[2]):
        return None
    if not m[1]:  # the last n bytes
        return max(0, size - int(m[2])), size
    start = int(m[1])
    stop = min(size, int(m[2]) + 1) if m[2] else size
    return (start, stop) if start < stop else None


class Server(ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients that go away are what tests are about


def main() -> None:
    storage = Objects(use_memory_fs=True)
    for name in sys.argv[1:]:
        buckets.create_bucket(name, storage)
    server = Server(("127.0.0.1", 0), partial(Handler, Weather(), storage))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
