"""When an answer is believed: residuals against the stated noise."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from scipy.special import chdtri
from torch import Tensor

FALSE_ALARM = 1e-3
"""Share of right answers whose residuals may be called too large."""

FEWEST_USERS = 8
"""Smaller groups are judged user by user."""

_FAILING = 0.5
_POOLED_RATIO = 1.4
"""A stated deviation that is too small by less than the root of this is no reason to doubt a group."""


def tail_probability(
    chi_squared: Float[Tensor, "*batch"], degrees_of_freedom: Int[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """P(X >= chi_squared) of a chi-squared variable, Q(f/2, x/2); 1 where there is nothing to test (f <= 0).

    Args:
        chi_squared: sums of squared residuals over their variances, >= 0.
        degrees_of_freedom: residuals minus unknowns.
    """
    tested = degrees_of_freedom > 0
    half = torch.where(tested, degrees_of_freedom, 1).double() / 2
    probability = torch.special.gammaincc(half, chi_squared.double().clamp(min=0.0) / 2)
    return torch.where(tested, probability, 1.0)


def residuals_fit(
    chi_squared: Float[Tensor, "*batch"],
    degrees_of_freedom: Int[Tensor, "*batch"],
    false_alarm: float = FALSE_ALARM,
) -> Bool[Tensor, "*batch"]:
    """Whether the residuals are no larger than their stated noise makes them with probability 1 - ``false_alarm``."""
    return tail_probability(chi_squared, degrees_of_freedom) >= false_alarm


def mostly(failing: Bool[Tensor, "B K"], tested: Bool[Tensor, "B K"]) -> Bool[Tensor, "B 1"]:
    """Episodes of eight users or more of whom more than half fail, of those that are tested.

    What is wrong with a site or its stated noise spoils everybody; a few fit by chance.
    """
    share = (failing & tested).sum(dim=1, keepdim=True) / tested.sum(dim=1, keepdim=True).clamp(min=1)
    return (share > _FAILING) & (failing.shape[1] >= FEWEST_USERS)


def pooled_misfit(chi_squared: Float[Tensor, "B K"], degrees_of_freedom: Int[Tensor, "B K"]) -> Bool[Tensor, "B 1"]:
    """Episodes whose users do not fit together, even if many do one by one: their sum of chi squared is too large.

    Links that all lose the same move every answer to where the rest is small; over all users it is not. No user counts
    for more than the largest chi squared that is believed, so that one with a blocked link does not spoil the others;
    this makes sums smaller than their law, and right answers fail no more often than stated.

    Args:
        chi_squared, degrees_of_freedom: of every user.
    """
    freedom = degrees_of_freedom.clamp(min=0)
    largest = torch.from_numpy(chdtri(freedom.clamp(min=1).cpu().double().numpy(), FALSE_ALARM)).to(chi_squared)
    counted = torch.where(freedom > 0, torch.minimum(chi_squared, largest), 0.0)
    total, tested = counted.sum(dim=1, keepdim=True), freedom.sum(dim=1, keepdim=True)
    several = (freedom > 0).sum(dim=1, keepdim=True) > 1
    return several & ~residuals_fit(total, tested) & (total > _POOLED_RATIO * tested)
