"""Exporting a trained model: as safetensors with Llama's names, or as a program."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from harness.checkpoint import Checkpoints
from harness.config import Config
from harness.errors import ConfigError
from harness.llama import save_llama
from harness.metrics import Screen
from harness.rundir import RunDir
from harness.sharding import parameter_mesh
from harness.step import evaluated, make_steps
from harness.task import Language, make_task
from pipeline.errors import need

_PLATFORMS = ("cpu", "cuda", "tpu")


def export(
    run: RunDir, screen: Screen, *, cfg: Config, folder: Path, step: int | None, form: str
) -> int:
    """Write the model of a checkpoint to a folder.

    Args:
        run, screen, cfg, folder: the run, the terminal, its settings, where to write.
        step: of the checkpoint; None for the newest.
        form: "safetensors", or "stablehlo" for `save_program`.

    Raises:
        CheckpointError: there is no such checkpoint.
        ConfigError: the run's task is not language.
    """
    task = make_task(cfg)
    if not isinstance(task, Language):
        raise ConfigError(f"task={cfg.task!r}: only language models are exported.")
    functions = make_steps(cfg, parameter_mesh(), task)
    with Checkpoints(run.checkpoints) as checkpoints:
        step = checkpoints.find(step)
        state = checkpoints.restore(step, functions)
    params = nnx.state(functions.model(evaluated(state)), nnx.Param)
    if form == "safetensors":
        save_llama(folder, cfg, params, task.tokenizer.vocab)
    else:
        save_program(folder, cfg, params)
    screen.say(f"{folder}: the model after step {step:,} as {form}")
    return 0


def save_program(folder: Path, cfg: Config, params: Any) -> None:
    """Write the model as StableHLO for any batch size, its weights, and a run.py that loads them.

    run.py needs neither this package nor flax. The program is a function of a list of leaves and
    tokens int32[b, length]; positions count from the start of a row.
    """
    # without kernels of a single platform, so that the program runs on all
    portable = dataclasses.replace(cfg.model, attention="xla")
    task = Language(dataclasses.replace(cfg, model=portable))
    graph, shapes = nnx.split(nnx.eval_shape(lambda: task.model(nnx.Rngs(0))))
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
    logits = _program(graph, jax.tree.structure(shapes))
    tokens = jax.ShapeDtypeStruct(jax.export.symbolic_shape(f"b, {cfg.length}"), jnp.dtype("int32"))
    like = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
    exported = jax.export.export(jax.jit(logits), platforms=_PLATFORMS)(like, tokens)
    try:
        program = exported.serialize()
    except ImportError as e:
        raise need("export", "flatbuffers") from e
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.stablehlo").write_bytes(program)
    np.savez(folder / "weights.npz", *leaves)
    (folder / "run.py").write_text(_RUN.replace("@LENGTH@", str(cfg.length)))


def _program(graph: Any, tree: Any) -> Callable[..., jax.Array]:
    def logits(leaves: list[jax.Array], tokens: jax.Array) -> jax.Array:
        model = nnx.merge(graph, jax.tree.unflatten(tree, leaves))
        places = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32), tokens.shape)
        return model(tokens, jnp.ones_like(tokens), places)

    return logits


_RUN = '''"""The exported model; needs jax, numpy, flatbuffers. python run.py 256 72 105 goes on."""

import sys
from pathlib import Path

import jax
import numpy as np
from jax import export

HERE, LENGTH = Path(__file__).parent, @LENGTH@
_program = export.deserialize(bytearray((HERE / "model.stablehlo").read_bytes()))
with np.load(HERE / "weights.npz") as _file:
    _weights = [_file[f"arr_{i}"] for i in range(len(_file.files))]


def logits(tokens):
    """float32[b, LENGTH, vocabulary] of int32[b, LENGTH]."""
    return jax.jit(_program.call)(_weights, tokens)


def main(tokens, more=20):
    for _ in range(min(more, LENGTH - len(tokens))):
        row = np.zeros((1, LENGTH), np.int32)
        row[0, : len(tokens)] = tokens
        tokens = [*tokens, int(logits(row)[0, len(tokens) - 1].argmax())]
    print(*tokens)


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]])
'''
