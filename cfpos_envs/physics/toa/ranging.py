"""Ranges from arrival times: TOA, uplink TDOA and multi-RTT, clock synchronisation, NLOS excess, differencing.

Everything is a range in metres, c times a delay. One link of AP m and UE k gives

    TOA, TDOA:  r = d + c (eps + delta_m + Delta_k) + b        RTT:  r = d + c/2 (eps_1 + eps_2 + delta_m + eta) + b

with eps the estimation noise, delta_m the AP's clock error (the same for all UEs of an episode), Delta_k the UE's clock
offset, eta the error of the reported processing time and b >= 0 the excess of a link without line of sight.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs import draws
from cfpos_envs.checks import unknown_name
from cfpos_envs.physics.units import SPEED_OF_LIGHT_M_S

FAMILIES = ("toa", "tdoa", "rtt")


@dataclass(frozen=True)
class SyncPreset:
    """How well the clocks of the APs agree.

    Attributes:
        std_s: standard deviation of an AP's clock error, seconds; for ``ota`` that *before* the calibration burst.
        range_s: what is usual in practice, seconds.
        outdoor_only: needs a view of the sky.
        calibrated: a burst from a known position replaces the error by the estimation noise of that burst.
    """

    std_s: float
    range_s: tuple[float, float]
    outdoor_only: bool = False
    calibrated: bool = False


# PTP over fronthaul 10-100 ns, White Rabbit below 1 ns, GNSS-disciplined outdoor APs about 15 ns, over the air.
SYNC_PRESETS: dict[str, SyncPreset] = {
    "perfect": SyncPreset(0.0, (0.0, 0.0)),
    "white_rabbit": SyncPreset(0.5e-9, (0.0, 1e-9)),
    "gnss": SyncPreset(15e-9, (10e-9, 20e-9), outdoor_only=True),
    "ptp": SyncPreset(30e-9, (10e-9, 100e-9)),
    "ota": SyncPreset(30e-9, (10e-9, 100e-9), calibrated=True),
}


def sync_preset(name: str, outdoor: bool = True) -> SyncPreset:
    """The preset called ``name``.

    Args:
        name: one of ``SYNC_PRESETS``.
        outdoor: whether the APs see the sky.

    Raises:
        ValueError: for an unknown name, or GNSS indoors.
    """
    if name not in SYNC_PRESETS:
        raise ValueError(unknown_name("sync preset", name, SYNC_PRESETS))
    preset = SYNC_PRESETS[name]
    if preset.outdoor_only and not outdoor:
        raise ValueError(f"sync preset {name!r} needs APs that see the sky; indoors use ptp, white_rabbit or ota")
    return preset


def check_family(family: str) -> str:
    """The name of a measurement family, unchanged.

    Raises:
        ValueError: unless it is one of ``FAMILIES``.
    """
    if family not in FAMILIES:
        raise ValueError(unknown_name("measurement family", family, FAMILIES))
    return family


def rms_bandwidth_hz(num_subcarriers: int, subcarrier_spacing_hz: float) -> float:
    """RMS bandwidth of a flat comb: beta_rms^2 = spacing^2 (S^2 - 1) / 12, Hz.

    Args:
        num_subcarriers: S >= 2.
        subcarrier_spacing_hz: > 0.

    Raises:
        ValueError: for a comb without bandwidth: no delay can be measured with it.
    """
    if num_subcarriers < 2:
        raise ValueError(f"num_subcarriers must be at least 2 (one tone has no bandwidth), got {num_subcarriers}")
    if not (math.isfinite(subcarrier_spacing_hz) and subcarrier_spacing_hz > 0):
        raise ValueError(f"subcarrier_spacing_hz must be a positive number, got {subcarrier_spacing_hz}")
    return subcarrier_spacing_hz * math.sqrt((num_subcarriers**2 - 1) / 12)


def flat_rms_bandwidth_hz(bandwidth_hz: float) -> float:
    """RMS bandwidth of a flat spectrum of width B: beta_rms^2 = B^2 / 12, Hz.

    Raises:
        ValueError: unless the bandwidth is positive.
    """
    if not (math.isfinite(bandwidth_hz) and bandwidth_hz > 0):
        raise ValueError(f"bandwidth_hz must be a positive number, got {bandwidth_hz}")
    return bandwidth_hz / math.sqrt(12)


def delay_variance_s2(snr_linear: Float[Tensor, "*batch"], rms_bandwidth_hz: float) -> Float[Tensor, "*batch"]:
    """Variance of an efficient delay estimate: sigma_tau^2 = 1 / (8 pi^2 beta_rms^2 SNR), s^2.

    Args:
        snr_linear: SNR of the whole pilot, signal energy over noise density, array gain included; >= 0.
        rms_bandwidth_hz: > 0.

    Returns:
        The variance; infinite where the SNR is 0.

    Raises:
        ValueError: for a bandwidth that is not positive or a negative SNR.
    """
    if not (math.isfinite(rms_bandwidth_hz) and rms_bandwidth_hz > 0):
        raise ValueError(f"rms_bandwidth_hz must be a positive number, got {rms_bandwidth_hz}")
    if not bool((snr_linear >= 0).all()):
        raise ValueError("snr_linear must not be negative or NaN; give linear values, not dB")
    return 1.0 / (8 * math.pi**2 * rms_bandwidth_hz**2 * snr_linear)


def link_snr_linear(
    slant_m: Float[Tensor, "*batch"], max_snr_linear: float, intercept_db: float, slope_db: float
) -> Float[Tensor, "*batch"]:
    """SNR of the whole pilot at a distance, max_snr * beta with beta[dB] = intercept - slope log10(d / 1 m).

    Args:
        slant_m: slant distance, metres, >= 0; below 1 m the gain stays that of 1 m, where the law ends.
        max_snr_linear: N P_t / sigma^2, see ``TimingModel``.
        intercept_db, slope_db: the path loss; slope 0 gives every AP the same SNR.
    """
    scale = max_snr_linear * 10 ** (intercept_db / 10)
    return scale * torch.pow(slant_m.clamp(min=1.0), -slope_db / 10)


def range_variance_m2(
    family: str,
    delay_variance_s2: Float[Tensor, "*batch"],
    sync_std_s: Float[Tensor, "*#batch"] | float,
    processing_error_std_s: float = 0.0,
) -> Float[Tensor, "*batch"]:
    """Variance of a line-of-sight range, m^2.

    TOA and TDOA: c^2 (sigma_tau^2 + sigma_sync^2), where the UE's own offset is not part of it. RTT: two passes and
    half the time, c^2 / 4 (2 sigma_tau^2 + sigma_sync^2 + sigma_proc^2).

    Args:
        family: "toa", "tdoa" or "rtt".
        delay_variance_s2: sigma_tau^2 of one pass.
        sync_std_s: standard deviation of the AP's clock error, seconds, >= 0.
        processing_error_std_s: error of the reported processing time (RTT only), seconds, >= 0.

    Raises:
        ValueError: for an unknown family or a negative standard deviation.
    """
    check_family(family)
    sync = torch.as_tensor(sync_std_s, dtype=delay_variance_s2.dtype, device=delay_variance_s2.device)
    if not bool((sync >= 0).all()):
        raise ValueError("sync_std_s must not be negative; 0 means perfect clocks")
    if not processing_error_std_s >= 0:
        raise ValueError(f"processing_error_std_s must not be negative, got {processing_error_std_s}")
    c2 = SPEED_OF_LIGHT_M_S**2
    if family == "rtt":
        return c2 / 4 * (2 * delay_variance_s2 + sync.square() + processing_error_std_s**2)
    return c2 * (delay_variance_s2 + sync.square())


def draw_clock_errors(generator: draws.Source, std_s: Float[Tensor, "*batch M"]) -> Float[Tensor, "*batch M"]:
    """Clock errors delta_m ~ N(0, std^2) of the APs, seconds: one per AP and episode, the same for all its UEs.

    Args:
        generator: source of randomness.
        std_s: standard deviation per AP: the preset's, or after a burst ``calibration_std_s``; >= 0.

    Raises:
        ValueError: for a negative standard deviation.
    """
    if not bool((std_s >= 0).all()):
        raise ValueError("std_s must not be negative; 0 means perfect clocks")
    return std_s * draws.normal(generator, *std_s.shape, dtype=std_s.dtype)


def calibration_std_s(
    burst_snr_linear: Float[Tensor, "*batch M"], rms_bandwidth_hz: float
) -> Float[Tensor, "*batch M"]:
    """Clock error left after over-the-air calibration: the noise of the one burst, sqrt(sigma_tau^2), seconds.

    The AP measures delta_m + eps of a node whose distance it knows, and subtracts it: -eps stays, whatever delta_m was.

    Args:
        burst_snr_linear: SNR of the reference node's burst at each AP, see ``delay_variance_s2``.
        rms_bandwidth_hz: of the burst.
    """
    return delay_variance_s2(burst_snr_linear, rms_bandwidth_hz).sqrt()


def draw_nlos_excess_m(
    generator: draws.Source, is_los: Bool[Tensor, "*batch"], mean_m: float, gamma_shape: float = 1.0
) -> Float[Tensor, "*batch"]:
    """Excess path b >= 0 of links without line of sight, metres; 0 in line of sight.

    Args:
        generator: source of randomness.
        is_los: which links have a line of sight.
        mean_m: mean excess, metres, >= 0.
        gamma_shape: shape of a gamma distribution with that mean, > 0; 1 is the exponential one.

    Raises:
        ValueError: for a negative mean or a shape that is not positive.
    """
    if not (math.isfinite(mean_m) and mean_m >= 0):
        raise ValueError(f"nlos_mean_m must not be negative, got {mean_m}")
    if not (math.isfinite(gamma_shape) and gamma_shape > 0):
        raise ValueError(f"gamma_shape must be a positive number (1: exponential), got {gamma_shape}")
    shape = torch.full(is_los.shape, gamma_shape, device=is_los.device)
    excess = draws.gamma(generator, shape) * (mean_m / gamma_shape)
    return torch.where(is_los, torch.zeros_like(excess), excess)


def draw_ranges(
    generator: draws.Source,
    family: str,
    distance_m: Float[Tensor, "*batch M K"],
    delay_variance_s2: Float[Tensor, "*batch M K"],
    clock_error_s: Float[Tensor, "*batch M"],
    excess_m: Float[Tensor, "*batch M K"],
    ue_offset_s: Float[Tensor, "*batch K"] | None = None,
    processing_error_std_s: float = 0.0,
) -> Float[Tensor, "*batch M K"]:
    """Measured ranges of the statistical fidelity, metres; the equations at the top of this module.

    Args:
        generator: source of the estimation noise and the processing errors.
        family: "toa", "tdoa" or "rtt".
        distance_m: true slant distances.
        delay_variance_s2: sigma_tau^2 of one pass.
        clock_error_s: delta_m, see ``draw_clock_errors``.
        excess_m: b, see ``draw_nlos_excess_m``.
        ue_offset_s: the UE's clock offset Delta_k; it enters TOA (where a shared clock is assumed: give None or 0) and
            TDOA (where it is unknown to everybody) and cancels in RTT.
        processing_error_std_s: RTT only: standard deviation of the error of the reported processing time, which is
            reported, hence wrong, for every AP anew.
    """
    check_family(family)

    def noise() -> Tensor:
        return draws.normal(generator, *distance_m.shape, dtype=distance_m.dtype)

    # Infinite variance (no SNR) must not give 0 * inf.
    delay_std_s = delay_variance_s2.sqrt()
    error_s = delay_std_s * noise() + clock_error_s.unsqueeze(-1)
    if family == "rtt":
        error_s = (error_s + delay_std_s * noise() + processing_error_std_s * noise()) / 2
    elif ue_offset_s is not None:
        error_s = error_s + ue_offset_s.unsqueeze(-2)
    return distance_m + SPEED_OF_LIGHT_M_S * error_s + excess_m
