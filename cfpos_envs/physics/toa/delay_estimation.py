"""Arrival times from channel frequency responses: first peak of an oversampled IFFT, and MUSIC over subcarriers."""

from __future__ import annotations

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from cfpos_envs.physics.waveform import (
    WINDOW_FLOOR_DB,
    delay_profile,
    delay_response,
    early_bins,
    in_pieces,
    noise_threshold,
    subcarrier_frequencies_hz,
)

_NEWTON_STEPS = 4
# A reflection closer than this many resolution cells merges with the first path; the refinement stays inside.
_LARGEST_STEP_CELLS = 0.25
MUSIC_MAX_SUBCARRIERS = 1024
# Noise eigenvalues of smoothed covariances scatter up to about this factor above the noise variance.
_NOISE_EIGENVALUE = 8.0


def first_peak_delay_s(
    cfr: Complex[Tensor, "*batch N S"],
    subcarrier_spacing_hz: float,
    noise_variance: float,
    relative_threshold_db: float = -15.0,
    oversampling: int = 8,
) -> Float[Tensor, "*batch"]:
    """Arrival time of the first path, seconds: first peak of the delay profile, refined to the maximum likelihood.

    The first local maximum of the Hann-windowed, oversampled profile that rises above the noise and above a share of
    the largest value is refined by Newton steps on sum_n |sum_s H[n, s] exp(j 2 pi f_s tau)|^2, the likelihood of one
    path. With one path and enough SNR (17 dB) the variance is (1 + N / SNR) / (8 pi^2 beta_rms^2 SNR); N / SNR is the
    price of adding the antennas' powers without knowing their phases. Paths closer than 2 / bandwidth merge.

    Args:
        cfr: measured frequency response.
        subcarrier_spacing_hz: of the comb, > 0; delays are read in [-1/8, 7/8) / spacing.
        noise_variance: per entry of the CFR, >= 0.
        relative_threshold_db: share of the largest value that an arrival must have, -25 to 0 dB.
        oversampling: bins per 1 / bandwidth.

    Raises:
        ValueError: for a threshold outside its range, a spacing that is not positive or a negative noise variance.
    """
    _check(subcarrier_spacing_hz, noise_variance)
    if not WINDOW_FLOOR_DB <= relative_threshold_db <= 0:
        raise ValueError(f"relative_threshold_db must lie in [{WINDOW_FLOOR_DB}, 0], got {relative_threshold_db}")
    return in_pieces(
        lambda piece: _first_peak(piece, subcarrier_spacing_hz, noise_variance, relative_threshold_db, oversampling),
        cfr,
        oversampling * cfr.shape[-2] * cfr.shape[-1],
    )


def music_delay_s(
    cfr: Complex[Tensor, "*batch N S"],
    subcarrier_spacing_hz: float,
    noise_variance: float,
    max_paths: int = 8,
    oversampling: int = 8,
) -> Float[Tensor, "*batch"]:
    """Arrival time of the first path, seconds, by MUSIC over subcarriers: separates paths closer than 1 / bandwidth.

    Covariance of a third of the comb, smoothed forwards, backwards and over the antennas; the signal space is spanned
    by the eigenvectors whose value stands out of the noise and above -25 dB of the largest. Schmidt (1986); smoothing
    by Shan, Wax and Kailath (1985). Smoothing has its price: with one path the variance is 1.2 to 1.5 times the bound.

    Args:
        cfr: measured frequency response, 6 <= S <= 1024 (take every n-th subcarrier of a longer comb).
        subcarrier_spacing_hz: of the comb, > 0.
        noise_variance: per entry of the CFR, >= 0.
        max_paths: largest dimension of the signal space, >= 1.
        oversampling: points of the spectrum per 1 / bandwidth.

    Raises:
        ValueError: for a comb that is too short or too long, or other numbers outside their ranges.
    """
    _check(subcarrier_spacing_hz, noise_variance)
    antennas, size = cfr.shape[-2:]
    if not 6 <= size <= MUSIC_MAX_SUBCARRIERS:
        raise ValueError(f"MUSIC needs 6 to {MUSIC_MAX_SUBCARRIERS} subcarriers, got {size}; thin out the comb")
    if max_paths < 1:
        raise ValueError(f"max_paths must be at least 1, got {max_paths}")
    return in_pieces(
        lambda piece: _music(piece, subcarrier_spacing_hz, noise_variance, max_paths, oversampling),
        cfr,
        max(oversampling * max_paths, antennas * size // 3) * size,
    )


def _first_peak(
    cfr: Tensor, spacing_hz: float, noise_variance: float, relative_threshold_db: float, oversampling: int
) -> Tensor:
    profile = delay_profile(cfr, oversampling, hann=True)
    peak = profile.amax(dim=-1, keepdim=True)
    noise = noise_threshold(noise_variance, cfr.shape[-2], cfr.shape[-1], hann=True)
    level = torch.minimum((peak * 10 ** (relative_threshold_db / 10)).clamp(min=noise), peak)
    start = _first_maximum(profile, level) / (profile.shape[-1] * spacing_hz)
    return _refine(start, cfr, spacing_hz)


def _music(cfr: Tensor, spacing_hz: float, noise_variance: float, max_paths: int, oversampling: int) -> Tensor:
    size = cfr.shape[-1]
    length = size // 3
    windows = cfr.unfold(-1, length, 1).flatten(-3, -2)
    covariance = windows.mT @ windows.conj() / windows.shape[-2]
    covariance = (covariance + covariance.flip(-2, -1).conj()) / 2
    values, vectors = torch.linalg.eigh(covariance)
    values, vectors = values[..., -max_paths:], vectors[..., -max_paths:].mT
    largest = values[..., -1:]
    level = (largest * 10 ** (WINDOW_FLOOR_DB / 10)).clamp(min=_NOISE_EIGENVALUE * noise_variance)
    signal = vectors * (values >= torch.minimum(level, largest)).unsqueeze(-1)
    bins = oversampling * size
    # |a(tau)^H u|^2 / L over all delays at once; its sum over the signal space reaches 1 at the delay of a path.
    share = torch.fft.ifft(signal, n=bins, dim=-1).abs().square().sum(dim=-2) * (bins**2 / length)
    share = share.roll(early_bins(bins), dims=-1)
    start = _first_maximum(share, 0.9 * share.amax(dim=-1, keepdim=True)) / (bins * spacing_hz)
    return _refine(start, signal, spacing_hz)


def _first_maximum(profile: Tensor, level: Tensor) -> Tensor:
    """Position of the first local maximum not below the level, by a parabola through its neighbours, bins from zero."""
    before, after = profile.roll(1, dims=-1), profile.roll(-1, dims=-1)
    standing = (profile >= level) & (profile >= before) & (profile >= after)
    index = standing.int().argmax(dim=-1, keepdim=True)
    left, middle, right = (torch.gather(values, -1, index).squeeze(-1) for values in (before, profile, after))
    bend = 2 * middle - left - right
    offset = torch.where(bend > 0, (right - left) / (2 * bend.clamp(min=torch.finfo(bend.dtype).tiny)), 0.0)
    return index.squeeze(-1) - early_bins(profile.shape[-1]) + offset.clamp(-0.5, 0.5)


def _refine(start_s: Tensor, cfr: Tensor, spacing_hz: float) -> Tensor:
    """Newton steps to the nearby maximum of sum_n |sum_s H[n, s] exp(j 2 pi f_s tau)|^2."""
    size = cfr.shape[-1]
    cell = 1 / (size * spacing_hz)
    # In units of the comb, so that single precision is enough: omega in (-pi, pi), x = tau spacing size.
    omega = (2 * math.pi / (size * spacing_hz) * subcarrier_frequencies_hz(size, spacing_hz)).to(cfr.real)
    norm = cfr.abs().square().sum(dim=(-2, -1), keepdim=True).clamp(min=torch.finfo(cfr.real.dtype).tiny).sqrt()
    scaled = cfr / norm
    delay = start_s
    for _ in range(_NEWTON_STEPS):
        aligned = scaled * delay_response(delay, size, spacing_hz).conj().unsqueeze(-2)
        value = aligned.sum(dim=-1)
        first = 1j * (aligned * omega).sum(dim=-1)
        second = -(aligned * omega.square()).sum(dim=-1)
        slope = 2 * (value.conj() * first).real.sum(dim=-1)
        bend = 2 * (first.abs().square() + (value.conj() * second).real).sum(dim=-1)
        step = torch.where(bend < 0, -slope / bend.clamp(max=-torch.finfo(bend.dtype).tiny), torch.zeros_like(bend))
        delay = delay + step.clamp(-_LARGEST_STEP_CELLS, _LARGEST_STEP_CELLS) * cell
    # Where the steps have run off towards a stronger path, the peak that was found is the answer.
    return torch.where((delay - start_s).abs() <= 0.5 * cell, delay, start_s)


def _check(subcarrier_spacing_hz: float, noise_variance: float) -> None:
    if not (math.isfinite(subcarrier_spacing_hz) and subcarrier_spacing_hz > 0):
        raise ValueError(f"subcarrier_spacing_hz must be a positive number, got {subcarrier_spacing_hz}")
    if not (math.isfinite(noise_variance) and noise_variance >= 0):
        raise ValueError(f"noise_variance must not be negative, got {noise_variance}")
