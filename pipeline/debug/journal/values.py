"""Scalars as they are told: held without waiting for a device, and read one step later."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.errors import JournalError


def held(value: Any) -> Any:
    """The value as it is now, whatever becomes of the object; a device is not waited for.

    >>> a = np.array(1.0)
    >>> kept = held(a)
    >>> a += 1
    >>> kept
    1.0
    """
    tensor = hasattr(value, "detach")
    if tensor:
        value = value.detach()  # without its graph
        if value.device.type != "cpu":
            return value.clone()  # it may be written to, as running sums are
    here = tensor or isinstance(value, np.ndarray | np.generic)
    return value.item() if here and _size(value) == 1 else value


def number(name: str, value: Any) -> float:
    """A held value as a float; waits for its device.

    Raises:
        JournalError: it is not one number.

    >>> number("loss", np.float32(0.5))
    0.5
    """
    if hasattr(value, "addressable_data") and not value.is_fully_addressable:
        value = value.addressable_data(0)  # of a jax array over several processes, all the same
    try:
        if _size(value) != 1:
            raise TypeError(f"of shape {tuple(value.shape)}")
        return float(value.item() if hasattr(value, "item") else value)
    except (TypeError, ValueError) as e:
        raise JournalError(
            f"log({name}=…): a {type(value).__name__} {e}. Give one number: a float, or an array "
            "or tensor with one element."
        ) from e


def _size(value: Any) -> int:
    shape = getattr(value, "shape", ())
    return int(np.prod(tuple(shape), dtype=np.int64))
