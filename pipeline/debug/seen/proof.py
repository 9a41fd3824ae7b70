"""Checks a proof that a document is, or is not, in an index: this file alone, without any data.

It needs Python's own modules only, so it can be copied to whoever shall check a proof, and run:

    python proof.py proof.json ROOT

The index is the sorted list of its entries: the digest of a document (BLAKE2b-256), the number of
the component that holds it, and that of its record. A Merkle tree as in RFC 6962, section 2.1,
stands on them, with leaves and nodes tagged apart. The root that is published covers the tree and
the head, which says how many entries there are and what they are of. A document is in the index if
one of the entries has its digest; it is not if two neighbours enclose the place where it would be.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

KIND = "lockstep seen 1"
HASH = 32  # bytes
MOST_ENTRIES = 1 << 48
MOST_BYTES = 4096  # of a proof
NOT_CHECKED = "claimed, not checked"
_LEAF, _NODE, _HEAD = b"\x00", b"\x01", b"\x02"
_FIELDS = {"kind", "head", "documents", "entries", "nodes", "claims", "checksum"}
_HEAD_FIELDS = {"digest": str, "document": str, "sources": str, "size": int, "tree": str}


class ProofError(ValueError):
    """The proof is damaged, forged, or of another index: nothing follows from it."""


class Entry(NamedTuple):
    """A leaf of the tree: a document's digest, and which record of which component it is."""

    digest: bytes
    component: int
    record: int

    @property
    def leaf(self) -> bytes:
        """The bytes that are sorted and hashed: 44 of them."""
        return self.digest + self.component.to_bytes(4, "big") + self.record.to_bytes(8, "big")


class Checked(NamedTuple):
    """What a proof shows.

    Attributes:
        found: whether one of the documents is in the index.
        documents: the digests looked for: the file as it is, and with one newline more or less.
        entries: of the documents, as far as the proof lists them; none if it is not found.
        head: what the index is of.
        claims: what the proof says besides. Nobody checked it.
    """

    found: bool
    documents: tuple[bytes, ...]
    entries: tuple[Entry, ...]
    head: dict[str, Any]
    claims: dict[str, Any]


def digest_of(data: bytes) -> bytes:
    """A document's digest: BLAKE2b of 32 bytes."""
    return hashlib.blake2b(data, digest_size=HASH).digest()


def leaf_hash(leaf: bytes) -> bytes:
    return digest_of(_LEAF + leaf)


def node_hash(left: bytes, right: bytes) -> bytes:
    return digest_of(_NODE + left + right)


def root_of(head: dict[str, Any]) -> str:
    """The root of an index: it covers all that its head says, the tree included."""
    return digest_of(_HEAD + canonical(head)).hex()


def canonical(value: Any) -> bytes:
    """The one way in which a value is written for hashing: JSON, sorted and without spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def fold(
    size: int, leaves: dict[int, bytes], missing: Callable[[int, int], bytes], low: int = 0
) -> bytes:
    """The hash of entries [low, low + size), by RFC 6962.

    Args:
        size: how many.
        leaves: the hashes of those that are known, by number.
        missing: gives the hash of a subtree none of whose entries is known, asked from the left.
        low: the first.
    """
    known = {i: h for i, h in leaves.items() if low <= i < low + size}
    if not known:
        return missing(low, low + size) if size else digest_of(b"")
    if size == 1:
        return known[low]
    left = 1 << (size - 1).bit_length() - 1
    first = fold(left, known, missing, low)
    return node_hash(first, fold(size - left, known, missing, low + left))


def variants(data: bytes) -> tuple[bytes, bytes]:
    """A document as it is, and with one newline less at its end, or more if it has none."""
    if data.endswith(b"\n"):
        return data, data[: -2 if data.endswith(b"\r\n") else -1]
    return data, data + b"\n"


def sealed(proof: dict[str, Any]) -> bytes:
    """A proof as it is written, with a checksum that tells damage (but no forgery)."""
    return canonical({**proof, "checksum": digest_of(canonical(proof)).hex()}) + b"\n"


def check(proof: bytes, root: str, file: bytes | None = None) -> Checked:
    """What a proof shows about the index with this root.

    Args:
        proof: as it was written.
        root: 64 hex digits, from somewhere that you trust: not from the proof.
        file: the document itself, to be told whether the proof is about it.

    Raises:
        ProofError: it shows nothing, with the reason.
    """
    found = _parsed(proof)
    head = found["head"]
    if root_of(head) != root.strip().lower():
        raise ProofError(f"it is of another index: its root is {root_of(head)}, not {root}")
    documents = tuple(_unhex(d, HASH) for d in _list(found["documents"], 1, 2))
    if file is not None and documents[0] != digest_of(file):
        raise ProofError("it is about another document than this file")
    if file is not None and documents[1:] != (digest_of(variants(file)[1]),):
        raise ProofError("it does not look for the file with one newline more or less")
    entries = _entries(found["entries"], head["size"])
    _check_tree(head, entries, _nodes(found["nodes"]))
    mine = tuple(entry for entry in entries.values() if entry.digest in documents)
    if not mine:
        for document in documents:
            _check_absent(document, entries, head["size"])
    return Checked(bool(mine), documents, mine, head, found["claims"])


def _parsed(proof: bytes) -> dict[str, Any]:
    if len(proof) > 16 * MOST_BYTES:
        raise ProofError(f"it has {len(proof)} bytes, a proof has at most {MOST_BYTES}")
    try:
        found = json.loads(proof.decode(), object_pairs_hook=_once)
    except (ValueError, RecursionError) as e:
        raise ProofError(f"it is no JSON: {e}") from e
    if not isinstance(found, dict) or found.keys() != _FIELDS or found["kind"] != KIND:
        raise ProofError(f"it is no proof of the kind {KIND!r}")
    head = found["head"]
    if not isinstance(head, dict) or head.keys() != _HEAD_FIELDS.keys():
        raise ProofError("its head has other fields than that of an index")
    for name, kind in _HEAD_FIELDS.items():
        if type(head[name]) is not kind:
            raise ProofError(f"its head says {name}: {head[name]!r}")
    if not 0 <= head["size"] <= MOST_ENTRIES:
        raise ProofError(f"its index has {head['size']} entries")
    rest = {name: value for name, value in found.items() if name != "checksum"}
    try:
        same = proof == sealed(rest)
    except (ValueError, RecursionError) as e:
        raise ProofError(f"it cannot be hashed: {e}") from e
    if not same or not isinstance(found["claims"], dict):
        raise ProofError("it is not as it was written: damaged, changed, or formatted anew")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field is there twice")
    return found


def _list(value: Any, least: int, most: int) -> list[Any]:
    if not isinstance(value, list) or not least <= len(value) <= most:
        raise ProofError(f"a list of {least} to {most} values is missing")
    return value


def _unhex(text: Any, size: int) -> bytes:
    try:
        data = bytes.fromhex(text)
    except (TypeError, ValueError) as e:
        raise ProofError(f"{str(text)[:80]!r} is no digest: {e}") from e
    if len(data) != size or data.hex() != text:
        raise ProofError(f"{text[:80]!r} is no digest of {size} bytes")
    return data


def _entries(rows: Any, size: int) -> dict[int, Entry]:
    found: dict[int, Entry] = {}
    before, last = -1, b""
    for row in _list(rows, 0, 64):
        number, text, component, record = _list(row, 4, 4)
        if any(type(x) is not int for x in (number, component, record)):
            raise ProofError("an entry's numbers are no whole numbers")
        if not (before < number < size and 0 <= component < 1 << 32 and 0 <= record < 1 << 64):
            raise ProofError(f"there is no entry {number} of {size} in this place")
        entry = Entry(_unhex(text, HASH), component, record)
        if found and entry.leaf <= last:
            raise ProofError("its entries are not sorted")
        found[number] = entry
        before, last = number, entry.leaf
    return found


def _nodes(text: Any) -> list[bytes]:
    try:
        data = base64.b64decode(text, validate=True)
        same = base64.b64encode(data).decode() == text
    except (TypeError, ValueError) as e:
        raise ProofError(f"its hashes are no base64: {e}") from e
    if not same or len(data) % HASH:
        raise ProofError("its hashes are not whole")
    return [data[i : i + HASH] for i in range(0, len(data), HASH)]


def _check_tree(head: dict[str, Any], entries: dict[int, Entry], nodes: list[bytes]) -> None:
    left = iter(nodes)

    def missing(low: int, high: int) -> bytes:
        found = next(left, None)
        if found is None:
            raise ProofError("hashes of the tree are missing")
        return found

    leaves = {number: leaf_hash(entry.leaf) for number, entry in entries.items()}
    if fold(head["size"], leaves, missing) != _unhex(head["tree"], HASH):
        raise ProofError("its entries and hashes do not lead to the root")
    if next(left, None) is not None:
        raise ProofError("it has hashes that nothing needs")


def _check_absent(document: bytes, entries: dict[int, Entry], size: int) -> None:
    before = max((i for i, e in entries.items() if e.digest < document), default=-1)
    after = min((i for i, e in entries.items() if e.digest > document), default=size)
    if after != before + 1:
        raise ProofError(
            f"its entries {before} and {after} are no neighbours, so others may lie between"
        )


def main(argv: list[str]) -> int:
    """Check a proof: 0 the document is in the index, 1 it is not, 2 the proof shows nothing."""
    if len(argv) not in (2, 3):
        print("usage: python proof.py PROOF.json ROOT [FILE]", file=sys.stderr)
        return 2
    try:
        data = [Path(path).read_bytes() for path in (argv[0], *argv[2:])]
        found = check(data[0], argv[1], *data[1:])
    except (OSError, ProofError) as e:
        print(f"refused: {e}", file=sys.stderr)
        return 2
    print("\n".join(lines(found, known=len(argv) == 3)))
    return 0 if found.found else 1


def lines(found: Checked, *, known: bool) -> list[str]:
    """What was checked, and what was not, a line each.

    Args:
        found: what a proof showed.
        known: whether the document's file was there to be compared.
    """
    size, what = found.head["size"], f"blake2b {found.documents[0].hex()[:16]}…"
    if found.found:
        told = ", ".join(f"record {e.record} of component {e.component}" for e in found.entries)
        yes = f"verified: document {what} is in the index, as {told}"
        if all(e.digest != found.documents[0] for e in found.entries):
            yes += " (with one newline more or less at its end)"
    else:
        yes = f"verified: document {what} is not in the index of {size} entries"
        yes += ", with or without a newline at its end" * (len(found.documents) > 1)
    says = found.head["document"]
    told = [yes, f"index: {size} documents, each {says}; that they are all there is: not checked"]
    if not known:
        told.append("file: not checked; give it beside the proof to compare its digest")
    steps = found.claims.get("text", "none")
    return [*told, f"steps: {NOT_CHECKED}: {steps}"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
