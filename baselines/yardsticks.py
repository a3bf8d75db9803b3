"""Policies that estimate nothing and play any game: random actions, and none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.checks import SEEDS
from cfpos_envs.fields import Declared, Range

from .base import Policy

if TYPE_CHECKING:
    from .base import Env


@dataclass(frozen=True)
class RandomOptions(Declared):
    """Options of ``random``.

    Attributes:
        seed: of the policy's own random stream, which runs on over episodes.
    """

    ranges: ClassVar[Mapping[str, Range]] = {"seed": SEEDS}

    seed: int = 0


class RandomPolicy(Policy):
    """Uniform actions in [-1, 1]: what a game does without any policy (in ``confidence`` games still a fair fix)."""

    name: ClassVar[str] = "random"
    options_class: ClassVar[type] = RandomOptions
    options: RandomOptions

    def __init__(self, env: Env | None = None, options: RandomOptions | None = None) -> None:
        super().__init__(env, options)
        self._generator = torch.Generator().manual_seed(self.options.seed)

    def act(self, observations: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Uniform actions of every agent."""
        return {
            agent: (2 * torch.rand(_action_shape(self._required_env(), agent), generator=self._generator) - 1).numpy()
            for agent in observations
        }

    def act_batch(self, observations: Float[Tensor, "B n obs"]) -> Float[Tensor, "B n act"]:
        """Uniform actions of every agent in every episode."""
        shape = (*observations.shape[:-1], self._required_env().action_size)
        return (2 * torch.rand(shape, generator=self._generator) - 1).to(observations.device)


class Untrained(Policy):
    """The neutral action 0 in every round: what the game's own physics achieves before anything is learned."""

    name: ClassVar[str] = "untrained"

    def act(self, observations: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Zeros for every agent."""
        env = self._required_env()
        return {agent: np.zeros(_action_shape(env, agent), dtype=np.float32) for agent in observations}

    def act_batch(self, observations: Float[Tensor, "B n obs"]) -> Float[Tensor, "B n act"]:
        """Zeros for every agent in every episode."""
        return observations.new_zeros(*observations.shape[:-1], self._required_env().action_size)


def _action_shape(env: Env, agent: str) -> tuple[int, ...]:
    # A ParallelEnv, ours or anybody's, has spaces; a VectorEnv has one size for all agents.
    if hasattr(env, "action_space"):
        shape: tuple[int, ...] = env.action_space(agent).shape
        return shape
    return (env.action_size,)
