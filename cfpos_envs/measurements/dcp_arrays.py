"""People's received powers and array covariances: casts, shapes by name, marks for missing links, what cannot be."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from cfpos_envs.checks import number
from cfpos_envs.measurements.arrays import complex_tensor, left_out, real_tensor, refuse_degrees, with_axes
from cfpos_envs.measurements.places import Places, places
from cfpos_envs.physics.units import watts_to_dbm

_HERMITIAN_TO = 1e-3
_REACH_SHARE = 0.25
_LEAST_REACH_M = 10.0


@dataclass(frozen=True)
class RadioArrays:
    """What people have measured, in double precision, users first; NaN where a link lacks it.

    Attributes:
        site: APs near zero.
        orientation_rad: direction of every array's axis; 0 without arrays.
        rss_dbm: as if every AP had ``rss_at_1m_dbm`` at 1 m.
        covariance: scaled to unit trace, or None.
        rss_at_1m_dbm: mean over the APs.
        dropped: links that could not be right.
    """

    site: Places
    orientation_rad: Float[Tensor, " M"]
    rss_dbm: Float[Tensor, "K M"]
    covariance: Complex[Tensor, "K M L L"] | None
    rss_at_1m_dbm: float
    dropped: int


def radio_arrays(
    ap_positions_m: Any,
    rss_dbm: Any,
    covariance: Any,
    ap_orientation_rad: Any,
    rss_at_1m_dbm: Any,
    site: Mapping[str, Any],
    ceiling_dbm: float,
    not_heard: float | None,
    on_bad: str,
) -> RadioArrays:
    """Check everything against everything; see ``RadioMeasurements.from_arrays``.

    Raises:
        ValueError, TypeError: as there.
    """
    if rss_dbm is None and covariance is None:
        raise ValueError("nothing was measured; give rss_dbm [users, APs], covariance [users, APs, L, L], or both")
    aps = real_tensor("ap_positions_m", ap_positions_m)
    count = len(aps) if aps.ndim else 0
    flat = aps[:, :2] if aps.ndim == 2 and count else aps.new_zeros(1, 2)
    extent_m = float((flat.amax(dim=0) - flat.amin(dim=0)).max())
    where = places(aps, reach_m=max(_REACH_SHARE * extent_m, _LEAST_REACH_M), **site)
    if where.area_m is None:
        where = _centred(where)
    matrices, users = None, None
    if covariance is not None:
        matrices = _covariance(covariance, count)
        users = len(matrices)
    orientation = _orientation(ap_orientation_rad, count, needed=matrices is not None)
    bad = torch.zeros(1, count, dtype=torch.bool)
    if matrices is not None:
        power = torch.diagonal(matrices, dim1=-2, dim2=-1).real
        bad = left_out("covariance", "links", power.sum(dim=-1), _matrix_faults(matrices), on_bad)
        matrices = _unit_trace(matrices, bad)
    if rss_dbm is None:
        assert matrices is not None
        levels = watts_to_dbm(power.sum(dim=-1))
        levels = torch.where(torch.isfinite(levels) & ~bad, levels, math.nan)
    else:
        levels = real_tensor("rss_dbm", rss_dbm)
        levels = levels.unsqueeze(0) if levels.ndim == 1 else levels
        levels = with_axes("rss_dbm", levels, {"users": users, "APs": count})
    if not_heard is not None:
        levels = torch.where(levels == number("not_heard", not_heard), math.nan, levels)
    ceiling = number("ceiling_dbm", ceiling_dbm, finite=False)
    faults = {"infinite": torch.isinf(levels), f"at or above {ceiling:g} dBm": (levels >= ceiling) & ~levels.isinf()}
    loud = left_out("rss_dbm", "links", levels, faults, on_bad)
    at_1m = real_tensor("rss_at_1m_dbm", rss_at_1m_dbm)
    at_1m = at_1m.expand(count) if at_1m.ndim == 0 else with_axes("rss_at_1m_dbm", at_1m, {"APs": count})
    if not bool(torch.isfinite(at_1m).all()):
        raise ValueError("rss_at_1m_dbm has entries that are not finite; the path loss law must be known")
    levels = torch.where(loud, math.nan, levels) - (at_1m - at_1m.mean())
    return RadioArrays(where, orientation, levels, matrices, float(at_1m.mean()), int((loud | bad).sum()))


def _centred(site: Places) -> Places:
    """The square around the APs instead of beside them: what APs in one line cannot tell apart lies in it as well."""
    shortage = [site.side_m - float(extent) for extent in site.ap_positions_m.amax(0) + site.ap_positions_m.amin(0)]
    shift = [math.floor(max(missing, 0.0) / 2) for missing in shortage]
    moved = site.ap_positions_m + site.ap_positions_m.new_tensor(shift)
    origin = (site.origin_m[0] - shift[0], site.origin_m[1] - shift[1])
    return dataclasses.replace(site, ap_positions_m=moved, origin_m=origin)


def _covariance(value: Any, count: int) -> Tensor:
    matrices = complex_tensor("covariance", value)
    matrices = matrices.unsqueeze(0) if matrices.ndim == 3 else matrices
    shape = tuple(matrices.shape)
    if matrices.ndim != 4 or shape[1] != count or shape[2] != shape[3]:
        raise ValueError(
            f"covariance has shape {shape}; it must be [users, {count} APs, L, L] for these ap_positions_m"
        )
    if shape[-1] < 2:
        raise ValueError("covariance is of single antennas and holds no angles; give rss_dbm alone")
    return matrices


def _matrix_faults(matrices: Complex[Tensor, "K M L L"]) -> dict[str, Bool[Tensor, "K M"]]:
    """What cannot be, by links; NaN and zeros say that nothing was measured."""
    entries = torch.view_as_real(matrices).flatten(-3)
    scale = matrices.abs().amax(dim=(-2, -1))
    uneven = (matrices - matrices.mH).abs().amax(dim=(-2, -1)) > _HERMITIAN_TO * scale
    return {
        "infinite": torch.isinf(entries).any(dim=-1),
        "with negative powers": (torch.diagonal(matrices, dim1=-2, dim2=-1).real < 0).any(dim=-1),
        "not Hermitian (covariance is h h^H)": uneven,
    }


def _unit_trace(matrices: Tensor, bad: Tensor) -> Tensor:
    """Matrices of trace 1, which single precision holds at any power; NaN where there is none."""
    power = torch.diagonal(matrices, dim1=-2, dim2=-1).real.sum(dim=-1)
    measured = torch.isfinite(torch.view_as_real(matrices)).flatten(-3).all(dim=-1) & (power > 0) & ~bad
    unit = matrices / torch.where(measured, power, 1.0)[..., None, None]
    return torch.where(measured[..., None, None], unit, complex(math.nan, math.nan))


def _orientation(value: Any, count: int, needed: bool) -> Tensor:
    if value is None:
        if needed:
            raise ValueError(
                "ap_orientation_rad is missing: angles need the direction of every array's axis, radians from +x"
            )
        return torch.zeros(count, dtype=torch.float64)
    found = with_axes("ap_orientation_rad", real_tensor("ap_orientation_rad", value), {"APs": count})
    if not bool(torch.isfinite(found).all()):
        raise ValueError("ap_orientation_rad has entries that are not finite; the site must be known")
    refuse_degrees("ap_orientation_rad", float(found.abs().max()))
    return found
