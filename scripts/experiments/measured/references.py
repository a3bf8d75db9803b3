"""The same tasks by scipy and scikit-learn, as anybody would write them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Complex, Float
from scipy.optimize import least_squares
from sklearn.neighbors import KNeighborsRegressor

LEAST_LINKS = 3
"""Fewer ranges fix no position."""


def least_squares_fixes(
    ap_positions_m: Float[np.ndarray, "M D"],
    range_m: Float[np.ndarray, "n M"],
    user_height_m: float | None,
    loss: str = "linear",
    scale_m: float = 1.0,
    within_m: Float[np.ndarray, "2 2"] | None = None,
) -> Float[np.ndarray, "n 2"]:
    """``scipy.optimize.least_squares`` on |p - q| - r from the middle of the access points that were heard; NaN with
    fewer than three ranges.

    Args:
        ap_positions_m: with heights if the set has them.
        range_m: NaN where not measured; what is not positive is left out.
        user_height_m: where there are heights.
        loss, scale_m: ``loss`` and ``f_scale`` of scipy.
        within_m: lowest and highest corner of the place that is allowed; the start is its middle.
    """
    drop = np.zeros(len(ap_positions_m))
    if ap_positions_m.shape[1] == 3 and user_height_m is not None:
        drop = ap_positions_m[:, 2] - user_height_m
    fixes = np.full((len(range_m), 2), np.nan)
    for row, ranges in enumerate(range_m):
        heard = ranges > 0
        if heard.sum() < LEAST_LINKS:
            continue
        aps, height, told = ap_positions_m[heard, :2], drop[heard], ranges[heard]

        def residual(
            place: np.ndarray, aps: np.ndarray = aps, height: np.ndarray = height, told: np.ndarray = told
        ) -> np.ndarray:
            return np.sqrt(((place - aps) ** 2).sum(axis=1) + height**2) - told

        start, bounds = (aps.mean(axis=0), (-np.inf, np.inf)) if within_m is None else (within_m.mean(axis=0), within_m)
        fixes[row] = least_squares(residual, start, loss=loss, f_scale=scale_m, bounds=tuple(bounds)).x
    return fixes


def neighbours(
    places_m: Float[np.ndarray, "P 2"],
    table: Float[np.ndarray, "P F"],
    query: Float[np.ndarray, "n F"],
    fill: float,
    count: int = 4,
) -> Float[np.ndarray, "n 2"]:
    """``KNeighborsRegressor`` with weights 1 / distance; what was not measured is ``fill``."""
    model = KNeighborsRegressor(min(count, len(places_m)), weights="distance")
    fixes: np.ndarray = model.fit(_filled(table, fill), places_m).predict(_filled(query, fill))
    return fixes


def csi_features(csi: Complex[np.ndarray, "n M N"], rss_dbm: Float[np.ndarray, "n M"]) -> Float[np.ndarray, "n F"]:
    """Amplitudes of unit norm per access point, zero where it was not heard, and the power in units of 20 dB."""
    size = np.nan_to_num(np.abs(csi))
    norm = np.linalg.norm(size, axis=2, keepdims=True)
    unit = size / np.where(norm > 0, norm, 1.0)
    return np.concatenate((unit.reshape(len(csi), -1), np.nanmax(rss_dbm, axis=1, keepdims=True) / 20.0), axis=1)


def _filled(values: np.ndarray, fill: float) -> np.ndarray:
    return np.where(np.isfinite(values), values, fill)
