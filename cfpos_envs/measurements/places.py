"""Sites as people write them: places of APs with or without heights, an area, moved to an origin near zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.measurements.arrays import local_origin, real_tensor, with_axes
from cfpos_envs.physics.outlines import refuse_crossings

_SMALLEST_SIDE_M = 1.0
# Coordinates may be rounded by their type by no more than this.
_COARSEST_M = 0.01


@dataclass(frozen=True)
class Places:
    """Where the APs of one site are, in coordinates near zero.

    Attributes:
        ap_positions_m: ground positions, double precision, all >= 0.
        height_diff_m: AP minus user height.
        area_m: corners of the area that holds all users, counter-clockwise or clockwise; None: not stated.
        side_m: side of a square from the origin that holds APs and area.
        origin_m: what was subtracted.
    """

    ap_positions_m: Float[Tensor, "M 2"]
    height_diff_m: Float[Tensor, " M"]
    area_m: tuple[tuple[float, float], ...] | None
    side_m: float
    origin_m: tuple[float, float]


def places(
    ap_positions_m: Any,
    *,
    height_diff_m: Any = None,
    ap_height_m: Any = None,
    user_height_m: float | None = None,
    area_m: Any = None,
    reach_m: float | None = None,
) -> Places:
    """The site of people's own coordinates.

    Args:
        ap_positions_m: [M, 2], or [M, 3] with the APs' heights; metres in any frame, UTM too.
        height_diff_m: AP minus user height, a number or [M]; 0 if neither this nor heights are given.
        ap_height_m: height of the APs, a number or [M], instead of ``height_diff_m``; needs ``user_height_m``.
        user_height_m: height of all users in the same frame.
        area_m: two opposite corners of a rectangle [2, 2] or the corners of a polygon [V, 2], in the same frame.
        reach_m: how far from the APs a user may be if no area is stated; None: as far as the APs are apart.

    Raises:
        ValueError, TypeError: shapes that do not fit, heights given twice or without the users', numbers that are
            not finite, an area without extent.
    """
    aps = real_tensor("ap_positions_m", ap_positions_m)
    if aps.ndim != 2 or aps.shape[1] not in (2, 3) or not len(aps):
        raise ValueError(f"ap_positions_m has shape {tuple(aps.shape)}; it must be [APs, 2], or [APs, 3] with heights")
    _finite("ap_positions_m", aps)
    if aps.shape[1] == 3:
        if ap_height_m is not None:
            raise ValueError("ap_positions_m has heights in its third column; drop ap_height_m or that column")
        aps, ap_height_m = aps[:, :2], aps[:, 2]
    drop = _height_diff(len(aps), height_diff_m, ap_height_m, user_height_m)
    corners = None if area_m is None else _corners(area_m)
    points = [aps] if corners is None else [aps, corners]
    if corners is None:
        extent = float((aps.amax(dim=0) - aps.amin(dim=0)).max())
        reach = max(extent if reach_m is None else reach_m, _SMALLEST_SIDE_M)
        points = [aps - reach, aps + reach]
    origin_x, origin_y = local_origin(points)
    origin = torch.tensor((origin_x, origin_y), dtype=aps.dtype, device=aps.device)
    side = float((torch.cat(points) - origin).max())
    area = None if corners is None else tuple((x, y) for x, y in (corners - origin).tolist())
    return Places(aps - origin, drop, area, max(side, _SMALLEST_SIDE_M), (origin_x, origin_y))


def _height_diff(count: int, difference: Any, ap_height: Any, user_height: float | None) -> Tensor:
    if difference is not None:
        if ap_height is not None or user_height is not None:
            raise ValueError("heights are given twice; give height_diff_m, or ap_height_m with user_height_m")
        return per_ap("height_diff_m", difference, count)
    if (ap_height is None) != (user_height is None):
        missing = "user_height_m" if user_height is None else "ap_height_m"
        raise ValueError(f"{missing} is missing: heights of APs and users are needed together, in one frame")
    if ap_height is None:
        return torch.zeros(count, dtype=torch.float64)
    user = real_tensor("user_height_m", user_height)
    if user.ndim:
        raise ValueError(
            f"user_height_m has shape {tuple(user.shape)}; it is one number for all users, so make one table per height"
        )
    _finite("user_height_m", user)
    return per_ap("ap_height_m", ap_height, count) - user


def per_ap(name: str, value: Any, count: int) -> Float[Tensor, " M"]:
    """One finite number for each AP.

    Args:
        name: of the argument, for the message.
        value: a number for all, or one for each.
        count: M.

    Raises:
        ValueError: another number of them, or not finite.
    """
    found = real_tensor(name, value)
    found = found.expand(count) if found.ndim == 0 else with_axes(name, found, {"APs": count})
    _finite(name, found)
    return found.clone()


def check_precision(name: str, positions_m: Float[Tensor, "..."]) -> None:
    """Refuse coordinates so far from zero that their type rounds them by more than a centimetre.

    Raises:
        ValueError: naming the field and what to do.
    """
    if positions_m.numel():
        rounded_m = float(positions_m.abs().max()) * torch.finfo(positions_m.dtype).eps
        if rounded_m > _COARSEST_M:
            raise ValueError(
                f"{name} in {positions_m.dtype} is rounded to {rounded_m:.2g} m so far from zero; give float64, or use "
                "from_arrays, which moves the origin"
            )


def _corners(area_m: Any) -> Tensor:
    corners = real_tensor("area_m", area_m)
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 2:
        raise ValueError(
            f"area_m has shape {tuple(corners.shape)}; it must be two opposite corners [2, 2] or a polygon [V, 2]"
        )
    _finite("area_m", corners)
    if len(corners) == 2:
        (x0, y0), (x1, y1) = corners.amin(dim=0).tolist(), corners.amax(dim=0).tolist()
        corners = corners.new_tensor([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    after = corners.roll(-1, dims=0)
    middle = corners.mean(dim=0)
    before, after = corners - middle, after - middle
    size_m2 = float((before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]).sum().abs()) / 2
    if not size_m2 > 0:
        raise ValueError("area_m has no extent; its corners must enclose an area")
    refuse_crossings("area_m", corners.tolist())
    return corners


def _finite(name: str, value: Tensor) -> None:
    if not bool(torch.isfinite(value).all()):
        raise ValueError(f"{name} has entries that are not finite; the site must be known")
