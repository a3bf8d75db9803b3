"""Real trigonometric polynomials of one parameter: every one-dimensional search of stage 1 looks for a maximum of one.

``v(x)^H S v(x)`` with ``v(x)_i = exp(j w i x)`` and Hermitian S depends on S through its diagonal sums alone,

    v(x)^H S v(x) = r_0 + 2 Re sum_{k>0} r_k exp(j w k x),        r_k = sum_i S[i, i + k],

so beams, MUSIC spectra and periodograms share grid, derivatives and refinement. Held are ``[*batch, 2n-1]``
coefficients, lag -(n-1) first.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Complex, Float, Inexact, Int
from torch import Tensor

from .kernels import climbed

MUSIC_POINTS_PER_ELEMENT = 16
# Safeguarded Newton steps: quadratic convergence from a grid step ends in rounding after five.
NEWTON_STEPS = 6


def diagonal_sums(matrix: Inexact[Tensor, "*batch n n"]) -> Inexact[Tensor, "*batch lags"]:
    """Sums of all 2n-1 diagonals, ``r_k = sum_i S[i, i+k]``, k = -(n-1) first.

    Args:
        matrix: any square matrices.
    """
    n = matrix.shape[-1]
    # Rows of length 2n read with period 2n-1: row i moves right by i, so anti-diagonals become columns.
    padded = F.pad(matrix.flip(-1), (0, n)).flatten(-2)[..., :-n].unflatten(-1, (n, 2 * n - 1))
    return padded.sum(dim=-2).flip(-1)


def evaluate(
    coefficients: Complex[Tensor, "*batch lags"], slope: float, at: Float[Tensor, "*batch P"]
) -> tuple[Float[Tensor, "*batch P"], Float[Tensor, "*batch P"], Float[Tensor, "*batch P"]]:
    """Value, first and second derivative of polynomials at P points each.

    Args:
        coefficients: as above.
        slope: w, radians per unit of x and element.
        at: x.
    """
    half = coefficients[..., coefficients.shape[-1] // 2 :].unsqueeze(-2)
    k = torch.arange(half.shape[-1], device=at.device, dtype=at.dtype) * slope
    terms = half * torch.polar(torch.ones((), dtype=at.dtype, device=at.device), at.unsqueeze(-1) * k)
    first = -2.0 * (terms.imag * k).sum(dim=-1)
    second = -2.0 * (terms.real * k.square()).sum(dim=-1)
    return 2.0 * terms.real.sum(dim=-1) - terms[..., 0].real, first, second


def on_grid(
    coefficients: Complex[Tensor, "*batch lags"], slope: float, grid: Float[Tensor, " G"]
) -> Float[Tensor, "*batch G"]:
    """Values of all polynomials on one common grid, as a product of matrices."""
    half = coefficients[..., coefficients.shape[-1] // 2 :].clone()
    half[..., 1:] *= 2.0
    k = torch.arange(half.shape[-1], device=grid.device, dtype=grid.dtype) * slope
    angle = k.unsqueeze(-1) * grid
    return half.real @ torch.cos(angle) - half.imag @ torch.sin(angle)


def circle(slope: float, points: int, like: Tensor) -> Float[Tensor, " G"]:
    """``points`` values of x over one period, from 0: cosines over 2, delays over the window."""
    step = 2.0 * torch.pi / abs(slope) / points
    return torch.arange(points, device=like.device, dtype=like.real.dtype) * step


def circle_power(vectors: Complex[Tensor, "*batch n S"], slope: float, points: int) -> Float[Tensor, "*batch G"]:
    """``sum_s |e_s^H v(x)|^2`` on ``circle(slope, points)`` by FFT."""
    spectrum = torch.fft.fft(vectors if slope > 0 else vectors.conj(), n=points, dim=-2)
    return (spectrum.real.square() + spectrum.imag.square()).sum(dim=-1)


def from_circle(values: Float[Tensor, "*batch G"], slope: float, n: int) -> Complex[Tensor, "*batch lags"]:
    """Coefficients of a polynomial of n elements from its values on ``circle``; exact for at least 2n-1 points."""
    spectrum = torch.fft.fft(values, dim=-1) / values.shape[-1]
    spectrum = spectrum if slope > 0 else spectrum.conj()
    return torch.cat((spectrum[..., 1 - n :], spectrum[..., :n]), dim=-1) if n > 1 else spectrum[..., :1]


def local_maxima(
    values: Float[Tensor, "*batch G"], count: int
) -> tuple[Int[Tensor, "*batch count"], Bool[Tensor, "*batch count"]]:
    """The ``count`` highest local maxima on a circle, highest first, and which of them exist.

    Args:
        values: on an equidistant circular grid.
        count: how many are wanted; positions of those that do not exist mean nothing.
    """
    peak = (values > values.roll(1, dims=-1)) & (values >= values.roll(-1, dims=-1))
    best = torch.where(peak, values, -torch.inf).topk(count, dim=-1)
    return best.indices, best.values > -torch.inf


def climb(
    slopes: Callable[[Tensor], tuple[Tensor, Tensor]], low: Tensor, high: Tensor, steps: int = NEWTON_STEPS
) -> Tensor:
    """Maxima inside brackets by Newton's method on the slope, with bisection where it would leave the bracket.

    Args:
        slopes: x -> (a function with the sign of the slope, its derivative), both of the shape of x.
        low, high: brackets of equal shape, the maximum inside.
        steps: fixed number of steps, the same for all.
    """
    x = (low + high) / 2
    for _ in range(steps):
        first, second = slopes(x)
        low, high = torch.where(first > 0, x, low), torch.where(first > 0, high, x)
        newton = x - first / second
        x = torch.where((second < 0) & (newton >= low) & (newton <= high), newton, (low + high) / 2)
    return x


def climb_from(
    coefficients: Complex[Tensor, "*batch lags"], slope: float, start: Float[Tensor, "*batch P"], step: float
) -> Float[Tensor, "*batch P"]:
    """Maxima of polynomials within ``step`` of ``start``."""
    low, high = start - step, start + step
    found = climbed(coefficients, None, slope, (low, high), NEWTON_STEPS)
    return climb(lambda x: evaluate(coefficients, slope, x)[1:], low, high) if found is None else found


def wrapped_cosine(x: Tensor) -> Tensor:
    """Cosines modulo 2 in [-1, 1)."""
    return torch.remainder(x + 1.0, 2.0) - 1.0


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
    power = circle_power(vectors, slope, MUSIC_POINTS_PER_ELEMENT * n)
    grid = circle(slope, power.shape[-1], power)
    where, exists = local_maxima(power, count)
    refined = climb_from(from_circle(power, slope, n), slope, grid[where], float(grid[1]))
    exists = exists & (torch.arange(count, device=power.device) < sources.unsqueeze(-1))
    return torch.remainder(refined, 2.0 * torch.pi / abs(slope)), exists
