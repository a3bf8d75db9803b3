"""XuanCe: ``MADDPG_Learner.update`` on a batch of random transitions. Prints JSON; see ``trainer_yardsticks``."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from argparse import Namespace
from collections.abc import Callable

import numpy as np
import torch
from gymnasium.spaces import Box
from xuance.common import MultiAgentBaseCallback
from xuance.torch.learners import MADDPG_Learner
from xuance.torch.policies import REGISTRY_Policy
from xuance.torch.representations import Basic_Identical

from cfpos.scripts.benchmarks.common import Options, cpu_s
from cfpos.scripts.benchmarks.trainer_sizes import ACTION, OBSERVATION, Size, sizes


def updater(size: Size) -> Callable[[], object]:
    """One update on random transitions, ready to be called."""
    names = [f"agent_{index}" for index in range(size.agents)]
    hidden = [size.hidden, size.hidden]
    acted = {name: Box(-1.0, 1.0, (ACTION,), np.float32) for name in names}
    joint = size.agents * (OBSERVATION + ACTION)

    def inputs(width: int) -> torch.nn.ModuleDict:
        return torch.nn.ModuleDict({name: Basic_Identical((width,), device="cpu") for name in names})

    policy = REGISTRY_Policy["MADDPG_Policy"](
        action_space=acted,
        n_agents=size.agents,
        actor_representation=inputs(OBSERVATION),
        critic_representation=inputs(joint),
        actor_hidden_size=hidden,
        critic_hidden_size=hidden,
        normalize=None,
        initialize=torch.nn.init.orthogonal_,
        activation=torch.nn.ReLU,
        device="cpu",
        use_distributed_training=False,
        activation_action=torch.nn.Tanh,
        use_parameter_sharing=False,
        model_keys=names,
        use_rnn=False,
        rnn=None,
    )
    settings = Namespace(
        learning_rate_actor=1e-3,
        learning_rate_critic=1e-3,
        gamma=0.95,
        tau=0.01,
        distributed_training=False,
        n_agents=size.agents,
        use_parameter_sharing=False,
        episode_length=25,
        use_grad_clip=True,
        grad_clip_norm=1.0,
        device="cpu",
        model_dir="",
        running_steps=10_000_000,
        parallels=1,
    )
    learner = MADDPG_Learner(settings, names, names, policy, MultiAgentBaseCallback())
    draw = np.random.default_rng(0)

    def part(*width: int) -> dict[str, np.ndarray]:
        return {name: draw.standard_normal((size.batch, *width)).astype(np.float32) for name in names}

    stored = {
        "batch_size": size.batch,
        "obs": part(OBSERVATION),
        "actions": {name: np.tanh(value) for name, value in part(ACTION).items()},
        "obs_next": part(OBSERVATION),
        "rewards": part(),
        "terminals": {name: np.zeros(size.batch, np.float32) for name in names},
        "agent_mask": {name: np.ones(size.batch, np.float32) for name in names},
    }
    return lambda: learner.update(stored)


if __name__ == "__main__":
    chosen = Options.from_json(sys.argv[1])
    torch.set_num_threads(chosen.threads)
    seconds = [cpu_s(updater(size), chosen) for size in sizes(chosen)]
    version = importlib.metadata.version("xuance")
    print(json.dumps({f"XuanCe {version}": seconds}))
