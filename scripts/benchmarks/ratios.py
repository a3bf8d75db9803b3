"""Our figures over other people's, all from one run on one machine, beside the ratio that is aimed at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cfpos.scripts.benchmarks.common import Rows

EXCLUDED, INCLUDED = "agent-steps/s", "with resets"


@dataclass(frozen=True)
class Comparison:
    """Agent-steps per second of one of our games over those of a yardstick, each at its best number of episodes.

    Attributes:
        game, front_end: our row; ``game`` is its label.
        yardstick, environment: theirs, by the beginning of the package's name.
        goal: ratio that is aimed at; None where none was set.
    """

    game: str
    front_end: str
    yardstick: str
    environment: str
    goal: float | None = None


COMPARISONS = (
    Comparison("dcp-rss-v0", "parallel", "mpe2", "simple_spread", 25.0),
    Comparison("dcp-jar-v0", "parallel", "mpe2", "simple_spread", 15.0),
    Comparison("dcp-jar-v0 local log", "parallel", "mpe2", "simple_spread", 15.0),
    Comparison("dcp-rss-v0", "vector", "vmas", "dispersion", 3.0),
    Comparison("dcp-jar-v0", "vector", "vmas", "dispersion", 1.0),
    Comparison("dcp-jar-v0 local log", "vector", "vmas", "dispersion", 1.0),
    Comparison("dcp-jar-v0 local robust", "vector", "vmas", "dispersion", 1.0),
    Comparison("dcp-rss-v0", "vector", "vmas", "simple_spread"),
    Comparison("dcp-rss-v0", "parallel", "mobile-env", "mobile-large"),
)


def ratios(parts: Mapping[str, Any]) -> Rows:
    """One row per comparison whose two sides were measured.

    Args:
        parts: name -> what the part returned; needs ``environments`` and ``yardsticks``, else there are no rows.
    """
    if not {"environments", "yardsticks"} <= parts.keys():
        return []
    ours: Rows = parts["environments"]["tables"]["environments"]
    theirs: Rows = [row for row in parts["yardsticks"]["tables"]["yardsticks"] if row["status"] == "measured"]
    found = [_compared(comparison, ours, theirs) for comparison in COMPARISONS]
    return [row for row in found if row is not None]


def _compared(comparison: Comparison, ours: Rows, theirs: Rows) -> dict[str, Any] | None:
    def is_ours(row: Mapping[str, Any]) -> bool:
        return bool(row["environment"] == comparison.game and row["front end"] == comparison.front_end)

    def is_theirs(row: Mapping[str, Any]) -> bool:
        is_package = str(row["yardstick"]).startswith(comparison.yardstick)
        return is_package and bool(row["environment"] == comparison.environment)

    # As many agents as ours where the yardstick offers them, and never its smallest toy.
    most = max((row["agents"] for row in theirs if is_theirs(row)), default=0)
    mine = _best(ours, is_ours)
    other = _best(theirs, lambda row: is_theirs(row) and row["agents"] == most)
    if mine is None or other is None:
        return None
    return {
        "game": comparison.game,
        "front end": comparison.front_end,
        "B": mine["B"],
        "mode": mine["mode"],
        "against": f"{comparison.yardstick} {comparison.environment}",
        "agents": most,
        "worlds": other["worlds"],
        "ours/s": mine[EXCLUDED],
        "theirs/s": other[EXCLUDED],
        "ratio": mine[EXCLUDED] / other[EXCLUDED],
        "goal": comparison.goal,
        "ratio with resets": mine[INCLUDED] / other[INCLUDED],
    }


def _best(rows: Rows, accepts: Callable[[Mapping[str, Any]], bool]) -> dict[str, Any] | None:
    """The accepted row with the most agent-steps per second, resets left out on both sides."""
    chosen = [row for row in rows if accepts(row)]
    return max(chosen, key=lambda row: float(row[EXCLUDED])) if chosen else None
