"""Files are there wholly or not at all, for all whom the umask lets read them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pipeline.sources.storage.atomic import written_whole


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_keeps_its_bytes_until_the_new_ones_are_whole(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def interrupted() -> None:
        with written_whole(path, durable=durable) as f:
            f.write(b"new")
            f.flush()
            assert path.read_bytes() == b"old"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]
    with written_whole(path, durable=durable) as f:
        f.write(b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a"]


def test_two_writers_of_one_process_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with written_whole(path) as f, written_whole(path) as g:
        f.write(b"one")
        g.write(b"two")
    assert path.read_bytes() == b"one"
    assert os.listdir(tmp_path) == ["a"]


def test_a_draft_lies_where_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "drafts").mkdir()
    with written_whole(tmp_path / "a", drafts=str(tmp_path / "drafts")):
        (draft,) = os.listdir(tmp_path / "drafts")
        assert draft.startswith("a.")
        assert draft.endswith(".part")
        assert not (tmp_path / "a").exists()
    assert os.listdir(tmp_path / "drafts") == []


def test_whom_the_umask_lets_may_read_it(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with written_whole(tmp_path / "a"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


def test_a_failed_write_names_the_file(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OSError, match=r"left on device: .*/a'"), written_whole(tmp_path / "a"):
        raise full
    assert os.listdir(tmp_path) == []
