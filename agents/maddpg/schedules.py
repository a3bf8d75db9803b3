"""What changes along a run: exploration noise and learning rates."""

from __future__ import annotations

import math


def noise_scale(fraction: float, start: float, end: float, over: float) -> float:
    """Linear fall from ``start`` to ``end`` while ``fraction`` of the run goes from 0 to ``over``, then constant."""
    return end if over == 0 else start + (end - start) * min(fraction / over, 1.0)


def cosine_factor(fraction: float, final: float) -> float:
    """Learning-rate factor: 1 at the start, ``final`` at the end, half a cosine in between."""
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * fraction))
