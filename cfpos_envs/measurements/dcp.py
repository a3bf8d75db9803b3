"""What the central unit receives when positions come from received power and angles."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from cfpos_envs.measurements.base import Measurements, check_shapes
from cfpos_envs.physics.dcp.model import RadioModel

_SLACK = 1e-4
"""Share of the side by which rounding may put an AP outside the square."""


@dataclass(frozen=True)
class RadioMeasurements(Measurements):
    """One batch of episodes as the central unit sees them after the fronthaul; no true position is in here.

    B episodes, M APs, K UEs, L antennas. Orientations are those the network believes in. Real tensors of another type
    become float32, complex ones complex64: the precision in which everything here is computed.

    Attributes:
        radio: the known constants.
        ap_positions_m, ap_orientation_rad, height_diff_m: the known site (array axis direction; AP minus UE height).
        rss_dbm: measured RSS (eq. 4), dBm; what is not finite was not heard.
        angular_power: measured angular power spectrum of the LS channel estimate (eq. 5), linear, or None: no arrays.
        covariance: sample covariance of the LS estimate (eq. 3), for estimators that want more than the spectrum, or
            None. NaN or zero: that link was not measured.
        shadowing_maps: [B, M, G, G] dB on a regular grid over the area if the radio map is known, else None.
        shadowing_std_db: standard deviation of the shadowing as the network knows it (0 if none).
        site_ids: one integer per episode; equal integers mean the same site (for caching radio maps).
        origin_m: see ``Measurements``.
        area_m: corners of the area in which every user is known to be; None: the square of ``radio``.
        ceiling_dbm: RSS from which on a reading cannot be right and its link is left out; None: 0 dBm, or where users
            come very near an AP 20 dB above what they would receive at its foot.
        dropped: links that could not be right and were left out when this was made.
    """

    families: ClassVar[tuple[str, ...]] = ("dcp",)
    content: ClassVar[str] = "RSS and angular power"
    environments: ClassVar[str] = "a dcp environment"

    radio: RadioModel
    ap_positions_m: Float[Tensor, "B M 2"]
    ap_orientation_rad: Float[Tensor, "B M"]
    height_diff_m: Float[Tensor, "B M"]
    rss_dbm: Float[Tensor, "B M K"]
    angular_power: Float[Tensor, "B M K L"] | None
    covariance: Complex[Tensor, "B M K L L"] | None
    shadowing_maps: Float[Tensor, "B M G G"] | None
    shadowing_std_db: float
    site_ids: Int[Tensor, " B"]
    origin_m: tuple[float, float] = (0.0, 0.0)
    area_m: tuple[tuple[float, float], ...] | None = None
    ceiling_dbm: float | None = None
    dropped: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor) and field.name != "site_ids":
                wanted = torch.complex64 if value.is_complex() else torch.float32
                if value.dtype != wanted:
                    object.__setattr__(self, field.name, value.to(wanted))

    def check(self) -> None:
        """Refuse tensors that do not fit together, sites that are not finite and APs outside the square.

        Raises:
            ValueError: names the first field that is wrong.
        """
        shape, antennas, side_m = tuple(self.rss_dbm.shape), self.radio.num_antennas, self.radio.side_m
        if len(shape) != 3:
            raise ValueError(f"rss_dbm has shape {shape}; it must be [B, M, K]: episodes, APs, UEs")
        site = {"ap_positions_m": (*shape[:2], 2), "ap_orientation_rad": shape[:2], "height_diff_m": shape[:2]}
        check_shapes(self, site, "this rss_dbm")
        arrays = {"angular_power": (*shape, antennas), "covariance": (*shape, antennas, antennas)}
        given = {name: wanted for name, wanted in arrays.items() if getattr(self, name) is not None}
        check_shapes(self, given, f"this rss_dbm and num_antennas={antennas}")
        # One number read back from the device where all is well.
        known = torch.stack([torch.isfinite(getattr(self, name)).all() for name in site]).all()
        slack_m = _SLACK * side_m
        inside = ((self.ap_positions_m >= -slack_m) & (self.ap_positions_m <= side_m + slack_m)).all()
        if bool(known & inside):
            return
        for name in site:
            if not bool(torch.isfinite(getattr(self, name)).all()):
                raise ValueError(f"{name} has entries that are not finite; the site must be known")
        outside = (self.ap_positions_m < -slack_m) | (self.ap_positions_m > side_m + slack_m)
        episode, ap, _ = outside.nonzero()[0].tolist()
        x, y = self.ap_positions_m[episode, ap].tolist()
        raise ValueError(
            f"AP {ap} of episode {episode} stands at ({x:g}, {y:g}) m, outside the square [0, {side_m:g}] m of "
            "RadioModel.side_m; RadioMeasurements.from_arrays takes coordinates of any origin"
        )
