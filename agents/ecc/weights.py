"""Trained networks that come with the repository, stored in half precision."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from cfpos_envs.checkpoints import State, read_checkpoint, write_checkpoint
from cfpos_envs.checks import unknown_name

FOLDER = Path(__file__).parent / "trained"


def list_weights() -> list[str]:
    """Names of the trained networks that are here."""
    return sorted(path.stem for path in FOLDER.glob("*.pt"))


def weights(name: str) -> Path:
    """The file of a trained network, for ``load_agent`` or ``policy=[FILE]`` on the command line.

    Args:
        name: one of ``list_weights()``.

    Raises:
        ValueError: unknown name, with the nearest ones.
    """
    if name not in list_weights():
        raise ValueError(unknown_name("trained network", name, list_weights()))
    return FOLDER / f"{name}.pt"


def store_half(run: str | Path, path: str | Path) -> Path:
    """Write the policy of a run with its matrices in half precision: half the size, errors of 1e-3 of each weight.

    Args:
        run: a run's folder or a checkpoint file.
        path: file to write.
    """
    state: State = read_checkpoint(run)["agent"]
    small = {name: _half(value) for name, value in state["network"].items()}
    write_checkpoint(path, {"agent": {**state, "network": small}})
    return Path(path)


def _half(value: Tensor) -> Tensor:
    # Scales, positions and counters are few and stay exact.
    return value.half() if value.is_floating_point() and value.dim() > 1 else value.clone()


if __name__ == "__main__":
    import sys

    if len(sys.argv) != 3:
        sys.exit("usage: python -m agents.ecc.weights RUN_FOLDER NAME")
    torch.set_num_threads(1)
    written = store_half(sys.argv[1], FOLDER / f"{sys.argv[2]}.pt")
    print(f"wrote {written}, {written.stat().st_size / 1e6:.1f} MB")
