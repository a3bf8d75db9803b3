"""What everything above relies on in an environment, whichever front end it is and whoever wrote the game."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from cfpos_envs.checkpoints import State
from cfpos_envs.front_ends.resets import Options, Seed
from cfpos_envs.scenarios.base import Entities, Scenario

Game = Scenario[Any]
"""A scenario of whatever state."""


class VectorStep(NamedTuple):
    """What one round of ``num_envs`` episodes gives.

    Attributes:
        observations: [B, n, observation_size] float32 in [-1, 1].
        rewards: [B, n] one number per agent.
        terminated, truncated: [B] flags; bootstrap through ``truncated``, not through ``terminated``.
        metrics: label-free tensors by name, see ``cfpos_envs.scenarios.base.Transition``.
    """

    observations: Tensor
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    metrics: dict[str, Tensor]


class Env(ABC):
    """What all front ends have in common.

    Attributes:
        env_id: the registered id, or another name for reports.
        scenario: the game; None for a game of other people behind an adapter.
        device: where its tensors are.
        observation_size, action_size: length of one agent's vectors.
        entities: see ``cfpos_envs.scenarios.base.Entities``; None where vectors have no such structure.
    """

    env_id: str
    scenario: Game | None = None
    device: torch.device
    observation_size: int
    action_size: int
    entities: Entities | None = None

    @property
    def differentiable(self) -> bool:
        """Whether the game gives an objective that is differentiable in the actions."""
        return self.scenario is not None and self.scenario.differentiable

    def signature(self) -> State:
        """What a policy relies on, see ``Scenario.signature``; a game without a family goes by its class."""
        if self.scenario is None:
            return {"family": self.env_id, "observation": [], "action": [], "ranges": {}}
        found = self.scenario.signature()
        return {**found, "family": found["family"] or type(self.scenario).__name__}

    def options(self) -> Mapping[str, object]:
        """The game's config by name; nothing of other people's games."""
        return {} if self.scenario is None else vars(self.scenario.config)

    @abstractmethod
    def batched(self, num_envs: int, seed: int) -> BatchedEnv:
        """The same game as tensors: itself if it already is, else a new environment.

        Args:
            num_envs: parallel episodes of a new one.
            seed: of a new one.
        """


class BatchedEnv(Env):
    """Many episodes at once, tensors in and out: what trainers play.

    Attributes:
        metadata: ``autoreset_mode``, a ``gymnasium.vector.AutoresetMode``: what follows the end of an episode.
        agents: names in the order of the second dimension.
        num_envs: number of episodes B.
        knows_truth: whether ``truth`` holds errors in metres.
        agents_leave: whether agents may come and go during an episode; the step metrics then hold ``agent_terminated``
            [B, n], whose end is final, and ``agent_valid`` [B, n], who acted and has something to learn from the round.
    """

    metadata: Mapping[str, Any] = {"autoreset_mode": AutoresetMode.DISABLED}
    agents: tuple[str, ...]
    num_envs: int
    knows_truth: ClassVar[bool] = False
    agents_leave: ClassVar[bool] = False

    @abstractmethod
    def reset(self, seed: Seed = None, options: Options = None) -> Tensor:
        """Begin all episodes, or those of ``options["reset_mask"]``; an integer restarts the random streams, a list has
        one seed per episode. Observations [B, n, observation_size] of all."""

    @abstractmethod
    def step(self, actions: Tensor) -> VectorStep:
        """Play one round with ``actions`` [B, n, action_size] in [-1, 1]."""

    @abstractmethod
    def state_dict(self) -> State:
        """Everything needed to go on bit for bit: tensors and plain values."""

    @abstractmethod
    def load_state_dict(self, state: State) -> None:
        """Go on where ``state_dict`` stopped."""

    @abstractmethod
    def sibling(self, num_envs: int, seed: int, split: str | None = None) -> BatchedEnv:
        """A second environment like this one that shares no running state with it.

        Args:
            num_envs: its number of episodes, where it can be chosen.
            seed: start of its random streams.
            split: another data split (``"test"``), where the game has splits; None: the same.
        """

    def truth(self) -> dict[str, Tensor]:
        """True positions, errors and bounds; for reports, never for training."""
        return {}

    def batched(self, num_envs: int, seed: int) -> BatchedEnv:
        """Itself."""
        return self

    def pack(self, observations: Mapping[str, np.ndarray]) -> Tensor:
        """Observations by agent name as one tensor [1, n, observation_size], in the order given."""
        rows = [np.asarray(observation, dtype=np.float32) for observation in observations.values()]
        return torch.as_tensor(np.stack(rows))[None]

    def unpack(self, actions: Tensor, agents: Sequence[str]) -> dict[str, np.ndarray]:
        """Actions [1, n, action_size] that answer ``pack``, by agent name."""
        return dict(zip(agents, actions[0].detach().cpu().numpy(), strict=True))


def begin_by_reset(env: BatchedEnv) -> None:
    """ValueError where episodes begin anew by themselves: who calls ``reset`` at their end would mix two of them."""
    mode = env.metadata["autoreset_mode"]
    if mode != AutoresetMode.DISABLED:
        raise ValueError(
            f"{env.env_id} has autoreset_mode={mode.value}, but episodes are begun by reset() here; make the env "
            "without it"
        )
