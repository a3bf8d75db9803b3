"""A source of random numbers that are functions of seed, stream, episode and place."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfpos_envs.draws import exact, native
from cfpos_envs.draws.philox import Words, halves, philox

GAMMA_TRIES = 24
"""Proposals for a gamma number; that all are rejected happens once in 1e30, and then the last one counts."""


class CounterSource:
    """One stream of some episodes: row b of what is drawn depends on key and number of episode b alone.

    Every drawing takes the next blocks of four words, as many in every episode, so that the place of a number follows
    from what was drawn before it. Entry e of n numbers is word e // blocks of block e % blocks: neighbours come from
    neighbouring blocks, as vectors want it.

    Args:
        keys: one 64-bit number per episode, from seed and stream.
        episodes: numbers of the episodes.
    """

    def __init__(self, keys: Int[Tensor, " B"], episodes: Int[Tensor, " B"]) -> None:
        self._keys, self._episodes, self._next = keys, episodes, 0

    @property
    def device(self) -> torch.device:
        """Where the numbers are."""
        return self._keys.device

    @property
    def keys(self) -> Int[Tensor, " B"]:
        """One per episode."""
        return self._keys

    @property
    def episodes(self) -> Int[Tensor, " B"]:
        """Their numbers."""
        return self._episodes

    def select(self, rows: slice | Tensor) -> CounterSource:
        """A source of some of the episodes, which goes on where this one stands and leaves it there."""
        part = CounterSource(self._keys[rows], self._episodes[rows])
        part._next = self._next
        return part

    def claim(self, blocks: int) -> int:
        """The number of the next block; ``blocks`` of them are used up."""
        first = self._next
        self._next += blocks
        return first

    def words(self, count: int) -> Int[Tensor, "B count"]:
        """Uniform integers in [0, 2**32)."""
        first = self.claim(blocks_for(count))
        found = native.draw("words", self._keys, self._episodes, first, count)
        if found is not None:
            return found.long() & 0xFFFFFFFF
        return _ordered(self._blocks(first, blocks_for(count)), count)

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Numbers in [0, 1) of the given shape, whose first dimension runs over the episodes, or over parts of them."""
        count = self._each(shape)
        if dtype == torch.float64:
            blocks = -(-count // 2)
            w = self._blocks(self.claim(blocks), blocks)
            parts = (exact.uniform64(w[0], w[1]), exact.uniform64(w[2], w[3]))
            return _ordered(parts, count).reshape(shape)
        first = self.claim(blocks_for(count))
        found = native.draw("uniform", self._keys, self._episodes, first, count)
        if found is None:
            found = exact.uniform32(_ordered(self._blocks(first, blocks_for(count)), count))
        return found.reshape(shape).to(dtype)

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Normal numbers of mean 0 and variance 1; see ``uniform``."""
        count = self._each(shape)
        if dtype == torch.float64:
            blocks = -(-count // 2)
            pair = exact.normal64(self._blocks(self.claim(blocks), blocks))
            return _ordered(pair, count).reshape(shape)
        first = self.claim(blocks_for(count))
        found = native.draw("normal", self._keys, self._episodes, first, count)
        if found is None:
            w = self._blocks(first, blocks_for(count))
            found = _ordered((*exact.normal32(w[0], w[1]), *exact.normal32(w[2], w[3])), count)
        return found.reshape(shape).to(dtype)

    def gamma(self, shape: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Gamma numbers of scale 1, in single precision.

        Args:
            shape: > 0; its first dimension as in ``uniform``.
        """
        count = self._each(tuple(shape.shape))
        pairs = -(-count // 2)
        first = self.claim(gamma_blocks_for(count))
        wanted = shape.detach().to(torch.float32).reshape(len(self._keys), count).contiguous()
        found = native.draw("gamma", self._keys, self._episodes, first, count, wanted)
        if found is None:
            found = self._gamma(first, pairs, wanted)
        return found.reshape(shape.shape).to(shape.dtype)

    def tries(self, count: int, *shape: int) -> Iterator[CounterSource]:
        """``count`` sources for uniform numbers of ``shape``, for what is drawn until it fits.

        However many of them an episode needs, what is drawn afterwards is the same.
        """
        blocks = blocks_for(self._each(shape))
        first = self.claim(count * blocks)

        def each() -> Iterator[CounterSource]:
            for number in range(count):
                source = self.select(slice(None))
                source._next = first + number * blocks
                yield source

        return each()

    def permutation(self, count: int) -> Int[Tensor, " count"]:
        """The numbers 0 to count - 1 in random order; for a source of one episode."""
        return self.uniform(count, dtype=torch.float64).argsort(stable=True)

    def in_turn(self, count: int, wanted: int) -> Int[Tensor, " wanted"]:
        """Numbers 0 to count - 1 in random order, all of them before one comes again, over the episodes in their order.

        Episode e takes as many as each, those from e times as many on, of an endless row of random orders.
        """
        each = self._each((wanted,))
        places = self._episodes.unsqueeze(1) * each + torch.arange(each, device=self.device)
        orders, which = torch.unique(places // count, return_inverse=True)
        rows = []
        for number in orders:
            # Orders are drawn where no episode draws.
            source = CounterSource(self._keys[:1], -1 - number.view(1))
            rows.append(source.permutation(count))
        return torch.stack(rows)[which, places % count].flatten()

    def _each(self, shape: tuple[int, ...]) -> int:
        """Numbers per episode."""
        total, rows = math.prod(shape), len(self._keys)
        if rows == 0 or total % rows:
            raise ValueError(f"{total} numbers of shape {shape} cannot be shared out to {rows} episodes")
        return total // rows

    def _blocks(self, first: int, count: int) -> Words:
        """Four words [B, count] of the blocks from ``first`` on."""
        low, high = halves(torch.arange(first, first + count, device=self.device).unsqueeze(0))
        key, episode = halves(self._keys.unsqueeze(1)), halves(self._episodes.unsqueeze(1))
        return philox((low, high, *episode), key)

    def _gamma(self, first: int, pairs: int, shape: Float[Tensor, "B N"]) -> Float[Tensor, "B N"]:
        count, wanted = shape.shape[1], shape.double()
        at_least_one = torch.where(shape < 1.0, wanted + 1.0, wanted)
        value, taken = torch.zeros_like(wanted), torch.zeros_like(shape, dtype=torch.bool)
        for turn in range(GAMMA_TRIES):
            w = self._blocks(first + turn * pairs, pairs)
            normal = _ordered(exact.normal32(w[0], w[1]), count)
            proposed, accepted = exact.propose_gamma(at_least_one, normal, _ordered(w[2:], count))
            value = torch.where(taken, value, proposed)
            taken = taken | accepted
            if bool(taken.all()):
                break
        if bool((shape < 1.0).any()):
            w = self._blocks(first + GAMMA_TRIES * pairs, pairs)
            value = torch.where(shape < 1.0, value * exact.boost(wanted, _ordered(w[:2], count)), value)
        return value.to(torch.float32)


def blocks_for(count: int) -> int:
    """Blocks that hold ``count`` words."""
    return -(-count // 4)


def gamma_blocks_for(count: int) -> int:
    """Blocks that ``count`` gamma numbers take: two share one per proposal, and one for shapes below 1."""
    return (GAMMA_TRIES + 1) * -(-count // 2)


def _ordered(parts: tuple[Tensor, ...], count: int) -> Tensor:
    """[B, count]: all blocks' first part, then all blocks' second, and so on."""
    return torch.cat(parts, dim=1)[:, :count]
