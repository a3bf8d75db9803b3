"""What the central unit receives when positions come from arrival times; the meeting point with the estimators."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from cfpos_envs.physics.toa.model import TimingModel

# The columns of ``TimingMeasurements.features``.
FEATURES = ("kurtosis", "rise_time_ns", "mean_excess_delay_ns", "rms_delay_spread_ns", "rss_dbm")


@dataclass(frozen=True)
class TimingMeasurements:
    """One batch of episodes as the central unit sees them after the fronthaul; no true position is in here.

    B episodes, M APs, K UEs, N antennas, S subcarriers. Numbers of links that are not ``valid`` are finite and mean
    nothing.

    Attributes:
        model: the known constants.
        ap_positions_m, ap_orientation_rad, height_diff_m: the known site (array axis direction; AP minus UE height).
        range_m: c times the arrival time (toa), the same with the UE's unknown clock offset in it, so that only
            differences between APs mean something (tdoa), c/2 times the round trip less the reported processing (rtt).
        variance_m2: told variance of ``range_m`` in line of sight: noise and clock errors.
        snr_db: SNR of the whole pilot, array gain included.
        features: the columns ``FEATURES``: kurtosis of |CIR|, rise time, mean excess delay, RMS delay spread, RSS.
        valid: the link was measured (not blocked).
        is_los: which links have a line of sight; for a genie only, None unless the environment is told to reveal it.
        cfr: least-squares channel frequency response, subcarriers ascending around the carrier, with noise of variance
            ``model.cfr_noise_variance`` per entry; None in the statistical fidelity.
        site_ids: one integer per episode; equal integers mean the same site.
    """

    model: TimingModel
    ap_positions_m: Float[Tensor, "B M 2"]
    ap_orientation_rad: Float[Tensor, "B M"]
    height_diff_m: Float[Tensor, "B M"]
    range_m: Float[Tensor, "B M K"]
    variance_m2: Float[Tensor, "B M K"]
    snr_db: Float[Tensor, "B M K"]
    features: Float[Tensor, "B M K 5"]
    valid: Bool[Tensor, "B M K"]
    is_los: Bool[Tensor, "B M K"] | None
    cfr: Complex[Tensor, "B M K N S"] | None
    site_ids: torch.Tensor

    def select(self, index: slice | Tensor) -> TimingMeasurements:
        """The measurements of some episodes only."""
        chosen: dict[str, Any] = {
            name: value[index] for name, value in self.__dict__.items() if isinstance(value, Tensor)
        }
        return dataclasses.replace(self, **chosen)
