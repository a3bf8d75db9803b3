"""Drawing from a ``torch.Generator`` or a ``CounterSource`` alike; shapes begin with the episodes."""

from __future__ import annotations

import math

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
        parts = source.normal(*shape, 2, dtype=torch.float32 if dtype == torch.complex64 else torch.float64)
        return torch.view_as_complex(parts * math.sqrt(0.5))
    return torch.randn(shape, generator=source, device=source.device, dtype=dtype)


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
        return source.uniform(count, dtype=torch.float64).argsort(stable=True)
    return torch.randperm(count, generator=source, device=source.device)
