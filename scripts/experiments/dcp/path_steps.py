"""How near the bound of sample covariances can be come: ``joint-gn``, then steps by the exact law of its links."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from cfpos.baselines import make_policy
from cfpos.baselines.dcp.path_step import path_step
from cfpos.scripts.experiments.common import EVALUATION_SEED, Effort, Outcome, bars, progress
from cfpos.scripts.experiments.dcp.presets import ENV_ID
from cfpos_envs import evaluate, make_env
from cfpos_envs.measurements.base import PositionEstimate
from cfpos_envs.measurements.dcp import RadioMeasurements

_SITES = ("clean", "shadowed")
_STEPS = 2
_DROPS_PER_EPISODE = 10
"""Of those asked for, one in so many is played: a step takes a third of a second per user."""


class Stepped:
    """``joint-gn`` with ``links=covariance`` and a number of steps after it.

    Args:
        policy: the estimator.
        steps: see ``path_step``.
    """

    reads_covariance = True

    def __init__(self, policy: Any, steps: int) -> None:
        self.policy, self.steps = policy, steps
        self.name = f"joint-gn, covariance, {steps} steps" if steps else "joint-gn, covariance"

    def locate(self, measurements: RadioMeasurements) -> PositionEstimate:
        """The estimator's answer, its positions moved."""
        found: PositionEstimate = self.policy.locate(measurements)
        position = found.position
        for step in range(self.steps):
            position = path_step(measurements, position, seed=step)
        return PositionEstimate(position, None, found.valid)


def run(effort: Effort) -> Outcome:
    """RMSE over the bound on the same drops, before and after the steps."""
    rows: list[dict[str, Any]] = []
    for site in progress(_SITES, "evaluation"):
        env = make_env(ENV_ID, num_envs=1, seed=0, split="test", site=site, **effort.small)
        policy = make_policy("joint-gn", env, links="covariance")
        for steps in range(_STEPS + 1):
            episodes = max(1, effort.episodes // _DROPS_PER_EPISODE)
            result = evaluate(env, Stepped(policy, steps), episodes, EVALUATION_SEED)
            low, high = result.ci("efficiency")
            rows.append(
                {
                    "site": site,
                    "policy": result.policy,
                    "rmse_m": result.rmse,
                    "median_m": result.median,
                    "bound_m": result.bound_rmse,
                    "bound_of": result.bound_of,
                    "rmse/bound": result.efficiency,
                    "from": low,
                    "to": high,
                    "users": int(np.size(result.errors)),
                    "ms/user": result.latency_ms,
                }
            )
    figure, panels = plt.subplots(1, len(_SITES), figsize=(12, 3), layout="constrained")
    for axes, site in zip(panels, _SITES):
        bars(axes, [line for line in rows if line["site"] == site], title=site)
    return Outcome(rows, figure, [f"{ENV_ID}, unseen sites and drops; from, to: 95 % interval of RMSE over bound."])
