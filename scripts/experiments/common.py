"""What the experiments share: how much effort to spend, comparing policies, averaging over seeds, the outcome."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from tqdm import tqdm

from cfpos.agents.maddpg.config import MaddpgConfig
from cfpos.baselines import make_policy
from cfpos_envs import make_env
from cfpos_envs.drawing.figures import OKABE_ITO
from cfpos_envs.evaluation import EvaluationResult, evaluate_many

EVALUATION_SEED = 7
Item = TypeVar("Item")


@dataclass(frozen=True)
class Effort:
    """How much to compute.

    Attributes:
        seeds: independently trained agents per setting.
        episodes: evaluation episodes.
        train_steps: environment steps per trained agent.
        num_envs: parallel episodes while training.
        points: estimates, drops or scenes where an experiment needs no training.
        small: environment overrides that shrink everything (quick mode); empty for the real thing.
        agents_folder: where trained agents are kept and taken from; None: nowhere.
        workers: agents trained at the same time, one core each.
    """

    seeds: int = 3
    episodes: int = 200
    train_steps: int = 20_000
    num_envs: int = MaddpgConfig.num_envs
    points: int = 1500
    small: Mapping[str, Any] = field(default_factory=dict)
    agents_folder: str | None = None
    workers: int = 1

    @classmethod
    def quick(cls) -> Effort:
        """A minute instead of an hour: shows that everything runs; its numbers mean nothing."""
        small = {"num_aps": 9, "num_ues": 2, "num_antennas": 4, "num_sites": 2, "side_m": 50.0}
        return cls(seeds=1, episodes=4, train_steps=96, num_envs=8, points=40, small=small)

    @property
    def is_quick(self) -> bool:
        """Whether this is the quick mode."""
        return bool(self.small)

    def chosen(self, values: Sequence[Item]) -> Sequence[Item]:
        """All ``values``, or the first two in quick mode."""
        return values[:2] if self.is_quick else values

    def env(self, **overrides: Any) -> dict[str, Any]:
        """Environment overrides with the quick mode's shrinking below them."""
        return {**self.small, **overrides}


@dataclass
class Outcome:
    """What an experiment returns: rows for table and JSON, a picture, and what to know when reading it."""

    rows: list[dict[str, Any]]
    figure: Figure
    remarks: list[str] = field(default_factory=list)


def compare(
    env_id: str, policies: Mapping[str, Any], effort: Effort, env: Mapping[str, Any] | None = None
) -> dict[str, EvaluationResult]:
    """Every policy on the same unseen drops.

    Args:
        env_id: environment.
        policies: label -> policy.
        effort: number of episodes.
        env: environment overrides.
    """
    results = evaluate_many(
        env_id, list(policies.values()), effort.episodes, EVALUATION_SEED, **effort.env(**(env or {}))
    )
    return dict(zip(policies, results))


def baselines(
    env_id: str, effort: Effort, wanted: Mapping[str, tuple[str, Mapping[str, Any]]], env: Mapping[str, Any]
) -> dict[str, Any]:
    """Label -> classical policy, made for an environment with the overrides ``env``.

    Args:
        env_id: environment.
        effort: its shrinking enters the environment.
        wanted: label -> (registered name, options).
        env: environment overrides.
    """
    own = make_env(env_id, num_envs=1, seed=0, split="test", **effort.env(**env))
    return {label: make_policy(name, own, **options) for label, (name, options) in wanted.items()}


def row(label: str, results: Sequence[EvaluationResult]) -> dict[str, Any]:
    """One table line over the seeds of one policy: means over the seeds and the range of the RMSE, metres."""
    rmse = [result.rmse for result in results]
    bounds = [result.bound_rmse for result in results if result.bound_rmse is not None]
    ratios = [result.efficiency for result in results if result.efficiency is not None]
    return {
        "policy": label,
        "rmse_m": float(np.mean(rmse)),
        "lowest_m": min(rmse),
        "highest_m": max(rmse),
        "median_m": float(np.mean([result.median for result in results])),
        "p99_m": float(np.mean([result.p99 for result in results])),
        "bound_m": float(np.mean(bounds)) if bounds else None,
        "rmse/bound": float(np.mean(ratios)) if ratios else None,
        **({"bound_of": results[0].bound_of} if results[0].bound_of else {}),
        "ms/user": float(np.mean([result.latency_ms for result in results])),
        "seeds": len(results),
    }


def progress(items: Iterable[Item], description: str, total: int | None = None) -> Iterable[Item]:
    """A progress bar with the time left, on standard error."""
    bar: Iterable[Item] = tqdm(items, desc=description, total=total, file=sys.stderr)
    return bar


def bars(axes: Axes, rows: Sequence[Mapping[str, Any]], title: str = "") -> None:
    """RMSE of every row as horizontal bars from top to bottom, on a log axis with plain numbers; dotted: bounds."""
    values = [line["rmse_m"] for line in rows]
    bounds = {line.get("bound_of", ""): line["bound_m"] for line in rows if line["bound_m"] is not None}
    places = np.arange(len(rows))
    axes.barh(places, values, color=OKABE_ITO[0])
    for place, value in zip(places, values):
        axes.annotate(
            f"{value:.3g}", (value, place), xytext=(3, 0), textcoords="offset points", va="center", fontsize=8
        )
    for index, (name, bound) in enumerate(bounds.items()):
        label = f"bound of {name}" if name else "bound"
        axes.axvline(bound, color="black", linestyle=(0, (1, 1 + 2 * index)), label=label)
    if bounds:
        axes.legend(loc="lower right", fontsize=8)
    axes.set(xscale="log", xlabel="RMSE [m]", title=title, xlim=(None, 2.5 * max(values)))
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yticks(places, [line["policy"] for line in rows])
    axes.invert_yaxis()
