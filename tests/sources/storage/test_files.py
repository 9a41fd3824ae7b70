"""Which files paths name, and which format a path has."""

from __future__ import annotations

import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from pipeline.errors import SourceError
from pipeline.sources import ArrayRecordSource, LinesSource, ParquetSource, open_path
from pipeline.sources.storage.files import Paths
from pipeline.sources.storage.files import expand as found
from pipeline.tools.inspection import write_manifest


def expand(paths: Paths) -> tuple[str, ...]:
    return tuple(stat.path for stat in found(paths))


def touch(folder, *names):
    for name in names:
        (folder / name).write_text("x")
    return [str(folder / name) for name in names]


def test_globs_are_sorted_and_explicit_order_is_kept(tmp_path):
    b, a, c = touch(tmp_path, "b.x", "a.x", "c.y")
    (tmp_path / "d.x").mkdir()
    assert expand(str(tmp_path / "*.x")) == (a, b)
    assert expand([b, a, tmp_path / "c.y"]) == (b, a, c)
    assert expand([c, str(tmp_path / "*.x"), c]) == (c, a, b, c)
    assert expand(tmp_path / "?.y") == (c,)


def test_a_file_below_several_stars_is_one_file(tmp_path):
    folder = tmp_path / "a" / "b" / "b"
    folder.mkdir(parents=True)
    (path,) = touch(folder, "x.x")
    assert expand(str(tmp_path / "**" / "b" / "**" / "*.x")) == (path,)
    assert expand(str(tmp_path / "**" / "**" / "*.x")) == (path,)


def test_a_link_to_nothing_is_refused_by_name(tmp_path):
    touch(tmp_path, "a.x")
    (tmp_path / "b.x").symlink_to(tmp_path / "gone")
    with pytest.raises(SourceError, match=r"b\.x, a link to .*gone, which does not exist"):
        expand(str(tmp_path / "*.x"))


@pytest.mark.parametrize("to", ["v1", "."])
def test_a_file_found_twice_through_a_linked_folder_is_refused(tmp_path, to):
    (tmp_path / "v1").mkdir()
    touch(tmp_path / "v1", "a.x")
    (tmp_path / "latest").symlink_to(to)
    with pytest.raises(SourceError, match=r"one file by two paths, .*latest.*a\.x and .*a\.x, as"):
        expand(str(tmp_path / "**" / "*.x"))
    assert len(expand(str(tmp_path / "v1" / "*.x"))) == 1


def test_links_to_files_are_files(tmp_path):
    touch(tmp_path, "a.x")
    (tmp_path / "b.x").symlink_to("a.x")  # a folder of links, as caches have them
    assert len(expand(str(tmp_path / "*.x"))) == 2


def test_a_name_may_hold_brackets(tmp_path):
    (path,) = touch(tmp_path, "a[1].x")
    assert expand(path) == (path,)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("*.none", r"no file matches the pattern '.*\*\.none'"),
        ("missing", r"missing does not exist. Correct the path"),
        ("a-{000..003}.tar", r"a-{000..003}\.tar does not exist. Braces stand for themselves: use"),
        ("", r"is a directory. Name its files with a glob: '.*\*'"),
    ],
)
def test_what_names_no_file_says_so(tmp_path, name, message):
    with pytest.raises(SourceError, match=message):
        expand(str(tmp_path / name))


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.txt")
    with pytest.raises(SourceError, match=r"a\.txt is a pipe, which can be read only once"):
        expand(tmp_path / "a.txt")


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".jpg", ".parquet", ".u16"])
def test_pointers_of_git_lfs_are_no_files(tmp_path, suffix):
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4d' * 32}\nsize 123456\n"
    (tmp_path / f"a{suffix}").write_text(text)
    for path in (tmp_path / f"a{suffix}", tmp_path / f"*{suffix}"):
        with pytest.raises(SourceError, match=rf"a\{suffix} is a pointer of Git LFS.*git lfs pull"):
            open_path(path)


def test_nothing_is_refused():
    with pytest.raises(SourceError, match="names no file"):
        expand([])


def test_the_suffix_decides(tmp_path):
    for name in ("a.array_record-00000-of-00002", "a.array_record-00001-of-00002"):
        writer = ArrayRecordWriter(str(tmp_path / name), "group_size:1")
        writer.write(b"a")
        writer.close()
    pq.write_table(pa.table({"a": [1]}), tmp_path / "b.parquet")
    source = open_path(str(tmp_path / "a.array_record*"))
    assert isinstance(source, ArrayRecordSource)
    assert len(source) == 2
    assert isinstance(open_path(tmp_path / "b.parquet"), ParquetSource)
    with pytest.raises(SourceError, match=r"several formats, such as a\.array.* and b\.parquet"):
        open_path(str(tmp_path / "*"))
    touch(tmp_path, "c.csv")
    with pytest.raises(SourceError, match=r"'\.csv'; known are \.array_record, .*\.pq.*pandas"):
        open_path(str(tmp_path / "*.csv"))
    touch(tmp_path, "d.jsonl.bz2")
    with pytest.raises(SourceError, match=r"d\.jsonl\.bz2 is compressed as a whole"):
        open_path(str(tmp_path / "*.bz2"))


def test_importing_sources_opens_no_format():
    code = (
        "import pipeline.sources, sys;"
        "assert not {'pyarrow', 'array_record', 'jax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- sets of shards


def shards(folder, n, missing=(), head="x", tail=".txt"):
    return touch(
        folder, *(f"{head}-{i:05d}-of-{n:05d}{tail}" for i in range(n) if i not in missing)
    )


def test_two_generations_of_shards_are_refused_by_name(tmp_path):
    shards(tmp_path, 4)
    shards(tmp_path, 5)
    with pytest.raises(SourceError, match=r"two generations.*x-0000.-of-0000[45].*and .*x-0000"):
        expand(str(tmp_path / "*.txt"))
    assert len(expand(str(tmp_path / "x-*-of-00004.txt"))) == 4
    assert (
        len(expand(sorted(str(p) for p in tmp_path.iterdir()))) == 9
    )  # a list is one's own choice


def test_a_missing_shard_is_refused_by_name(tmp_path):
    paths = shards(tmp_path, 12, missing=(3, 11))
    with pytest.raises(
        SourceError, match=r"10 of 12 shards: x-00003-of-00012\.txt, x-00011-of-00012\.txt are not"
    ):
        expand(str(tmp_path / "*.txt"))
    assert expand(paths) == tuple(paths)
    assert len(expand(str(tmp_path / "x-0000[0-2]-of-*"))) == 3  # these were asked for
    with pytest.raises(SourceError, match=r"x-00003-of-00012\.txt is not there"):
        expand(str(tmp_path / "x-0000?-of-*"))


def test_shards_count_from_0_or_from_1_and_a_surplus_one_is_refused(tmp_path):
    from_1 = touch(tmp_path, *(f"x-{i}-of-3" for i in (1, 2, 3)))
    assert expand(str(tmp_path / "x-*")) == tuple(from_1)
    touch(tmp_path, "x-0-of-3")
    with pytest.raises(SourceError, match=r"x-3-of-3, which is none of 3 shards"):
        expand(str(tmp_path / "x-*"))
    touch(tmp_path, "y-2-of-3", "y-3-of-3")
    with pytest.raises(SourceError, match=r"y-1-of-3 is not there"):
        expand(str(tmp_path / "y-*"))


def test_shards_may_count_from_one(tmp_path):
    for i in (1, 2, 4):
        touch(tmp_path, f"x-{i:05d}-of-00004.txt")
    with pytest.raises(SourceError, match=r"3 of 4 shards: x-00003-of-00004\.txt is not there"):
        expand(str(tmp_path / "*.txt"))
    touch(tmp_path, "x-00003-of-00004.txt")
    assert len(expand(str(tmp_path / "*.txt"))) == 4


def test_sets_beside_each_other_are_told_apart(tmp_path):
    shards(tmp_path, 2, head="train")
    shards(tmp_path, 1, head="test")
    (tmp_path / "deep").mkdir()
    shards(tmp_path / "deep", 3, head="train")
    touch(tmp_path, "plain.txt", "a-3-of-hearts.txt")
    assert len(expand(str(tmp_path / "**" / "*.txt"))) == 8


def test_shards_of_the_hugging_face_hub_have_a_hash_each(tmp_path):
    for i in range(3):
        touch(tmp_path, f"train-{i:05d}-of-00003-{i * 7919:016x}.parquet")
    assert len(expand(str(tmp_path / "*.parquet"))) == 3
    touch(tmp_path, "train-00001-of-00003-00000000deadbeef.parquet")
    with pytest.raises(SourceError, match="two generations"):
        expand(str(tmp_path / "*.parquet"))
    for path in tmp_path.glob("*-00001-of-*"):
        path.unlink()
    with pytest.raises(SourceError, match="train-00001-of-00003"):
        expand(str(tmp_path / "*.parquet"))


def test_shards_of_a_bucket(gcs):
    for i in (0, 2):
        gcs.put(f"x-{i}-of-3.txt", b"a")
    with pytest.raises(SourceError, match=r"2 of 3 shards: x-1-of-3\.txt is not there"):
        found(gcs.bucket + "/*.txt", gcs.storage())


@pytest.mark.parametrize(
    "path",
    [
        "simplecache::gs://b/*.txt",
        "filecache::/d/a.txt",
        "zip://a.txt::/d/z.zip",
        "tar://*::s3://b/t",
    ],
)
def test_chains_are_refused_with_the_remedy(path):
    with pytest.raises(SourceError, match=r"is a chain .*Storage\(cache=.*unpack"):
        found(path)


def test_addresses_of_local_files_may_be_quoted(tmp_path):
    for name in ("a b%.txt", "a%20b.txt", "c%20d.txt"):
        path = tmp_path / name
        path.write_bytes(b"x")
        assert expand(path.as_uri()) == expand(f"file://{path}") == (str(path),)


@pytest.mark.parametrize("draft", ["_temporary/0/y=1/1.txt", "_delta_log/1.checkpoint.txt"])
def test_drafts_and_logs_of_tables_are_no_rows(tmp_path, gcs, draft):
    for name in ("y=1/0.txt", draft):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
        gcs.put(f"t/{name}", b"x")
    for root, storage in ((str(tmp_path), None), (f"{gcs.bucket}/t", gcs.storage())):
        with pytest.raises(SourceError, match=rf"matches .*/{draft}, .*Narrow .*file_uris"):
            found(f"{root}/**/*.txt", storage)
        assert len(found(f"{root}/y=*/*.txt", storage)) == 1
        assert len(found(f"{root}/{draft.split('/')[0]}/**/*.txt", storage)) == 1


@pytest.mark.parametrize("pattern", ["**/*.x", "*/*/*.x", "locked/*.x", "l*/b/*.x", "*/b/a.x"])
def test_a_folder_that_may_not_be_read_is_not_passed_over(tmp_path, monkeypatch, pattern):
    for folder in ("open/b", "locked/b"):
        (tmp_path / folder).mkdir(parents=True)
        touch(tmp_path / folder, "a.x")
    allowed = os.access  # the superuser may read all
    monkeypatch.setattr(os, "access", lambda f, how: "/locked" not in f and allowed(f, how))
    with pytest.raises(SourceError, match=r"locked/, which may not be read.*Ask for"):
        expand(f"{tmp_path}/{pattern}")
    assert len(expand(f"{tmp_path}/open/**/*.x")) == 1


@pytest.mark.parametrize("engine", ["fsspec", "obstore"])
@pytest.mark.parametrize("store", ["gcs", "s3"])
def test_marks_of_folders_are_no_files(request, store, engine):
    bucket = request.getfixturevalue(store)
    for name in ("m/", "m/a.txt", "m/sub/", "m/sub/x.txt/", "m/sub/x.txt/b.txt"):
        bucket.put(name, b"" if name.endswith("/") else b"x")
    storage, folder = bucket.storage(engine=engine), f"{bucket.bucket}/m/"
    for pattern in ("**", "**/*.txt"):
        there = [stat.path.removeprefix(folder) for stat in found(folder + pattern, storage)]
        assert there == ["a.txt", "sub/x.txt/b.txt"]


def test_names_with_an_empty_part(s3):
    url = s3.put("n//a.txt", b"x")
    assert [stat.path for stat in found(url, s3.storage())] == [url]
    with pytest.raises(SourceError, match=r'cannot be listed: .*engine="fsspec"'):
        found(f"{s3.bucket}/n/*.txt", s3.storage(engine="obstore"))


@pytest.mark.parametrize("engine", ["fsspec", "obstore"])
def test_globs_of_urls_match_what_globs_of_paths_match(tmp_path, gcs, engine):
    names = [
        "a.txt",
        ".a.txt",
        "_a.txt",
        "d/b.txt",
        ".d/b.txt",
        "d/.b/c.txt",
        "d/e/c.txt",
        "d/.c.txt",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
        gcs.put(name, b"x")
    patterns = ["*.txt", "**/*.txt", "*/*.txt", ".*.txt", ".d/*", "d/**/*.txt", "d/**", "?.txt"]
    patterns += ["[!_]*.txt", "*/.*.txt", "**/.b/*"]
    for pattern in patterns:
        there = found(f"{gcs.bucket}/{pattern}", gcs.storage(engine=engine))
        near = found(f"{tmp_path}/{pattern}")
        assert sorted(stat.path.removeprefix(f"{gcs.bucket}/") for stat in there) == sorted(
            stat.path.removeprefix(f"{tmp_path}/") for stat in near
        ), pattern


@pytest.mark.parametrize("opened", [LinesSource, open_path])
def test_what_a_manifest_lists_and_is_not_there_is_refused_by_name(tmp_path, opened):
    touch(tmp_path, "a.txt", "b.txt", "c.log")
    LinesSource(str(tmp_path / "*")).files.write_manifest()
    (tmp_path / "b.txt").unlink()
    glob = str(tmp_path / "*.txt")
    with pytest.raises(SourceError, match=r"/b\.txt is not there, though .*json lists it"):
        opened(glob)
    assert len(LinesSource([str(tmp_path / "a.txt")])) == 1  # nobody asked for the other
    assert len(LinesSource(str(tmp_path / "*.log"))) == 1
    write_manifest(glob)  # says what is there now
    assert len(opened(glob)) == 1
