"""The small trainings that are killed, filled up and damaged: seconds long, with everything that long ones have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cfpos.agents import make_agent
from cfpos_envs import make_env
from cfpos_envs.checkpoints import BEST, read_checkpoint

_SCENE: dict[str, Any] = {"num_aps": 9, "num_ues": 2, "num_antennas": 4, "num_sites": 2}
_PLAY: dict[str, Any] = {"evaluations": 2, "validation_envs": 4, "test_envs": 0, "threads": 1, "seed": 3}
_FIT: dict[str, Any] = {
    "pool": 200,
    "validation": 50,
    "samples": 640,
    "local_samples": 320,
    "batch_size": 32,
    "evaluations": 2,
    "checkpoint_every": 6,
    "channels": (4,),
    "fusion_size": 8,
    "fusion_hidden": 8,
    "heads": 2,
    "encoder_hidden": 8,
    "threads": 1,
}


@dataclass(frozen=True)
class Subject:
    """One kind of training.

    Attributes:
        name: of its agent.
        make: a fresh agent, always the same.
        steps: of a whole run; None: what its settings say.
    """

    name: str
    make: Callable[[], Any]
    steps: int | None

    def train(self, folder: Path, resume: bool, callback: Callable[[int], None] | None = None) -> None:
        """Begin a run in a folder, or go on with it."""
        where: dict[str, Any] = {"resume": folder} if resume else {"log_dir": folder, "total_steps": self.steps}
        self.make().train(**where, progress=False, callback=callback)


def subjects() -> dict[str, Subject]:
    """All kinds by name; ``ecc`` has two stages."""
    return {
        "maddpg": Subject("maddpg", _maddpg, 192),
        "sb3-ppo": Subject("sb3-ppo", _ppo, 192),
        "ecc-fast": Subject("ecc-fast", lambda: _ecc("ecc-fast"), None),
        "ecc": Subject("ecc", lambda: _ecc("ecc"), None),
    }


def weights(folder: Path) -> list[torch.Tensor]:
    """Of the policy that a finished run gives."""
    return list(_tensors(read_checkpoint(folder / BEST)["agent"]))


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    """Bit for bit."""
    return len(one) == len(other) and all(torch.equal(left, right) for left, right in zip(one, other, strict=True))


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)


def _maddpg() -> Any:
    env = make_env("dcp-rss-v0", num_envs=8, seed=3, **_SCENE)
    small: dict[str, Any] = {
        "actor_hidden": (8,),
        "critic_hidden": (8,),
        "batch_size": 64,
        "buffer_size": 256,
        "checkpoint_every": 24,
    }
    return make_agent("maddpg", env, **small, **_PLAY)


def _ppo() -> Any:
    env = make_env("dcp-rss-v0", num_envs=8, seed=3, **_SCENE)
    return make_agent("sb3-ppo", env, hidden=(8,), n_steps=4, n_epochs=2, checkpoint_every=32, **_PLAY)


def _ecc(name: str) -> Any:
    env = make_env("ecc-urban-small-v0", num_envs=2, seed=0, num_slots=2)
    return make_agent(name, env, **_FIT)
