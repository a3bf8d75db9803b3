"""What no single user with few links shows, a group of users does: the wrong sign, a deviation that is too small."""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Bool
from torch import Tensor

from cfpos_envs.measurements.base import Reason

from ..validity import mostly, residuals_fit
from .judge import Verdict, chi_squared_at
from .links import RangeLinks
from .multilateration import solve_ranges

_FITTING = 0.8


def check_signs(links: RangeLinks, verdict: Verdict) -> Verdict:
    """The verdict with ``BAD_INPUT`` for all users of the episodes whose differences fit with the other sign only.

    More than half of the users do not fit their noise as they are, and more than four of five fit reversed.

    Args:
        links: with an unknown offset; others are left alone.
        verdict: on the answers.
    """
    if not links.unknown_offset:
        return verdict
    tested = links.usable.sum(dim=1) > 3
    misfits = (Reason.LARGE_RESIDUALS, Reason.NOT_CONVERGED, Reason.OUTSIDE)
    misfit = torch.isin(verdict.reason, torch.tensor([int(cause) for cause in misfits], device=tested.device))
    failing = mostly(misfit, tested)
    if not bool(failing.any()):
        return verdict
    reversed_links = dataclasses.replace(links, range_m=-links.range_m)
    found = chi_squared_at(reversed_links, solve_ranges(reversed_links).position_m)
    freedom = links.usable.sum(dim=1) - 3
    wrong = failing & (_share(residuals_fit(found, freedom), tested) > _FITTING).unsqueeze(1)
    return verdict.where(~wrong.expand_as(tested), verdict.all_of(Reason.BAD_INPUT))


def check_group(verdict: Verdict, tested: Bool[Tensor, "B K"]) -> Verdict:
    """The verdict with ``LARGE_RESIDUALS`` for all users of the episodes in which most contradict their noise.

    Access points that are not where they are said to be, or a deviation that is too small, spoil everybody; a few fit
    by chance.

    Args:
        verdict: of a method that allows for links without line of sight.
        tested: users with measurements to spare.
    """
    failing = mostly(verdict.reason == int(Reason.LARGE_RESIDUALS), tested)
    return verdict.also(Reason.LARGE_RESIDUALS, failing.expand_as(tested))


def _share(of: Bool[Tensor, "B K"], among: Bool[Tensor, "B K"]) -> Tensor:
    return (of & among).sum(dim=1) / among.sum(dim=1).clamp(min=1)
