"""AgileRL: ``MADDPG.learn`` on a batch of random transitions. Prints JSON; see ``trainer_yardsticks``."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Callable

import numpy as np
import torch
from agilerl.algorithms import MADDPG
from gymnasium.spaces import Box
from tensordict import TensorDict

from scripts.benchmarks.common import Options, cpu_s
from scripts.benchmarks.trainer_sizes import ACTION, OBSERVATION, Size, sizes


def updater(size: Size) -> Callable[[], object]:
    """One update on random transitions, ready to be called."""
    # Agents whose names differ only behind an underscore would share their networks.
    names = [f"agent{index}" for index in range(size.agents)]
    observed = [Box(-np.inf, np.inf, (OBSERVATION,), np.float32) for _ in names]
    acted = [Box(-1.0, 1.0, (ACTION,), np.float32) for _ in names]
    # Its critics are one layer on all observations, then one that sees the actions too; its actors have one layer more
    # than everybody else's.
    layer = {"hidden_size": [size.hidden], "layer_norm": False}
    net = {"encoder_config": layer, "head_config": layer, "latent_dim": size.hidden, "max_latent_dim": 4096}
    agent = MADDPG(observed, acted, agent_ids=names, net_config=net, batch_size=size.batch)
    draw = torch.Generator().manual_seed(0)

    def part(width: int) -> dict[str, torch.Tensor]:
        return {name: torch.randn(size.batch, width, generator=draw) for name in names}

    stored = TensorDict(
        {
            "obs": part(OBSERVATION),
            "action": {name: value.tanh() for name, value in part(ACTION).items()},
            "reward": part(1),
            "next_obs": part(OBSERVATION),
            "done": {name: torch.zeros(size.batch, 1) for name in names},
        },
        batch_size=[size.batch],
    )
    return lambda: agent.learn(stored)


if __name__ == "__main__":
    chosen = Options.from_json(sys.argv[1])
    torch.set_num_threads(chosen.threads)
    seconds = [cpu_s(updater(size), chosen) for size in sizes(chosen)]
    print(json.dumps({"version": f"AgileRL {importlib.metadata.version('agilerl')}", "update_s": seconds}))
