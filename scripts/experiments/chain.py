"""The chained game: RMSE after the RSS stage and after the correcting stage, with and without unknown shadowing."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt

from cfpos_envs import make_scenario
from scripts.experiments.common import Effort, Outcome, baselines, compare, progress, row, train

ENV_ID = "dcp-v0"
SITES = ("clean", "shadowed")


def run(effort: Effort) -> Outcome:
    """Train on each site, report RMSE round by round."""
    rows: list[dict[str, Any]] = []
    figure, axes = plt.subplots(figsize=(7, 4.5))
    switch = make_scenario(ENV_ID, **effort.env()).config.stage_one_rounds
    for site in progress(SITES, "chain"):
        env = {"site": site}
        agents = {f"MADDPG #{seed}": train(ENV_ID, effort, seed, env) for seed in range(effort.seeds)}
        groups: dict[str, dict[str, Any]] = {"MADDPG": agents}
        groups["untrained"] = baselines(ENV_ID, effort, {"untrained": ("untrained", {})}, env)
        results = compare(ENV_ID, {key: p for group in groups.values() for key, p in group.items()}, effort, env)
        for label, group in groups.items():
            curves = [results[key].rmse_by_round or [] for key in group]
            mean = [sum(values) / len(values) for values in zip(*curves)]
            stages = {"start_m": mean[0], "stage_1_m": mean[switch], "stage_2_m": mean[-1]}
            rows.append({"site": site, **stages, **row(label, [results[key] for key in group])})
            axes.plot(range(len(mean)), mean, marker="o", label=f"{label}, {site}")
    axes.axvline(switch, color="black", linestyle=":", label="stage 2 begins")
    axes.set(xlabel="round", ylabel="RMSE [m]", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return Outcome(rows, figure, [f"{ENV_ID}, unseen drops; MADDPG is the mean over {effort.seeds} seeds."])
