"""The law by which received power falls with distance, fitted to places where it was measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

_LEAST_M = 0.1
_LEAST_SLOPE_DB = 1.0


@dataclass(frozen=True)
class PathLoss:
    """RSS = at_1m_dbm[m] - slope_db log10(d / 1 m).

    Attributes:
        at_1m_dbm: [M] dBm at 1 m of every access point.
        slope_db: dB per decade of distance.
        std_db: standard deviation of what the law misses.
    """

    at_1m_dbm: Float[np.ndarray, " M"]
    slope_db: float
    std_db: float


def fitted_path_loss(rss_dbm: Float[np.ndarray, "n M"], distance_m: Float[np.ndarray, "n M"]) -> PathLoss:
    """Least squares with one slope and an offset per access point; one that was heard fewer than twice has the mean.

    Args:
        rss_dbm: NaN where not heard.
        distance_m: from user to access point, in space where heights are known.

    Raises:
        ValueError: too few readings, or a power that does not fall with distance.
    """
    heard = np.isfinite(rss_dbm)
    decades = np.log10(np.maximum(distance_m, _LEAST_M))
    own = heard.sum(axis=0) >= 2
    used = heard & own
    if used.sum() < own.sum() + 2 or not own.any():
        raise ValueError(f"{int(used.sum())} readings are too few to fit a path loss; survey more places")
    count = used.sum(axis=0)

    def centred(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean = np.where(used, values, 0.0).sum(axis=0) / np.maximum(count, 1)
        return np.where(used, values - mean, 0.0), mean

    (power, mean_dbm), (away, mean_decade) = centred(rss_dbm), centred(decades)
    spread = float((away**2).sum())
    slope = -float((power * away).sum()) / spread if spread > 0 else 0.0
    if slope < _LEAST_SLOPE_DB:
        raise ValueError(
            f"the received power does not fall with distance ({slope:.1f} dB per decade); look at the places of the "
            "access points and their order"
        )
    at_1m = mean_dbm + slope * mean_decade
    at_1m = np.where(own, at_1m, at_1m[own].mean())
    freedom = max(int(used.sum() - own.sum() - 1), 1)
    std_db = float(np.sqrt(((power + slope * away) ** 2).sum() / freedom))
    return PathLoss(at_1m, slope, std_db)
