"""Proofs of presence and absence: they hold for every document, and nothing else passes."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset
from pipeline.debug.seen import Documents, Index, ProofError, check, index_of, proof
from pipeline.debug.seen.proof import digest_of, leaf_hash, node_hash, sealed, variants


def index_over(folder: Path, values: list[Any], **documents: Any) -> Index:
    ds = Dataset(values)
    return index_of(ds.components, Documents(**documents), folder, workers=0, progress=False)


def proved(index: Index, text: bytes, claims: dict[str, Any] | None = None) -> bytes:
    return index.proof([digest_of(t) for t in variants(text)], claims or {})


def rfc6962(leaves: list[bytes]) -> bytes:
    """Section 2.1, word by word."""
    n = len(leaves)
    if n < 2:
        return leaf_hash(leaves[0]) if n else digest_of(b"")
    k = max(1 << i for i in range(n.bit_length()) if 1 << i < n)
    return node_hash(rfc6962(leaves[:k]), rfc6962(leaves[k:]))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 13, 33])
def test_every_document_is_proved_and_every_other_one_refuted(tmp_path: Path, n: int) -> None:
    texts = [f"document {i % (n - n // 4)}" for i in range(n)]  # some of them twice
    index = index_over(tmp_path, texts)
    leaves = [index.entry(i).leaf for i in range(n)]
    assert leaves == sorted(leaves)
    assert index.head["tree"] == rfc6962(leaves).hex()
    for text in texts:
        found = check(proved(index, text.encode()), index.root, text.encode())
        records = [e.record for e in found.entries]
        assert found.found
        assert records == [i for i, other in enumerate(texts) if other == text]
        assert check(proved(index, text.encode() + b"\n"), index.root).found
    for i in range(20):
        assert not check(proved(index, f"other {i}".encode()), index.root).found


def test_an_empty_source_holds_nothing(tmp_path: Path) -> None:
    index = index_over(tmp_path, [])
    assert not check(proved(index, b"to be"), index.root).found


# ---- mutations


def bytes_changed(data: bytes, r: random.Random) -> bytes:
    at = r.randrange(len(data))
    return r.choice(
        (
            data[:at] + bytes([data[at] ^ 1 << r.randrange(8)]) + data[at + 1 :],
            data[:at] + bytes([r.randrange(256)]) + data[at:],
            data[:at] + data[at + 1 :],
            data[:at],
            data[:at] + data[at : at + 9] + data[at:],
            data[:at] + b" " + data[at:],
        )
    )


def flipped(text: str, r: random.Random) -> str:
    at = r.randrange(len(text))
    return text[:at] + r.choice("0123456789abcdef") + text[at + 1 :]


def forged(data: bytes, r: random.Random) -> bytes:
    """One thing that is proved is changed, and the checksum made right again."""
    p = json.loads(data)
    p.pop("checksum")
    entries, nodes = p["entries"], p["nodes"]

    def entry(k: int, change: Callable[[Any], Any]) -> None:
        which = r.randrange(len(entries))
        entries[which][k] = change(entries[which][k])

    def swap_nodes() -> None:
        at = 128 * r.randrange(len(nodes) // 128)  # 96 bytes, three hashes
        p["nodes"] = nodes[:at] + nodes[at + 128 :] + nodes[at : at + 128]

    changes: list[Callable[[], Any]] = [
        lambda: entry(0, lambda i: i + r.choice((-1, 1))),
        lambda: entry(1, lambda h: flipped(h, r)),
        lambda: entry(2, lambda c: c + 1),
        lambda: entry(3, lambda c: c + r.randrange(1, 9)),
        lambda: entries.pop(r.randrange(len(entries))),
        lambda: entries.append(entries[0]),
        lambda: p.update(nodes=nodes[: 128 * r.randrange(len(nodes) // 128)]),
        lambda: p.update(nodes=nodes + "A" * 128),
        swap_nodes,
        lambda: p["head"].update(size=p["head"]["size"] + r.choice((-1, 1))),
        lambda: p["head"].update(tree=flipped(p["head"]["tree"], r)),
        lambda: p["head"].update(document="the field 'title' of a record"),
        lambda: p["head"].update(extra=1),
        lambda: p.update(documents=[flipped(d, r) for d in p["documents"]][::-1]),
        lambda: p.update(kind="lockstep seen 2"),
    ]
    r.choice(changes)()
    return sealed(p)


def refuses_mutations(tmp_path: Path, times: int) -> None:
    texts = [f"document {i}" for i in range(1000)]
    index, r = index_over(tmp_path, texts), random.Random(7)
    claims = {"steps": ["step 3 row 5 (epoch 0)"], "until": 10, "text": "1 time"}
    for text in (b"document 17", b"no such document"):
        good = proved(index, text, claims)
        sure = check(good, index.root, text)
        for i in range(times // 2):
            bad = (forged if i % 2 else bytes_changed)(good, r)
            if bad == good:  # a digit for the same digit
                continue
            try:
                found = check(bad, index.root, text)
            except ProofError:
                continue
            raise AssertionError(f"{bad!r} passed, as {found} instead of {sure}")


def test_mutated_proofs_are_refused(tmp_path: Path) -> None:
    refuses_mutations(tmp_path, 2_000)


@pytest.mark.long
def test_a_hundred_thousand_mutated_proofs_are_refused(tmp_path: Path) -> None:
    refuses_mutations(tmp_path, 100_000)


def test_a_gap_that_is_none_proves_nothing(tmp_path: Path) -> None:
    index = index_over(tmp_path, [f"document {i}" for i in range(64)])
    inside = index.place(digest_of(b"document 3")).start
    around = {i: index.entry(i) for i in (inside - 1, inside + 1) if 0 <= i < 64}
    nodes: list[bytes] = []

    def missing(low: int, high: int) -> bytes:
        nodes.append(index._node(low, high))
        return nodes[-1]

    proof.fold(64, {i: leaf_hash(e.leaf) for i, e in around.items()}, missing)
    real = json.loads(proved(index, b"document 3"))
    real.pop("checksum")
    real["entries"] = [[i, e.digest.hex(), e.component, e.record] for i, e in around.items()]
    real["nodes"] = proof.base64.b64encode(b"".join(nodes)).decode()
    with pytest.raises(ProofError, match="no neighbours"):
        check(sealed(real), index.root)


def test_a_proof_is_of_one_index_and_one_file(tmp_path: Path) -> None:
    index, other = index_over(tmp_path, ["to", "be"]), index_over(tmp_path, ["or", "not"])
    written = proved(index, b"to")
    with pytest.raises(ProofError, match="another index"):
        check(written, other.root)
    with pytest.raises(ProofError, match="another document"):
        check(written, index.root, b"be")


def test_the_file_alone_checks_a_proof(tmp_path: Path) -> None:
    index = index_over(tmp_path / "index", ["to", "be"])
    alone = tmp_path / "alone.py"
    shutil.copy(proof.__file__, alone)
    for text, status, says in ((b"be", 0, "is in the index"), (b"or", 1, "is not in the index")):
        (tmp_path / "p.json").write_bytes(proved(index, text, {"text": "claimed thing"}))
        command = [sys.executable, "-I", "-S", alone, tmp_path / "p.json", index.root]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        assert says in done.stdout
        assert "steps: claimed, not checked: claimed thing" in done.stdout
        refused = subprocess.run([*command[:-1], "0" * 64], capture_output=True, text=True)
        assert (refused.returncode, refused.stdout) == (2, "")


def test_a_proof_of_a_million_documents_is_small_whatever_it_claims(tmp_path: Path) -> None:
    # the tree of 2**20 entries, of which only those that a proof needs are ever asked for
    index = index_over(tmp_path, ["a", "b"])
    steps = [f"step {i} row 5 tokens 311:902 (epoch {i})" for i in range(100)]
    index._size, index.head["size"] = 1 << 20, 1 << 20
    index._node = lambda low, high: bytes(np.random.default_rng(low).bytes(32))
    index.entry = lambda i: proof.Entry((i * 4096 << 224).to_bytes(32, "big"), 0, i)

    def place(document: bytes) -> range:
        at = 1 + (int.from_bytes(document, "big") >> 236)
        return range(at, at)

    index.place = place
    leaves = {}
    for text in (b"some text", b"other"):
        for d in map(digest_of, variants(text)):
            at = index.place(d).start
            leaves |= {i: leaf_hash(index.entry(i).leaf) for i in (at - 1, at)}
        index.head["tree"] = proof.fold(1 << 20, leaves, index._node).hex()
        index.root = proof.root_of(index.head)
        written = proved(index, text, {"steps": steps, "text": "100 times"})
        assert len(written) <= 4096
        assert not check(written, index.root, text).found
        leaves.clear()
