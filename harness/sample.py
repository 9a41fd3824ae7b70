"""Sampling from the model: continuing a text token by token."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from harness.checkpoint import Checkpoints
from harness.config import Config
from harness.errors import CheckpointError, ConfigError
from harness.metrics import Screen
from harness.rundir import RunDir
from harness.sharding import parameter_mesh
from harness.step import evaluated, make_steps
from harness.task import Language, make_task


def sample(
    run: RunDir,
    screen: Screen,
    *,
    cfg: Config,
    prompt: str,
    tokens: int,
    temperature: float,
    seed: int,
    at: str,
) -> int:
    """Print `prompt` and its continuation by the parameters of a checkpoint.

    The whole window of `length` tokens goes through the model for each new token. This is slow for
    long texts, but uses the same code as training. The same seed gives the same text.

    Args:
        run, screen, cfg, prompt: the run, the terminal, its settings, the text to continue.
        tokens: how many to write.
        temperature: 0 takes the likeliest token each time; 1 samples with the model's
            probabilities.
        seed: of the samples.
        at: "newest", "best" (by the evaluations during training), or the step of a checkpoint.

    Raises:
        CheckpointError: there is no such checkpoint.
        ConfigError: the run's task is not language, or there is nothing to continue.
    """
    task = make_task(cfg)
    if not isinstance(task, Language):
        raise ConfigError(f"task={cfg.task!r}: only language models write text.")
    window = list(task.tokenizer.encode(prompt.encode()))
    if not window:
        raise ConfigError("the tokenizer begins texts with no token of its own: give --prompt.")
    mesh, key = parameter_mesh(), jax.random.key(seed)
    functions = make_steps(cfg, mesh, task)
    with jax.set_mesh(mesh), Checkpoints(run.checkpoints) as checkpoints:
        state = checkpoints.restore(_step(run, checkpoints, at), functions)
        following = _following(functions.model(evaluated(state)), cfg.length)
        for i in range(tokens):
            scores = following(window[-cfg.length :])
            if temperature:
                scores += temperature * jax.random.gumbel(jax.random.fold_in(key, i), scores.shape)
            window.append(int(jnp.argmax(scores)))
    print(task.tokenizer.decode(np.array(window)))
    return 0


def _step(run: RunDir, checkpoints: Checkpoints, at: str) -> int:
    if at == "newest" or at.isdigit():
        return checkpoints.find(None if at == "newest" else int(at))
    steps = checkpoints.steps
    made = [e for e in run.evaluations() if e["loss"] is not None and e["step"] in steps]
    if at != "best" or not made:
        raise CheckpointError(f"no checkpoint {at}: there are {steps}.")
    return min(made, key=lambda e: e["loss"])["step"]


def _following(model: Any, length: int) -> Any:
    """A function: tokens -> float32[V], the logits of the next token."""
    graph, state = nnx.split(model)

    @jax.jit
    def logits(state: Any, row: jax.Array, n: jax.Array) -> jax.Array:
        place = jnp.arange(length)[None]
        model = nnx.merge(graph, state)
        return model(row[None], (place < n).astype(jnp.int32), place)[0, n - 1]

    def following(tokens: list[int]) -> jax.Array:
        row = np.zeros(length, np.int32)
        row[: len(tokens)] = tokens
        return logits(state, row, len(tokens))

    return following
