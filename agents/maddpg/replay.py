"""Replay memory of transitions, on tensors."""

from __future__ import annotations

from collections import deque
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
        acted: whether there is something to learn from an agent's row; None: from all.
    """

    observations: Float[Tensor, "N n obs"]
    actions: Float[Tensor, "N n act"]
    rewards: Float[Tensor, "N n"]
    terminated: Bool[Tensor, "N n"]
    next_observations: Float[Tensor, "N n obs"] | None
    acted: Bool[Tensor, "N n"] | None = None

    def split(self, samples: int) -> list[Batch]:
        """The transitions in parts of at most ``samples``."""
        if len(self.rewards) <= samples:
            return [self]
        fields = (self.observations, self.actions, self.rewards, self.terminated, self.next_observations, self.acted)
        begins = range(0, len(self.rewards), samples)
        return [Batch(*(None if x is None else x[begin : begin + samples] for x in fields)) for begin in begins]  # type: ignore[arg-type]


class Replay:
    """A ring buffer of the last ``capacity`` transitions of ``agents`` agents, allocated once.

    A transition is one row of numbers, so that a sample is fetched from one place of the memory in one operation; the
    parts of a batch are views of the fetched rows. Transitions from which there is nothing to learn take no row, but
    count: what is remembered does not reach further back for them.

    Args:
        capacity: transitions.
        agents: vectors per transition; 1 where the trainer learns from single (agent, entity) pairs.
        observation_size, action_size: of one agent.
        keep_next: whether next observations are stored (needless without bootstrapping).
        keep_acted: whether it is stored which agents acted (needless where all do).
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
        keep_acted: bool = False,
    ) -> None:
        self.capacity, self.agents, self.keep_next, self.keep_acted = capacity, agents, keep_next, keep_acted
        self.generator = generator
        self.size = 0
        self._start = 0
        # Whether an agent did not act in some transition that is or was here.
        self._idle = False
        # Which of the transitions in reach have a row, oldest first, in the pieces in which they came.
        self._marks: deque[Tensor] = deque()
        self._transitions = 0
        # Observations, actions, rewards, terminated and, where they are kept, next observations and who acted.
        sizes = [observation_size, action_size, 1, 1, *([observation_size] * keep_next), *([1] * keep_acted)]
        self._parts = [agents * size for size in sizes]
        self._rows = torch.zeros(capacity, sum(self._parts), device=device)

    def add(
        self,
        observations: Float[Tensor, "B n obs"],
        actions: Float[Tensor, "B n act"],
        rewards: Float[Tensor, "B n"],
        terminated: Bool[Tensor, "B n"],
        next_observations: Float[Tensor, "B n obs"] | None = None,
        valid: Bool[Tensor, " B"] | None = None,
        acted: Bool[Tensor, "B n"] | None = None,
    ) -> None:
        """Store B transitions over the oldest ones; of more than the capacity the last ones stay.

        Args:
            observations, actions, rewards, terminated, next_observations, acted: see ``Batch``; the last two are
                needed only where they are kept.
            valid: whether there is something to learn from a transition; the others are never drawn. None: all.
        """
        given = [observations, actions, rewards, terminated]
        if self.keep_next:
            assert next_observations is not None
            given.append(next_observations)
        if self.keep_acted:
            assert acted is not None
            given.append(acted)
            self._idle = self._idle or not bool(acted.all())
        rows = torch.cat([values.flatten(1).to(self._rows) for values in given], 1)[-self.capacity :]
        if valid is None:
            marks = torch.ones(len(rows), dtype=torch.bool)
        else:
            marks = valid[-self.capacity :]
            rows = rows[marks.to(rows.device)]
        self._forget(self._transitions + len(marks) - self.capacity)
        self._marks.append(marks.cpu())
        self._transitions += len(marks)
        end = (self._start + self.size) % self.capacity
        before_the_edge = min(len(rows), self.capacity - end)
        self._rows[end : end + before_the_edge] = rows[:before_the_edge]
        self._rows[: len(rows) - before_the_edge] = rows[before_the_edge:]
        self.size += len(rows)

    def sample(self, count: int) -> Batch:
        """``count`` transitions, uniformly with replacement.

        Raises:
            ValueError: nothing valid is stored.
        """
        if self.size == 0:
            raise ValueError("the replay memory is empty; add transitions before sampling.")
        index = torch.randint(self.size, (count,), generator=self.generator, device=self.generator.device)
        index = (index + self._start) % self.capacity
        parts = torch.index_select(self._rows, 0, index).split(self._parts, 1)
        observations, actions, rewards, terminated, *kept = (part.view(count, self.agents, -1) for part in parts)
        return Batch(
            observations,
            actions,
            rewards.squeeze(-1),
            terminated.squeeze(-1) > 0,
            kept[0] if self.keep_next else None,
            kept[-1].squeeze(-1) > 0 if self._idle else None,
        )

    def state_dict(self) -> dict:
        """The filled part, oldest first, and the state of the sampling."""
        return {
            "rows": self._rows.roll(-self._start, 0)[: self.size].clone(),
            "valid": torch.cat([torch.ones(0, dtype=torch.bool), *self._marks]),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Take up where ``state_dict`` left; ValueError if the shapes are others."""
        rows, marks = state["rows"], state["valid"]
        if rows.shape[1:] != self._rows.shape[1:] or len(marks) > self.capacity:
            raise ValueError(
                f"the stored replay memory does not fit ({len(marks)} x {rows.shape[1]} into {self.capacity} x "
                f"{self._rows.shape[1]}); use the run's own buffer settings."
            )
        self._start, self.size, self._transitions = 0, len(rows), len(marks)
        self._marks = deque([marks])
        self._rows[: self.size] = rows
        self._idle = self.keep_acted and not bool(rows[:, -self.agents :].all())
        self.generator.set_state(state["generator"])

    def _forget(self, excess: int) -> None:
        """Give up the oldest ``excess`` transitions (none if negative)."""
        while excess > 0:
            oldest = self._marks.popleft()
            gone, rest = oldest[:excess], oldest[excess:]
            if len(rest) > 0:
                self._marks.appendleft(rest)
            rows = int(gone.sum())
            self._start = (self._start + rows) % self.capacity
            self.size -= rows
            self._transitions -= len(gone)
            excess -= len(gone)
