"""How far stated uncertainties can be believed: shares of truths in stated regions, stated against actual errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import spearmanr

from cfpos_envs.files.positions import Positions
from cfpos_envs.measurements.regions import LEVELS, gaussian_radii
from cfpos_envs.results import EvaluationResult

EVERYBODY = "all"
_LEAST_RANKED = 3


@dataclass(frozen=True, eq=False)
class Judgement:
    """Errors of n answers and what was stated of them.

    Attributes:
        error_m: size of the error.
        stated_m: standard deviation: root of the covariance's trace.
        length: of the error in units of the covariance, sqrt(e' C^-1 e).
        radii: of the regions of ``LEVELS`` in the same units.
        dimensions: of the errors.
    """

    error_m: Float[np.ndarray, " n"]
    stated_m: Float[np.ndarray, " n"]
    length: Float[np.ndarray, " n"]
    radii: Float[np.ndarray, "n levels"]
    dimensions: int

    @property
    def inside(self) -> Float[np.ndarray, " levels"]:
        """Shares of truths in the regions."""
        shares: np.ndarray = (self.length[:, None] <= self.radii).mean(axis=0)
        return shares

    @property
    def rank_correlation(self) -> float:
        """Spearman's, of stated deviation and error; NaN of fewer than three answers or where one is constant."""
        constant = len(self.error_m) < _LEAST_RANKED or np.ptp(self.stated_m) == 0 or np.ptp(self.error_m) == 0
        return float("nan") if constant else float(spearmanr(self.stated_m, self.error_m).statistic)

    def select(self, rows: Bool[np.ndarray, " n"]) -> Judgement:
        """Some answers only."""
        picked = (self.error_m[rows], self.stated_m[rows], self.length[rows], self.radii[rows])
        return Judgement(*picked, self.dimensions)


def judged(
    away_m: Float[np.ndarray, "n D"],
    covariance_m2: Float[np.ndarray, "n D D"],
    radii: Float[np.ndarray, "n levels"] | None,
) -> Judgement:
    """Errors beside what was stated.

    Args:
        away_m: estimate minus truth.
        covariance_m2: positive definite.
        radii: of the regions; NaN or None: those of a Gaussian, whose squares are quantiles of chi^2.
    """
    squared = (away_m * np.linalg.solve(covariance_m2, away_m[:, :, None])[..., 0]).sum(axis=1)
    gaussian = np.broadcast_to(gaussian_radii(away_m.shape[1]), (len(away_m), len(LEVELS)))
    told = gaussian if radii is None else np.where(np.isfinite(radii), radii, gaussian)
    deviation = np.sqrt(np.trace(covariance_m2, axis1=1, axis2=2))
    length = np.sqrt(np.maximum(squared, 0.0))
    return Judgement(np.linalg.norm(away_m, axis=1), deviation, length, told, away_m.shape[1])


def of_evaluation(result: EvaluationResult) -> tuple[Judgement, np.ndarray | None] | None:
    """Valid answers with a covariance and, where the environment knows it, their stations in sight.

    Args:
        result: None comes back where it holds no covariance or no truth, or distances go around the edges.
    """
    there, truth, covariance = result.positions_m, result.truth_m, result.covariance_m2
    if there is None or truth is None or covariance is None or result.config.get("wrap"):
        return None
    users, axes = result.errors.size, truth.shape[-1]
    away, covariance = (there - truth).reshape(users, axes), covariance.reshape(users, axes, axes)
    rows = result.answers.valid & np.isfinite(away).all(axis=1) & np.isfinite(covariance).all(axis=(1, 2))
    if not rows.any():
        return None
    radii = None if result.radii is None else result.radii.reshape(users, -1)[rows]
    sight = None if result.in_sight is None else result.in_sight.reshape(users)[rows]
    return judged(away[rows], covariance[rows], radii), sight


def of_positions(table: Positions) -> Judgement | None:
    """Valid answers of a table of positions with a covariance and a truth; None where there are none.

    Args:
        table: of one policy.
    """
    if table.covariance_m2 is None or table.truth_m is None:
        return None
    away = table.position_m - table.truth_m
    rows = table.valid & np.isfinite(away).all(axis=1) & np.isfinite(table.covariance_m2).all(axis=(1, 2))
    if not rows.any():
        return None
    return judged(away[rows], table.covariance_m2[rows], None if table.radii is None else table.radii[rows])


def groups(found: Judgement, in_sight: np.ndarray | None) -> Iterator[tuple[str, Judgement]]:
    """All answers, then those of the users with 0, 1, ... stations in sight, as far as there are any."""
    yield EVERYBODY, found
    for count in [] if in_sight is None else np.unique(in_sight):
        yield f"{count} in sight", found.select(in_sight == count)


def row(found: Judgement) -> dict[str, float | int]:
    """Figures of some answers, metres and per cent."""
    inside = found.inside
    return {
        "users": len(found.error_m),
        "mean_error_m": float(found.error_m.mean()),
        "stated_m": float(np.median(found.stated_m)),
        **{f"in_{100 * level:.0f}": 100 * float(share) for level, share in zip(LEVELS, inside, strict=True)},
        "rank_correlation": found.rank_correlation,
    }


def format_coverage(results: Sequence[EvaluationResult]) -> str:
    """Plain-text table of the policies that state covariances; empty where none does."""
    known = {result.policy: of_evaluation(result) for result in results}
    return coverage_table({policy: entry for policy, entry in known.items() if entry is not None})


def coverage_table(told: Mapping[str, tuple[Judgement, np.ndarray | None]]) -> str:
    """Plain-text table of what has been judged; empty without any.

    Args:
        told: by policy, with stations in sight where they are known.
    """
    head = ("stated uncertainty", "users", "mean error", "stated", "in 50 %", "in 90 %", "rank corr.")
    rows = [head]
    for policy, entry in told.items():
        for name, part in groups(*entry):
            figures = row(part)
            numbers = (f"{figures['mean_error_m']:.3f}", f"{figures['stated_m']:.3f}")
            shares = (f"{figures['in_50']:.1f}%", f"{figures['in_90']:.1f}%", f"{figures['rank_correlation']:.2f}")
            rows.append((policy if name == EVERYBODY else f"  {name}", str(figures["users"]), *numbers, *shares))
    if len(rows) == 1:
        return ""
    widths = [max(len(cells[column]) for cells in rows) for column in range(len(head))]
    lines = ["  ".join([c[0].ljust(widths[0]), *(v.rjust(w) for v, w in zip(c[1:], widths[1:]))]) for c in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
