"""How well directions of several arrays agree on a place: covariance, rival places, and whether they agree at all.

A direction is off by noise and, more, by paths that the array cannot tell from the strongest: what the signal subspace
does not hold is a fair scale of both, with tails of a Cauchy distribution for links whose strongest path is a
reflection. Under that law every place has a likelihood; its maxima next to the answer and elsewhere make the
covariance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_DIMENSIONS = 2
_LEAST_RANGE_M = 1.0
_FINEST = 1e-3
"""Direction cosines are not known better than this: the search for their maximum ends, arrays stand a little askew."""

_STEPS = 8
_LARGEST_STEP = 0.25
"""Of the area's diagonal: how far a step may lead."""

_PLACES = 4
"""Maxima that are told apart."""

_STARTS, _STARTS_AT_A_TIME = 48, 64
"""Starts that are followed, and that are compared at once: memory must not grow with the square of the arrays."""

_APART = 3.0
"""Maxima closer than this many standard deviations are one."""

_FAR = 5.0
_AGREE = 9.0
"""Squared residual, in units of its scale, up to which a link counts as in agreement."""


@dataclass(frozen=True)
class Rays:
    """Directions of arrays and how well they are known.

    Attributes:
        places_m: the arrays.
        sides: unit directions; where there are two, either may be the right one.
        information: inverse of the scale matrix of a direction's error, in the world's frame; zero where there is no
            direction.
    """

    places_m: Float[Tensor, "S L 3"]
    sides: Float[Tensor, "S L D 3"]
    information: Float[Tensor, "S L 3 3"]

    def residuals(self, point_m: Float[Tensor, "S K 3"]) -> tuple[Tensor, Tensor, Tensor]:
        """[S, K, L, 3] difference of the directions to points and the better of each link's, its square over its scale
        [S, K, L], and the derivative of the former by the point [S, K, L, 3, 3]."""
        away = point_m.unsqueeze(2) - self.places_m.unsqueeze(1)
        distance = away.norm(dim=-1, keepdim=True).clamp(min=_LEAST_RANGE_M)
        towards = away / distance
        side = torch.einsum("sldi,skli->skld", self.sides, towards).argmax(dim=-1)
        index = side[..., None, None].expand(*side.shape, 1, 3)
        chosen = self.sides.unsqueeze(1).expand(-1, point_m.shape[1], -1, -1, -1).gather(-2, index).squeeze(-2)
        off = towards - chosen
        squared = torch.einsum("skli,slij,sklj->skl", off, self.information, off)
        eye = torch.eye(3, dtype=away.dtype, device=away.device)
        slope = (eye - towards.unsqueeze(-1) * towards.unsqueeze(-2)) / distance.unsqueeze(-1)
        return off, squared, slope


@dataclass(frozen=True)
class Agreement:
    """What rays say of an answer.

    Attributes:
        covariance_m2: of the answer, rival places included.
        elsewhere: probability of places more than five standard deviations and the resolution of the arrays away.
        evidence: log of the odds that the rays mean one place rather than none.
        chi_squared: of the residuals of links that agree.
        agreeing: number of these links.
    """

    covariance_m2: Float[Tensor, "S 3 3"]
    elsewhere: Float[Tensor, " S"]
    evidence: Float[Tensor, " S"]
    chi_squared: Float[Tensor, " S"]
    agreeing: Int[Tensor, " S"]


def direction_information(
    eigenvalues: Float[Tensor, "S L A"],
    elements_wavelengths: Float[Tensor, "A 3"],
    rotation: Float[Tensor, "S L 3 3"],
    valid: Bool[Tensor, "S L"],
) -> Float[Tensor, "S L 3 3"]:
    """2 P / s2 (2 pi)^2 sum (r - r0)(r - r0)^T: the information of one snapshot about the direction of one wave.

    The Cramer-Rao bound of one source (Stoica and Nehorai, IEEE Trans. ASSP 37 (1989) 720). P is the power per antenna
    of the largest eigenvalue, s2 the mean of the others. They hold noise and paths; the latter are the same in all
    snapshots, which therefore count as one.

    Args:
        eigenvalues: of R, ascending.
        elements_wavelengths: antennas, in the array's frame.
        rotation: from it to the world's.
        valid: links that have a direction.
    """
    antennas = eigenvalues.shape[-1]
    rest = eigenvalues[..., :-1].clamp(min=0.0).mean(dim=-1)
    power = (eigenvalues[..., -1] - rest).clamp(min=0.0) / antennas
    arms = 2 * math.pi * (elements_wavelengths - elements_wavelengths.mean(dim=0)).to(eigenvalues)
    aperture = arms.mT @ arms
    most = 1.0 / (_FINEST**2 * float(torch.linalg.matrix_norm(aperture, 2)))
    quality = (2 * power / rest.clamp(min=torch.finfo(rest.dtype).tiny)).clamp(max=most)
    quality = torch.where(valid, quality, 0.0)
    return quality[..., None, None] * (rotation @ aperture @ rotation.mT)


def agreement(
    rays: Rays,
    answer_m: Float[Tensor, "S 3"],
    starts_m: Float[Tensor, "S K 3"],
    low_m: Float[Tensor, "3"],
    high_m: Float[Tensor, "3"],
    resolution_rad: float,
) -> Agreement:
    """Judge answers by the maxima of the likelihood next to them and to other starts.

    Args:
        rays: directions.
        answer_m: answers.
        starts_m: where else the user may be.
        low_m, high_m: corners of the area.
        resolution_rad: places that the arrays see closer to each other are one.
    """
    rays = Rays(*(values.double() for values in (rays.places_m, rays.sides, rays.information)))
    points = torch.cat((answer_m.double().unsqueeze(1), _likeliest(rays, starts_m.double())), dim=1)
    low, high, answer = low_m.double(), high_m.double(), answer_m.double()
    maxima = _climb(rays, points, low, high)
    loss, covariance = _laplace(rays, maxima, low, high)
    # The probability of a maximum by Laplace's method, up to a common factor.
    weight = 0.5 * torch.linalg.slogdet(covariance).logabsdet - loss
    chosen, kept = _different(maxima, covariance, weight)
    rows = torch.arange(len(answer), device=answer.device).unsqueeze(1)
    weight = torch.where(kept, weight[rows, chosen], -torch.inf)
    share = torch.softmax(weight, dim=1)
    away = maxima[rows, chosen] - answer.unsqueeze(1)
    here = covariance[rows, chosen]
    spread = here + away.unsqueeze(-1) * away.unsqueeze(-2)
    total = torch.einsum("sk,skij->sij", share, spread)
    links = torch.diagonal(rays.information, dim1=-2, dim2=-1).sum(dim=-1) > 0
    distance = (answer.unsqueeze(1) - rays.places_m).norm(dim=-1)
    resolution = resolution_rad * (links * distance).sum(dim=1) / links.sum(dim=1).clamp(min=1)
    far = (_squared(away, covariance[:, :1]) > _FAR**2) & (away.norm(dim=-1) > resolution.unsqueeze(1))
    evidence = torch.logsumexp(weight, dim=1) + _against_chance(rays, links, high - low)
    squared = rays.residuals(maxima[:, :1])[1][:, 0]
    agree = links & (squared < _AGREE)
    return Agreement(
        total, (share * far).sum(dim=1), evidence, torch.where(agree, squared, 0.0).sum(dim=1), agree.sum(dim=1)
    )


def _likeliest(rays: Rays, points: Tensor) -> Tensor:
    """At most ``_STARTS`` of points [S, K, 3]."""
    if points.shape[1] <= _STARTS:
        return points
    blocks = points.split(_STARTS_AT_A_TIME, dim=1)
    loss = torch.cat([torch.log1p(rays.residuals(block)[1]).sum(dim=-1) for block in blocks], dim=1)
    index = loss.topk(_STARTS, dim=1, largest=False).indices
    return points.gather(1, index.unsqueeze(-1).expand(-1, -1, 3))


def _climb(rays: Rays, points: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Maxima of the likelihood next to points [S, K, 3], by reweighted least squares in the area."""
    longest = _LARGEST_STEP * (high - low).norm()
    for _ in range(_STEPS):
        off, squared, slope = rays.residuals(points)
        weighted = (3.0 / (1.0 + squared))[..., None, None] * torch.einsum("sklij,sljm->sklim", slope, rays.information)
        matrix = torch.einsum("sklij,skljm->skim", weighted, slope) + _prior(low, high)
        step = torch.linalg.solve(matrix, -torch.einsum("sklij,sklj->ski", weighted, off).unsqueeze(-1)).squeeze(-1)
        step = step * (longest / step.norm(dim=-1, keepdim=True).clamp(min=1e-9)).clamp(max=1.0)
        points = torch.minimum(torch.maximum(points + step, low), high)
    return points


def _laplace(rays: Rays, points: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """-log likelihood [S, K] up to a constant, and covariances [S, K, 3, 3], at maxima."""
    _, squared, slope = rays.residuals(points)
    loss = 1.5 * torch.log1p(squared).sum(dim=-1)
    weight = (3.0 / (1.0 + squared)).clamp(max=1.0)
    matrix = torch.einsum("skl,sklij,sljm,sklmn->skin", weight, slope, rays.information, slope)
    return loss, torch.linalg.inv(matrix + _prior(low, high))


def _prior(low: Tensor, high: Tensor) -> Tensor:
    """Information of a user anywhere in the area."""
    return torch.diag(12.0 / (high - low).square())


def _different(points: Tensor, covariance: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Indices [S, n] of maxima that are different, the answer's own first, and whether there are as many."""
    left = torch.ones_like(weight, dtype=torch.bool)
    pick = torch.zeros_like(weight[:, 0], dtype=torch.long)
    picked, kept = [], []
    rows = torch.arange(len(points), device=points.device)
    for _ in range(_PLACES):
        picked.append(pick)
        kept.append(left[rows, pick])
        away = points - points[rows, pick].unsqueeze(1)
        left &= _squared(away, covariance[rows, pick].unsqueeze(1)) > _APART**2
        pick = torch.where(left, weight, -torch.inf).argmax(dim=1)
    return torch.stack(picked, dim=1), torch.stack(kept, dim=1)


def _squared(away: Tensor, covariance: Tensor) -> Tensor:
    whitened = torch.linalg.solve(covariance, away.unsqueeze(-1)).squeeze(-1)
    return (away * whitened).sum(dim=-1)


def _against_chance(rays: Rays, links: Tensor, size: Tensor) -> Tensor:
    """What turns Laplace weights into odds against directions that are uniform in front of their arrays, as logarithm.

    Per link the Cauchy density at its centre, |W|^(1/2) / 2 pi, over 1 / pi, that of two direction cosines in a disc;
    for the place (2 pi)^(3/2) over the volume of the area.
    """
    values = torch.linalg.eigvalsh(rays.information)[..., 1:].clamp(min=1e-12)
    per_link = torch.where(links, 0.5 * values.log().sum(dim=-1) - math.log(2.0), 0.0)
    return per_link.sum(dim=-1) + 1.5 * math.log(2 * math.pi) - size.log().sum()
