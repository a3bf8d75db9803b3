"""A training run that kills its own process: ``python -m tests.agents.interrupted_run GAME LOG_DIR STEP``."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import torch

from agents import make_agent
from tests.agents import probes

TOTAL = 480
SETTINGS: dict[str, Any] = {
    "actor_hidden": (8,),
    "critic_hidden": (8,),
    "batch_size": 64,
    "updates_per_step": 1,
    "buffer_size": 256,
    "warmup_steps": 64,
    "checkpoint_every": 50,
    "evaluations": 5,
    "validation_envs": 8,
    "test_envs": 8,
    "observation_normalisation": True,
    "seed": 3,
}
TD3: dict[str, Any] = {"twin_critics": True, "target_smoothing": 0.1, "policy_delay": 2}


def agent_for(game: str) -> Any:
    """The agent of one kind of run, always built alike."""
    if game == "zoo":
        return make_agent("maddpg", probes.UnequalZoo(rounds=3), **SETTINGS, update_every=4, **TD3)
    env = probes.probe_env(probes.Follow, num_envs=8, num_agents=2, num_ues=2, rounds=3, terminates=False)
    if game == "model":
        return make_agent("maddpg", env, critic="model", **SETTINGS)
    if game == "entity":
        return make_agent("maddpg", env, **SETTINGS)
    return make_agent("maddpg", env, preset="paper", noise="ou", **{**SETTINGS, "share": "separate"})


def main(game: str, log_dir: str, kill_at: int) -> None:
    """Train and die at ``kill_at`` without a chance to clean up."""
    torch.set_num_threads(1)

    def die(step: int) -> None:
        if step >= kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    agent_for(game).train(TOTAL, log_dir=log_dir, callback=die, progress=False)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
