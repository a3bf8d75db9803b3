"""Moments of a posterior over an area: sums over cells, which are divided where the probability is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.physics.geometry import metres_outside

LogLikelihood = Callable[[Tensor, Tensor], Tensor]
"""Of points [K, G, 2] that stand for cells with sides [K, 2], metres: [K, G]; it should count what varies in a cell."""
Corners = tuple[tuple[float, float], ...]

_PARTS = 4
_MOST_LEVELS = 10
_KEPT_CELLS = 144
_LOST = 1e-3
# Side of a cell over the smallest standard deviation of the position below which nothing is gained.
_FINE_ENOUGH = 0.5


@dataclass(frozen=True)
class Cells:
    """Equal cells that cover an area.

    Attributes:
        middle_m: their middles; those of cells that lie outside the area by more than their own size are left out.
        sides_m: their extent along both axes.
        area_m: corners of the area, if it is not the rectangle that they fill.
    """

    middle_m: Float[Tensor, "G 2"]
    sides_m: Float[Tensor, " 2"]
    area_m: Corners | None

    @classmethod
    def over(cls, low_m: Float[Tensor, " 2"], high_m: Float[Tensor, " 2"], count: int, area_m: Corners | None) -> Cells:
        """``count`` cells along the longer side of a rectangle, as many of nearly the same size along the other."""
        extent = high_m - low_m
        numbers = [max(1, math.ceil(count * float(side / extent.max()) - 1e-9)) for side in extent]
        sides = extent / torch.tensor(numbers).to(extent)
        axes = [low_m[axis] + sides[axis] * (torch.arange(numbers[axis]).to(extent) + 0.5) for axis in (0, 1)]
        middle = torch.cartesian_prod(*axes)
        return cls(middle[_outside_m(middle, area_m) <= float(sides.norm()) / 2], sides, area_m)

    @property
    def inside_m(self) -> Float[Tensor, "G 2"]:
        """Middles that lie in the area; all where none does."""
        inside = _outside_m(self.middle_m, self.area_m) <= 0
        return self.middle_m[inside] if bool(inside.any()) else self.middle_m


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of every user's position, and the middle and the sides of its most probable cell."""

    mean_m: Float[Tensor, "K 2"]
    covariance_m2: Float[Tensor, "K 2 2"]
    likeliest_m: Float[Tensor, "K 2"]
    sides_m: Float[Tensor, "K 2"]

    def where(self, mine: Tensor, other: Moments) -> Moments:
        """These for some users, others for the rest."""
        return Moments(
            *(
                torch.where(mine.reshape(-1, *(1,) * (own.ndim - 1)), own, theirs)
                for own, theirs in zip(vars(self).values(), vars(other).values())
            )
        )

    def users(self, chosen: Tensor) -> Moments:
        """Of some users."""
        return Moments(*(own[chosen] for own in vars(self).values()))


def posterior_moments(likelihood: LogLikelihood, cells: Cells, narrowest_m: Float[Tensor, " K"]) -> Moments:
    """Mean and covariance of p(x | data), proportional to the likelihood for x in the area and 0 elsewhere.

    The most probable cells are divided by four along both axes, again and again, until they are half as large as the
    posterior is narrow, or until the cells that can be kept would lose more than 0.1 % of the probability. A sum over
    the cells' middles stands for the integral; within a cell the position is uniform.

    Args:
        likelihood: see ``LogLikelihood``.
        cells: the first ones.
        narrowest_m: a standard deviation that the posterior is not narrower than; inf: no cell is divided.
    """
    users = len(narrowest_m)
    places, sides = cells.middle_m.expand(users, -1, 2), cells.sides_m.expand(users, 2)
    found, places, lost = _level(likelihood, places, sides, cells.area_m)
    for _ in range(_MOST_LEVELS):
        further = (sides.amax(dim=1) > _FINE_ENOUGH * narrowest_m) & (lost <= _LOST)
        if not bool(further.any()):
            break
        finer = sides / _PARTS
        parts = (torch.arange(_PARTS).to(sides) + 0.5) / _PARTS - 0.5
        children = places[:, :, None] + torch.cartesian_prod(parts, parts) * sides[:, None, None]
        again, kept, missing = _level(likelihood, children.flatten(1, 2), finer, cells.area_m)
        found = again.where(further, found)
        width = min(places.shape[1], kept.shape[1])
        places = torch.where(further[:, None, None], kept[:, :width], places[:, :width])
        sides = torch.where(further[:, None], finer, sides)
        lost = torch.where(further, missing, torch.inf)
    return found


def _level(
    likelihood: LogLikelihood, places_m: Tensor, sides_m: Tensor, area_m: Corners | None
) -> tuple[Moments, Tensor, Tensor]:
    """Moments, the most probable cells and the probability of all others."""
    logs = likelihood(places_m, sides_m)
    outside = _outside_m(places_m, area_m)
    reached = outside <= sides_m.norm(dim=1)[:, None] / 2
    chances = torch.softmax(torch.where(reached, logs, -torch.inf), dim=1)
    largest = chances.topk(min(_KEPT_CELLS, chances.shape[1]), dim=1)
    kept = places_m.gather(1, largest.indices[..., None].expand(-1, -1, 2))
    within = (outside <= 0) | ~(reached & (outside <= 0)).any(dim=1, keepdim=True)
    weight = torch.softmax(torch.where(within & reached, logs, -torch.inf), dim=1)
    mean = torch.einsum("kg,kgd->kd", weight, places_m)
    away = places_m - mean[:, None]
    covariance = torch.einsum("kg,kgi,kgj->kij", weight, away, away) + torch.diag_embed(sides_m.square() / 12)
    likeliest = places_m.gather(1, weight.argmax(dim=1)[:, None, None].expand(-1, 1, 2))[:, 0]
    return Moments(mean, covariance, likeliest, sides_m), kept, 1 - largest.values.sum(dim=1)


def _outside_m(points_m: Tensor, area_m: Corners | None) -> Tensor:
    if area_m is None:
        return torch.zeros_like(points_m[..., 0])
    return metres_outside(points_m, points_m.new_tensor(area_m))
