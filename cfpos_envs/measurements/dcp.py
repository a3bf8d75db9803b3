"""What the central unit receives when positions come from received power and angles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Complex, Float, Int
from torch import Tensor

from cfpos_envs.measurements.base import Measurements
from cfpos_envs.physics.dcp.model import RadioModel


@dataclass(frozen=True)
class RadioMeasurements(Measurements):
    """One batch of episodes as the central unit sees them after the fronthaul; no true position is in here.

    B episodes, M APs, K UEs, L antennas. Orientations are those the network believes in.

    Attributes:
        radio: the known constants.
        ap_positions_m, ap_orientation_rad, height_diff_m: the known site (array axis direction; AP minus UE height).
        rss_dbm: measured RSS (eq. 4), dBm.
        angular_power: measured angular power spectrum of the LS channel estimate (eq. 5), linear.
        covariance: sample covariance of the LS estimate (eq. 3), for estimators that want more than the spectrum.
        shadowing_maps: [B, M, G, G] dB on a regular grid over the area if the radio map is known, else None.
        shadowing_std_db: standard deviation of the shadowing as the network knows it (0 if none).
        site_ids: one integer per episode; equal integers mean the same site (for caching radio maps).
        origin_m: see ``Measurements``.
    """

    families: ClassVar[tuple[str, ...]] = ("dcp",)
    content: ClassVar[str] = "RSS and angular power"
    environments: ClassVar[str] = "a dcp environment"

    radio: RadioModel
    ap_positions_m: Float[Tensor, "B M 2"]
    ap_orientation_rad: Float[Tensor, "B M"]
    height_diff_m: Float[Tensor, "B M"]
    rss_dbm: Float[Tensor, "B M K"]
    angular_power: Float[Tensor, "B M K L"]
    covariance: Complex[Tensor, "B M K L L"]
    shadowing_maps: Float[Tensor, "B M G G"] | None
    shadowing_std_db: float
    site_ids: Int[Tensor, " B"]
    origin_m: tuple[float, float] = (0.0, 0.0)
