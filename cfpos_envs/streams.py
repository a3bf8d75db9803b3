"""Named random streams: changing what one part of an experiment draws leaves every other part as it was."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from cfpos_envs.draws import CounterSource, Source

STREAM, COUNTER = RNGS = ("stream", "counter")
"""How episodes are drawn: one after another from running generators, or each by its number."""

_SEED_BITS = 63


def derive_seed(*parts: object) -> int:
    """Hash any printable parts to a seed; unlike addition, neighbouring seeds give unrelated streams.

    Args:
        parts: numbers and strings, e.g. ``derive_seed(7, "test", "layout", 3)``.

    Returns:
        An integer in [0, 2**63).
    """
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - _SEED_BITS)


class Streams:
    """A family of independent ``torch.Generator`` objects, one per name, made on first use.

    The split (``"train"`` or ``"test"``) is part of every seed, so training and evaluation never share a
    layout, a shadowing map or a drop, whatever the seed.

    Args:
        seed: any integer.
        split: name of the data split.
        device: where the generators draw.
    """

    def __init__(self, seed: int, split: str = "train", device: torch.device | str = "cpu") -> None:
        self.seed = int(seed)
        self.split = split
        self.device = torch.device(device)
        self.next_episode = 0
        self._generators: dict[str, torch.Generator] = {}

    def __getitem__(self, name: str) -> Source:
        """The running generator called ``name``."""
        if name not in self._generators:
            self._generators[name] = self._generator(name)
        return self._generators[name]

    def fresh(self, *name: object) -> Source:
        """A new generator at the start of the stream ``name``: always the same draws, whatever came before."""
        return self._generator(*name)

    def restarted(self) -> Streams:
        """The same family at its start."""
        return Streams(self.seed, self.split, self.device)

    def in_turn(self, name: str, count: int, wanted: int) -> Int[Tensor, " wanted"]:
        """The numbers 0 to count - 1 over and over from a random one on, for ``wanted`` episodes."""
        first = torch.randint(count, (1,), generator=self._running(name), device=self.device)
        return (first + torch.arange(wanted, device=self.device)) % count

    def episodes(self, count: int) -> EpisodeStreams:
        """Streams of the next ``count`` episodes, for ``rng=counter``."""
        numbers = torch.arange(self.next_episode, self.next_episode + count, device=self.device)
        self.next_episode += count
        return EpisodeStreams(self.seed, self.split, numbers)

    def parts(self, count: int) -> Streams:
        """Streams of ``count`` parts of every episode, part after part: where episodes are not told apart, these."""
        return self

    def of(self, rows: slice) -> Streams:
        """Streams of some episodes or parts: where they are not told apart, these."""
        return self

    def _running(self, name: str) -> torch.Generator:
        found = self[name]
        assert isinstance(found, torch.Generator)
        return found

    def _generator(self, *name: object) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(derive_seed(self.seed, self.split, *name))

    def state_dict(self) -> dict:
        """Everything needed to go on with the same draws."""
        states = {name: generator.get_state() for name, generator in self._generators.items()}
        return {"seed": self.seed, "split": self.split, "episode": self.next_episode, "states": states}

    def load_state_dict(self, state: dict) -> None:
        """Take up the draws where ``state_dict`` left them."""
        self.seed, self.split = int(state["seed"]), str(state["split"])
        # Files of before there were counters have no number.
        self.next_episode = int(state.get("episode", 0))
        self._generators = {}
        for name, generator_state in state["states"].items():
            generator = torch.Generator(self.device)
            generator.set_state(generator_state)
            self._generators[name] = generator


class EpisodeStreams(Streams):
    """Streams of some episodes: what an episode draws follows from seed, split, stream and its number alone.

    Args:
        seed, split: see ``Streams``.
        numbers: of the episodes.
        name: of the family below seed and split.
    """

    def __init__(self, seed: int, split: str, numbers: Int[Tensor, " B"], name: str = COUNTER) -> None:
        super().__init__(seed, split, numbers.device)
        self.numbers, self.name = numbers, name
        self._sources: dict[str, CounterSource] = {}

    def __getitem__(self, name: str) -> CounterSource:
        """The source called ``name``, which goes on where it was left."""
        if name not in self._sources:
            key = derive_seed(self.seed, self.split, self.name, name)
            self._sources[name] = CounterSource(torch.full_like(self.numbers, key), self.numbers)
        return self._sources[name]

    def fresh(self, *name: object) -> CounterSource:
        """What all episodes share, always the same."""
        key = derive_seed(self.seed, self.split, self.name, "shared", *name)
        nothing = torch.zeros(1, dtype=torch.long, device=self.device)
        return CounterSource(nothing + key, nothing)

    def restarted(self) -> EpisodeStreams:
        """The same family of no episode: for what all share."""
        return EpisodeStreams(self.seed, self.split, self.numbers[:0], self.name)

    def in_turn(self, name: str, count: int, wanted: int) -> Int[Tensor, " wanted"]:
        """The numbers 0 to count - 1 over and over, by the numbers of the episodes."""
        first = derive_seed(self.seed, self.split, self.name, "first", name) % count
        return (first + self.numbers) % count

    def parts(self, count: int) -> EpisodeStreams:
        """Streams of ``count`` parts of every episode, one part after another."""
        numbers = self.numbers.unsqueeze(1) * count + torch.arange(count, device=self.device)
        return EpisodeStreams(self.seed, self.split, numbers.flatten(), f"{self.name}/{count}")

    def of(self, rows: slice) -> EpisodeStreams:
        """Streams of some of the episodes or parts, which go on where these stand and leave them there."""
        part = EpisodeStreams(self.seed, self.split, self.numbers[rows], self.name)
        part._sources = {name: source.select(rows) for name, source in self._sources.items()}
        return part


class NumberedStreams(Streams):
    """Streams whose episodes have given numbers instead of the next ones, for ``rng=counter``.

    Args:
        seed, split, device: see ``Streams``.
        numbers: of all episodes that are to be drawn.
    """

    def __init__(self, seed: int, split: str, device: torch.device | str, numbers: Sequence[int]) -> None:
        super().__init__(seed, split, device)
        self._numbers = list(numbers)

    def episodes(self, count: int) -> EpisodeStreams:
        """Streams of the episodes.

        Raises:
            ValueError: another ``count`` than there are numbers.
        """
        if count != len(self._numbers):
            raise ValueError(f"{count} episodes are drawn, but {len(self._numbers)} have a number; draw as many")
        return EpisodeStreams(self.seed, self.split, torch.tensor(self._numbers, device=self.device))
