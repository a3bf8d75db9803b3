"""The trained networks that come with the repository, on users that they have never seen and along a spiral."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt

from cfpos.agents import load_agent
from cfpos.agents.ecc.weights import list_weights, weights
from cfpos.scripts.experiments.common import EVALUATION_SEED, Effort, Outcome, progress
from cfpos_envs import evaluate
from cfpos_envs.drawing.figures import draw_cdf
from cfpos_envs.tracking import track

ENVIRONMENTS = {"small": "ecc-urban-small-v0", "urban": "ecc-urban-v0"}
SPIRAL_ROUNDS = 60


def run(effort: Effort) -> Outcome:
    """Evaluate every network in the scene that it was trained in."""
    rows: list[dict[str, Any]] = []
    errors = {}
    for name in progress(list_weights(), "evaluation", len(list_weights())):
        env_id = ENVIRONMENTS[name.rpartition("-")[2]]
        agent = load_agent(weights(name), env_id)
        result = evaluate(env_id, agent, episodes=effort.episodes, seed=EVALUATION_SEED)
        followed = track(env_id, agent, rounds=2 if effort.is_quick else SPIRAL_ROUNDS)
        errors[name] = result.errors
        rows.append(
            {
                "network": name,
                "environment": env_id,
                "mean_m": result.mean,
                "mean_interval_95_m": "{:.3g} to {:.3g}".format(*result.ci("mean")),
                "median_m": result.median,
                "p90_m": result.p90,
                "bits_per_bs": int(result.fronthaul_bits),
                "spiral_mean_m": followed.mean_error_m,
                "file_MB": weights(name).stat().st_size / 1e6,
            }
        )
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    draw_cdf(axes, errors)
    axes.set(xlabel="3-D error [m]")
    remark = "Three-dimensional errors; bits as counted, with 8 of the gain and 1 flag; one seed each."
    return Outcome(rows, figure, [remark])
