"""How far off an answer from nearest neighbours is, learned from places whose answer is known.

A survey locates its own places, each without its own entry. What their errors are beside the spread of the neighbours
scales the covariance of later answers, and how unlike everything else the entries are says which measurements the
survey does not know.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from scipy.special import gammaincinv
from torch import Tensor

from cfpos_envs.measurements.base import Rows
from cfpos_envs.physics.geometry import nearest_image

LEAST_PLACES = 8
"""Known answers below which nothing is learned."""

MOST_PROBES = 1024
"""Known answers that are looked at, at most."""

SEEN = 4
"""Neighbours whose spread counts, however few make the position."""

_ROUND = 0.5
"""Share of the neighbours' spread that is taken for the same in all directions: three in a row say nothing across."""

_USUAL, _REFUSED = 0.1, 1e-4
"""Shares of known places that are stranger than usual, and too strange to be believed: an exponential tail from the
median through the quantile of ``_TAIL``. The level is below 1e-3, for users are not measured as evenly as a survey."""

_TAIL = 0.05


@dataclass(frozen=True)
class Neighbourhood(Rows):
    """What Q answers were made of.

    Attributes:
        spread_m2: mean outer product of the neighbours' places around the answer.
        strangeness: how unlike the most similar reference the measurement is, >= 0, on any scale.
    """

    spread_m2: Float[Tensor, "Q D D"]
    strangeness: Float[Tensor, " Q"]


@dataclass(frozen=True)
class ErrorModel:
    """Covariances of answers: C = factor max(1, u / usual)^2 (S + floor I) with spread S and strangeness u.

    Attributes:
        floor_m2: variance of a place between references that lie around it.
        factor: of all covariances.
        usual: strangeness up to which it says nothing.
        most: strangeness above which a measurement is like nothing that is known.
    """

    floor_m2: float
    factor: float
    usual: float
    most: float

    @classmethod
    def of(
        cls, known: Neighbourhood, error_m: Float[Tensor, "Q D"], spacing_m: Float[Tensor, " P"]
    ) -> ErrorModel | None:
        """Learn from answers whose errors are known; None where there are too few.

        The factor is the geometric mean of those that put half and nine tenths of the errors into the ellipses of
        these probabilities: errors of neighbours have longer tails than a Gaussian.

        Args:
            known: of places that did not know themselves.
            error_m: of their answers.
            spacing_m: from every reference to its nearest.
        """
        if len(error_m) < LEAST_PLACES:
            return None
        dimensions = error_m.shape[-1]
        floor_m2 = max(float(spacing_m.square().mean()) / 12, _tiny(error_m))
        strangeness = known.strangeness.double()
        middle, usual, rare = (float(strangeness.quantile(1 - share)) for share in (0.5, _USUAL, _TAIL))
        most = middle + (rare - middle) * math.log(0.5 / _REFUSED) / math.log(0.5 / _TAIL)
        start = cls(floor_m2, 1.0, max(usual, torch.finfo(torch.float64).tiny), most)
        whitened = torch.linalg.solve(start.covariance_m2(known), error_m.double().unsqueeze(-1)).squeeze(-1)
        squared = (error_m.double() * whitened).sum(dim=-1)
        ratios = [float(squared.quantile(level)) / (2 * gammaincinv(dimensions / 2, level)) for level in (0.5, 0.9)]
        factor = math.sqrt(max(ratios[0], _TINY) * max(ratios[1], _TINY))
        return cls(floor_m2, factor, start.usual, most)

    def covariance_m2(self, found: Neighbourhood) -> Float[Tensor, "Q D D"]:
        """Covariances of answers, in double precision."""
        spread = found.spread_m2.double()
        dimensions = spread.shape[-1]
        eye = torch.eye(dimensions, dtype=torch.float64, device=spread.device)
        even = torch.diagonal(spread, dim1=-2, dim2=-1).mean(dim=-1)[..., None, None] * eye
        wider = (found.strangeness.double() / self.usual).clamp(min=1.0).square()[..., None, None]
        return self.factor * wider * ((1 - _ROUND) * spread + _ROUND * even + self.floor_m2 * eye)

    def strange(self, found: Neighbourhood) -> Bool[Tensor, " Q"]:
        """Answers to measurements that are like nothing that is known."""
        return found.strangeness > self.most


_TINY = 1e-6


def probes(count: int, most: int = MOST_PROBES) -> Tensor:
    """Indices of at most ``most`` of ``count`` entries, the same ones every time."""
    if count <= most:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:most].sort().values


def nearest_spacing_m(
    places_m: Float[Tensor, "P D"], side_m: float = 1.0, wrap: bool = False, most: int = MOST_PROBES
) -> Float[Tensor, " n"]:
    """Distance from some of the places to the nearest other one.

    Args:
        places_m: different from each other.
        side_m, wrap: the torus, if they lie on one.
        most: places that are looked at.
    """
    asked = probes(len(places_m), most)
    distance = nearest_image(places_m[asked].unsqueeze(1) - places_m, side_m, wrap).square().sum(dim=-1)
    distance[torch.arange(len(asked)), asked] = torch.inf
    return distance.amin(dim=-1).sqrt()


def spread_m2(offsets_m: Float[Tensor, "Q k D"], weights: Float[Tensor, "Q k"]) -> Float[Tensor, "Q D D"]:
    """Mean of two second moments around the answer: of the neighbours by their weights, and of the ``SEEN`` nearest.

    Args:
        offsets_m: places of the neighbours minus the answer, the nearest first.
        weights: of those that make the answer, zero for others; their sum is 1.
    """
    near = torch.zeros_like(weights)
    near[:, :SEEN] = 1.0 / min(SEEN, near.shape[1])
    return torch.einsum("qk,qki,qkj->qij", ((weights + near) / 2).to(offsets_m.dtype), offsets_m, offsets_m)


def _tiny(error_m: Tensor) -> float:
    """A variance that keeps covariances regular where all references stand in one place."""
    return max(1e-6 * float(error_m.square().mean()), _TINY**2)
