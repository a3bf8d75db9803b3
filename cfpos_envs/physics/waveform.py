"""The waveform fidelity: multipath channels seen by an OFDM comb and an array, their noise, and features of links.

A channel frequency response (CFR) has N antennas and S subcarriers at f_s = (s - (S - 1)/2) spacing around the carrier:
H[n, s] = sum_p g_p a_n(theta_p) exp(-j 2 pi f_s tau_p). Delays are known modulo 1 / spacing; everything here reads them
as lying in [-1/8, 7/8) of that period, so that clock errors may make an arrival time a little negative.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from cfpos_envs import draws
from cfpos_envs.physics.arrays import ula_response

# The part of the period 1 / spacing that stands for negative delays.
EARLY_SHARE = 1 / 8
# Chance that noise alone passes the threshold anywhere in a delay profile.
FALSE_ALARM = 1e-3
# Side lobes of the Hann window are at -31 dB; weaker arrivals than -25 dB are hidden by them.
WINDOW_FLOOR_DB = -25.0
# Complex numbers in one temporary; larger ones cost more time for fresh memory than for the arithmetic.
PIECE_SIZE = 1 << 19


@dataclass(frozen=True)
class WaveformPaths:
    """Multipath of every link, P paths each; the first one arrives first.

    Attributes:
        gain: complex amplitudes; the squares add up to the gain beta on average.
        delay_s: arrival times.
        angle_rad: angles of arrival to the array axis.
    """

    gain: Complex[Tensor, "*batch P"]
    delay_s: Float[Tensor, "*batch P"]
    angle_rad: Float[Tensor, "*batch P"]


def draw_paths(
    generator: draws.Source,
    is_los: Bool[Tensor, "*batch"],
    first_delay_s: Float[Tensor, "*batch"],
    gain_linear: Float[Tensor, "*batch"],
    angle_rad: Float[Tensor, "*batch"],
    num_paths: int,
    delay_spread_s: float,
    k_factor_db: float,
    angular_spread_rad: float,
) -> WaveformPaths:
    """Multipath with an exponential power delay profile; in line of sight the first path is constant (Rician).

    In line of sight the first path has the share K / (K + 1) of the power, a random phase and the given direction. All
    other paths, and every path of a link without line of sight, are Rayleigh with powers that fall as
    exp(-tau / spread), delays exponential behind the first one, and directions Laplacian around the given one.

    Args:
        generator: source of randomness.
        is_los: class of every link.
        first_delay_s: arrival time of the first path: distance, excess and clock errors.
        gain_linear: mean total gain beta.
        angle_rad: direction of the UE to the array axis.
        num_paths: P >= 1; one path in line of sight is the pure delay of the statistical model.
        delay_spread_s: scale of the profile, seconds, >= 0.
        k_factor_db: Rician K of links in line of sight; without effect if P = 1.
        angular_spread_rad: standard deviation of the directions, >= 0.

    Raises:
        ValueError: for less than one path or a negative spread.
    """
    if num_paths < 1:
        raise ValueError(f"num_paths must be at least 1, got {num_paths}")
    if not (delay_spread_s >= 0 and angular_spread_rad >= 0):
        raise ValueError(f"spreads must not be negative, got {delay_spread_s} s and {angular_spread_rad} rad")
    shape = (*is_los.shape, num_paths)
    dtype = first_delay_s.dtype

    def uniform(*size: int) -> Tensor:
        return draws.uniform(generator, *size, dtype=dtype)

    def exponential() -> Tensor:
        return -torch.log1p(-uniform(*shape))

    behind = exponential() * delay_spread_s
    behind[..., 0] = 0.0
    power = torch.exp(-behind / delay_spread_s) if delay_spread_s > 0 else torch.ones_like(behind)
    real, imaginary = draws.normal_pair(generator, *shape, dtype=dtype)
    scattered = torch.complex(real, imaginary) * (power / 2).sqrt()
    phase = 2 * math.pi * uniform(*is_los.shape)
    sign = torch.where(uniform(*shape) < 0.5, -1.0, 1.0)
    offset = exponential() * sign * (angular_spread_rad / math.sqrt(2))

    factor = 10 ** (k_factor_db / 10)
    rest = power[..., 1:].sum(dim=-1)
    # Mean power of the scattered paths: all of it without line of sight, 1 / (K + 1) behind a line of sight.
    total = torch.where(is_los, rest * (factor + 1), power.sum(dim=-1))
    scattered = scattered / total.clamp(min=torch.finfo(power.dtype).tiny).sqrt().unsqueeze(-1)
    direct = 1.0 if num_paths == 1 else math.sqrt(factor / (factor + 1))
    first = torch.where(is_los, torch.polar(torch.full_like(phase, direct), phase), scattered[..., 0])
    gain = torch.cat((first.unsqueeze(-1), scattered[..., 1:]), dim=-1) * gain_linear.sqrt().unsqueeze(-1)
    offset[..., 0] = torch.where(is_los, torch.zeros_like(phase), offset[..., 0])
    return WaveformPaths(gain, first_delay_s.unsqueeze(-1) + behind, angle_rad.unsqueeze(-1) + offset)


def subcarrier_frequencies_hz(num_subcarriers: int, subcarrier_spacing_hz: float) -> Float[Tensor, " S"]:
    """Offsets from the carrier, (s - (S - 1) / 2) spacing, double precision."""
    index = torch.arange(num_subcarriers, dtype=torch.float64)
    return (index - (num_subcarriers - 1) / 2) * subcarrier_spacing_hz


def delay_response(
    delay_s: Float[Tensor, "*batch"], num_subcarriers: int, subcarrier_spacing_hz: float
) -> Complex[Tensor, "*batch S"]:
    """The comb's answer to a delay, exp(-j 2 pi f_s tau): the twin of ``ula_response`` over frequency."""
    frequency = subcarrier_frequencies_hz(num_subcarriers, subcarrier_spacing_hz).to(delay_s)
    phase = -2 * math.pi * delay_s.unsqueeze(-1) * frequency
    return torch.polar(torch.ones_like(phase), phase)


def frequency_response(
    paths: WaveformPaths,
    num_antennas: int,
    spacing_wavelengths: float,
    num_subcarriers: int,
    subcarrier_spacing_hz: float,
) -> Complex[Tensor, "*batch N S"]:
    """CFR without noise, H = sum_p g_p a(theta_p) d(tau_p)^T; see the top of this module.

    Args:
        paths: multipath of every link.
        num_antennas, spacing_wavelengths: the ULA.
        num_subcarriers, subcarrier_spacing_hz: the comb.
    """
    steering = ula_response(paths.angle_rad, num_antennas, spacing_wavelengths) * paths.gain.unsqueeze(-1)
    return steering.mT @ delay_response(paths.delay_s, num_subcarriers, subcarrier_spacing_hz)


def add_noise(
    generator: draws.Source, cfr: Complex[Tensor, "*batch N S"], variance: float
) -> Complex[Tensor, "*batch N S"]:
    """CFR as a receiver estimates it: with white circular noise of the given variance per entry.

    Args:
        generator: source of randomness.
        cfr: noiseless response.
        variance: E|w|^2, ``TimingModel.cfr_noise_variance``, >= 0.

    Raises:
        ValueError: for a negative variance.
    """
    if not variance >= 0:
        raise ValueError(f"noise variance must not be negative, got {variance}")
    real, imaginary = draws.normal_pair(generator, *cfr.shape, dtype=cfr.real.dtype)
    return cfr + math.sqrt(variance / 2) * torch.complex(real, imaginary)


def delay_profile(
    cfr: Complex[Tensor, "*batch N S"], oversampling: int, hann: bool = False
) -> Float[Tensor, "*batch T"]:
    """Power over the delay, mean over the antennas, T = oversampling S bins; a path of gain g has a peak of |g|^2.

    Bin i is at (i / T - 1/8) / spacing.

    Args:
        cfr: frequency response.
        oversampling: bins per 1 / bandwidth, >= 1.
        hann: window the comb: side lobes 31 dB instead of 13 dB down, main lobe twice as wide.

    Raises:
        ValueError: for an oversampling below 1.
    """
    if oversampling < 1:
        raise ValueError(f"oversampling must be at least 1, got {oversampling}")
    size = cfr.shape[-1]
    weights = torch.ones(size, device=cfr.device, dtype=cfr.real.dtype)
    if hann:
        # Without the zeros of the textbook window: a comb of two tones must keep both.
        weights = torch.hann_window(size + 2, periodic=False, device=cfr.device, dtype=cfr.real.dtype)[1:-1]
    bins = size * oversampling
    impulse = torch.fft.ifft(cfr * weights, n=bins, dim=-1) * (bins / weights.sum())
    return impulse.abs().square().mean(dim=-2).roll(early_bins(bins), dims=-1)


def in_pieces(function: Callable[[Tensor], Tensor], cfr: Tensor, numbers_per_link: int) -> Tensor:
    """``function`` of the links of a CFR [..., N, S], a few at a time: the temporaries stay small.

    Args:
        function: from [links, N, S] to [links, ...].
        cfr: any leading shape.
        numbers_per_link: size of the largest temporary of one link.
    """
    links = cfr.reshape(-1, *cfr.shape[-2:])
    pieces = links.split(max(1, PIECE_SIZE // numbers_per_link))
    result = torch.cat([function(piece) for piece in pieces])
    return result.reshape((*cfr.shape[:-2], *result.shape[1:]))


def early_bins(bins: int) -> int:
    """How many bins of a delay profile stand for negative delays."""
    return math.floor(bins * EARLY_SHARE)


def noise_threshold(noise_variance: float, num_antennas: int, num_subcarriers: int, hann: bool) -> float:
    """Level that noise alone passes with a chance below ``FALSE_ALARM`` anywhere in a delay profile.

    The noise of a bin is Gamma(N) / N times its mean, and P(Gamma(N) > N + sqrt(2 N t) + t) <= exp(-t) (Laurent and
    Massart, 2000), here with t = log(S / FALSE_ALARM).

    Args:
        noise_variance: per entry of the CFR.
        num_antennas, num_subcarriers: shape of the CFR.
        hann: windowed profiles have 1.5 times the noise.
    """
    tail = math.log(num_subcarriers / FALSE_ALARM)
    mean = noise_variance / num_subcarriers * (1.5 if hann else 1.0)
    return mean * (1 + math.sqrt(2 * tail / num_antennas) + tail / num_antennas)


def channel_features(
    cfr: Complex[Tensor, "*batch N S"],
    subcarrier_spacing_hz: float,
    tx_power_w: float,
    noise_variance: float,
    oversampling: int = 8,
) -> Float[Tensor, "*batch 5"]:
    """What a LOS/NLOS classifier sees of a link; the columns are ``timing_measurements.FEATURES``.

    Kurtosis E(a - mean)^4 / var^2 of the amplitudes a of the S taps; rise time from 10 % of the largest amplitude, or
    the noise, to 90 %; mean excess delay and RMS delay spread of the power above the noise and above -25 dB, from the
    first such bin; RSS P_t mean |H|^2. All but the first and last on the oversampled profile behind a Hann window,
    which alone gives about 1 / bandwidth of rise time.

    Args:
        cfr: measured frequency response.
        subcarrier_spacing_hz: of the comb.
        tx_power_w: turns the gain into a received power.
        noise_variance: per entry of the CFR.
        oversampling: bins per 1 / bandwidth.

    Returns:
        Kurtosis (1), rise time, mean excess delay, RMS delay spread (ns) and RSS (dBm).
    """
    return in_pieces(
        lambda piece: _features(piece, subcarrier_spacing_hz, tx_power_w, noise_variance, oversampling),
        cfr,
        oversampling * cfr.shape[-2] * cfr.shape[-1],
    )


def _features(cfr: Tensor, spacing_hz: float, tx_power_w: float, noise_variance: float, oversampling: int) -> Tensor:
    antennas, size = cfr.shape[-2:]
    tiny = torch.finfo(cfr.real.dtype).tiny
    taps = delay_profile(cfr, 1).sqrt()
    taps = taps / taps.amax(dim=-1, keepdim=True).clamp(min=tiny)
    centred = taps - taps.mean(dim=-1, keepdim=True)
    variance = centred.square().mean(dim=-1)
    kurtosis = centred.pow(4).mean(dim=-1) / variance.square().clamp(min=tiny)

    profile = delay_profile(cfr, oversampling, hann=True)
    peak = profile.amax(dim=-1, keepdim=True).clamp(min=tiny)
    relative = profile / peak
    bin_ns = 1e9 / (profile.shape[-1] * spacing_hz)
    floor = (noise_threshold(noise_variance, antennas, size, hann=True) / peak).clamp(min=10 ** (WINDOW_FLOOR_DB / 10))
    # The peak itself always counts, even if it does not rise above the noise.
    kept = relative * (relative >= floor.clamp(max=1.0))
    low, high = ((kept >= level**2).int().argmax(dim=-1) for level in (0.1, 0.9))
    share = kept / kept.sum(dim=-1, keepdim=True).clamp(min=tiny)
    index = torch.arange(profile.shape[-1], device=cfr.device, dtype=cfr.real.dtype)
    first = (kept > 0).int().argmax(dim=-1)
    mean = (share * index).sum(dim=-1)
    spread = (share * (index - mean.unsqueeze(-1)).square()).sum(dim=-1).sqrt()
    rss_w = tx_power_w * cfr.abs().square().mean(dim=(-2, -1))
    rss_dbm = 10 * torch.log10(rss_w.clamp(min=tiny)) + 30
    return torch.stack((kurtosis, (high - low) * bin_ns, (mean - first) * bin_ns, spread * bin_ns, rss_dbm), dim=-1)
