"""What the central unit receives when positions come from arrival times; the meeting point with the estimators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

from cfpos_envs.measurements.base import Measurements, check_shapes
from cfpos_envs.physics.toa.model import TimingModel
from cfpos_envs.physics.toa.ranging import FAMILIES

# The columns of ``TimingMeasurements.features``.
FEATURES = ("kurtosis", "rise_time_ns", "mean_excess_delay_ns", "rms_delay_spread_ns", "rss_dbm")


@dataclass(frozen=True)
class TimingMeasurements(Measurements):
    """One batch of episodes as the central unit sees them after the fronthaul; no true position is in here.

    B episodes, M APs, K UEs, N antennas, S subcarriers. Numbers of links that are not ``valid`` are finite and mean
    nothing.

    Attributes:
        model: the known constants.
        ap_positions_m, ap_orientation_rad, height_diff_m: the known site (array axis direction; AP minus UE height).
        range_m: c times the arrival time (toa), the same with the UE's unknown clock offset in it, so that only
            differences between APs mean something (tdoa), c/2 times the round trip less the reported processing (rtt).
        variance_m2: known variance of ``range_m`` in line of sight: noise and clock errors.
        snr_db: SNR of the whole pilot, array gain included.
        features: the columns ``FEATURES``: kurtosis of |CIR|, rise time, mean excess delay, RMS delay spread, RSS.
        valid: the link was measured (not blocked).
        is_los: which links have a line of sight; for a genie only, None unless ``reveal_los`` is set.
        cfr: least-squares channel frequency response, subcarriers ascending around the carrier, with noise of variance
            ``model.cfr_noise_variance`` per entry; None in the statistical fidelity.
        site_ids: one integer per episode; equal integers mean the same site.
        origin_m: see ``Measurements``.
    """

    families: ClassVar[tuple[str, ...]] = FAMILIES
    content: ClassVar[str] = "ranges"
    environments: ClassVar[str] = "toa-v0, tdoa-v0 or rtt-v0"

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
    site_ids: Int[Tensor, " B"]
    origin_m: tuple[float, float] = (0.0, 0.0)

    @property
    def family(self) -> str:
        """Of the model: "toa", "tdoa" or "rtt"."""
        return self.model.family

    def check(self) -> None:
        """Refuse tensors that do not fit together and sites that are not finite.

        Raises:
            ValueError: names the first field that is wrong.
        """
        shape = tuple(self.range_m.shape)
        if len(shape) != 3:
            raise ValueError(f"range_m has shape {shape}; it must be [B, M, K], episodes, APs, UEs")
        site = {"ap_positions_m": (*shape[:2], 2), "height_diff_m": shape[:2]}
        check_shapes(self, {**site, "variance_m2": shape, "valid": shape}, "this range_m")
        for name in site:
            if not bool(torch.isfinite(getattr(self, name)).all()):
                raise ValueError(f"{name} has entries that are not finite; the site must be known")
