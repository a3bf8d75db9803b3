"""The constants of a time-based network that predictions of ranges and their variances need."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from cfpos_envs.physics.toa.ranging import (
    check_family,
    delay_variance_s2,
    link_snr_linear,
    range_variance_m2,
    rms_bandwidth_hz,
)

_POSITIVE = ("side_m", "subcarrier_spacing_hz", "tx_power_w", "noise_power_w", "spacing_wavelengths")


_NOT_NEGATIVE = ("path_loss_slope_db", "sync_std_s", "nlos_mean_m", "processing_error_std_s")


@dataclass(frozen=True)
class TimingModel:
    """The constants of the time-based network that everybody knows. Defaults live in the scenario's config.

    Attributes:
        family: "toa" (common clock), "tdoa" (unknown UE clock offset) or "rtt" (round trips).
        side_m: side of the square area.
        num_subcarriers, subcarrier_spacing_hz: the flat OFDM comb of the pilot, S >= 2 tones.
        path_loss_intercept_db, path_loss_slope_db: gain at 1 m and dB per decade: beta = intercept - slope*log10(d).
        tx_power_w: power of the UE over all subcarriers.
        noise_power_w: noise power per antenna in *one subcarrier spacing*. With it N P_t beta / sigma^2 is the SNR of
            the whole pilot of one OFDM symbol, which is what decides the variance of a delay.
        num_antennas, spacing_wavelengths: the ULA of every AP; its gain N is part of ``snr_db``.
        sync_std_s: standard deviation of an AP's clock error as known to the network (after calibration: the root mean
            square over the APs; the variance of each link is known).
        nlos_mean_m: mean of the NLOS excess as known to the network, >= 0; 0 if there is none.
        processing_error_std_s: RTT: standard deviation of the error of the processing time reported by the UE.

    Raises:
        ValueError: for a value outside its range.
    """

    family: str
    side_m: float
    num_subcarriers: int
    subcarrier_spacing_hz: float
    path_loss_intercept_db: float
    path_loss_slope_db: float
    tx_power_w: float
    noise_power_w: float
    num_antennas: int
    spacing_wavelengths: float
    sync_std_s: float
    nlos_mean_m: float
    processing_error_std_s: float

    def __post_init__(self) -> None:
        check_family(self.family)
        for name in (*_POSITIVE, *_NOT_NEGATIVE, "path_loss_intercept_db"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} must be a finite number, got {getattr(self, name)}")
        for name in _POSITIVE:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in _NOT_NEGATIVE:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.num_antennas < 1:
            raise ValueError(f"num_antennas must be at least 1, got {self.num_antennas}")
        rms_bandwidth_hz(self.num_subcarriers, self.subcarrier_spacing_hz)

    @classmethod
    def of_ranges(cls, family: str, side_m: float, nlos_mean_m: float) -> TimingModel:
        """For ranges that somebody has measured; the radio, about which positions from ranges do not ask, is nominal.

        64 tones over 100 MHz, free space at 3.5 GHz (-43.3 dB at 1 m, 20 dB per decade), 100 mW, noise of 1e-14 W per
        tone, one antenna, no further clock or processing errors: the ranges bring their own variances.

        Args:
            family, side_m, nlos_mean_m: as above.
        """
        return cls(
            family=family,
            side_m=side_m,
            num_subcarriers=64,
            subcarrier_spacing_hz=1.5625e6,
            path_loss_intercept_db=-43.3,
            path_loss_slope_db=20.0,
            tx_power_w=0.1,
            noise_power_w=1e-14,
            num_antennas=1,
            spacing_wavelengths=0.5,
            sync_std_s=0.0,
            nlos_mean_m=nlos_mean_m,
            processing_error_std_s=0.0,
        )

    @property
    def bandwidth_hz(self) -> float:
        """Occupied bandwidth S * spacing, Hz."""
        return self.num_subcarriers * self.subcarrier_spacing_hz

    @property
    def rms_bandwidth_hz(self) -> float:
        """RMS bandwidth of the comb, Hz."""
        return rms_bandwidth_hz(self.num_subcarriers, self.subcarrier_spacing_hz)

    @property
    def max_snr_linear(self) -> float:
        """N P_t / sigma^2: the SNR of the whole pilot over the array if there were no path loss."""
        return self.num_antennas * self.tx_power_w / self.noise_power_w

    @property
    def cfr_noise_variance(self) -> float:
        """Variance of the complex noise on every entry of the channel frequency response: S sigma^2 / P_t."""
        return self.num_subcarriers * self.noise_power_w / self.tx_power_w

    def snr_linear(self, slant_m: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """SNR of the whole pilot by the path loss, see ``link_snr_linear``."""
        return link_snr_linear(slant_m, self.max_snr_linear, self.path_loss_intercept_db, self.path_loss_slope_db)

    def range_variance_m2(
        self, snr_linear: Float[Tensor, "*batch"], sync_std_s: Float[Tensor, "*#batch"] | float | None = None
    ) -> Float[Tensor, "*batch"]:
        """Variance of a line-of-sight range at an SNR, see ``physics.timing.range_variance_m2``.

        Args:
            snr_linear: SNR of the whole pilot.
            sync_std_s: clock errors where they differ between APs; None: the model's.
        """
        sync = self.sync_std_s if sync_std_s is None else sync_std_s
        variance_s2 = delay_variance_s2(snr_linear, self.rms_bandwidth_hz)
        return range_variance_m2(self.family, variance_s2, sync, self.processing_error_std_s)
