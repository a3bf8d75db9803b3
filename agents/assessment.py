"""Noise-free episodes on fixed drops: the label-free score that selects, and the metres that are only reported."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.front_ends.base import BatchedEnv
from cfpos_envs.front_ends.vector import VectorEnv
from cfpos_envs.scenarios.base import TensorState

from .base import Agent


@dataclass(frozen=True)
class Assessment:
    """What noise-free episodes gave.

    Attributes:
        scores: [episodes] label-free score at the end of each.
        metres: ``rmse_m`` and ``bound_rmse_m`` where the environment knows the truth (and has a bound).
    """

    scores: Tensor
    metres: dict[str, float]

    @property
    def score(self) -> float:
        """Mean over the episodes."""
        return float(self.scores.mean())


def is_as_good(scores: Float[Tensor, " episodes"], record: Float[Tensor, " episodes"]) -> bool:
    """Whether scores on the same episodes are not below ``record`` by more than one standard error of the difference.

    Between neighbouring states of a run the score differs by less than its noise; a bare maximum would then pick an
    early state by luck over a later, better one.
    """
    difference = scores - record
    error = difference.std(correction=0) / len(difference) ** 0.5
    return bool(difference.mean() >= -error)


class FixedDrops:
    """The same episodes every time, so that two policies, or two states of one, are compared on equal terms.

    Args:
        env: an environment of its own (``BatchedEnv.sibling``).
        seed: names the drops.
        episodes: at least this many are played.
    """

    def __init__(self, env: BatchedEnv, seed: int, episodes: int) -> None:
        self.env, self.seed = env, seed
        self.batches = math.ceil(episodes / env.num_envs)
        self._starts: dict[int, TensorState] = {}

    def play(self, agent: Agent) -> Assessment:
        """Play all episodes without noise.

        Returns:
            The label-free scores at the end, and metres where the environment knows the truth.
        """
        scores, errors, bounds = [], [], []
        for batch in range(self.batches):
            observations, done, step = self._begin(batch), False, None
            while not done:
                step = self.env.step(agent.act_batch(observations).to(self.env.device))
                observations = step.observations
                done = bool((step.terminated | step.truncated).all())
            assert step is not None
            scores.append(step.metrics["score"].flatten())
            truth = self.env.truth()
            errors.append(truth.get("error_m", torch.zeros(0)).flatten())
            bounds.append(truth.get("peb_m", torch.zeros(0)).flatten())
        metres = {}
        for name, values in (("rmse_m", torch.cat(errors)), ("bound_rmse_m", torch.cat(bounds))):
            if values.numel():
                metres[name] = float(values.square().mean().sqrt())
        return Assessment(torch.cat(scores), metres)

    def _begin(self, batch: int) -> torch.Tensor:
        # Our own games need not draw the same episodes again.
        env = self.env
        if isinstance(env, VectorEnv) and batch in self._starts:
            env.game_state = self._starts[batch]
            return env.observe()
        observations = env.reset(seed=self.seed + batch)
        if isinstance(env, VectorEnv):
            self._starts[batch] = env.game_state
        return observations
