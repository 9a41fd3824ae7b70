"""A task of images: a small vision transformer that classifies them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from harness.config import Config
from harness.model import Layer, linear
from harness.task import Batch, cross_entropy, row_weights


class VisionTransformer(nnx.Module):
    """From images to float32 logits of classes, by patches (Dosovitskiy et al. 2021).

    The layers are those of the language model. Each patch sees all others, and their mean is
    classified.
    """

    def __init__(self, cfg: Config, *, rngs: nnx.Rngs) -> None:
        self.patch, self.layers_n = cfg.image.patch, cfg.layers
        n_in = cfg.image.patch**2 * cfg.image.channels
        self.embed = linear(n_in, cfg.width, (None, "embed"), cfg, rngs)
        patches = (cfg.image.side // cfg.image.patch) ** 2
        self.places = nnx.Param(0.02 * jax.random.normal(rngs.params(), (patches, cfg.width)))
        self.layers = nnx.List([Layer(cfg, rngs=rngs) for _ in range(cfg.layers)])
        self.norm = nnx.RMSNorm(cfg.width, rngs=rngs)
        self.head = linear(cfg.width, cfg.image.classes, ("embed", None), cfg, rngs)

    def __call__(self, images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Logits float32[B, classes].

        Args:
            images: uint8[B, side, side] or [B, side, side, channels].
            key: for dropout; None for none.
        """
        b, side, p = images.shape[0], images.shape[1], self.patch
        x = images.reshape(b, side // p, p, side // p, p, -1).swapaxes(2, 3)
        x = x.reshape(b, (side // p) ** 2, -1).astype(jnp.float32) / 255 - 0.5
        x = self.embed(x) + self.places[...].astype(x.dtype)
        n = x.shape[1]
        everywhere = jnp.ones((b, n, n), bool)
        positions = jnp.broadcast_to(jnp.arange(n, dtype=jnp.int32), (b, n))
        for i, layer in enumerate(self.layers):
            x = layer(x, positions, everywhere, None if key is None else jax.random.fold_in(key, i))
        return self.head(self.norm(x).mean(axis=1)).astype(jnp.float32)


class Classifier:
    """The task for rows with the fields image (uint8) and label (int)."""

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg

    def model(self, rngs: nnx.Rngs) -> VisionTransformer:
        return VisionTransformer(self.cfg, rngs=rngs)

    def losses(
        self, model: Any, batch: Batch, key: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        loss = cross_entropy(model(batch["image"], key), batch["label"])
        return loss, row_weights(batch, loss)

    def show(self, row: Mapping[str, np.ndarray], segment: int) -> str:
        return f"label {int(row['label'])}\n{picture(row['image'])}"


def picture(image: np.ndarray) -> str:
    """An image as characters, one line for every second row of pixels.

    >>> picture(np.array([[0, 255], [0, 0]], np.uint8))
    ' @'
    """
    grey = image.reshape(*image.shape[:2], -1).mean(axis=2)[::2]
    shades = np.array(list(" .:-=+*#%@"))
    return "\n".join("".join(line) for line in shades[(grey * 9.99 / 255).astype(int)])
