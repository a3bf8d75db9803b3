"""What the central unit receives when ranges, directions and powers are measured together."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfpos_envs.checks import number
from cfpos_envs.measurements.arrays import left_out, real_tensor, std_table, with_axes
from cfpos_envs.measurements.base import Measurements, check_shapes
from cfpos_envs.measurements.places import check_precision, per_ap, places
from cfpos_envs.physics.toa.model import TimingModel

_KIND_OF = {"range_m": "ranges", "angle_rad": "angles", "power_dbm": "powers"}


@dataclass(frozen=True)
class HybridMeasurements(Measurements):
    """One batch of episodes as the central unit sees them after the fronthaul; no true position is in here.

    B episodes, M APs, K UEs. The last axis of ``values``, ``variance`` and ``valid`` is that of
    ``physics.hybrid.KINDS``: range in metres, cosine of the angle to the array's axis, received power in dBm.

    Attributes:
        model: the known constants.
        ap_positions_m, ap_orientation_rad, height_diff_m: the known site (array axis direction; AP minus UE height).
        values: what was measured; entries that are not ``valid`` are finite and mean nothing.
        variance: of a measurement in line of sight, in its unit squared, > 0; infinite where it says nothing.
        valid: what was measured. Any part may be missing: ranges alone, directions of some APs, ...
        site_ids: one integer per episode; equal integers mean the same site.
        origin_m: see ``Measurements``.
        area_m: corners of the area in which every user is known to be; None: the square of the model, not strictly.
        dropped: measurements that could not be right and were left out.
    """

    families: ClassVar[tuple[str, ...]] = ("hybrid",)
    content: ClassVar[str] = "ranges, directions and powers"
    environments: ClassVar[str] = "hybrid-v0"

    model: TimingModel
    ap_positions_m: Float[Tensor, "B M 2"]
    ap_orientation_rad: Float[Tensor, "B M"]
    height_diff_m: Float[Tensor, "B M"]
    values: Float[Tensor, "B M K 3"]
    variance: Float[Tensor, "B M K 3"]
    valid: Bool[Tensor, "B M K 3"]
    site_ids: Int[Tensor, " B"]
    origin_m: tuple[float, float] = (0.0, 0.0)
    area_m: tuple[tuple[float, float], ...] | None = None
    dropped: int = 0

    @classmethod
    def from_arrays(
        cls,
        ap_positions_m: Any,
        *,
        range_m: Any = None,
        range_std_m: Any = None,
        angle_rad: Any = None,
        angle_std_rad: Any = None,
        ap_orientation_rad: Any = None,
        power_dbm: Any = None,
        power_std_db: Any = None,
        power_at_1m_dbm: float | None = None,
        path_loss_slope_db: float | None = None,
        height_diff_m: Any = None,
        ap_height_m: Any = None,
        user_height_m: float | None = None,
        area_m: Any = None,
        on_bad: str = "refuse",
    ) -> HybridMeasurements:
        """What somebody has measured of ranges, directions and powers: one episode of K users and M APs.

        Any of the three may be missing as a whole, and any entry by NaN, None or a NumPy mask: it is left out for that
        user alone. Tables are users first, [K, M] ([M] for one user); every standard deviation is a number, [M] or
        [K, M].

        Args:
            ap_positions_m, height_diff_m, ap_height_m, user_height_m, area_m, on_bad: as in
                ``TimingMeasurements.from_arrays``.
            range_m, range_std_m: distances, > 0 metres.
            angle_rad, angle_std_rad: angle between the direction to the user and the AP's array axis, in [0, pi]
                radians: a line of antennas knows no side. Needs ``ap_orientation_rad``.
            ap_orientation_rad: azimuth of every array's axis from the x axis, counter-clockwise, a number or [M].
            power_dbm, power_std_db: received powers, dBm, and the deviation of their shadowing, dB. They need the two
                constants that follow.
            power_at_1m_dbm, path_loss_slope_db: P(d) = power_at_1m_dbm - path_loss_slope_db log10(d / 1 m).

        Raises:
            ValueError, TypeError: nothing was measured, arrays that do not fit together by name and shape, what cannot
                be right, a measurement without its deviation or constants.
        """
        site_aps = real_tensor("ap_positions_m", ap_positions_m)
        count = len(site_aps) if site_aps.ndim else 0
        given = {
            "range_m": (range_m, range_std_m, "range_std_m"),
            "angle_rad": (angle_rad, angle_std_rad, "angle_std_rad"),
            "power_dbm": (power_dbm, power_std_db, "power_std_db"),
        }
        tables = _tables(given, count)
        if angle_rad is not None and ap_orientation_rad is None:
            raise ValueError("ap_orientation_rad is missing: angles are measured from the axes of the arrays")
        if power_dbm is not None and (power_at_1m_dbm is None or path_loss_slope_db is None):
            raise ValueError("power_at_1m_dbm and path_loss_slope_db are needed to read power_dbm")
        parts, dropped = [], 0
        for name, (values, std) in tables.items():
            missing = torch.isnan(values)
            bad = left_out(name, _KIND_OF[name], values, _faults(name, values, std), on_bad)
            dropped += int(bad.sum())
            parts.append((values, std, ~missing & ~bad))
        (ranges, range_std, ranged), (angles, angle_std, seen), powers = parts
        nearest = torch.where(ranged, ranges + 5 * range_std, torch.inf).amin(dim=1)
        nearest = nearest[torch.isfinite(nearest)]
        site = places(
            site_aps,
            height_diff_m=height_diff_m,
            ap_height_m=ap_height_m,
            user_height_m=user_height_m,
            area_m=area_m,
            reach_m=float(nearest.max()) if len(nearest) == len(ranges) > 0 else None,
        )
        # cos(theta + e) = cos(theta) - sin(theta) e - cos(theta) e^2 / 2: along the axis the square is what is left.
        cosine_std = ((angles.sin() * angle_std).square() + (angles.cos() * angle_std.square()).square() / 2).sqrt()
        columns = ((ranges, range_std, ranged), (angles.cos(), cosine_std, seen), powers)
        values, std, valid = (torch.stack(part, dim=-1) for part in zip(*columns, strict=True))
        model = TimingModel.of_ranges("toa", site.side_m, 0.0)
        if power_at_1m_dbm is not None and path_loss_slope_db is not None:
            sent_dbm = 10 * math.log10(1e3 * model.tx_power_w)
            intercept_db = number("power_at_1m_dbm", power_at_1m_dbm) - sent_dbm
            slope_db = number("path_loss_slope_db", path_loss_slope_db, 0.0)
            model = dataclasses.replace(model, path_loss_intercept_db=intercept_db, path_loss_slope_db=slope_db)
        axes = per_ap("ap_orientation_rad", 0.0 if ap_orientation_rad is None else ap_orientation_rad, count)
        return cls(
            model=model,
            ap_positions_m=site.ap_positions_m.unsqueeze(0),
            ap_orientation_rad=axes.to(values).unsqueeze(0),
            height_diff_m=site.height_diff_m.to(values).unsqueeze(0),
            values=torch.where(valid, values, 0.0).movedim(0, 1).unsqueeze(0),
            variance=torch.where(valid, std, 1.0).square().movedim(0, 1).unsqueeze(0),
            valid=valid.movedim(0, 1).unsqueeze(0),
            site_ids=torch.zeros(1, dtype=torch.long, device=values.device),
            origin_m=site.origin_m,
            area_m=site.area_m,
            dropped=dropped,
        )

    def check(self) -> None:
        """Refuse tensors that do not fit together and sites that are not finite.

        Raises:
            ValueError: names the first field that is wrong.
        """
        shape = tuple(self.values.shape)
        if len(shape) != 4 or shape[-1] != 3:
            raise ValueError(f"values has shape {shape}; it must be [B, M, K, 3]: episodes, APs, UEs, kinds")
        site = {"ap_positions_m": (*shape[:2], 2), "ap_orientation_rad": shape[:2], "height_diff_m": shape[:2]}
        check_shapes(self, {**site, "variance": shape, "valid": shape}, "these values")
        for name in site:
            if not bool(torch.isfinite(getattr(self, name)).all()):
                raise ValueError(f"{name} has entries that are not finite; the site must be known")
        check_precision("ap_positions_m", self.ap_positions_m)
        if not bool((self.variance > 0)[self.valid].all()):
            raise ValueError(
                "variance of a valid measurement is not positive; give its mean square error or set valid=False"
            )


def _tables(given: Mapping[str, tuple[Any, Any, str]], count: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Values and deviations of all kinds, [K, M]; NaN and 1 for those that were not measured."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    users: int | None = None
    for name, (values, std, std_name) in given.items():
        if values is None:
            continue
        if std is None:
            raise ValueError(f"{std_name} is missing: {name} counts by its standard deviation")
        table = real_tensor(name, values)
        table = with_axes(name, table.unsqueeze(0) if table.ndim == 1 else table, {"users": users, "APs": count})
        users = len(table)
        found[name] = (table, std_table(std_name, std, table))
    if users is None:
        raise ValueError(f"nothing was measured; give at least one of {', '.join(given)}")
    nothing = torch.full((users, count), math.nan, dtype=torch.float64)
    return {name: found.get(name, (nothing, torch.ones_like(nothing))) for name in given}


def _faults(name: str, values: Tensor, std: Tensor) -> dict[str, Tensor]:
    faults = {"infinite": torch.isinf(values)}
    if name == "range_m":
        faults = {"zero or negative": values <= 0, **faults}
    if name == "angle_rad":
        faults = {"outside [0, pi]": (values < 0) | (values > math.pi), **faults}
    return {**faults, "with a standard deviation that is not positive": ~torch.isnan(values) & ~(std > 0)}
