"""Rows of the user's own tokens: which fields they may have, and what these must hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import ConfigError

FIELDS = ("tokens", "weights", "segment_ids", "positions")
# what the guides call the weights, and what `pack` calls the rest if it packs several fields
_ALSO = {
    "loss_mask": "weights",
    "tokens_segment_ids": "segment_ids",
    "tokens_positions": "positions",
}
# of packed weights: they must equal those of the tokens
_TWINS = {f"{w}_{k}": k for w in ("weights", "loss_mask") for k in ("segment_ids", "positions")}


@dataclass(frozen=True)
class TokenRow:
    """Maps a row to the fields that a batch needs. Without segments it is one document.

    Attributes:
        length: tokens in a row.
        vocab: tokens that the model knows.

    Raises:
        ConfigError: a field is unknown, or holds what cannot be trained on.

    >>> row = TokenRow(2, 264)({"tokens": np.array([7, 8]), "loss_mask": np.array([0, 1])})
    >>> row["segment_ids"].tolist(), row["weights"].tolist()
    ([1, 1], [0.0, 1.0])
    """

    length: int
    vocab: int

    def __call__(self, row: Any) -> dict[str, Any]:
        n, bare = self.length, not isinstance(row, dict)
        row = {"tokens": np.asarray(row)} if bare else _named(row)
        tokens = row["tokens"]
        if tokens.shape != (n,) or tokens.dtype.kind not in "iu":
            how = f".pack({n})" if bare else f".pack({{'tokens': {n}}})"
            raise ConfigError(
                f"the tokens of a row are {tokens.dtype} of shape {tokens.shape}; whole numbers "
                f"of shape (length={n},) are due. Pack documents: {how}; or set length."
            )
        check_tokens(tokens, self.vocab)
        whole = {"segment_ids": np.ones(n, np.int32), "positions": np.arange(n, dtype=np.int32)}
        for name, values in row.items():
            _check_beside(name, values, n)
            whole[name] = values.astype("f4" if name == "weights" else "i4")
        return whole


def _named(row: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """The fields by the names in FIELDS."""
    unknown = [name for name in row if name not in (*FIELDS, *_ALSO, *_TWINS)]
    if unknown or "tokens" not in row:
        raise ConfigError(
            f"a row of data has the fields {list(row)}; "
            + (f"{unknown} are not known. " if unknown else "tokens are missing. ")
            + f"Known are {', '.join(FIELDS)}; loss_mask is another name of weights. "
            "Rename or drop fields in a .map."
        )
    found: dict[str, NDArray[Any]] = {}
    for name in (k for k in row if k not in _TWINS):
        if _ALSO.get(name, name) in found:
            raise ConfigError(f"a row of data has {_ALSO.get(name, name)} twice: {list(row)}.")
        found[_ALSO.get(name, name)] = np.asarray(row[name])
    for name in (k for k in row if k in _TWINS):
        if not np.array_equal(row[name], found.get(_TWINS[name], np.zeros(0))):
            raise ConfigError(
                f"{name} of a packed row is not that of its tokens: give each document a "
                f"{name.removesuffix('_' + _TWINS[name])} as long as its tokens."
            )
    return found


def _check_beside(name: str, values: NDArray[Any], n: int) -> None:
    kinds = "biuf" if name == "weights" else "iu"
    if values.shape != (n,) or values.dtype.kind not in kinds:
        raise ConfigError(
            f"the {_said(name)} of a row are {values.dtype} of shape {values.shape}; give "
            f"{'numbers' if name == 'weights' else 'whole numbers'} of the tokens' shape, ({n},)."
        )
    wrong = ~(np.isfinite(values) & (values >= 0))
    if wrong.any():
        raise ConfigError(
            f"the {_said(name)} of a row hold {values[wrong][0]} at place {wrong.argmax()}: give "
            "finite numbers from 0 on."
        )


def _said(name: str) -> str:
    return "weights (or loss_mask)" if name == "weights" else name


def check_tokens(tokens: NDArray[Any], vocab: int) -> None:
    """Check that the model knows all tokens.

    Raises:
        ConfigError: it does not know one.
    """
    if tokens.size and not (tokens.min() >= 0 and tokens.max() < vocab):
        wrong = (tokens < 0) | (tokens >= vocab)
        raise ConfigError(
            f"token {tokens[wrong][0]} at place {wrong.argmax()} is not in the vocabulary, 0 to "
            f"{vocab - 1}. Set model.vocab, or data.tokenizer to the one that made the tokens; "
            "padding is token 0 with segment_ids 0."
        )
