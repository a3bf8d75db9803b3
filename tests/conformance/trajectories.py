"""Random play whose every number can be compared; light to import, for it also runs in a process of its own."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cfpos_envs import make_env


def random_actions(venv: Any, seed: int) -> Tensor:
    """[B, n, action_size] uniform in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    shape = (venv.num_envs, len(venv.agents), venv.action_size)
    return 2 * torch.rand(shape, generator=generator) - 1


def play(env_id: str, seed: int, num_envs: int = 3, prepare: Callable[[Any], Any] = lambda state: state) -> list[dict]:
    """One batch of random episodes; ``prepare`` may change the first state. One dict of tensors per round."""
    venv = make_env(env_id, num_envs=num_envs)
    venv.reset(seed)
    venv.game_state = prepare(venv.game_state)
    rounds = [{"observations": venv.observe(), "state": venv.state(), "estimate": venv.estimate}]
    for index in range(venv.rounds):
        taken = venv.step(random_actions(venv, seed=100 + index))
        fields = {**taken._asdict(), **taken.metrics}
        del fields["metrics"]
        rounds.append({**fields, "state": venv.state(), "estimate": venv.estimate})
    rounds[-1]["error_m"] = venv.truth()["error_m"]
    return rounds


def digest(env_id: str, seed: int = 5) -> str:
    """Hash of every number of a random trajectory."""
    parts = [value.contiguous().numpy().tobytes() for entry in play(env_id, seed) for value in entry.values()]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def quiet_digest(env_id: str) -> str:
    """``digest`` after making sure that an episode with pictures moves no global random state."""
    before = global_random_state()
    env = make_env(env_id, seed=17, render_mode="rgb_array")
    env.reset()
    while env.agents:
        env.step({agent: env.action_space(agent).low for agent in env.agents})
    env.render()
    result = digest(env_id)
    assert global_random_state() == before, "a global random state was used"
    return result


def global_random_state() -> tuple[object, ...]:
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    return torch.get_rng_state().numpy().tobytes(), kind, np.asarray(keys).tobytes(), tuple(rest), random.getstate()
