"""The site preset ``cf-200``: surveyed fingerprints, Gaussian processes and the trained agent, mean error in metres."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt

from scripts import reports
from scripts.experiments.common import Effort, Outcome, baselines, compare, train

ENV_ID = "dcp-jar-v0"
ENV: dict[str, Any] = {"site": "cf-200"}
POLICIES: dict[str, tuple[str, dict[str, Any]]] = {
    "fingerprint, RSS": ("fingerprint", {"features": "rss"}),
    "fingerprint, AOA": ("fingerprint", {"features": "aoa"}),
    "fingerprint, hybrid": ("fingerprint", {"features": "joint"}),
    "gpr": ("gpr", {}),
    "joint-gn": ("joint-gn", {}),
    "untrained": ("untrained", {}),
}


def run(effort: Effort) -> Outcome:
    """Everything on the same unseen drops of cf-200."""
    env = {**ENV, **({"num_ues": 2, "num_sites": 2} if effort.is_quick else {})}
    own = Effort(**{**effort.__dict__, "small": {}})
    policies = baselines(ENV_ID, own, POLICIES, env)
    policies |= {f"MADDPG #{seed}": train(ENV_ID, own, seed, env) for seed in range(effort.seeds)}
    results = compare(ENV_ID, policies, own, env)
    rows = [
        {
            "policy": label,
            "mean_m": r.mean,
            "rmse_m": r.rmse,
            "median_m": r.median,
            "p90_m": r.p90,
            "bound_m": r.bound_rmse,
        }
        for label, r in results.items()
    ]
    figure, axes = plt.subplots(figsize=(7, 4.5))
    reports.plot_cdf(axes, {label: result.errors for label, result in results.items()}, None)
    return Outcome(rows, figure, [f"{ENV_ID}, site cf-200, {effort.episodes} unseen episodes."])
