"""Areas in the plane: rectangles and polygons by their corners."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs.physics.geometry import metres_outside
from cfpos_envs.physics.outlines import refuse_crossings

_FLAT = 1e-9
"""Of the squared extent: corners that enclose less lie on one line."""

_ROUNDING_M = 1e-9
"""Distance from the border of a point on it that double precision may show."""


@dataclass(frozen=True)
class Area:
    """A polygon that does not cross itself; its border belongs to it.

    Attributes:
        corners_m: (x, y) of at least three corners in turn, either way round; the last one is not the first again.

    Raises:
        ValueError: fewer than three corners, one that is not finite or the same as the next, corners on one line,
            edges that cross or touch.
    """

    corners_m: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        corners = self.corners_m
        if len(corners) < 3:
            raise ValueError(f"an area needs at least 3 corners (a rectangle 2 opposite ones), got {len(corners)}")
        for number, corner in enumerate(corners, start=1):
            if len(corner) != 2 or not all(math.isfinite(value) for value in corner):
                raise ValueError(f"corner {number} of the area must be two finite numbers, got {corner!r}")
            if corner == corners[number % len(corners)]:
                raise ValueError(f"corners {number} and {number % len(corners) + 1} of the area are one point")
        refuse_crossings("the area", corners)
        low, high = self.bounds_m
        if self.size_m2 <= _FLAT * float((high - low).square().sum()):
            raise ValueError("the corners of the area lie on one line; give corners that enclose something")

    @classmethod
    def rectangle(cls, first: Sequence[float], opposite: Sequence[float]) -> Area:
        """A rectangle along the axes.

        Args:
            first, opposite: (x, y) of two opposite corners, metres.

        Raises:
            ValueError: no extent along an axis.
        """
        (left, right), (low, high) = (sorted((float(a), float(b))) for a, b in zip(first, opposite))
        if left == right or low == high:
            raise ValueError(
                f"a rectangle from ({first[0]:g}, {first[1]:g}) to ({opposite[0]:g}, {opposite[1]:g}) has no extent; "
                "give two opposite corners"
            )
        return cls(((left, low), (right, low), (right, high), (left, high)))

    @cached_property
    def corners(self) -> Float[Tensor, "C 2"]:
        """The corners in double precision."""
        return torch.tensor(self.corners_m, dtype=torch.float64)

    @property
    def bounds_m(self) -> tuple[Float[Tensor, " 2"], Float[Tensor, " 2"]]:
        """Lower left and upper right corner of the smallest rectangle along the axes around the area."""
        return self.corners.amin(dim=0), self.corners.amax(dim=0)

    @property
    def size_m2(self) -> float:
        """What the area measures, by the shoelace formula; square metres."""
        x, y = (self.corners - self.corners[0]).unbind(dim=-1)
        return float((x * y.roll(-1) - x.roll(-1) * y).sum().abs()) / 2

    @property
    def is_rectangle(self) -> bool:
        """Whether it is a rectangle along the axes."""
        low, high = self.bounds_m
        return len(self.corners_m) == 4 and bool(((self.corners == low) | (self.corners == high)).all())

    def contains(self, points_m: Float[Tensor, "*batch 2"], margin_m: float = 0.0) -> Bool[Tensor, "*batch"]:
        """Which points lie in the area.

        By the even-odd rule; points on the border count as inside.

        Args:
            points_m: [..., 2] metres; points that are not finite lie outside.
            margin_m: points outside by at most this count too, >= 0.
        """
        return metres_outside(points_m.double(), self.corners) <= margin_m + _ROUNDING_M

    def border_distance_m(self, points_m: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch"]:
        """Distance of points [..., 2] to the nearest point of the border, metres."""
        start, edge = self.corners, self.corners.roll(-1, dims=0) - self.corners
        away = points_m.double().unsqueeze(-2) - start
        along = ((away * edge).sum(dim=-1) / edge.square().sum(dim=-1)).clamp(0.0, 1.0)
        return torch.linalg.vector_norm(away - along.unsqueeze(-1) * edge, dim=-1).amin(dim=-1)

    def on_one_side_of(self, point_m: Float[Tensor, " 2"], direction: Float[Tensor, " 2"], margin_m: float) -> bool:
        """Whether the area lies on one side of a line, so that it excludes mirror images in it.

        Args:
            point_m: of the line.
            direction: of it, not zero.
            margin_m: corners may lie this far on the other side.
        """
        return _one_sided(self.corners, point_m, direction, margin_m)

    def moved(self, shift_m: Sequence[float]) -> Area:
        """The area moved by (x, y) metres."""
        return Area(tuple((x + shift_m[0], y + shift_m[1]) for x, y in self.corners_m))


def _one_sided(points: Tensor, origin: Tensor, direction: Tensor, margin_m: float) -> bool:
    away = points.double() - origin.double()
    unit = direction.double() / torch.linalg.vector_norm(direction.double())
    side = away[..., 1] * unit[0] - away[..., 0] * unit[1]
    return bool((side >= -margin_m).all() or (side <= margin_m).all())
