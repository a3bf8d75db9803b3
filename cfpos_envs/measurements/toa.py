"""What the central unit receives when positions come from arrival times; the meeting point with the estimators."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any, ClassVar, SupportsIndex

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

from cfpos_envs.checks import number
from cfpos_envs.measurements.arrays import left_out, real_tensor, std_table, with_axes
from cfpos_envs.measurements.base import Measurements, check_shapes
from cfpos_envs.measurements.places import check_precision, places
from cfpos_envs.physics.toa.model import TimingModel
from cfpos_envs.physics.toa.ranging import FAMILIES, check_family

# The columns of ``TimingMeasurements.features``.
FEATURES = ("kurtosis", "rise_time_ns", "mean_excess_delay_ns", "rms_delay_spread_ns", "rss_dbm")
NLOS_MEAN_M = 5.0
"""Mean excess of a link without line of sight that is taken for people's ranges unless they say otherwise."""


# Median range over the extent of the APs from which on the units cannot be right.
_LONGEST_OVER_EXTENT = 50.0


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
        area_m: corners of the area in which every user is known to be; None: the square of the model, not strictly.
        dropped: links that could not be right and were left out.
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
    area_m: tuple[tuple[float, float], ...] | None = None
    dropped: int = 0

    @classmethod
    def from_arrays(
        cls,
        ap_positions_m: Any,
        range_m: Any,
        std_m: Any,
        *,
        family: str = "toa",
        reference: SupportsIndex | None = None,
        height_diff_m: Any = None,
        ap_height_m: Any = None,
        user_height_m: float | None = None,
        area_m: Any = None,
        nlos_mean_m: float = NLOS_MEAN_M,
        on_bad: str = "refuse",
    ) -> TimingMeasurements:
        """Ranges that somebody has measured, in their own coordinates: one episode of K users and M APs.

        Arrays are NumPy (masked or not), tensors of any real type or nested lists. A link that was not measured is NaN,
        None or masked and is left out for that user alone. Everything is kept in double precision.

        Args:
            ap_positions_m: [M, 2], or [M, 3] with heights; any frame, UTM too.
            range_m: [K, M] metres, users first; [M] for one user. toa, rtt: distances, > 0 (failed exchanges write 0
                or -1). tdoa: c times the arrival times, of which only differences count, or differences to
                ``reference``.
            std_m: standard deviation in line of sight, a number, [M] or [K, M], metres. tdoa: that of *one* AP's
                arrival time; a difference of two has the root of the sum of both squares.
            family: "toa" (distances), "rtt" (distances from round trips) or "tdoa".
            reference: tdoa with differences: row of ``ap_positions_m`` of the AP whose arrival was subtracted,
                range_m[:, m] = r_m - r_reference: positive where AP m is farther. Its own column is ignored.
            height_diff_m: AP minus user height, a number or [M]; 0 if no heights are given.
            ap_height_m, user_height_m: the two heights instead (``user_height_m`` too with [M, 3]).
            area_m: opposite corners [2, 2] or polygon [V, 2] of the area that holds every user, if that is known: it
                decides between mirror images, and answers outside it are not valid.
            nlos_mean_m: mean excess of links without line of sight, >= 0, for ``toa-em``.
            on_bad: what becomes of a range that cannot be right: "refuse", or "drop" to leave the link out, counted in
                ``dropped`` and by a warning.

        Returns:
            Measurements whose ``origin_m`` moves answers back to the frame of ``ap_positions_m``. SNR and features are
            NaN: estimators that need them refuse.

        Raises:
            ValueError, TypeError: arrays that do not fit together by name and shape, and what cannot be right.
        """
        check_family(family)
        site_aps = real_tensor("ap_positions_m", ap_positions_m)
        count = len(site_aps) if site_aps.ndim else 0
        ranges = real_tensor("range_m", range_m)
        ranges = with_axes(
            "range_m", ranges.unsqueeze(0) if ranges.ndim == 1 else ranges, {"users": None, "APs": count}
        )
        std = std_table("std_m", std_m, ranges)
        if reference is not None:
            ranges = ranges.clone()
            ranges[:, _row_of(reference, family, count)] = 0.0
        missing = torch.isnan(ranges)
        faults = {
            "infinite": torch.isinf(ranges),
            "with a standard deviation that is not positive": ~missing & ~(std > 0),
        }
        if family != "tdoa":
            faults = {"zero or negative": ranges <= 0, **faults}
        bad = left_out("range_m", "ranges", ranges, faults, on_bad)
        valid = ~missing & ~bad
        reach = None
        if family != "tdoa" and bool(valid.any()):
            _refuse_another_unit(ranges[valid], site_aps)
            nearest = torch.where(valid, ranges + 5 * std, torch.inf).amin(dim=1)
            reach = float(nearest[torch.isfinite(nearest)].max())
        site = places(
            site_aps,
            height_diff_m=height_diff_m,
            ap_height_m=ap_height_m,
            user_height_m=user_height_m,
            area_m=area_m,
            reach_m=reach,
        )
        shape = (1, count, len(ranges))
        unknown = ranges.new_full(shape, math.nan)
        return cls(
            model=TimingModel.of_ranges(family, site.side_m, number("nlos_mean_m", nlos_mean_m, 0.0)),
            ap_positions_m=site.ap_positions_m.unsqueeze(0),
            ap_orientation_rad=ranges.new_zeros(shape[:2]),
            height_diff_m=site.height_diff_m.to(ranges).unsqueeze(0),
            range_m=torch.where(valid, ranges, 0.0).mT.unsqueeze(0),
            variance_m2=torch.where(valid, std, 1.0).square().mT.unsqueeze(0),
            snr_db=unknown,
            features=unknown.unsqueeze(-1).expand(*shape, len(FEATURES)),
            valid=valid.mT.unsqueeze(0),
            is_los=None,
            cfr=None,
            site_ids=torch.zeros(1, dtype=torch.long, device=ranges.device),
            origin_m=site.origin_m,
            area_m=site.area_m,
            dropped=int(bad.sum()),
        )

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
        check_precision("ap_positions_m", self.ap_positions_m)


def _refuse_another_unit(range_m: Tensor, aps_m: Tensor) -> None:
    """Ranges many times as long as the site is wide are those of another unit, or the site's coordinates are."""
    extent_m = float(torch.linalg.vector_norm(aps_m.double().amax(dim=0) - aps_m.double().amin(dim=0)))
    typical_m = float(range_m.median())
    if extent_m > 0 and typical_m > _LONGEST_OVER_EXTENT * extent_m:
        raise ValueError(
            f"range_m has a median of {typical_m:.3g} m, and the APs are only {extent_m:.3g} m apart; give metres, "
            "as it looks like millimetres or centimetres (or AP positions in kilometres)"
        )


def _row_of(reference: SupportsIndex, family: str, count: int) -> int:
    """The row of the AP that differences refer to, of any integer type."""
    if family != "tdoa":
        raise ValueError(f"reference={reference!r} is for differences; with family={family!r} drop it or set tdoa")
    row = -1 if isinstance(reference, bool) or not hasattr(reference, "__index__") else operator.index(reference)
    if not 0 <= row < count:
        raise ValueError(f"reference={reference!r} must be the row of one of the {count} APs, counted from 0")
    return row
