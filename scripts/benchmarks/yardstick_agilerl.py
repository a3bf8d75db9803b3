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

from cfpos.scripts.benchmarks.common import Options, cpu_s
from cfpos.scripts.benchmarks.trainer_sizes import ACTION, OBSERVATION, Size, sizes


def updater(size: Size, lean: bool) -> Callable[[], object]:
    """One update on random transitions, ready to be called.

    Args:
        size: see there.
        lean: as few layers as its networks allow and no layer norm; else its own defaults with two hidden layers
            wherever it asks for hidden layers.
    """
    # Agents whose names differ only behind an underscore would share their networks.
    names = [f"agent{index}" for index in range(size.agents)]
    observed = [Box(-np.inf, np.inf, (OBSERVATION,), np.float32) for _ in names]
    acted = [Box(-1.0, 1.0, (ACTION,), np.float32) for _ in names]
    # Even lean, its actors have one layer more than everybody else's; its critics see the actions in the second layer.
    hidden = [size.hidden] if lean else [size.hidden, size.hidden]
    layers: dict[str, object] = {"hidden_size": hidden, **({"layer_norm": False} if lean else {})}
    net = {"encoder_config": layers, "head_config": layers, "latent_dim": size.hidden, "max_latent_dim": 4096}
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
    version = importlib.metadata.version("agilerl")
    seconds_of = {
        f"AgileRL {version}, {label}": [cpu_s(updater(size, lean), chosen) for size in sizes(chosen)]
        for label, lean in (("lean", True), ("its defaults", False))
    }
    print(json.dumps(seconds_of))
