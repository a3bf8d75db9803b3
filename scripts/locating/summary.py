"""What ``cfpos locate`` says about its answers: how many, why not, how sure, and how wrong where the truth is known."""

from __future__ import annotations

from collections import Counter

import numpy as np
from scipy.special import gammaincinv

from cfpos.scripts.locating.common import Located
from cfpos.scripts.plots.style import metres
from cfpos_envs.coverage import of_positions
from cfpos_envs.files.positions import REASONS, Positions
from cfpos_envs.measurements.base import Reason
from cfpos_envs.measurements.regions import LEVELS

_TOO_SMALL, _TOO_LARGE = 1.5, 0.5
"""Residuals over their stated size from which on the summary says that the statement is off."""

_FAR = (3, 5)
"""Standard deviations that the summary compares errors with, where the truth is known."""


def summary(found: Located, answers: str = "valid") -> list[str]:
    """The lines for people.

    Args:
        found: what was located.
        answers: one of ``ANSWERS``: whose errors.
    """
    table = found.table
    count, good = len(table), int(table.valid.sum())
    lines = [f"{good} of {count} positions valid ({100 * good / count:.1f} %) by {found.method}"]
    lines += [f"  {reason}" for reason in _reasons(found)]
    lines += _spread(table)
    lines += _residuals(table)
    lines += _errors(found, answers)
    lines += _calibration(table)
    return [*lines, *(f"note: {note}" for note in found.notes)]


def failure(found: Located) -> str:
    """Why there is no position to rely on, and what to do, in one line; empty if there is one."""
    if found.suspicion or found.table.valid.any():
        return found.suspicion
    return f"none of {len(found.table)} positions is valid: {'; '.join(_reasons(found))}"


def _reasons(found: Located) -> list[str]:
    """Why answers are not valid: how many, what to do; the most frequent first."""
    counted = Counter(found.table.reason[~found.table.valid].tolist())
    general = {name: Reason(number).advice for number, name in enumerate(REASONS)}
    lines = []
    for name, number in counted.most_common():
        here = f" ({found.advice[name]})" if name in found.advice else ""
        lines.append(f"{number} {name}: {general[name]}{here}" if name else f"{number} without a reason")
    return lines


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


def _errors(found: Located, answers: str) -> list[str]:
    """Errors; those at places that a network was trained on apart from the others."""
    table = found.table
    if not table.answers.errors.size:
        return []
    if found.seen is None or not found.seen.any():
        return [f"position error: {table.answers.line(answers)}"]
    parts = (("trained on", found.seen), ("set aside", ~found.seen))
    return [
        f"position error at places {what}: {table.select(rows).answers.line(answers)}"
        for what, rows in parts
        if rows.any()
    ]


def _calibration(table: Positions) -> list[str]:
    """Errors against what was stated: half of them belong in the ellipse of 50 %, and so on."""
    found = of_positions(table)
    if found is None:
        return []
    deviations = found.error_m / found.stated_m
    told = " and ".join(
        f"{100 * float(share):.0f} % in that of {100 * level:.0f} %" for level, share in zip(LEVELS, found.inside)
    )
    beyond = " and ".join(f"{100 * float((deviations > far).mean()):.2g} % by more than {far}" for far in _FAR)
    return [f"ellipses of valid positions: {told}; off {beyond} standard deviations"]
