"""When an answer is believed: residuals against the stated noise."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

FALSE_ALARM = 1e-3
"""Share of right answers whose residuals may be called too large."""

FEWEST_USERS = 8
"""Smaller groups are judged user by user."""

_FAILING = 0.5


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
