"""The toy with episodes of different lengths, drawn by their numbers: what no registered game has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cfpos_envs import draws
from cfpos_envs.front_ends import ParallelEnv, SingleAgentEnv, VectorEnv
from cfpos_envs.scenarios.base import Transition
from cfpos_envs.streams import Streams
from tests.front_ends.toy import ToyConfig, ToyScenario, ToyState


@dataclass(frozen=True)
class EndingConfig(ToyConfig):
    rng: str = "counter"
    rounds: int = 5


class EndingToy(ToyScenario):
    """Toy that is terminated after one to four rounds, as the first user's place says."""

    config_class = EndingConfig

    def reset(self, streams: Streams, num_envs: int) -> ToyState:
        drawn, config = self.drawing(streams, num_envs), self.config
        true = config.side_m * draws.uniform(drawn["drop"], num_envs, config.num_ues, 2)
        noise = 0.1 * draws.normal(drawn["noise"], num_envs, config.num_ues, 2)
        aps = config.side_m * draws.uniform(drawn["layout"], num_envs, config.num_aps, 2)
        return ToyState(true, true + noise, torch.full_like(true, config.side_m / 2), aps, torch.zeros(num_envs))

    def step(self, state: ToyState, actions: Tensor) -> Transition[ToyState]:
        played = super().step(state, actions)
        length = 1 + (state.true_position_m[:, 0, 0] / self.config.side_m * 4).floor()
        played.terminated = played.state.round >= length
        return played


def ending_toy(num_envs: int, **kwargs: Any) -> VectorEnv:
    """A batch of it; ``rng`` and what ``VectorEnv`` takes."""
    config = EndingConfig(rng=kwargs.pop("rng", "counter"))
    return VectorEnv(EndingToy(config), num_envs, **{"seed": 0, **kwargs})


def single_ending_toy() -> SingleAgentEnv:
    """One episode for one agent."""
    return SingleAgentEnv(ParallelEnv(EndingToy(EndingConfig()), seed=0))
