"""What an evaluation found: errors, their statistics and intervals, JSON, a table."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cfpos_envs.checks import one_of

_FORMAT = "cfpos-evaluation-2"
_OLD_FORMATS = ("cfpos-evaluation-1",)
"""Those without positions."""


def root_mean_square(errors: np.ndarray) -> float:
    """Root of the mean square over all entries, metres for errors in metres."""
    return float(np.sqrt(np.mean(np.square(errors))))


METRICS: dict[str, Callable[[np.ndarray], float]] = {
    "rmse": root_mean_square,
    "mean": lambda errors: float(np.mean(errors)),
    "median": lambda errors: float(np.median(errors)),
    "p67": lambda errors: float(np.percentile(errors, 67)),
    "p90": lambda errors: float(np.percentile(errors, 90)),
    "p95": lambda errors: float(np.percentile(errors, 95)),
    "p99": lambda errors: float(np.percentile(errors, 99)),
}
"""Name -> statistic over all users of all episodes, metres."""


ANSWERS = ("valid", "all")
"""Which answers make the figures: those that the method stands by, or every position that it gave."""


@dataclass(frozen=True, eq=False)
class Answers:
    """Errors where the truth is known, and which of these answers the method stands by.

    A position that is not valid is a number without meaning. Figures of a person's measurements are therefore those of
    the valid ones, with their share beside it; figures that compare methods on the same users are those of all.

    Attributes:
        errors: [n] distance between estimate and truth, metres.
        valid: [n].
    """

    errors: np.ndarray
    valid: np.ndarray

    def counted(self, answers: str) -> np.ndarray:
        """The errors that count, metres.

        Args:
            answers: one of ``ANSWERS``.

        Raises:
            ValueError: another word.
        """
        one_of("answers", answers, ANSWERS)
        return self.errors[self.valid] if answers == "valid" else self.errors

    @property
    def share(self) -> str:
        """``answered 17 of 20``."""
        return f"answered {int(self.valid.sum())} of {len(self.valid)}"

    def line(self, answers: str) -> str:
        """Figures in words, with the share of valid answers.

        Args:
            answers: one of ``ANSWERS``.
        """
        errors = self.counted(answers)
        whose = {"valid": "valid answers", "all": "answers, valid or not"}[answers]
        if not errors.size:
            return f"no {whose}, {self.share}"
        rmse, median, p95 = (METRICS[name](errors) for name in ("rmse", "median", "p95"))
        return f"RMSE {rmse:.3f} m, median {median:.3f} m, p95 {p95:.3f} m of {errors.size} {whose}, {self.share}"


_ARRAYS: dict[str, type] = {
    "errors": float,
    "bounds": float,
    "sites": int,
    "positions_m": float,
    "covariance_m2": float,
    "valid": bool,
    "reason": int,
    "truth_m": float,
    "radii": float,
    "in_sight": int,
}
"""Fields that are arrays, where they are not None."""
_LATER = ("radii", "in_sight", "bound_of")
"""Fields that files of this format need not have."""


@dataclass(frozen=True, eq=False)
class EvaluationResult:
    """What ``evaluate`` measured.

    Attributes:
        policy, env_id, config, seed: what was evaluated on what.
        errors: [episodes, ues] distance between estimate and truth in metres, around the edges where these wrap.
        bounds: [episodes, ues] position error bounds in metres, or None where the scenario has no bound.
        sites: [episodes] equal numbers mean the same site, or None where the scenario names no sites.
        valid_share: share of users for whom the policy says that it has an answer (finite actions always count).
        rmse_by_round: RMSE at the start and after every round, or None for one-shot estimators.
        latency_ms: milliseconds per located user, median over groups of 50 episodes handled at once; for a policy that
            plays rounds it holds the game's own work (features, fusion and reward) too.
        policy_ms: the part of ``latency_ms`` spent in the policy alone.
        fronthaul_bits: bits that one AP and the central unit exchange in one episode, see ``Scenario.fronthaul_bits``.
        positions_m: [episodes, ues, 2 or 3] estimates in metres; None, like all below, where a file of an older version
            holds none.
        covariance_m2: [episodes, ues, D, D] as the policy states it, or None where it states none.
        valid: [episodes, ues] for whom the policy says that it has an answer.
        reason: [episodes, ues] ``Reason`` as integer, or None where the policy gives none.
        truth_m: [episodes, ues, D] true positions.
        radii: [episodes, ues, 2] of the regions of 50 and 90 %, see ``PositionEstimate``; None: those of a Gaussian.
        in_sight: [episodes, ues] stations with a line of sight to the user; None where the environment does not know.
        bound_of: what was measured that ``bounds`` are of, in words; empty where the environment has one bound.
    """

    policy: str
    env_id: str
    config: dict[str, Any]
    seed: int
    errors: np.ndarray
    bounds: np.ndarray | None
    sites: np.ndarray | None
    valid_share: float
    rmse_by_round: list[float] | None
    latency_ms: float
    policy_ms: float
    fronthaul_bits: float
    positions_m: np.ndarray | None = None
    covariance_m2: np.ndarray | None = None
    valid: np.ndarray | None = None
    reason: np.ndarray | None = None
    truth_m: np.ndarray | None = None
    radii: np.ndarray | None = None
    in_sight: np.ndarray | None = None
    bound_of: str = ""

    @property
    def rmse(self) -> float:
        """Root mean squared error over all users of all episodes, metres."""
        return METRICS["rmse"](self.errors)

    @property
    def answers(self) -> Answers:
        """All errors, and which answers are valid; all of them where the file of an older version does not say."""
        valid = np.ones(self.errors.shape, dtype=bool) if self.valid is None else self.valid
        return Answers(self.errors.ravel(), valid.ravel())

    @property
    def valid_rmse(self) -> float | None:
        """Root mean squared error of the valid answers, metres: of other users for every policy. None without any."""
        errors = self.answers.counted("valid")
        return METRICS["rmse"](errors) if errors.size else None

    @property
    def mean(self) -> float:
        """Mean error, metres."""
        return METRICS["mean"](self.errors)

    @property
    def median(self) -> float:
        """Median error, metres."""
        return METRICS["median"](self.errors)

    @property
    def p67(self) -> float:
        """Error that 67 % of the users stay below, metres."""
        return METRICS["p67"](self.errors)

    @property
    def p90(self) -> float:
        """Error that 90 % of the users stay below, metres."""
        return METRICS["p90"](self.errors)

    @property
    def p95(self) -> float:
        """Error that 95 % of the users stay below, metres."""
        return METRICS["p95"](self.errors)

    @property
    def p99(self) -> float:
        """Error that 99 % of the users stay below, metres."""
        return METRICS["p99"](self.errors)

    @property
    def bound_rmse(self) -> float | None:
        """Root mean squared position error bound over the same drops, metres; None without a bound."""
        return None if self.bounds is None else root_mean_square(self.bounds)

    @property
    def efficiency(self) -> float | None:
        """``rmse / bound_rmse``: 1 is the best an unbiased estimator can do; None without a bound."""
        return None if self.bound_rmse is None else self.rmse / self.bound_rmse

    @property
    def bound_name(self) -> str:
        """``bound``, with what it is of."""
        return f"bound of {self.bound_of}" if self.bound_of else "bound"

    @property
    def converged_round(self) -> int | None:
        """First round from which the RMSE stays within 5 % of its last value; None for one-shot estimators."""
        if self.rmse_by_round is None:
            return None
        last = self.rmse_by_round[-1]
        away = [index for index, value in enumerate(self.rmse_by_round) if abs(value - last) > 0.05 * last]
        return away[-1] + 1 if away else 0

    def ci(
        self, metric: str, level: float = 0.95, resamples: int = 2000, seed: int = 0, unit: str = "episode"
    ) -> tuple[float, float]:
        """Bootstrap percentile interval.

        Whole episodes are resampled because the users of one are dependent: the interval is for fresh drops on these
        sites. ``unit="site"`` resamples whole sites: it is wider and speaks for fresh sites too.

        Args:
            metric: a name from ``METRICS``, or ``"efficiency"`` (errors and bounds resampled together).
            level: probability of the interval, in (0, 1).
            resamples: number of bootstrap samples, at least 1.
            seed: of the resampling; the global random state is not used.
            unit: ``"episode"`` or ``"site"``.

        Returns:
            Lower and upper end, in the metric's unit.

        Raises:
            ValueError: unknown metric or unit, ``level`` or ``resamples`` out of range, efficiency without a bound,
                sites where the scenario names none.
        """
        if not 0 < level < 1 or resamples < 1:
            raise ValueError(f"level is {level}, resamples {resamples}; level must lie in (0, 1), resamples be >= 1")
        statistic = self._statistic(metric)
        generator = np.random.default_rng(seed)
        groups = self._groups(unit)
        picks = generator.integers(len(groups), size=(resamples, len(groups)))
        values = [statistic(np.concatenate([groups[index] for index in pick])) for pick in picks]
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    def summary(self) -> str:
        """One line for people."""
        low, high = self.ci("rmse")
        bound, ratio = f"{self.bound_name} {self.bound_rmse or 0.0:.3f} m", self.efficiency
        bound = "" if ratio is None else f", {ratio:.2f} x {bound}"
        return (
            f"{self.policy} on {self.env_id}: RMSE {self.rmse:.3f} m [{low:.3f}, {high:.3f}]{bound}, "
            f"median {self.median:.3f} m, p95 {self.p95:.3f} m, {self.errors.shape[0]} episodes, {self.answers.share}"
        )

    def to_json(self, path: str | os.PathLike[str]) -> Path:
        """Write everything as JSON, whole or not at all (a temporary file is renamed).

        Raises:
            OSError: the folder is missing or not writable.
        """
        target = Path(path)
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
        try:
            # One line per entry: an array with a line per number could not be looked through.
            entries = (
                f"{json.dumps(k)}: {json.dumps(v, allow_nan=False, default=str)}" for k, v in self._as_json().items()
            )
            partial.write_text("{\n" + ",\n".join(entries) + "\n}\n")
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
        return target

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> EvaluationResult:
        """Read what ``to_json`` wrote.

        Raises:
            ValueError: the file is not an evaluation result, or is damaged.
            OSError: it cannot be read.
        """
        try:
            content = json.loads(Path(path).read_text())
            if content["format"] not in (_FORMAT, *_OLD_FORMATS):
                raise KeyError("format")
            old = content["format"] != _FORMAT
            missing = [name for name in _LATER if name not in content]
            entries = [
                entry
                for entry in dataclasses.fields(cls)
                if not (old and entry.default is None) and entry.name not in missing
            ]
            values = {entry.name: content[entry.name] for entry in entries}
            arrays: dict[str, np.ndarray] = {
                name: np.asarray(values[name], dtype=kind) for name, kind in _ARRAYS.items() if values.get(name)
            }
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is not an evaluation result ({error}); write it with EvaluationResult.to_json"
            ) from None
        return cls(**{**values, **arrays})

    def _as_json(self) -> dict[str, Any]:
        fields = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        derived = {name: getattr(self, name) for name in (*METRICS, "bound_rmse", "efficiency", "converged_round")}
        intervals = {"rmse_ci95": list(self.ci("rmse")), "median_ci95": list(self.ci("median"))}
        return _finite_or_none({"format": _FORMAT, **fields, **derived, **intervals})

    def _groups(self, unit: str) -> list[np.ndarray]:
        """Row numbers that are resampled together."""
        if unit == "episode":
            return [np.array([row]) for row in range(len(self.errors))]
        if unit != "site" or self.sites is None:
            raise ValueError(f"unit is {unit!r}; it must be 'episode', or 'site' where the scenario names its sites")
        return [np.flatnonzero(self.sites == site) for site in np.unique(self.sites)]

    def _statistic(self, metric: str) -> Callable[[np.ndarray], float]:
        if metric in METRICS:
            return lambda rows: METRICS[metric](self.errors[rows])
        if metric != "efficiency":
            raise ValueError(f"unknown metric {metric!r}; choose from {', '.join([*METRICS, 'efficiency'])}")
        bounds = self.bounds
        if bounds is None:
            raise ValueError(f"{self.env_id} has no position error bound, so no efficiency; choose another metric")
        return lambda rows: root_mean_square(self.errors[rows]) / root_mean_square(bounds[rows])


def format_table(results: Sequence[EvaluationResult]) -> str:
    """Plain-text table, one row per result, best RMSE first; lengths in metres.

    All columns but the two about valid answers are of all users, so that methods are compared on the same ones.
    """
    head = ("policy", "RMSE", "95 % interval", "median", "p90", "p99", "x bound", "valid", "valid RMSE", "ms/user")
    rows: list[tuple[str, ...]] = [head]
    for result in sorted(results, key=lambda r: r.rmse):
        low, high = result.ci("rmse")
        ratio = "-" if result.efficiency is None else f"{result.efficiency:.2f}"
        numbers = [f"{value:.3f}" for value in (result.median, result.p90, result.p99)]
        share = f"{100 * result.valid_share:.1f}%"
        valid = "-" if result.valid_rmse is None else f"{result.valid_rmse:.3f}"
        rows.append((result.policy, f"{result.rmse:.3f}", f"{low:.3f}..{high:.3f}", *numbers, ratio, share, valid,
                     f"{result.latency_ms:.3f}"))  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:]))]) for row in rows]
    beside: dict[str, list[str]] = {}
    for result in results:
        if result.bound_rmse is not None:
            line = f"position error {result.bound_name} (RMSE): {result.bound_rmse:.3f} m"
            beside.setdefault(line, []).append(result.policy)
    several = len({result.bound_name for result in results if result.bound_rmse is not None}) > 1
    bounds = [f"{line}, beside {', '.join(names)}" if several else line for line, names in sorted(beside.items())]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:], *bounds])


def _finite_or_none(value: Any) -> Any:
    """JSON has no NaN or infinity: such numbers become null."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, dict):
        return {key: _finite_or_none(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite_or_none(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
