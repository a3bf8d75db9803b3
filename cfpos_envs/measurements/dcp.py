"""What the central unit receives when positions come from received power and angles."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from cfpos_envs.checks import number, whole
from cfpos_envs.measurements.base import Measurements, check_shapes
from cfpos_envs.measurements.dcp_arrays import RadioArrays, radio_arrays
from cfpos_envs.physics.arrays import angular_power
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

    @classmethod
    def from_arrays(
        cls,
        ap_positions_m: Any,
        rss_dbm: Any = None,
        covariance: Any = None,
        *,
        ap_orientation_rad: Any = None,
        rss_at_1m_dbm: Any = -40.0,
        path_loss_slope_db: float = 30.0,
        shadowing_std_db: float = 4.0,
        noise_dbm: float = -120.0,
        height_diff_m: Any = None,
        ap_height_m: Any = None,
        user_height_m: float | None = None,
        area_m: Any = None,
        spacing_wavelengths: float = 0.5,
        angular_spread_rad: float = 0.1,
        snapshots: int = 100,
        ceiling_dbm: float = 0.0,
        not_heard: float | None = None,
        on_bad: str = "refuse",
    ) -> RadioMeasurements:
        """Powers, and perhaps array covariances, that somebody has measured: one episode of K users and M APs.

        Arrays are NumPy (masked or not), tensors of any type (conjugated views too) or nested lists. What a link lacks
        is NaN, None, masked or a matrix of zeros: it is left out for that user alone. The law of the received power is
        RSS = rss_at_1m_dbm - path_loss_slope_db log10(d / 1 m), d the slant distance; fit both to your site.

        Args:
            ap_positions_m: [M, 2], or [M, 3] with heights; metres in any frame, UTM too.
            rss_dbm: [K, M] dBm, users first; [M] for one user. None: from the trace of ``covariance``, in watts.
            covariance: [K, M, L, L], mean of h h^H over the snapshots of an array of L antennas; its scale counts only
                without ``rss_dbm``. None: received powers alone, for rss-gn, centroid and RSS fingerprints.
            ap_orientation_rad: [M] direction of every array's axis, counter-clockwise from +x; needed with
                ``covariance``.
            rss_at_1m_dbm: RSS at 1 m, a number or [M], dBm.
            path_loss_slope_db: dB per decade of distance, > 0: ten times the path loss exponent.
            shadowing_std_db: standard deviation of what this law misses: shadowing, fading, rounding. Validity and
                covariances rest on it.
            noise_dbm: noise that every reading contains.
            height_diff_m: AP minus user height, a number or [M]; 0 if no heights are given.
            ap_height_m, user_height_m: the two heights instead (``user_height_m`` too with [M, 3]).
            area_m: opposite corners [2, 2] or polygon [V, 2] of the area that holds every user, if that is known: it
                decides between mirror images, and answers outside it are not valid.
            spacing_wavelengths: distance of neighbouring antennas.
            angular_spread_rad: standard deviation of the local scattering around the user.
            snapshots: over how many ``covariance`` is averaged, >= 1.
            ceiling_dbm: a reading at or above it cannot be right.
            not_heard: value that stands for "not heard" in ``rss_dbm``, for example 100.
            on_bad: what becomes of a link that cannot be right: "refuse", or "drop" to leave it out, counted in
                ``dropped`` and by a warning.

        Returns:
            Measurements whose ``origin_m`` moves answers back to the frame of ``ap_positions_m``.

        Raises:
            ValueError, TypeError: arrays that do not fit together by name and shape, and what cannot be right: RSS at
                or above ``ceiling_dbm``, infinities, matrices with negative powers or that are not Hermitian.
        """
        arrays = radio_arrays(
            ap_positions_m,
            rss_dbm,
            covariance,
            ap_orientation_rad,
            rss_at_1m_dbm,
            {
                "height_diff_m": height_diff_m,
                "ap_height_m": ap_height_m,
                "user_height_m": user_height_m,
                "area_m": area_m,
            },
            ceiling_dbm,
            not_heard,
            on_bad,
        )
        radio = _radio_of(arrays, path_loss_slope_db, noise_dbm, spacing_wavelengths, angular_spread_rad, snapshots)
        power = None if arrays.covariance is None else angular_power(arrays.covariance)
        return cls(
            radio=radio,
            ap_positions_m=arrays.site.ap_positions_m.unsqueeze(0),
            ap_orientation_rad=arrays.orientation_rad.unsqueeze(0),
            height_diff_m=arrays.site.height_diff_m.unsqueeze(0),
            rss_dbm=arrays.rss_dbm.mT.unsqueeze(0),
            angular_power=None if power is None else power.transpose(0, 1).unsqueeze(0),
            covariance=None if arrays.covariance is None else arrays.covariance.transpose(0, 1).unsqueeze(0),
            shadowing_maps=None,
            shadowing_std_db=number("shadowing_std_db", shadowing_std_db, 0.0),
            site_ids=torch.zeros(1, dtype=torch.long, device=arrays.rss_dbm.device),
            origin_m=arrays.site.origin_m,
            area_m=arrays.site.area_m,
            ceiling_dbm=math.inf,
            dropped=arrays.dropped,
        )

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


def _radio_of(
    arrays: RadioArrays,
    path_loss_slope_db: float,
    noise_dbm: float,
    spacing_wavelengths: float,
    angular_spread_rad: float,
    snapshots: int,
) -> RadioModel:
    """The constants of people's measurements: one milliwatt is sent, and the gain at 1 m makes it their RSS there."""
    antennas = 1 if arrays.covariance is None else arrays.covariance.shape[-1]
    slope = number("path_loss_slope_db", path_loss_slope_db, 0.0, above=True)
    return RadioModel(
        side_m=arrays.site.side_m,
        wrap=False,
        path_loss_intercept_db=arrays.rss_at_1m_dbm - 10.0 * math.log10(antennas),
        path_loss_slope_db=slope,
        tx_power_w=1e-3,
        num_pilots=1,
        noise_power_w=10.0 ** (number("noise_dbm", noise_dbm) / 10.0 - 3.0) / antennas,
        num_antennas=antennas,
        spacing_wavelengths=number("spacing_wavelengths", spacing_wavelengths, 0.0, above=True),
        angular_spread_rad=number("angular_spread_rad", angular_spread_rad, 0.0),
        num_paths=20,
        snapshots=whole("snapshots", snapshots, 1),
    )
