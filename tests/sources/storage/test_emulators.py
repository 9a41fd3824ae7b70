"""The emulators behave as object stores do, and go wrong when told to."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request

import pytest

from tests.emulators.fixtures import S3, Gcs


def get(gcs: Gcs, path: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    request = urllib.request.Request(gcs.url + path, headers=headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as e:
        return e.code, e.read(), dict(e.headers)


def test_ranges(gcs: Gcs) -> None:
    gcs.put("a", b"0123456789")
    media = f"/download/storage/v1/b/bucket/o/{gcs.folder}%2Fa"
    for asked, status, data in [
        ("bytes=2-4", 206, b"234"),
        ("bytes=8-", 206, b"89"),
        ("bytes=8-99", 206, b"89"),
        ("bytes=-3", 206, b"789"),
        ("bytes=10-11", 416, b""),
    ]:
        assert get(gcs, media, Range=asked)[:2] == (status, data)
    assert get(gcs, media)[:2] == (200, b"0123456789")
    assert gcs.log()[0] == ("GET", media, "bytes=2-4")


def test_a_replaced_object_has_another_generation_and_etag(gcs: Gcs) -> None:
    gcs.put("a", b"one")
    media = f"/bucket/{gcs.folder}/a"
    first = get(gcs, media)[2]
    gcs.put("a", b"two")
    second = get(gcs, media)[2]
    assert first["ETag"] != second["ETag"]
    assert get(gcs, media, **{"If-Match": first["ETag"]})[0] == 412
    old = f"{media}?generation={first['x-goog-generation']}"
    assert get(gcs, old)[0] == 404


def test_faults(gcs: Gcs) -> None:
    gcs.put("a", b"0123456789")
    media = f"/bucket/{gcs.folder}/a"
    gcs.faults({"kind": "status", "status": 503, "every": 3})
    assert [get(gcs, media)[0] for _ in range(6)] == [200, 200, 503, 200, 200, 503]
    gcs.faults({"kind": "drop", "times": 1})
    with pytest.raises(ConnectionResetError):
        get(gcs, media)
    gcs.faults({"kind": "truncate", "times": 1})
    with pytest.raises(http.client.IncompleteRead):
        get(gcs, media)
    assert get(gcs, media)[1] == b"0123456789"
    gcs.faults({"kind": "corrupt", "rate": 0.5, "seed": 3})
    seen = [get(gcs, media)[1] for _ in range(20)]
    gcs.faults({"kind": "corrupt", "rate": 0.5, "seed": 3})
    assert seen == [get(gcs, media)[1] for _ in range(20)]
    assert set(seen) == {b"0123456789", b"1123456789"}


def test_s3_answers(s3: S3) -> None:
    import fsspec

    url = s3.put("a", b"0123456789")
    assert fsspec.filesystem("s3", **s3.options).cat_file(url, start=2, end=5) == b"234"
