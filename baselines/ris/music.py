"""Stage 1, arrival: MUSIC over subcarriers and over the axes of the user's array, all trials at once."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

from .harmonics import (
    circle,
    circle_power,
    climb_from,
    from_circle,
    local_maxima,
)

POINTS_PER_ELEMENT = 16


def signal_vectors(
    covariance: Complex[Tensor, "*batch n n"], count: int, sources: Int[Tensor, "*batch"]
) -> Complex[Tensor, "*batch n count"]:
    """Eigenvectors of the ``count`` largest eigenvalues, largest first; zero beyond ``sources`` of them."""
    vectors = torch.linalg.eigh(covariance).eigenvectors[..., -count:].flip(-1)
    wanted = torch.arange(count, device=covariance.device) < sources.unsqueeze(-1)
    return vectors * wanted.unsqueeze(-2)


def music(
    covariance: Complex[Tensor, "*batch n n"], slope: float, count: int, sources: Int[Tensor, "*batch"]
) -> tuple[Float[Tensor, "*batch count"], Bool[Tensor, "*batch count"]]:
    """The highest local maxima of the MUSIC spectrum of one axis, highest first, and which of them exist.

    The spectrum 1 / (n - sum_s |e_s^H v(x)|^2) with the signal vectors e_s is highest where the sum is, so maxima of
    this polynomial are sought: on 16 n points of one period, then by Newton within a step.

    Args:
        covariance: S of that axis.
        slope: w; the period is 2 pi / |w|.
        count: peaks wanted (L).
        sources: paths that are present, at most ``count``; n - 1 at most are used for the subspace.

    Returns:
        x in [0, period), and existence.
    """
    n = covariance.shape[-1]
    vectors = signal_vectors(covariance, min(count, n - 1), sources)
    power = circle_power(vectors, slope, POINTS_PER_ELEMENT * n)
    grid = circle(slope, power.shape[-1], power)
    where, exists = local_maxima(power, count)
    refined = climb_from(from_circle(power, slope, n), slope, grid[where], float(grid[1]))
    exists = exists & (torch.arange(count, device=power.device) < sources.unsqueeze(-1))
    return torch.remainder(refined, 2.0 * torch.pi / abs(slope)), exists
