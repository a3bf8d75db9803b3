"""Our figures over other people's, all from one run on one machine, beside the ratio that is aimed at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cfpos.scripts.benchmarks.common import Rows
from cfpos_envs.streams import RNGS

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

    def is_ours(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is of our side."""
        return bool(row["environment"] == self.game and row["front end"] == self.front_end)

    def is_theirs(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is of the yardstick."""
        return str(row["yardstick"]).startswith(self.yardstick) and bool(row["environment"] == self.environment)


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
    theirs = _measured(parts)
    found = [_compared(comparison, ours, theirs) for comparison in COMPARISONS]
    return [row for row in found if row is not None]


def reset_ratios(parts: Mapping[str, Any]) -> Rows:
    """Whole episodes, resets included, by either kind of random numbers beside the yardsticks.

    Args:
        parts: name -> what the part returned; needs ``resets`` and ``yardsticks``, else there are no rows.
    """
    if not {"resets", "yardsticks"} <= parts.keys():
        return []
    ours: Rows = parts["resets"]["tables"]["resets"]
    theirs = _measured(parts)
    found: Rows = []
    for comparison in COMPARISONS:
        other = _best([row for row in theirs if comparison.is_theirs(row)], INCLUDED)
        for rng in RNGS:
            mine = _best([row for row in ours if comparison.is_ours(row) and row["rng"] == rng], EXCLUDED)
            if mine is not None and other is not None:
                found.append(
                    {
                        "game": comparison.game,
                        "front end": comparison.front_end,
                        "rng": rng,
                        "B": mine["B"],
                        **_against(comparison, other),
                        "ours/s": mine[EXCLUDED],
                        "theirs/s": other[INCLUDED],
                        "ratio with resets": mine[EXCLUDED] / other[INCLUDED],
                    }
                )
    return found


def _compared(comparison: Comparison, ours: Rows, theirs: Rows) -> dict[str, Any] | None:
    mine = _best([row for row in ours if comparison.is_ours(row)], EXCLUDED)
    other = _best([row for row in theirs if comparison.is_theirs(row)], EXCLUDED)
    if mine is None or other is None:
        return None
    return {
        "game": comparison.game,
        "front end": comparison.front_end,
        "B": mine["B"],
        "mode": mine["mode"],
        **_against(comparison, other),
        "ours/s": mine[EXCLUDED],
        "theirs/s": other[EXCLUDED],
        "ratio": mine[EXCLUDED] / other[EXCLUDED],
        "goal": comparison.goal,
        "ratio with resets": mine[INCLUDED] / other[INCLUDED],
    }


def _measured(parts: Mapping[str, Any]) -> Rows:
    return [row for row in parts["yardsticks"]["tables"]["yardsticks"] if row["status"] == "measured"]


def _against(comparison: Comparison, other: Mapping[str, Any]) -> dict[str, Any]:
    named = f"{comparison.yardstick} {comparison.environment}"
    return {"against": named, "agents": other["agents"], "worlds": other["worlds"]}


def _best(rows: Rows, figure: str) -> dict[str, Any] | None:
    """The row with the largest figure; as many agents as ours where a yardstick offers them, never its smallest toy."""
    most = max((row.get("agents", 0) for row in rows), default=0)
    return max((row for row in rows if row.get("agents", 0) == most), key=lambda row: float(row[figure]), default=None)
