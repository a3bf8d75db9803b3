"""Sets in another unit than they say: ranges in millimetres, places in grid steps."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from cfpos_envs.datasets.base import MeasuredSet, distances_m

_SCALES = np.geomspace(0.2, 5.0, 65)
# Another scale is believed if it is off by a quarter and leaves less than half of the residuals.
_FAR, _BETTER = 1.25, 0.5
_LONGEST = 50.0
_ENOUGH_FOR_OFFSETS = 10


def check_scale(measured: MeasuredSet) -> None:
    """Refuse a set whose ranges do not fit its places; ``check_places`` of its training part.

    Raises:
        ValueError: as there.
    """
    part = measured.train if len(measured.train) else measured.test
    if part.range_m is not None and measured.ap_positions_m is not None:
        check_places(measured.name, measured.ap_positions_m, part.truth_m, part.range_m, measured.user_height_m)


def check_places(
    name: str,
    aps: Float[np.ndarray, "M D"],
    truth_m: Float[np.ndarray, "n 2"],
    range_m: Float[np.ndarray, "n M"],
    height: float | None = None,
) -> None:
    """Refuse ranges that do not fit places at any number of metres.

    With s the scale that makes the median of |r - s d| (both places in another unit), or of |r - d(s q)| (the APs'
    alone), smallest, they are refused where s is not near 1 and the median falls to less than half.

    Args:
        name: of the set or file, for messages.
        aps: [M, 2] metres, or [M, 3] with heights.
        truth_m: [n, 2] true places, metres.
        range_m: [n, M] metres, NaN where there is none.
        height: of the users, where APs have heights.

    Raises:
        ValueError: naming the scale and what it looks like.
    """
    distance = distances_m(aps, truth_m, height)
    there = np.isfinite(range_m)
    ranges = range_m[there]
    if not len(ranges):
        raise ValueError(f"{name}: no range was measured at all; look at the marks for missing")
    extent_m = float(np.linalg.norm(np.ptp(aps[:, :2], axis=0)))
    typical_m = float(np.median(ranges))
    if typical_m > _LONGEST * max(extent_m, float(np.median(distance))):
        raise ValueError(
            f"{name}: ranges have a median of {typical_m:.3g} m while the access points are {extent_m:.3g} m "
            "apart; they look like millimetres, say so in the column's name"
        )
    now = _misfit(ranges, distance[there])
    if len(range_m) >= _ENOUGH_FOR_OFFSETS:
        # Ranges that are too long by the same amount everywhere are no other unit.
        error = range_m - distance
        heard = there.any(axis=0)
        now = min(now, float(np.nanmedian(np.abs(error[:, heard] - np.nanmedian(error[:, heard], axis=0)))))
    suspects = [
        (_misfit(ranges, predicted[there]), scale, what)
        for scale in _SCALES.tolist()
        for what, predicted in (
            ("all places", scale * distance),
            ("the access points' places", distances_m(_scaled(aps, scale), truth_m, height)),
        )
    ]
    misfit, scale, what = min(suspects)
    if max(scale, 1 / scale) > _FAR and misfit < _BETTER * now:
        raise ValueError(
            f"{name}: the ranges fit {what} best when these are multiplied by {scale:.2g} (median misfit "
            f"{misfit:.2f} m instead of {now:.2f} m); they look like grid steps, give metres"
        )


def _misfit(ranges: Float[np.ndarray, " L"], predicted: Float[np.ndarray, " L"]) -> float:
    return float(np.median(np.abs(ranges - predicted)))


def _scaled(aps: Float[np.ndarray, "M D"], scale: float) -> Float[np.ndarray, "M D"]:
    return np.concatenate((scale * aps[:, :2], aps[:, 2:]), axis=1)
