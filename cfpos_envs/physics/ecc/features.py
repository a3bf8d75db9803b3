"""Real-valued features of one BS's CSI: what an encoder, a fingerprint or an agent is given to see.

Raw phases turn over centimetres. Everything but ``stabilised`` is second-order and free of absolute phases, so that
what was learned at one place holds a metre away.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from cfpos_envs.checks import one_of
from cfpos_envs.physics.ecc.csi import normalise_gain, stabilise_phase

FEATURES = ("stabilised", "amplitude", "cov", "acf")
PEAK_FACTOR = 4.0
"""Entries of the stabilised CSI this many times their root mean square map to 1."""
FREQUENCY_LAGS = (0, 1, 2, 4, 7, 11, 16, 22)
"""Lags of ``acf`` in kept subcarriers: short ones separate delays over their whole range, long ones resolve them."""
_TINY = 1e-30


def feature_size(features: str, array_shape: tuple[int, int], num_subcarriers: int) -> int:
    """Numbers per BS: 2 A N stabilised, A N amplitude, A^2 + 2 (N - 1) cov, 2 (2 rows - 1)(2 columns - 1) lags acf.

    Raises:
        ValueError: unknown ``features``.
    """
    check_features(features)
    rows, columns = array_shape
    antennas = rows * columns
    sizes = {
        "stabilised": 2 * antennas * num_subcarriers,
        "amplitude": antennas * num_subcarriers,
        "cov": antennas**2 + 2 * (num_subcarriers - 1),
        "acf": 2 * (2 * rows - 1) * (2 * columns - 1) * len(frequency_lags(num_subcarriers)),
    }
    return sizes[features]


def csi_features(
    csi: Complex[Tensor, "*batch T A N"],
    features: str,
    array_shape: tuple[int, int],
    stabilise: str = "per-entry",
) -> Float[Tensor, "*batch F"]:
    """Features of one snapshot of one BS, every entry in [-1, 1]; zero CSI gives zeros.

    Args:
        csi: estimated CSI; its scale does not matter (the gain (7) is distinguished).
        features: ``stabilised``: (15) averaged over the slots, scaled so that ``PEAK_FACTOR`` times the root mean
            square is 1 and clipped; ``amplitude``: ``angle_delay_amplitude``; ``cov``: ``covariance_features``;
            ``acf``: ``autocorrelation_features``; the last three of ``slot_average``.
        array_shape: (rows, columns).
        stabilise: of ``stabilised`` only, see ``physics.ecc.csi.reference_phase``.

    Raises:
        ValueError: unknown ``features`` or ``stabilise``.
    """
    check_features(features)
    if 0 in csi.shape[:-3]:
        # No snapshots have no features either; Fourier transforms would refuse them.
        return csi.real.new_zeros((*csi.shape[:-3], feature_size(features, array_shape, csi.shape[-1])))
    if features == "stabilised":
        mean = stabilise_phase(normalise_gain(csi), stabilise).mean(dim=-3)
        # All T A N entries have unit energy together, so a real part has the root mean square (2 T A N)^-1/2.
        scale = math.sqrt(2 * csi.shape[-3] * csi.shape[-2] * csi.shape[-1]) / PEAK_FACTOR
        return (torch.view_as_real(mean).flatten(-3) * scale).clamp(-1.0, 1.0)
    mean = slot_average(csi)
    if features == "amplitude":
        return angle_delay_amplitude(mean, array_shape)
    if features == "cov":
        return covariance_features(mean)
    return autocorrelation_features(mean, array_shape)


def slot_average(csi: Complex[Tensor, "*batch T A N"]) -> Complex[Tensor, "*batch 1 A N"]:
    """Mean over the slots after every slot's phase was turned to that of the first: sum_t h_t exp(-j angle<h_1, h_t>).

    Oscillator phases go, what is constant adds up: noise falls by 10 log10 T dB before anything is squared.

    Args:
        csi: of one BS.
    """
    if csi.shape[-3] == 1:
        return csi
    inner = (csi * csi[..., :1, :, :].conj()).sum(dim=(-2, -1), keepdim=True)
    turn = torch.polar(torch.ones_like(inner.real), -inner.angle())
    return (csi * turn).mean(dim=-3, keepdim=True)


def adcpm(csi: Complex[Tensor, "*batch T A N"], array_shape: tuple[int, int]) -> Float[Tensor, "*batch A N"]:
    """Angle-delay channel power matrix: mean over slots of the power of the CSI's DFT over antennas and subcarriers.

    Angles: two-dimensional unitary DFT over rows and columns, bin row * columns + column. Delays: unitary inverse DFT
    over subcarriers, bin i holds i / (N spacing). Parseval: the sum over all bins is the power of a slot.

    Args:
        csi: of one BS.
        array_shape: (rows, columns).
    """
    if 0 in csi.shape[:-3]:
        # Fourier transforms refuse to make nothing of nothing.
        return csi.real.new_zeros((*csi.shape[:-3], *csi.shape[-2:]))
    angles = torch.fft.fft2(csi.unflatten(-2, array_shape), dim=(-3, -2), norm="ortho").flatten(-3, -2)
    power = torch.view_as_real(torch.fft.ifft(angles, dim=-1, norm="ortho")).square().sum(dim=-1)
    return power.mean(dim=-3)


def angle_delay_amplitude(
    csi: Complex[Tensor, "*batch T A N"], array_shape: tuple[int, int]
) -> Float[Tensor, "*batch AN"]:
    """Square root of ``adcpm`` over its sum: A N numbers in [0, 1]."""
    power = adcpm(csi, array_shape).flatten(-2)
    return (power / power.sum(dim=-1, keepdim=True).clamp(min=_TINY)).sqrt()


def lag_products(csi: Complex[Tensor, "*batch T A N"], lag: int) -> Complex[Tensor, "*batch A A"]:
    """C_m[a, b] = sum over slots and n of h_{t,a,n+m} conj(h_{t,b,n}): phases common to a slot cancel.

    Args:
        csi: of one BS.
        lag: m in subcarriers, 0 <= m < N.
    """
    kept = csi.shape[-1] - lag
    ahead, behind = csi[..., lag:], csi[..., :kept]
    if csi.shape[-3] == 1:
        return ahead.squeeze(-3) @ behind.squeeze(-3).mH
    return ahead.transpose(-3, -2).flatten(-2) @ behind.transpose(-3, -2).flatten(-2).mH


def covariance_features(csi: Complex[Tensor, "*batch T A N"]) -> Float[Tensor, "*batch F"]:
    """Spatial covariance (A^2 numbers) and frequency autocorrelation (2 (N - 1) numbers), both over the power.

    The first A^2 numbers are the diagonal, then real and imaginary parts above it.

    Args:
        csi: of one BS.
    """
    antennas, subcarriers = csi.shape[-2:]
    covariance = lag_products(csi, 0)
    diagonal = covariance.diagonal(dim1=-2, dim2=-1).real
    power = diagonal.sum(dim=-1, keepdim=True).clamp(min=_TINY)
    upper = torch.triu_indices(antennas, antennas, 1, device=csi.device)
    pairs = torch.view_as_real(covariance[..., upper[0], upper[1]]).flatten(-2)
    # Summed over antennas and slots, the products at one lag are a row of the autocorrelation, by FFT without wrapping.
    spectrum = torch.view_as_real(torch.fft.fft(csi, n=2 * subcarriers, dim=-1)).square().sum(dim=(-1, -3, -4))
    lags = torch.fft.ifft(spectrum.to(csi.dtype), dim=-1)[..., 1:subcarriers]
    return torch.cat((diagonal, pairs, torch.view_as_real(lags).flatten(-2)), dim=-1) / power


def autocorrelation_features(
    csi: Complex[Tensor, "*batch T A N"], array_shape: tuple[int, int]
) -> Float[Tensor, "*batch F"]:
    """Antenna-lag x frequency-lag autocorrelation over the power, real and imaginary parts.

    r(i, j, m) = sum_t sum_(row, column, n) h_{row+i, column+j, n+m} conj(h_{row, column, n}) / sum |h|^2 for all
    |i| < rows, |j| < columns and the lags m of ``frequency_lags``. A path from u with delay tau turns it by
    2 pi (d (j u_y + i u_z) - m spacing tau): angle and delay, whatever its phase.

    Args:
        csi: of one BS.
        array_shape: (rows, columns).
    """
    bins = _antenna_lag_bins(array_shape).to(csi.device)
    lags = frequency_lags(csi.shape[-1])
    products = torch.stack([lag_products(csi, lag) for lag in lags], dim=-3)  # [..., M, A, A]
    power = products[..., 0, :, :].diagonal(dim1=-2, dim2=-1).real.sum(dim=-1)
    # Real matrices: a complex product with the 0/1 matrix would do four times the work.
    flat = torch.view_as_real(products.flatten(-2)).transpose(-2, -1)  # [..., M, 2, A^2]
    summed = flat.reshape(-1, flat.shape[-1]) @ bins
    summed = summed.reshape(*flat.shape[:-3], -1)
    return summed / power.unsqueeze(-1).clamp(min=_TINY)


def frequency_lags(num_subcarriers: int) -> tuple[int, ...]:
    """Those of ``FREQUENCY_LAGS`` that N subcarriers have."""
    return tuple(lag for lag in FREQUENCY_LAGS if lag < num_subcarriers)


def _antenna_lag_bins(array_shape: tuple[int, int]) -> Float[Tensor, "pairs lags"]:
    """0/1 matrix that sums antenna pairs (a, b) of equal row and column difference."""
    rows, columns = array_shape
    row = torch.arange(rows).repeat_interleave(columns)
    column = torch.arange(columns).repeat(rows)
    down = row[:, None] - row[None] + rows - 1
    across = column[:, None] - column[None] + columns - 1
    number = (down * (2 * columns - 1) + across).flatten()
    return torch.nn.functional.one_hot(number, (2 * rows - 1) * (2 * columns - 1)).to(torch.float32)


def check_features(features: str) -> None:
    """Refuse unknown features.

    Raises:
        ValueError: naming the nearest ones.
    """
    one_of("features", features, FEATURES)
