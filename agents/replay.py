"""Replay memory of transitions, on tensors."""

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
    """A ring buffer of the last ``capacity`` transitions of ``agents`` agents, allocated once.

    A transition is one row of numbers, so that a sample is fetched from one place of the memory in one operation; the
    parts of a batch are views of the fetched rows.

    Args:
        capacity: transitions.
        agents: vectors per transition; 1 where the trainer learns from single (agent, entity) pairs.
        observation_size, action_size: of one agent.
        keep_next: whether next observations are stored (needless without bootstrapping).
        generator: source of the samples.
        device: where the memory lives.
    """

    def __init__(
        self,
        capacity: int,
        agents: int,
        observation_size: int,
        action_size: int,
        keep_next: bool,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        self.capacity, self.agents, self.keep_next = capacity, agents, keep_next
        self.generator = generator
        self.size = 0
        self._cursor = 0
        # Observations, actions, rewards, terminated and, where they are kept, next observations.
        sizes = [observation_size, action_size, 1, 1, *([observation_size] if keep_next else [])]
        self._parts = [agents * size for size in sizes]
        self._rows = torch.zeros(capacity, sum(self._parts), device=device)
        self._valid = torch.ones(capacity, dtype=torch.bool, device=device)
        self._all_valid = True
        self._valid_index: Tensor | None = None

    def add(
        self,
        observations: Float[Tensor, "B n obs"],
        actions: Float[Tensor, "B n act"],
        rewards: Float[Tensor, "B n"],
        terminated: Bool[Tensor, "B n"],
        next_observations: Float[Tensor, "B n obs"] | None = None,
        valid: Bool[Tensor, " B"] | None = None,
    ) -> None:
        """Store B transitions over the oldest ones; of more than the capacity the last ones stay.

        Args:
            observations, actions, rewards, terminated, next_observations: see ``Batch``; the last are needed only
                where they are kept.
            valid: whether there is something to learn from a transition; the others are never drawn. None: all.
        """
        given = [observations, actions, rewards, terminated]
        if self.keep_next:
            assert next_observations is not None
            given.append(next_observations)
        rows = torch.cat([values.flatten(1).to(self._rows) for values in given], 1)
        self._write(self._rows, rows)
        if valid is not None or not self._all_valid:
            self._all_valid, self._valid_index = False, None
            self._write(self._valid, rows.new_ones(len(rows), dtype=torch.bool) if valid is None else valid)
        self._cursor = (self._cursor + len(rows)) % self.capacity
        self.size = min(self.size + len(rows), self.capacity)

    def sample(self, count: int) -> Batch:
        """``count`` transitions, uniformly with replacement.

        Raises:
            ValueError: nothing valid is stored.
        """
        if not self._all_valid and self._valid_index is None:
            self._valid_index = self._valid[: self.size].nonzero().squeeze(-1)
        choices = self.size if self._valid_index is None else len(self._valid_index)
        if choices == 0:
            raise ValueError("the replay memory is empty; add transitions before sampling.")
        index = torch.randint(choices, (count,), generator=self.generator, device=self.generator.device)
        index = index if self._valid_index is None else self._valid_index[index]
        parts = torch.index_select(self._rows, 0, index).split(self._parts, 1)
        observations, actions, rewards, terminated, *following = (part.view(count, self.agents, -1) for part in parts)
        return Batch(
            observations,
            actions,
            rewards.squeeze(-1),
            terminated.squeeze(-1) > 0,
            following[0] if following else None,
        )

    def state_dict(self) -> dict:
        """The filled part, the place of the next write and the state of the sampling."""
        return {
            "rows": self._rows[: self.size].clone(),
            "valid": None if self._all_valid else self._valid[: self.size].clone(),
            "cursor": self._cursor,
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Take up where ``state_dict`` left; ValueError if the shapes are others."""
        rows = state["rows"]
        if rows.shape[1:] != self._rows.shape[1:] or len(rows) > self.capacity:
            raise ValueError(
                f"the stored replay memory does not fit ({tuple(rows.shape)} into {tuple(self._rows.shape)}); "
                "use the run's own buffer settings."
            )
        self.size, self._cursor = len(rows), int(state["cursor"])
        self._rows[: self.size] = rows
        self._all_valid, self._valid_index = state["valid"] is None, None
        if not self._all_valid:
            self._valid[: self.size] = state["valid"]
        self.generator.set_state(state["generator"])

    def _write(self, memory: Tensor, values: Tensor) -> None:
        """``values`` from the cursor on, over the end of the memory if need be; the last ones win."""
        skipped = max(len(values) - self.capacity, 0)
        begin = (self._cursor + skipped) % self.capacity
        values = values[skipped:]
        first = min(len(values), self.capacity - begin)
        memory[begin : begin + first] = values[:first]
        memory[: len(values) - first] = values[first:]
