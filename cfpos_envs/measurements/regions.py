"""Regions that estimators state beside a covariance: which shares of the truth they hold, and a Gaussian's radii."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.special import gammaincinv

LEVELS = (0.5, 0.9)
"""Shares of the truth that stated regions hold, in the order of ``PositionEstimate.radii``."""


def gaussian_radii(dimensions: int) -> Float[np.ndarray, " levels"]:
    """Radii of a Gaussian's regions of ``LEVELS``: roots of the quantiles of chi^2.

    Args:
        dimensions: D.
    """
    radii: np.ndarray = np.sqrt([2 * gammaincinv(dimensions / 2, level) for level in LEVELS])
    return radii
