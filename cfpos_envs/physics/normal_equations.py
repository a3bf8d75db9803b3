"""Normal equations of weighted least squares for a position in the plane, with or without an unknown clock offset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

EquationsT = TypeVar("EquationsT", bound="NormalEquations")


@dataclass(frozen=True)
class NormalEquations:
    """A p = b with A = sum w u u^T = [[xx, xy], [xy, yy]] and b = sum w r u = (x, y), any leading shape [...].

    u is the gradient of what was measured by the position, r the residual and w its information.
    """

    xx: Tensor
    xy: Tensor
    yy: Tensor
    x: Tensor
    y: Tensor

    def parts(self) -> tuple[Tensor, ...]:
        """The sums."""
        return tuple(self.__dict__.values())

    def total(self: EquationsT, dim: int = -2) -> EquationsT:
        """Added up along a dimension, by default over the APs of [..., M, K]."""
        return type(self)(*(part.sum(dim=dim) for part in self.parts()))

    def plus(self: EquationsT, other: EquationsT) -> EquationsT:
        """The sums of both."""
        return type(self)(*(one + another for one, another in zip(self.parts(), other.parts(), strict=True)))

    def exchanged(self: EquationsT, terms: EquationsT, substitute: EquationsT) -> EquationsT:
        """Per AP: these sums [..., K] with that AP's ``terms`` [..., M, K] exchanged for ``substitute``."""
        triples = zip(self.parts(), terms.parts(), substitute.parts(), strict=True)
        return type(self)(*(total.unsqueeze(-2) - term + other for total, term, other in triples))

    def solve(self, ridge: Tensor | float) -> Float[Tensor, "*batch 2"]:
        """(A + ridge I)^-1 b.

        Args:
            ridge: added to both diagonal entries; above 0 where A may be singular.
        """
        xx, yy, determinant = self._regular(ridge)
        columns = (yy * self.x - self.xy * self.y, xx * self.y - self.xy * self.x)
        return torch.stack(columns, dim=-1) / determinant.unsqueeze(-1)

    def covariance(self, ridge: Tensor | float) -> Float[Tensor, "*batch 2 2"]:
        """(A + ridge I)^-1, square metres."""
        xx, yy, determinant = self._regular(ridge)
        rows = (torch.stack((yy, -self.xy), dim=-1), torch.stack((-self.xy, xx), dim=-1))
        return torch.stack(rows, dim=-2) / determinant[..., None, None]

    def _regular(self, ridge: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
        """Diagonal and determinant of A + ridge I."""
        xx, yy = self.xx + ridge, self.yy + ridge
        # Never below the ridge's own determinant, which rounding of nearly collinear sums could undercut.
        return xx, yy, (xx * yy - self.xy.square()).clamp(min=ridge * ridge)


@dataclass(frozen=True)
class RangeEquations(NormalEquations):
    """Those of measurements along one direction each."""

    def total(self: EquationsT, dim: int = -2) -> EquationsT:
        """Added up along a dimension; numbers that belong together side by side, which fixes the order of rounding."""
        parts = self.parts()
        groups = (parts[:3], parts[3:5], parts[5:7])
        sums = [_sums(group, dim) for group in groups if group] + [(part.sum(dim=dim),) for part in parts[7:]]
        return type(self)(*(part for group in sums for part in group))


def _sums(parts: tuple[Tensor, ...], dim: int) -> tuple[Tensor, ...]:
    return torch.stack(parts, dim=-1).sum(dim=dim - 1).unbind(dim=-1)


@dataclass(frozen=True)
class ClockEquations(RangeEquations):
    """The same with one more unknown, an offset o that every residual contains: minimises sum w (r - u.p - o)^2.

    w = sum w, (wx, wy) = sum w u, r = sum w r.
    """

    wx: Tensor
    wy: Tensor
    w: Tensor
    r: Tensor

    def without_offset(self) -> NormalEquations:
        """The offset eliminated: A - (sum w u)(sum w u)^T / sum w, and b likewise."""
        w, ux, uy = self._weight(), self.wx, self.wy
        return NormalEquations(
            self.xx - ux * ux / w,
            self.xy - ux * uy / w,
            self.yy - uy * uy / w,
            self.x - ux * self.r / w,
            self.y - uy * self.r / w,
        )

    def solve(self, ridge: Tensor | float) -> Float[Tensor, "*batch 2"]:
        """The position, with ``ridge`` added to the diagonal once the offset is eliminated."""
        return self.without_offset().solve(ridge)

    def offset(self, position: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch"]:
        """The offset that belongs to a position."""
        return (self.r - (self.wx * position[..., 0] + self.wy * position[..., 1])) / self._weight()

    def _weight(self) -> Tensor:
        return self.w.clamp(min=torch.finfo(self.w.dtype).tiny)


def line_terms(
    unit: Float[Tensor, "*batch M K 2"],
    weight: Float[Tensor, "*batch M K"],
    residual: Float[Tensor, "*batch M K"],
    common_clock: bool = True,
) -> RangeEquations:
    """Each AP's terms where it measures along one direction, e.g. a range.

    Args:
        unit: gradient u.
        weight: information w; 0 for links that do not take part.
        residual: r.
        common_clock: false makes them ``ClockEquations``.
    """
    ux, uy = unit.unbind(dim=-1)
    x, y = weight * ux, weight * uy
    equations = (x * ux, x * uy, y * uy, residual * x, residual * y)
    return RangeEquations(*equations) if common_clock else ClockEquations(*equations, x, y, weight, weight * residual)


def polar_terms(
    unit: Float[Tensor, "*batch M K 2"],
    weight_radial: Float[Tensor, "*batch M K"],
    weight_tangential: Float[Tensor, "*batch M K"],
    delta_radial_m: Float[Tensor, "*batch M K"],
    delta_tangential_m: Float[Tensor, "*batch M K"],
) -> NormalEquations:
    """Each AP's terms where it measures along and across its line of sight: sum w_r u u^T + w_t v v^T, v = u turned
    by +90 degrees."""
    ux, uy = unit[..., 0], unit[..., 1]
    pull_radial, pull_tangential = weight_radial * delta_radial_m, weight_tangential * delta_tangential_m
    return NormalEquations(
        xx=weight_radial * ux * ux + weight_tangential * uy * uy,
        xy=(weight_radial - weight_tangential) * ux * uy,
        yy=weight_radial * uy * uy + weight_tangential * ux * ux,
        x=pull_radial * ux - pull_tangential * uy,
        y=pull_radial * uy + pull_tangential * ux,
    )
