"""Model FLOPs utilisation (MFU), the used share of the devices' peak, in two conventions."""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

import jax
from flax import nnx

from harness.config import Config
from harness.leaves import named_leaves
from harness.task import make_task


class Peak(NamedTuple):
    """The dense bfloat16 peak of one chip, and the maker's document that states it."""

    device: str  # matches jax's device_kind
    tflops: float
    source: str


# the first match counts, so special names come before general ones
PEAKS = (
    Peak(r"H100 NVL", 835, "NVIDIA H100 product page, H100 NVL, BF16 without sparsity"),
    Peak(r"H100 PCIe", 756, "NVIDIA H100 PCIe product brief PB-11133, BF16 without sparsity"),
    Peak(r"H100|H200", 989, "NVIDIA H100 and H200 datasheets, SXM, BF16 without sparsity"),
    Peak(r"A100", 312, "NVIDIA A100 datasheet, BF16 without sparsity"),
    Peak(r"TPU v6", 918, "Google Cloud TPU documentation, v6e (Trillium)"),
    Peak(r"TPU v5 ?lite|TPU v5e", 197, "Google Cloud TPU documentation, v5e"),
    Peak(r"TPU v5", 459, "Google Cloud TPU documentation, v5p"),
    Peak(r"TPU v4(?! ?lite)", 275, "Google Cloud TPU documentation, v4"),
)


def peak(device_kind: str) -> Peak | None:
    """The table's entry for a device, or None if it is unknown, such as a CPU.

    >>> peak("NVIDIA H100 80GB HBM3").tflops, peak("TPU v5 lite").tflops, peak("cpu")
    (989, 197, None)
    """
    return next((p for p in PEAKS if re.search(p.device, device_kind)), None)


class TokenFlops(NamedTuple):
    """FLOPs of training on one token, forward and backward.

    Attributes:
        causal: MaxText's convention: attention counts half, since half of its scores are masked.
        full: TorchTitan's convention (and PaLM's, appendix B): attention counts in full.
    """

    causal: int
    full: int


def parameter_shapes(cfg: Config) -> dict[str, tuple[int, ...]]:
    """Shapes of all parameters by name. Allocates nothing."""

    def made() -> Any:
        return nnx.state(make_task(cfg).model(nnx.Rngs(0)), nnx.Param)

    return {name: leaf.shape for name, leaf in named_leaves(jax.eval_shape(made)).items()}


def token_flops(cfg: Config) -> TokenFlops:
    """FLOPs of training a transformer with these settings on one token.

    6 for each parameter in a matrix product, and for attention 12 x length x width of all heads in
    each layer, over the whole row. The embedding's table is looked up, not multiplied, unless it is
    the head too. What remat computes twice counts once.
    """
    multiplied = sum(
        math.prod(shape)
        for name, shape in parameter_shapes(cfg).items()
        if len(shape) > 1 and ("kernel" in name or (cfg.model.tied and "embedding" in name))
    )
    inner = cfg.heads * (cfg.model.head_width or cfg.width // cfg.heads)
    attention = 12 * cfg.layers * inner * cfg.length
    return TokenFlops(6 * multiplied + attention // 2, 6 * multiplied + attention)


def utilisation(flops: float, tokens_per_second: float, devices: int, kind: str) -> float | None:
    """The share of the devices' peak that is used; None if the peak is unknown."""
    known = peak(kind)
    if known is None:
        return None
    return flops * tokens_per_second / (devices * known.tflops * 1e12)
