"""Pictures of what was played: error distributions of evaluations, and one episode of an environment."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cfpos.scripts.plots.style import LABEL, panels
from cfpos.scripts.policies import build_policy
from cfpos_envs import make_env
from cfpos_envs.coverage import Judgement, coverage_table, of_evaluation, of_positions
from cfpos_envs.drawing.coverage import judgement_figure
from cfpos_envs.drawing.figures import draw_cdf, episode_figure
from cfpos_envs.files.position_formats import ENDINGS
from cfpos_envs.files.positions import Positions
from cfpos_envs.results import METRICS, Answers, EvaluationResult


@dataclass(frozen=True, eq=False)
class Errors:
    """The errors of one policy in one file.

    Attributes:
        policy: what made the estimates; the file's stem where nobody says.
        game: id of the environment; empty for measurements.
        answers: of all users, and which of them are valid.
        which: of ``ANSWERS``, what is drawn: of an evaluation all, as it compares methods on the same users, of a table
            of positions the valid ones.
        drops: what is equal if two were measured on the same users: true positions, or config and seed.
        bounds: [positions] metres, or None.
        count: how many of what, for the title.
        interval: what is known about the RMSE besides, in words.
        bound: its name.
    """

    policy: str
    game: str
    answers: Answers
    which: str
    drops: Any
    bounds: np.ndarray | None
    count: str
    interval: str = ""
    bound: str = "bound"

    @property
    def errors(self) -> np.ndarray:
        """Those that are drawn, metres."""
        return self.answers.counted(self.which)

    def summary(self) -> str:
        """One line for people."""
        return f"{self.policy}: {self.answers.line(self.which)}{self.interval}"


def cdf_figure(files: Sequence[Path], answers: str | None = None) -> tuple[Figure, list[Errors]]:
    """Error distributions on one axis; the bound too, where all were measured on the same users.

    Args:
        files: tables of positions that ``evaluate`` or ``locate`` wrote, results.json or the folder of ``evaluate``, or
            what ``EvaluationResult.to_json`` wrote.
        answers: ``valid`` or ``all``; None: of tables the valid ones, of evaluations what they say, else all.

    Raises:
        ValueError: a file is none of these, or holds no errors because the truth is not known, or no valid answer.
        OSError: it cannot be read.
    """
    found = [(file, entry) for file in files for entry in read_errors(file, answers)]
    if not any(entry.errors.size for _, entry in found):
        raise ValueError(
            f"{', '.join(str(file) for file in files)}: no answer is valid ({found[0][1].answers.share}), so there is "
            "nothing to draw; --answers all draws the others, which the method does not stand by"
        )
    games = {entry.game for _, entry in found}
    errors: dict[str, np.ndarray] = {}
    for file, entry in found:
        label = entry.policy if len(games) == 1 else f"{entry.policy}, {entry.game or file.stem}"
        label = label if entry.answers.valid.all() else f"{label} ({entry.answers.share})"
        errors[label if label not in errors else f"{label} ({file.stem})"] = entry.errors
    first = found[0][1]
    shared = len(games) == 1 and all(_same_drops(entry, first) for _, entry in found)
    bounds = {entry.bound: METRICS["rmse"](entry.bounds) for _, entry in found if shared and entry.bounds is not None}
    with panels(1, 7.6, 4.4) as (figure, (axes,)):
        draw_cdf(axes, errors, bounds)
        counts = " or ".join(sorted({entry.count for _, entry in found}))
        axes.set_title(", ".join([*sorted(filter(None, games)), counts]), fontsize=LABEL + 1)
    return figure, [entry for _, entry in found]


def read_errors(path: Path, answers: str | None = None) -> list[Errors]:
    """The errors in a file, one entry per policy.

    Args:
        path: a file or folder as ``cdf_figure`` takes it.
        answers: as there.

    Raises:
        ValueError: see ``cdf_figure``.
        OSError: it cannot be read.
    """
    file = path / "results.json" if path.is_dir() else path
    if file.suffix.lower() in ENDINGS:
        return _of_table(file, "", answers or "valid")
    report = _report(file)
    if report is not None:
        table, game = file.with_name(report["positions"]), str(report.get("env", ""))
        return _of_table(table, game, answers or str(report.get("answers", "all")))
    result = EvaluationResult.from_json(file)
    drops = (result.config, result.seed) if result.truth_m is None else result.truth_m.reshape(-1)
    bounds = None if result.bounds is None else result.bounds.ravel()
    which, episodes = answers or "all", f"{len(result.errors)} episodes"
    interval = ", RMSE of all in [{:.3f}, {:.3f}] m with 95 %".format(*result.ci("rmse"))
    whose = (result.policy, result.env_id, result.answers)
    return [Errors(*whose, which, drops, bounds, episodes, interval, result.bound_name)]


def stated_figure(files: Sequence[Path]) -> tuple[Figure, str]:
    """Stated uncertainties of evaluations and tables of positions, and a table of what they hold.

    Args:
        files: as ``cdf_figure`` takes them. What ``EvaluationResult.to_json`` wrote knows stations in sight.

    Raises:
        ValueError: a file is none of these, or no file has a valid answer with a covariance and a truth.
        OSError: it cannot be read.
    """
    told: dict[str, tuple[Judgement, np.ndarray | None]] = {}
    for path in files:
        for policy, entry in _stated(path / "results.json" if path.is_dir() else path):
            told[policy if policy not in told else f"{policy} ({path.stem})"] = entry
    if not told:
        raise ValueError(
            f"{', '.join(str(file) for file in files)}: no valid answer has a covariance and a truth, so there is "
            "nothing to draw; evaluate a policy that states covariances"
        )
    return judgement_figure(told), coverage_table(told)


def _stated(file: Path) -> list[tuple[str, tuple[Judgement, np.ndarray | None]]]:
    report = None if file.suffix.lower() in ENDINGS else _report(file)
    if file.suffix.lower() not in ENDINGS and report is None:
        result = EvaluationResult.from_json(file)
        known = of_evaluation(result)
        return [] if known is None else [(result.policy, known)]
    table = Positions.read(file if report is None else file.with_name(report["positions"]))
    policies = np.full(len(table), file.stem) if table.policy is None else table.policy
    parts = [(str(name), of_positions(table.select(policies == name))) for name in dict.fromkeys(policies.tolist())]
    return [(name, (found, None)) for name, found in parts if found is not None]


def _report(file: Path) -> dict[str, Any] | None:
    """The results.json of ``evaluate``, if that is what the file is and it names a table of positions."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return content if isinstance(content, dict) and content.get("positions") and "policies" in content else None


def _of_table(file: Path, game: str, which: str) -> list[Errors]:
    table = Positions.read(file)
    known = np.zeros(0, dtype=bool) if table.error_m is None else np.isfinite(table.error_m)
    if not known.any():
        raise ValueError(
            f"{file} holds positions but no truth, so no errors; give the measurements truth_x_m, truth_y_m"
        )
    table = table.select(known)
    policies = np.full(len(table), file.stem) if table.policy is None else table.policy
    return [
        _of_rows(str(name), game, table.select(policies == name), which) for name in dict.fromkeys(policies.tolist())
    ]


def _of_rows(policy: str, game: str, rows: Positions, which: str) -> Errors:
    truth = None if rows.truth_m is None else rows.truth_m.reshape(-1)
    return Errors(policy, game, rows.answers, which, truth, rows.bound_m, f"{len(rows)} positions")


def _same_drops(one: Errors, other: Errors) -> bool:
    """Whether two are drawn for the same users."""
    for entry in (one, other):
        if entry.which == "valid" and not entry.answers.valid.all():
            return False
    if isinstance(one.drops, np.ndarray) and isinstance(other.drops, np.ndarray):
        return np.array_equal(one.drops, other.drops)
    return type(one.drops) is type(other.drops) and one.drops == other.drops


def played_episode(env_id: str, policy: str, seed: int, overrides: Mapping[str, Any]) -> tuple[Figure, float]:
    """Play one episode and draw it as the environment does.

    Args:
        env_id: a name from ``list_envs()``.
        policy: a name from ``list_policies()``, or a run's folder or checkpoint.
        seed: of the drop.
        overrides: fields of the environment's config.

    Returns:
        The figure and the root mean squared error after the last round, metres.

    Raises:
        ValueError: unknown environment, policy or override.
    """
    env = make_env(env_id, seed=seed, **overrides)
    player = build_policy(policy, env)
    observations, infos = env.reset(seed=seed)
    player.reset()
    history = [env.vector.estimate[0]]
    while env.agents:
        observations, _, _, _, infos = env.step(player.act(observations))
        history.append(env.vector.estimate[0])
    rmse_m = float(next(iter(infos.values()))["rmse_m"])
    return episode_figure(env.scenario, env.vector.game_state, history), rmse_m
