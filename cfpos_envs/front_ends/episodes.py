"""What a batch draws its episodes from: running streams, or a seed and a number for every place."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cfpos_envs.checkpoints import State
from cfpos_envs.front_ends.base import Game
from cfpos_envs.front_ends.resets import Seed, episode_seeds, is_single
from cfpos_envs.scenarios.base import TensorState
from cfpos_envs.streams import NumberedStreams, Streams, derive_seed


@dataclass
class Places:
    """Seed and number of the next episode of every place of a batch, and how far on the one after it is.

    A batch that was started by one seed takes as many numbers as it has places with every reset, so each place goes on
    in steps of that; a place with a seed of its own counts 0, 1, 2, ... So whatever happens to one place, what the
    others play next stays the same.

    Attributes:
        seeds, numbers, steps: one entry per place.
    """

    seeds: list[int]
    numbers: list[int]
    steps: list[int]

    @classmethod
    def of(cls, streams: Streams, num_envs: int) -> Places:
        """Those of a batch that has been reset as a whole so far."""
        first = streams.next_episode
        return cls([streams.seed] * num_envs, list(range(first, first + num_envs)), [num_envs] * num_envs)

    def restart(self, place: int, seed: int) -> None:
        """Let a place begin with episode 0 of a seed of its own."""
        self.seeds[place], self.numbers[place], self.steps[place] = seed, 0, 1

    def rejoin(self, place: int, seed: int) -> None:
        """Let a place begin with what it would begin with in a batch that is started by ``seed``."""
        self.seeds[place], self.numbers[place], self.steps[place] = seed, place, len(self.seeds)

    def take(self, places: Sequence[int]) -> dict[int, tuple[list[int], list[int]]]:
        """By seed those of the given places that draw from it, and the numbers of their next episodes; used up."""
        found: dict[int, tuple[list[int], list[int]]] = {}
        for place in places:
            rows, numbers = found.setdefault(self.seeds[place], ([], []))
            rows.append(place)
            numbers.append(self.numbers[place])
            self.numbers[place] += self.steps[place]
        return found


class Episodes:
    """Draws the episodes of a batch, all together or those of some places.

    Args:
        scenario: the game.
        num_envs: places B.
        seed: start of the random streams.

    Raises:
        ValueError: a seed that is not an integer.
    """

    def __init__(self, scenario: Game, num_envs: int, seed: int) -> None:
        self._scenario, self._num_envs = scenario, num_envs
        self._streams = self.streams(seed)
        # None: all have begun together so far, and the streams count.
        self._places: Places | None = None

    @property
    def seed(self) -> int:
        """With which the batch was last started."""
        return self._streams.seed

    def streams(self, seed: object) -> Streams:
        """New streams of the game.

        Raises:
            ValueError: a seed that is not an integer.
        """
        try:
            number = operator.index(seed)  # type: ignore[arg-type]
        except TypeError:
            raise ValueError(f"seed is {seed!r}; it must be an integer or None") from None
        return Streams(number, self._scenario.config.split, self._scenario.device)

    def reseed(self, seed: Seed, mask: np.ndarray | None) -> None:
        """Start anew what the places of ``mask`` [B] draw from; None: all.

        Args:
            seed: an integer, or one integer or None per place.
            mask: true for the places that are meant.

        Raises:
            ValueError: seeds that are none; some places have their own, but the game draws from running generators.
        """
        single = is_single(seed)
        if single and mask is None:
            self._streams, self._places = self.streams(seed), None
            return
        wanted = [self.streams(seed).seed] * self._num_envs if single else episode_seeds(seed, self._num_envs)
        if not self._scenario.draws_by_number:
            if mask is None and self._num_envs == 1:
                self._streams = self._streams if wanted[0] is None else self.streams(wanted[0])
                return
            raise ValueError(
                "seeds of single episodes need episodes with numbers of their own; make the env with rng='counter', or "
                "reset all of them with one integer"
            )
        self._places = self._places or Places.of(self._streams, self._num_envs)
        begin = self._places.rejoin if single else self._places.restart
        for place in range(self._num_envs) if mask is None else np.flatnonzero(mask).tolist():
            number = wanted[place]
            if number is not None:
                begin(place, number)

    def fresh(self, mask: np.ndarray | None) -> TensorState:
        """The next episodes of the places of ``mask`` [B], one after another; None: of all."""
        places = range(self._num_envs) if mask is None else np.flatnonzero(mask).tolist()
        if not self._scenario.draws_by_number or (self._places is None and len(places) == self._num_envs):
            state: TensorState = self._scenario.reset(self._streams, len(places))
            return state
        self._places = self._places or Places.of(self._streams, self._num_envs)
        # Seed by seed, so that an episode of a seed of its own does not even share a rounding with others.
        parts, order = [], []
        for seed, (rows, numbers) in self._places.take(places).items():
            parts.append(self._drawn(seed, numbers))
            order += rows
        return parts[0] if len(parts) == 1 else _joined(parts).select(torch.tensor(np.argsort(order)))

    def state_dict(self) -> State:
        """Everything needed to go on with the same draws."""
        places = None if self._places is None else vars(self._places)
        return {"streams": self._streams.state_dict(), "places": places}

    def load_state_dict(self, state: State) -> None:
        """Take up the draws where ``state_dict`` left them; files of before places had numbers have none."""
        self._streams.load_state_dict(state["streams"])
        places = state.get("places")
        self._places = None if places is None else Places(**{name: list(map(int, places[name])) for name in places})

    def __getstate__(self) -> State:
        return {**self.__dict__, "_streams": self._streams.state_dict()}

    def __setstate__(self, state: State) -> None:
        self.__dict__.update(state)
        self._streams = self.streams(state["_streams"]["seed"])
        self._streams.load_state_dict(state["_streams"])

    def _drawn(self, seed: int, numbers: list[int]) -> TensorState:
        scenario, split = self._scenario, self._scenario.config.split
        state = scenario.reset(NumberedStreams(seed, split, scenario.device, numbers), len(numbers))
        if seed != self._streams.seed:
            state = scenario.relabelled(state, derive_seed(seed, split, "label") >> 1)
        found: TensorState = state
        return found


def _joined(parts: Sequence[TensorState]) -> TensorState:
    """The episodes of several states one after another."""
    columns: dict[str, list[Tensor | None]] = {
        name: [part.state_dict()[name] for part in parts] for name in parts[0].state_dict()
    }
    joined = {
        name: torch.cat([t for t in found if t is not None]) for name, found in columns.items() if found[0] is not None
    }
    return dataclasses.replace(parts[0], **joined)
