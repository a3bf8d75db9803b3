"""A picture of stated uncertainties: calibration curve, stated against actual error, shares by stations in sight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.special import gammainc

from cfpos_envs.coverage import EVERYBODY, Judgement, groups, of_evaluation
from cfpos_envs.drawing.figures import OKABE_ITO, new_figure, plain_numbers
from cfpos_envs.measurements.regions import LEVELS
from cfpos_envs.results import EvaluationResult

_SCATTERED = 1500
_PARTS = 10
_MARKERS = ("o", "s")


def coverage_figure(results: Sequence[EvaluationResult]) -> Figure | None:
    """Stated uncertainties of several policies on the same drops; None where no policy states any.

    Args:
        results: as ``evaluate`` gives them.
    """
    known = {result.policy: of_evaluation(result) for result in results}
    told = {policy: entry for policy, entry in known.items() if entry is not None}
    return judgement_figure(told) if told else None


def judgement_figure(told: Mapping[str, tuple[Judgement, np.ndarray | None]]) -> Figure:
    """``coverage_figure`` of what has been judged already.

    Args:
        told: by policy, with stations in sight where they are known.
    """
    parts = {policy: dict(groups(*entry)) for policy, entry in told.items()}
    by_sight = any(len(entry) > 1 for entry in parts.values())
    with new_figure(13.0 if by_sight else 9.0, 4.2) as (figure, only):
        only.remove()
        panels = figure.subplots(1, 3 if by_sight else 2)
        _curves(panels[0], {policy: entry[EVERYBODY] for policy, entry in parts.items()})
        _sizes(panels[1], {policy: entry[EVERYBODY] for policy, entry in parts.items()})
        if by_sight:
            _sights(panels[2], parts)
    return figure


def _curves(axes: Axes, found: Mapping[str, Judgement]) -> None:
    """Share of truths in the ellipsoids of a Gaussian of the stated covariance; marks are the stated regions."""
    axes.plot((0, 100), (0, 100), color="#8A8A8A", linewidth=1, label="as stated")
    for colour, (policy, part) in zip(_colours(), found.items()):
        nominal = np.sort(gammainc(part.dimensions / 2, part.length**2 / 2))
        axes.plot(100 * nominal, 100 * np.arange(1, len(nominal) + 1) / len(nominal), color=colour, label=policy)
        axes.plot([100 * level for level in LEVELS], 100 * part.inside, "D", color=colour, markersize=6, zorder=5)
    axes.set(xlim=(0, 100), ylim=(0, 100), xlabel="stated share [%]", ylabel="share of truths inside [%]")
    axes.set_title("Gaussian ellipsoids (lines), stated regions (diamonds)", fontsize=9)
    axes.legend(loc="upper left")
    axes.grid(True)


def _sizes(axes: Axes, found: Mapping[str, Judgement]) -> None:
    """Error over stated deviation, and the root mean square in tenths of the users by what was stated."""
    least, most = np.inf, 0.0
    for colour, (policy, part) in zip(_colours(), found.items()):
        shown = slice(None, None, max(1, len(part.error_m) // _SCATTERED))
        axes.plot(part.stated_m[shown], part.error_m[shown], ".", color=colour, alpha=0.2, markersize=2, zorder=1)
        order = np.array_split(np.argsort(part.stated_m), min(_PARTS, len(part.stated_m)))
        stated, actual = ([_rms(sizes[rows]) for rows in order] for sizes in (part.stated_m, part.error_m))
        label = f"{policy}, rank correlation {part.rank_correlation:.2f}"
        axes.plot(stated, actual, "o-", color=colour, markersize=4, label=label)
        least, most = min(least, *stated, *actual), max(most, *stated, *actual)
    ends = (least / 3, most * 3)
    axes.plot(ends, ends, color="#8A8A8A", linewidth=1)
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    axes.set(xlabel="stated standard deviation [m]", ylabel="error [m]")
    axes.set_title("users, and RMS of tenths of them", fontsize=9)
    plain_numbers(axes.xaxis)
    plain_numbers(axes.yaxis)
    axes.legend(loc="upper left")
    axes.grid(True)


def _sights(axes: Axes, found: Mapping[str, Mapping[str, Judgement]]) -> None:
    """Shares of truths in the stated regions by stations in sight."""
    for level in LEVELS:
        axes.axhline(100 * level, color="#8A8A8A", linewidth=1)
    for colour, (policy, parts) in zip(_colours(), found.items()):
        named = [(name.split()[0], part) for name, part in parts.items() if name != EVERYBODY]
        for index, marker in enumerate(_MARKERS):
            shares = [100 * float(part.inside[index]) for _, part in named]
            label = f"{policy}, {100 * LEVELS[index]:.0f} % region"
            axes.plot([int(name) for name, _ in named], shares, marker + "-", color=colour, label=label)
    axes.set(ylim=(0, 100), xlabel="stations in sight", ylabel="share of truths inside [%]")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="lower right")
    axes.grid(True)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def _colours() -> tuple[str, ...]:
    return OKABE_ITO * 4
