"""What a launch's bits depend on besides settings and data, and comparing it between launches."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from harness.errors import ConfigError
from harness.named import load_named
from pipeline.transforms.code import code_digest

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
_PACKAGES += ("jax-cuda12-plugin", "jax-cuda13-plugin", "nvidia-cudnn-cu12", "libtpu")
# names in /proc/cpuinfo for which XLA generates different code on CPUs
_INSTRUCTIONS = ("avx", "avx2", "fma", "avx512f", "avx512_bf16", "amx_tile", "asimd", "sve")
_HARMLESS = ("--xla_force_host_platform_device_count", "--xla_dump")  # the mesh tells the first


def pin(cache: Path) -> None:
    """Keep compiled programs, and the choices of GPU autotuning, in `cache` for later launches.

    Call it before anything is compiled. Otherwise a later launch measures again which kernels are
    fastest, and may add in another order.
    """
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.config.update("jax_persistent_cache_enable_xla_caches", "all")


def manifest(mesh: Mesh, task: str = "language") -> dict[str, Any]:
    """What the bits of losses depend on, as plain data for `differences`.

    Args:
        mesh: of the devices.
        task: the setting; of a task of the user's own, its code counts.

    >>> "jax" in manifest(jax.make_mesh((1,), ("data",)))
    True
    """
    flags = sorted(
        flag
        for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
        for flag in os.environ.get(name, "").split()
        if not flag.startswith(_HARMLESS)
    )
    device = jax.devices()[0]
    return {
        **{name: found for name in _PACKAGES if (found := _version(name))},
        "python": platform.python_version(),
        "flags": flags,
        "platform": device.platform,
        "device": device.device_kind,
        "mesh": {axis: size for axis, size in mesh.shape.items() if size > 1},
        "processes": jax.process_count(),
        "prng": f"{jax.config.jax_default_prng_impl}"  # pyright: ignore[reportAttributeAccessIssue]
        f", partitionable={jax.config.jax_threefry_partitionable}",  # pyright: ignore
        "matmul_precision": jax.config.jax_default_matmul_precision or "default",  # pyright: ignore
        "x64": jax.config.jax_enable_x64,  # pyright: ignore[reportAttributeAccessIssue]
        "instructions": _instructions() if device.platform == "cpu" else None,
        **({} if task == "language" else {"task": code_digest(load_named("task", task))}),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _instructions() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    flags = next((x.split() for x in lines if x.startswith(("flags", "Features"))), [])
    return " ".join([platform.machine(), *(name for name in _INSTRUCTIONS if name in flags)])


def differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two manifests, in words. A fact that only one of them has differs too.

    >>> differences({"jax": "0.9.0", "x64": False}, {"jax": "0.10.2", "x64": False})
    ['jax 0.9.0 -> 0.10.2']
    """
    names = dict.fromkeys((*was, *now))
    return [f"{k} {was.get(k)} -> {now.get(k)}" for k in names if was.get(k) != now.get(k)]


def compared(launches: Sequence[Mapping[str, Any]], now: Mapping[str, Any]) -> dict[str, Any]:
    """A comparison of this machine's manifest with each launch of a run, as plain data.

    Returns:
        "same": whether nothing differs from the last launch; "differences" from it; "said": a line
            for each launch; "now": this machine's manifest.
    """
    said = list[str]()
    found: list[str] = []
    for launch in launches:
        if "manifest" not in launch:
            said.append(f"launch {launch['launch']}: older than manifests")
            continue
        found = differences(launch["manifest"], now)
        said.append(f"launch {launch['launch']}: {'; '.join(found) or 'the same as here'}")
    if found:
        said.append("Here losses may differ in their last bits; batches do not.")
    known = bool(launches) and "manifest" in launches[-1]
    return {"same": known and not found, "differences": found, "said": said, "now": now}


def check(launches: Sequence[Mapping[str, Any]], now: Mapping[str, Any], *, strict: bool) -> str:
    """What has changed in the manifest since the last launch, in words; "" for nothing.

    Raises:
        ConfigError: something has changed, and `strict` is True.
    """
    if not launches or "manifest" not in launches[-1]:
        return ""
    found = differences(launches[-1]["manifest"], now)
    if found and strict:
        raise ConfigError(
            f"since launch {launches[-1]['launch']} changed: {'; '.join(found)}. Losses may differ "
            "in their last bits, though batches do not. Restore what changed, or go on without "
            "--deterministic."
        )
    return f"since the last launch changed: {'; '.join(found)}" if found else ""
