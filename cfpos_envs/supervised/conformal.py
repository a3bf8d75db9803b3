"""Regions that hold a stated share of the truth whatever the errors look like: split conformal prediction."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def least_places(level: float) -> int:
    """Smallest set that can bound a risk of 1 - ``level``: ceil((n + 1) level) <= n.

    Args:
        level: in (0, 1).
    """
    return math.ceil(level / (1 - level) - 1e-9)


def conformal_radius(scores: Float[Tensor, " n"], level: float) -> float:
    """The ceil((n + 1) level)-th smallest score.

    A new score that is exchangeable with these n is at most that with probability >= ``level``, and, without ties,
    < ``level`` + 1 / (n + 1) (Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005).

    Args:
        scores: of places that nothing was learned from.
        level: in (0, 1).

    Raises:
        ValueError: a level outside of that, or too few scores for it.
    """
    if not 0 < level < 1:
        raise ValueError(f"level={level!r} must lie in (0, 1).")
    count, least = len(scores), least_places(level)
    if count < least:
        raise ValueError(
            f"{count} places set aside cannot bound a risk of {100 * (1 - level):.3g} %; set at least {least} aside."
        )
    rank = math.ceil((count + 1) * level - 1e-9)
    return float(torch.sort(scores.double()).values[rank - 1])
