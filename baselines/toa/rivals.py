"""Other places that explain ranges of which some are too long: what a robust fix is doubted for.

A robust loss has many minima: leave a link out that is believed, believe one that is left out, and the fix moves. Where
such a place is nearly as likely under the mixture of links with and without line of sight, the covariance has to reach
there, or the answer is ambiguous.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..least_squares import Fit, Loss, levenberg_marquardt, of_copies
from .links import RangeLinks, near_links, spread_of_aps

Part = TypeVar("Part", RangeLinks, Fit)

_AMONG = {2: 10, 3: 9}
"""Links, those that fit best, of which every two (three with an unknown offset) give a candidate."""

_FEWEST_DECIDING = 5
"""So many links, and one more with an unknown offset, decide between far places by themselves, unless in a row."""

_ROW = 0.2
_AT_A_TIME = 1 << 19
"""Residuals worked on at a time: memory must not grow with the number of users."""

_REACH = 0.25
"""Share of the area's side to which the linear step is believed."""

_PLACES = 5
_STEPS = 12
_APART_STD = 1.5
"""Places closer than this many standard deviations are one."""


@dataclass(frozen=True)
class Rivals:
    """The places that explain the ranges, the answer's own among them.

    Attributes:
        best: the likeliest one, with the information of the links that fit there.
        spread_m2: second moment of all of them around the answer, each by its probability.
    """

    best: Fit
    spread_m2: Float[Tensor, "B K 2 2"]


def rivals(links: RangeLinks, fit: Fit, loss: Loss) -> Rivals:
    """The minima of ``loss`` around a fix, by Laplace's approximation.

    Args:
        links: all that count.
        fit: the answer.
        loss: negative log-likelihood that knows of both kinds of links; the same for all users of an episode.
    """
    episodes, aps, users = links.range_m.shape
    size = max(1, _AT_A_TIME // max(1, episodes * aps * (aps + 84)))
    parts = [
        _rivals(_of_users(links, part), _of_users(fit, part), loss)
        for part in (slice(low, low + size) for low in range(0, max(users, 1), size))
    ]
    bests = [part.best for part in parts]
    # Residuals have the users last, everything else after the episodes.
    axes = {field.name: 2 if field.name == "residual_m" else 1 for field in dataclasses.fields(Fit)}
    best = Fit(**{name: torch.cat([getattr(one, name) for one in bests], dim=axis) for name, axis in axes.items()})
    return Rivals(best, torch.cat([part.spread_m2 for part in parts], dim=1))


def _of_users(whole: Part, part: slice) -> Part:
    if isinstance(whole, Fit):
        values = {field.name: getattr(whole, field.name) for field in dataclasses.fields(Fit)}
        taken = {name: value[:, :, part] if name == "residual_m" else value[:, part] for name, value in values.items()}
        return dataclasses.replace(whole, **taken)
    names = ("range_m", "std_m", "usable")
    return dataclasses.replace(whole, **{name: getattr(whole, name)[:, :, part] for name in names})


def _rivals(links: RangeLinks, fit: Fit, loss: Loss) -> Rivals:
    points, offsets, information = _candidates(links, fit)
    count, own = points.shape[1], fit.position_m.unsqueeze(1)
    cost = levenberg_marquardt(links.repeated(count), points.flatten(1, 2), loss, 0, offsets.flatten(1, 2)).cost
    left = cost.unflatten(1, (count, -1)).nan_to_num(nan=torch.inf)
    starts, biases = [own], [fit.offset_m.unsqueeze(1)]
    for _ in range(_PLACES):
        left = torch.where(_squares(points - starts[-1], information) > _APART_STD**2, left, torch.inf)
        index = left.argmin(dim=1, keepdim=True)
        starts.append(points.gather(1, index.unsqueeze(-1).expand(-1, -1, -1, 2)))
        biases.append(offsets.gather(1, index))
    start, bias, copies = torch.cat(starts, dim=1), torch.cat(biases, dim=1), 1 + _PLACES
    ends = levenberg_marquardt(links.repeated(copies), start.flatten(1, 2), loss, _STEPS, bias.flatten(1, 2))
    return _weighed(links, ends, fit, information, copies)


def _weighed(links: RangeLinks, ends: Fit, fit: Fit, information: Tensor, copies: int) -> Rivals:
    place = ends.position_m.unflatten(1, (copies, -1))
    size = -0.5 * torch.linalg.det(ends.information).clamp(min=torch.finfo(place.dtype).tiny).log()
    score = (size - ends.cost).unflatten(1, (copies, -1))
    score = torch.where(torch.isfinite(score), score, -torch.inf)
    for one in range(1, copies):
        for other in range(one):
            same = _squares(place[:, one] - place[:, other], information[:, 0]) <= _APART_STD**2
            score[:, one] = torch.where(same & torch.isfinite(score[:, other]), -torch.inf, score[:, one])
    weight = torch.softmax(score, dim=1).nan_to_num()
    apart = place - fit.position_m.unsqueeze(1)
    index = weight.argmax(dim=1)
    position, offset = of_copies(ends.position_m, index), of_copies(ends.offset_m, index)
    best = levenberg_marquardt(links, position, steps=0, offset_m=offset)
    fitting = levenberg_marquardt(links.only(near_links(links, best)), position, steps=0, offset_m=offset)
    best = dataclasses.replace(best, information=fitting.information, unique=fit.unique | _deciding(links))
    return Rivals(best, torch.einsum("bsk,bski,bskj->bkij", weight, apart, apart))


def _deciding(links: RangeLinks) -> Bool[Tensor, "B K"]:
    """Whether there are so many links that places far away have been weighed by what contradicts them."""
    (across, along), _ = spread_of_aps(links.ap_positions_m, links.usable)
    return (links.usable.sum(dim=1) >= _FEWEST_DECIDING + int(links.unknown_offset)) & (across > _ROW * along)


def _candidates(links: RangeLinks, fit: Fit) -> tuple[Tensor, Tensor, Tensor]:
    """Points [B, S, K, 2], offsets [B, S, K] and information [B, 1, K, 2, 2] of the believed links.

    Without each one of the believed links, and where as few links as fix a position agree, to first order.
    """
    unknowns = 3 if links.unknown_offset else 2
    unit, _ = links.at(fit.position_m)
    rows = torch.cat((unit, torch.ones_like(unit[..., :1])), dim=-1)[..., :unknowns]
    residual = fit.residual_m
    weight = near_links(links, fit) / links.std_m.square()
    outer = weight[..., None, None] * rows.unsqueeze(-1) * rows.unsqueeze(-2)
    pull = (weight * residual).unsqueeze(-1) * rows
    total = outer.sum(dim=1, keepdim=True)
    step = torch.linalg.solve_ex(total - outer, (pull.sum(dim=1, keepdim=True) - pull).unsqueeze(-1)).result
    steps = [step.squeeze(-1)]
    z = torch.where(links.usable, residual.abs() / links.std_m, torch.inf)
    best = z.topk(min(_AMONG[unknowns], z.shape[1]), dim=1, largest=False).indices
    chosen = best[:, torch.combinations(torch.arange(best.shape[1], device=best.device), unknowns)]  # [B, S, n, K]
    index = chosen.movedim(-1, 2)  # [B, S, K, n]
    users = torch.arange(index.shape[2], device=index.device)[:, None]
    episodes = torch.arange(len(index), device=index.device)[:, None, None, None]
    steps.append(
        torch.linalg.solve_ex(
            rows[episodes, index, users], residual[episodes, index, users].unsqueeze(-1)
        ).result.squeeze(-1)
    )
    step = torch.cat(steps, dim=1).nan_to_num(0.0, 0.0, 0.0)
    length = torch.linalg.vector_norm(step[..., :2], dim=-1, keepdim=True)
    step = step * (_REACH * links.side_m / length.clamp(min=_REACH * links.side_m))
    offset = fit.offset_m.unsqueeze(1).expand(step.shape[:-1])
    if unknowns == 3:
        cross = total[..., :2, 2] / total[..., 2:, 2].clamp(min=torch.finfo(total.dtype).tiny)
        information = total[..., :2, :2] - cross.unsqueeze(-1) * total[..., 2:, :2]
        return fit.position_m.unsqueeze(1) + step[..., :2], offset + step[..., 2], information
    return fit.position_m.unsqueeze(1) + step, offset, total


def _squares(vectors: Tensor, information: Tensor) -> Tensor:
    return (vectors.unsqueeze(-2) @ information @ vectors.unsqueeze(-1))[..., 0, 0]
