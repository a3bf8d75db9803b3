"""Fig. 2 of Liu et al.: how fast training converges when the agents see RSS, AOA or both (JAR)."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cfpos.scripts.experiments.common import Effort, Outcome, progress
from cfpos.scripts.experiments.dcp.training import train
from cfpos_envs import make_scenario
from cfpos_envs.drawing.figures import draw_convergence, new_figure

STATES = {"RSS": "dcp-rss-v0", "AOA": "dcp-aoa-v0", "JAR": "dcp-jar-v0"}
SHARE_OF_IMPROVEMENT = 0.95
_EVALUATIONS = 20


def learning_curve(env_id: str, effort: Effort, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Environment steps and test RMSE in metres of the noise-free policy at every evaluation of one run."""
    with tempfile.TemporaryDirectory() as folder:
        train(
            env_id,
            effort,
            seed,
            agent={"evaluations": 2 if effort.is_quick else _EVALUATIONS, "test_envs": 8 if effort.is_quick else 64},
            log_dir=folder,
        )
        events = EventAccumulator(folder)
        events.Reload()
        scalars = events.Scalars("test/rmse_m")
    return np.array([point.step for point in scalars]), np.array([point.value for point in scalars])


def steps_to_converge(steps: Sequence[float] | np.ndarray, rmse_m: Sequence[float] | np.ndarray) -> float:
    """First step from which the RMSE stays within 5 % of the whole improvement above its lowest value.

    Args:
        steps: environment steps of the evaluations, rising, beginning with the untrained policy.
        rmse_m: RMSE at these steps, metres.
    """
    curve = np.asarray(rmse_m, dtype=float)
    reached = curve[0] - SHARE_OF_IMPROVEMENT * (curve[0] - curve.min())
    first = int(np.argmax(curve <= reached))
    return float(np.asarray(steps)[first])


def run(effort: Effort) -> Outcome:
    """Train on each kind of state; the percentages compare JAR with the other two as the paper does."""
    rows: list[dict[str, Any]] = []
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for state, env_id in progress(STATES.items(), "fig2"):
        runs = [learning_curve(env_id, effort, seed) for seed in range(effort.seeds)]
        rounds = make_scenario(env_id).rounds
        rmse_m = np.mean([rmse for _, rmse in runs], axis=0)
        curves[state] = ((runs[0][0] / rounds).tolist(), rmse_m.tolist())
        episodes = float(np.mean([steps_to_converge(*curve) for curve in runs])) / rounds
        rows.append(
            {
                "state": state,
                "episodes to converge": episodes,
                "untrained_m": float(rmse_m[0]),
                "best_m": float(rmse_m.min()),
                "seeds": effort.seeds,
            }
        )
    needed = {line["state"]: line["episodes to converge"] for line in rows}
    for line in rows:
        others = needed[str(line["state"])]
        line["JAR faster by"] = None if line["state"] == "JAR" or not others else f"{1 - needed['JAR'] / others:.1%}"
    with new_figure(7.0, 4.5) as (figure, axes):
        draw_convergence(axes, curves, xlabel="training episodes", ylabel="RMSE on unseen drops [m]")
    remarks = [
        f"Episodes until the test RMSE has made {SHARE_OF_IMPROVEMENT:.0%} of its improvement over the untrained one.",
        "An untrained policy of ours is already a good estimator, so the improvement is small by construction.",
    ]
    return Outcome(rows, figure, remarks)
