"""Replay memory of joint transitions, on tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """N transitions of n agents.

    Attributes:
        observations, actions, rewards: what was seen, done and got.
        terminated: true where nothing follows; never true for an episode cut off by its time limit.
        next_observations: what followed (the true last observation at a cut-off); None if the memory keeps none.
    """

    observations: Float[Tensor, "N n obs"]
    actions: Float[Tensor, "N n act"]
    rewards: Float[Tensor, "N n"]
    terminated: Bool[Tensor, "N n"]
    next_observations: Float[Tensor, "N n obs"] | None


class Replay:
    """A ring buffer of the last ``capacity`` joint transitions, allocated once.

    ``units`` is the number of agents, or of (agent, entity) pairs where the trainer learns from single pairs.

    Args:
        capacity: joint transitions.
        units: vectors per transition.
        observation_size, action_size: of one unit.
        keep_next: whether next observations are stored (needless without bootstrapping).
        generator: source of the samples.
        device: where the memory lives.
    """

    def __init__(
        self,
        capacity: int,
        units: int,
        observation_size: int,
        action_size: int,
        keep_next: bool,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        self.capacity, self.units = capacity, units
        self.generator = generator
        self.size = 0
        self._cursor = 0
        floats = {"observations": (units, observation_size), "actions": (units, action_size), "rewards": (units,)}
        if keep_next:
            floats["next_observations"] = (units, observation_size)
        self._data = {name: torch.zeros(capacity, *shape, device=device) for name, shape in floats.items()}
        self._data["terminated"] = torch.zeros(capacity, units, dtype=torch.bool, device=device)
        self._data["valid"] = torch.zeros(capacity, units, dtype=torch.bool, device=device)
        self._valid_rows: Tensor | None = None

    def add(
        self,
        observations: Float[Tensor, "B units obs"],
        actions: Float[Tensor, "B units act"],
        rewards: Float[Tensor, "B units"],
        terminated: Bool[Tensor, "B units"],
        next_observations: Float[Tensor, "B units obs"],
        valid: Bool[Tensor, "B units"] | None = None,
    ) -> None:
        """Store B transitions over the oldest ones; of more than the capacity the last ones stay.

        Args:
            observations, actions, rewards, terminated, next_observations: see ``Batch``.
            valid: units whose action had an effect; the others are not drawn by ``sample_units``. None: all.
        """
        given = {
            "observations": observations,
            "actions": actions,
            "rewards": rewards,
            "terminated": terminated,
            "next_observations": next_observations,
            "valid": torch.ones_like(terminated) if valid is None else valid,
        }
        self._valid_rows = None
        count = observations.shape[0]
        kept = min(count, self.capacity)
        first = self._cursor + count - kept
        index = torch.arange(first, first + kept, device=self._data["rewards"].device) % self.capacity
        for name, memory in self._data.items():
            memory[index] = given[name][count - kept :].to(memory)
        self._cursor = (self._cursor + count) % self.capacity
        self.size = min(self.size + count, self.capacity)

    def sample(self, count: int) -> Batch:
        """``count`` joint transitions, uniformly with replacement."""
        index = self._draw(self.size, count)
        return self._batch({name: memory[index] for name, memory in self._data.items()})

    def sample_units(self, count: int) -> Batch:
        """``count`` single valid units from all over the memory, as transitions of a game with one agent."""
        if self._valid_rows is None:
            self._valid_rows = self._data["valid"][: self.size].flatten().nonzero().squeeze(-1)
        index = self._valid_rows[self._draw(len(self._valid_rows), count)]
        return self._batch({name: memory.flatten(0, 1)[index][:, None] for name, memory in self._data.items()})

    def state_dict(self) -> dict:
        """The filled part, the place of the next write and the state of the sampling."""
        data = {name: memory[: self.size].clone() for name, memory in self._data.items()}
        return {"data": data, "cursor": self._cursor, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict) -> None:
        """Take up where ``state_dict`` left; ValueError if the shapes are others."""
        data = state["data"]
        for name, memory in self._data.items():
            if name not in data or data[name].shape[1:] != memory.shape[1:] or len(data[name]) > self.capacity:
                raise ValueError(f"the stored replay memory does not fit ({name}); use the run's own buffer settings.")
        self.size, self._cursor = len(data["rewards"]), int(state["cursor"])
        self._valid_rows = None
        for name, memory in self._data.items():
            memory[: self.size] = data[name]
        self.generator.set_state(state["generator"])

    def _draw(self, high: int, count: int) -> Tensor:
        if high == 0:
            raise ValueError("the replay memory is empty; add transitions before sampling.")
        return torch.randint(high, (count,), generator=self.generator, device=self.generator.device)

    def _batch(self, data: dict[str, Tensor]) -> Batch:
        return Batch(
            data["observations"],
            data["actions"],
            data["rewards"],
            data["terminated"],
            data.get("next_observations"),
        )
