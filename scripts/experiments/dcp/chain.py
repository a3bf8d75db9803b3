"""The chained game: RMSE after the RSS stage and after the correcting stage, with and without unknown shadowing."""

from __future__ import annotations

from typing import Any

from cfpos.scripts.experiments.common import Effort, Outcome, baselines, compare, progress, row
from cfpos.scripts.experiments.dcp.training import Job, train, train_ahead
from cfpos_envs import make_scenario
from cfpos_envs.drawing.figures import draw_convergence, new_figure

ENV_ID = "dcp-v0"
SITES = ("clean", "shadowed")


def run(effort: Effort) -> Outcome:
    """Train on each site, report RMSE round by round."""
    rows: list[dict[str, Any]] = []
    curves: dict[str, list[float]] = {}
    switch = make_scenario(ENV_ID, **effort.env()).config.stage_one_rounds
    jobs = [Job(ENV_ID, seed, {"site": site}) for site in SITES for seed in range(effort.seeds)]
    train_ahead(jobs, effort, "training")
    for site in progress(SITES, "chain"):
        env = {"site": site}
        agents = {f"MADDPG #{seed}": train(ENV_ID, effort, seed, env) for seed in range(effort.seeds)}
        groups: dict[str, dict[str, Any]] = {"MADDPG": agents}
        groups["untrained"] = baselines(ENV_ID, effort, {"untrained": ("untrained", {})}, env)
        results = compare(ENV_ID, {key: p for group in groups.values() for key, p in group.items()}, effort, env)
        for label, group in groups.items():
            by_round = [results[key].rmse_by_round or [] for key in group]
            mean = [sum(values) / len(values) for values in zip(*by_round)]
            stages = {"start_m": mean[0], "stage_1_m": mean[switch], "stage_2_m": mean[-1]}
            rows.append({"site": site, **stages, **row(label, [results[key] for key in group])})
            curves[f"{label}, {site}"] = mean
    with new_figure(7.0, 4.5) as (figure, axes):
        draw_convergence(axes, curves, xlabel="round")
        axes.axvline(switch, color="black", linestyle=":")
    return Outcome(rows, figure, [f"{ENV_ID}, unseen drops; dotted: stage 2 begins."])
