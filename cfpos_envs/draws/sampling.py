"""Drawing from a ``torch.Generator`` or a ``CounterSource`` alike; shapes begin with the episodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from cfpos_envs.draws.counter import CounterSource

Source = torch.Generator | CounterSource
"""Where random numbers come from."""


def uniform(source: Source, *shape: int, dtype: torch.dtype = torch.float32) -> Float[Tensor, "*shape"]:
    """Numbers in [0, 1) on the source's device.

    Args:
        source: a generator gives what ``torch.rand`` gives.
        shape: of the result.
        dtype: single or double precision.
    """
    if isinstance(source, CounterSource):
        return source.uniform(*shape, dtype=dtype)
    return torch.rand(shape, generator=source, device=source.device, dtype=dtype)


def normal(source: Source, *shape: int, dtype: torch.dtype = torch.float32) -> Float[Tensor, "*shape"]:
    """Numbers of mean 0 and variance 1; see ``uniform``."""
    if isinstance(source, CounterSource):
        return source.normal(*shape, dtype=dtype)
    return torch.randn(shape, generator=source, device=source.device, dtype=dtype)


def complex_normal(source: Source, *shape: int, dtype: torch.dtype = torch.complex64) -> Complex[Tensor, "*shape"]:
    """Circular numbers of variance 1; see ``uniform``."""
    if isinstance(source, CounterSource):
        real, imaginary = normal_pair(source, *shape, dtype=dtype.to_real())
        return torch.complex(real * math.sqrt(0.5), imaginary * math.sqrt(0.5))
    return torch.randn(shape, generator=source, device=source.device, dtype=dtype)


def normal_pair(source: Source, *shape: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Two independent tensors as of ``normal``."""
    if isinstance(source, CounterSource):
        one, other = source.normal(shape[0], 2, *shape[1:], dtype=dtype).unbind(dim=1)
        return one, other
    one, other = torch.randn((2, *shape), generator=source, device=source.device, dtype=dtype)
    return one, other


def gamma(source: Source, shape: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Gamma numbers of scale 1.

    Args:
        source: see ``uniform``.
        shape: of the distribution, > 0, one per number.
    """
    if isinstance(source, CounterSource):
        return source.gamma(shape)
    return torch._standard_gamma(shape.contiguous(), generator=source)


def integers(source: Source, high: int, *shape: int) -> Int[Tensor, "*shape"]:
    """Whole numbers in [0, high); see ``uniform``. By a counter each is off uniform by less than high / 2^53."""
    if isinstance(source, CounterSource):
        return (source.uniform(*shape, dtype=torch.float64) * high).long()
    return torch.randint(high, shape, generator=source, device=source.device)


def permutation(source: Source, count: int) -> Int[Tensor, " count"]:
    """The numbers 0 to count - 1 in random order; of a counter that stands for one episode only."""
    if isinstance(source, CounterSource):
        return source.permutation(count)
    return torch.randperm(count, generator=source, device=source.device)


def inner(draw: Callable[..., Tensor], source: Source, shape: Sequence[int], count: int) -> Tensor:
    """[*shape, count] by one of the functions above; of a counter, entries that differ in the last place lie apart.

    Whoever computes with the numbers of many links at once then finds neighbouring links next to each other.
    """
    if isinstance(source, CounterSource):
        return draw(source, shape[0], count, *shape[1:]).movedim(1, -1)
    return draw(source, *shape, count)


def inner_gamma(source: Source, shape: Sequence[int], degrees: Float[Tensor, " N"]) -> Float[Tensor, "*shape N"]:
    """[*shape, N] gamma numbers of N shapes, laid out as those of ``inner``."""
    if isinstance(source, CounterSource):
        wanted = degrees.view(1, -1, *(1 for _ in shape[1:])).expand(shape[0], -1, *shape[1:])
        return source.gamma(wanted).movedim(1, -1)
    return gamma(source, degrees.expand(*shape, -1))


def tries(source: Source, count: int, *shape: int) -> Iterator[Source]:
    """Sources for ``count`` drawings of uniform numbers of ``shape``, for what is drawn until it fits.

    Args:
        source: a generator runs on; of a counter, how often an episode draws changes nothing that follows.
        count: most drawings.
        shape: of each.
    """
    return source.tries(count, *shape) if isinstance(source, CounterSource) else iter([source] * count)


def in_turn(source: Source, count: int, wanted: int) -> Int[Tensor, " wanted"]:
    """``wanted`` of the numbers 0 to count - 1 in random order, all of them before one comes again.

    Args:
        source: a generator begins a new order with every call; a counter goes on from episode to episode.
        count: how many there are.
        wanted: a multiple of the episodes of a counter.
    """
    if isinstance(source, CounterSource):
        return source.in_turn(count, wanted)
    orders = [permutation(source, count) for _ in range(-(-wanted // count))]
    return torch.cat(orders)[:wanted] if orders else torch.zeros(0, dtype=torch.long, device=source.device)
