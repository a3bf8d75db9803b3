"""The interface between a Markov game and everything around it (front ends, trainers, evaluation)."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from cfpos_envs.streams import Streams

StateT = TypeVar("StateT", bound="TensorState")


@dataclass
class TensorState:
    """Base of scenario states: a dataclass of tensors with the episode as first dimension (None is allowed)."""

    def select(self: StateT, index: slice | Tensor) -> StateT:
        """Only the episodes ``index``."""
        return self._map(lambda tensor: tensor[index])

    def to(self: StateT, device: torch.device | str) -> StateT:
        """The same state on another device."""
        return self._map(lambda tensor: tensor.to(device))

    def detach(self: StateT) -> StateT:
        """The same state, cut from any gradient graph."""
        return self._map(lambda tensor: tensor.detach())

    def replace(self: StateT, **changes: Any) -> StateT:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def state_dict(self) -> dict[str, Tensor | None]:
        """The fields by name, for checkpoints."""
        return {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}

    def _map(self: StateT, function: Any) -> StateT:
        changes = {name: None if value is None else function(value) for name, value in self.state_dict().items()}
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class Entities:
    """How one agent's vectors split into equal parts, one per UE: a trainer may share one small network over them.

    Attributes:
        count: parts per agent (K).
        observation_size, action_size: length of one part; the agent's vectors are these parts one after another.
    """

    count: int
    observation_size: int
    action_size: int


@dataclass
class Transition(Generic[StateT]):
    """What one round gives.

    Attributes:
        state: the next state.
        reward: [B, n] one number per agent.
        terminated, truncated: [B] flags; scenarios with a fixed number of rounds only truncate.
        metrics: label-free tensors by name. Always ``score`` [B] (the label-free quality of the joint estimate, higher
            is better). Where the scenario has entities also ``entity_rewards`` [B, n, count] with sum over count =
            reward. Where ``scenario.differentiable``: ``objective`` [B, count], differentiable in the actions.
    """

    state: StateT
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


class Scenario(ABC, Generic[StateT]):
    """A batched Markov game. Stateless but for its config and caches: all randomness enters through ``reset``.

    Attributes:
        config: the validated config dataclass.
        family: what kind of measurements it makes ("dcp", "toa", "tdoa", "rtt"); policies tell which they take.
        agents: names, e.g. ``("ap_0", ...)``.
        observation_size, action_size: length of one agent's vectors, all within [-1, 1].
        rounds: episode length.
        entities: see ``Entities``; None where an agent's vectors have no such structure.
        differentiable: whether ``step`` puts a differentiable ``objective`` into its metrics.
        fixed_site: training and test play in one and the same place, as fingerprints demand, and share no drop.
        privileged_reward: the reward is made of the simulated truth.
    """

    config: Any
    family: str = ""
    agents: tuple[str, ...]
    observation_size: int
    action_size: int
    rounds: int
    entities: Entities | None = None
    differentiable: bool = False
    fixed_site: bool = False
    privileged_reward: bool = False

    @abstractmethod
    def reset(self, streams: Streams, num_envs: int) -> StateT:
        """Draw ``num_envs`` episodes. Every random number of the whole episode is drawn here."""

    @abstractmethod
    def observe(self, state: StateT) -> Tensor:
        """[B, n, observation_size] float32 in [-1, 1]. Never depends on the hidden truth."""

    @abstractmethod
    def step(self, state: StateT, actions: Tensor) -> Transition[StateT]:
        """One round. ``actions`` [B, n, action_size] in [-1, 1]. Deterministic, never changes ``state`` in place."""

    @abstractmethod
    def global_state(self, state: StateT) -> Tensor:
        """[B, state_size] in [-1, 1], for centralised critics; label-free too."""

    @property
    @abstractmethod
    def state_size(self) -> int:
        """Length of one row of ``global_state``."""

    @abstractmethod
    def estimate(self, state: StateT) -> Tensor:
        """[B, K, 2] current joint position estimate, metres."""

    @abstractmethod
    def truth(self, state: StateT) -> dict[str, Tensor]:
        """For ``infos`` and evaluation only: ``true_position`` [B, K, 2], ``error_m`` [B, K], ``rmse_m`` [B],
        ``peb_m`` [B, K] (position error bound; NaN-free; absent key if the scenario has no bound), and where this can
        happen ``valid`` [B, K]: false where the measurements do not determine a position."""

    @abstractmethod
    def measurements(self, state: StateT) -> Any:
        """What the central unit received, for estimators with a ``locate`` method."""

    @abstractmethod
    def encode_estimate(self, state: StateT, positions: Tensor) -> Tensor:
        """[B, n, action_size]: the actions by which every agent reports ``positions`` [B, K, 2] as nearly as the
        action space can say it."""

    @abstractmethod
    def with_estimate(self, state: StateT, positions: Tensor) -> StateT:
        """The state with the joint estimate set to ``positions`` [B, K, 2]."""

    @abstractmethod
    def describe(self) -> str:
        """Plain-text tables of observation, action, reward with units and ranges, generated from the code."""

    @abstractmethod
    def fronthaul_bits(self) -> float:
        """Bits that one AP sends to the central unit in one episode."""

    def counted_bits(self, policy: Any) -> float:
        """Bits that one agent sends to the central unit in one episode under ``policy``."""
        return self.fronthaul_bits()

    def draw(self, axes: Any, state: StateT, history: list[Tensor]) -> None:
        """Draw episode 0 of ``state`` on matplotlib ``axes``; ``history`` holds the estimates [K, 2] so far."""
        raise TypeError(f"{type(self).__name__} has no picture; override draw().")
