"""In each trainer a packed mix goes on from 2 to 4 to 1 ranks with the same global batches."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compat.ranks import expected, global_batches, peer

pytest.importorskip("torch", reason="needs the extra: pip install 'lockstep-data[torch]'")

# whose packages each trainer wants, where this environment has none of them
PEERS = {
    "accelerate": "lockstep",
    "lightning": "lockstep",
    "torch_dataloader": "lockstep",
    "torchtitan": "torchtitan",
    "huggingface": "transformers",
}


@pytest.mark.long
@pytest.mark.parametrize("trainer", PEERS)
def test_other_numbers_of_ranks_have_the_same_global_batches(trainer: str, tmp_path: Path) -> None:
    if trainer in ("accelerate", "lightning"):
        pytest.importorskip(trainer, reason="needs: pip install 'lockstep-data[loops]'")
    assert global_batches(trainer, tmp_path, peer(PEERS[trainer])) == expected()
