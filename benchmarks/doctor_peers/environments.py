"""Packages of other projects at chosen versions, each in a folder of its own over this environment.

Several of them contradict each other, and one at a time must be old: so each peer's packages are
installed without dependencies into a folder, which stands first on its interpreter's path.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(os.environ.get("LOCKSTEP_PEERS", Path(__file__).parents[2] / ".peers"))

PACKAGES = {
    "lockstep": (),
    "datasets": ("datasets==5.0.0", "huggingface_hub==1.5.0", "httpx", "httpcore"),
    "torchdata": ("torchdata==0.11.0",),
    "accelerate": ("accelerate==1.12.0", "torchdata==0.11.0"),
    "lightning": ("lightning==2.6.0", "torchdata==0.11.0"),
    "grain": ("grain==0.2.18", "more-itertools", "portpicker"),
    "litdata": ("litdata==0.2.76",),
    "mosaicml-streaming": (
        *("mosaicml-streaming==0.13.0", "transformers", "python-snappy", "cramjam"),
        *("Brotli", "zstd", "pillow", "requests", "azure-storage-blob", "azure-core", "oci"),
        *("catalogue", "torchvision==0.28.0"),
    ),
    "torchtitan": (
        *("torchtitan==0.3.0", "torchdata==0.11.0", "tyro", "docstring-parser"),
        *("typeguard", "shtab", "einops"),
    ),
    "transformers": ("transformers",),
    "tunix": (
        *("google-tunix==0.1.7", "google-metrax", "clu", "tensorboardX", "jaxtyping"),
        *("wadler-lindig", "sentencepiece", "perfetto", "qwix", "einops", "tenacity"),
        *("pylatexenc", "omegaconf", "antlr4-python3-runtime==4.9.*", "immutabledict"),
        *("grain==0.2.18", "more-itertools", "portpicker"),
    ),
}


def environment(peer: str) -> Path:
    """The folder with a peer's packages, installed the first time.

    Raises:
        RuntimeError: they do not install, with pip's last words.
    """
    folder, packages = FOLDER / peer, PACKAGES[peer]
    done = folder / ".installed"
    if packages and (not done.exists() or done.read_text() != " ".join(packages)):
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade"]
        told = subprocess.run(
            [*command, "--target", str(folder), *packages],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        if told.returncode:
            last = (told.stderr.strip().splitlines() or ["no word of pip's"])[-1]
            raise RuntimeError(f"{peer} does not install here: {last}")
        done.write_text(" ".join(packages))
    return folder


def variables(peer: str, *folders: str | Path) -> dict[str, str]:
    """The environment of an interpreter that has a peer's packages, and `folders` on its path."""
    path = [*map(str, folders), str(environment(peer)), str(Path(__file__).parents[2])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(path)}
