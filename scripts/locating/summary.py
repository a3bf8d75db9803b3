"""What ``cfpos locate`` says about its answers: how many, why not, how sure, and how wrong where the truth is known."""

from __future__ import annotations

from collections import Counter

import numpy as np
from scipy.special import gammaincinv

from cfpos.scripts.locating.common import Located
from cfpos.scripts.plots.style import metres
from cfpos_envs.files.positions import REASONS, Positions
from cfpos_envs.measurements.base import Reason
from cfpos_envs.results import METRICS

_TOO_SMALL, _TOO_LARGE = 1.5, 0.5
"""Residuals over their stated size from which on the summary says that the statement is off."""

_ELLIPSES, _FAR = (0.5, 0.9), (3, 5)
"""What the summary compares errors with, where the truth is known."""


def summary(found: Located) -> list[str]:
    """The lines for people."""
    table = found.table
    count, good = len(table), int(table.valid.sum())
    lines = [f"{good} of {count} positions valid ({100 * good / count:.1f} %) by {found.method}"]
    lines += _reasons(table)
    lines += _spread(table)
    lines += _residuals(table)
    lines += _errors(table)
    lines += _calibration(table)
    return [*lines, *(f"note: {note}" for note in found.notes)]


def _reasons(table: Positions) -> list[str]:
    counted = Counter(table.reason[~table.valid].tolist())
    advice = {name: Reason(number).advice for number, name in enumerate(REASONS)}
    return [
        f"  {number} {name or 'without a reason'}{': ' * bool(name)}{advice.get(name, '')}"
        for name, number in counted.most_common()
    ]


def _spread(table: Positions) -> list[str]:
    if table.covariance_m2 is None or not table.valid.any():
        return []
    traces = np.trace(table.covariance_m2[table.valid], axis1=1, axis2=2)
    typical = float(np.median(np.sqrt(traces[np.isfinite(traces)]))) if np.isfinite(traces).any() else np.nan
    return [] if np.isnan(typical) else [f"stated standard deviation of a valid position: median {metres(typical)}"]


def _residuals(table: Positions) -> list[str]:
    """Residuals against their stated noise, by the median, which a few bad links do not move."""
    if table.chi_squared is None or table.degrees_of_freedom is None:
        return []
    tested = (table.degrees_of_freedom > 0) & np.isfinite(table.chi_squared)
    if not tested.any():
        return []
    freedom = table.degrees_of_freedom[tested]
    median = 2 * gammaincinv(freedom / 2, 0.5)
    ratio = float(np.sqrt(np.median(table.chi_squared[tested] / median)))
    line = f"residuals are {ratio:.2g} times as large as the stated noise makes them (median of {int(tested.sum())})"
    if ratio > _TOO_SMALL:
        line += "; the standard deviation of links is too small, or links are too long: so are those of positions"
    elif ratio < _TOO_LARGE:
        line += "; the standard deviation of links is too large"
    return [line]


def _errors(table: Positions) -> list[str]:
    if table.error_m is None:
        return []
    known = np.isfinite(table.error_m)
    lines = []
    for what, rows in (("valid positions", known & table.valid), ("all positions", known)):
        if rows.any() and (what == "all positions") <= bool((known & ~table.valid).any()):
            median, rmse, p95 = (METRICS[name](table.error_m[rows]) for name in ("median", "rmse", "p95"))
            lines.append(
                f"error of the {int(rows.sum())} {what}: median {median:.3f} m, RMSE {rmse:.3f} m, p95 {p95:.3f} m"
            )
    return lines


def _calibration(table: Positions) -> list[str]:
    """Errors against the stated covariances: a Gaussian has half of them in the ellipse of 50 %, and so on."""
    if table.covariance_m2 is None or table.truth_m is None:
        return []
    away = table.position_m - table.truth_m
    rows = table.valid & np.isfinite(away).all(axis=1) & np.isfinite(table.covariance_m2).all(axis=(1, 2))
    if not rows.any():
        return []
    axes, covariance = away.shape[1], table.covariance_m2[rows]
    squared = (away[rows] * np.linalg.solve(covariance, away[rows, :, None])[..., 0]).sum(axis=1)
    inside = [float((squared <= 2 * gammaincinv(axes / 2, share)).mean()) for share in _ELLIPSES]
    deviations = np.linalg.norm(away[rows], axis=1) / np.sqrt(np.trace(covariance, axis1=1, axis2=2))
    told = " and ".join(
        f"{100 * found:.0f} % in that of {100 * share:.0f} %" for share, found in zip(_ELLIPSES, inside)
    )
    beyond = " and ".join(f"{100 * float((deviations > far).mean()):.2g} % by more than {far}" for far in _FAR)
    return [f"ellipses of valid positions: {told}; off {beyond} standard deviations"]
