"""The site preset ``cf-200``: surveyed fingerprints, Gaussian processes and the trained agent, mean error in metres."""

from __future__ import annotations

from typing import Any

from cfpos.scripts.experiments.common import Effort, Outcome, baselines, compare
from cfpos.scripts.experiments.dcp.training import Job, train, train_ahead
from cfpos_envs.drawing.figures import draw_cdf, new_figure

ENV_ID = "dcp-jar-v0"
ENV: dict[str, Any] = {"site": "cf-200"}
# 225 surveyed reference points on a 15 x 15 grid that reaches the borders of the 200 m square.
_REFERENCES: dict[str, Any] = {"grid": "border", "spacing": 200.0 / 14.0}
_SURVEY: dict[str, Any] = {**_REFERENCES, "database": "surveyed", "matching": "wknn", "neighbours": 4}
POLICIES: dict[str, tuple[str, dict[str, Any]]] = {
    "fingerprint, RSS": ("fingerprint", {**_SURVEY, "feature": "rss-db"}),
    "fingerprint, AOA": ("fingerprint", {**_SURVEY, "feature": "aoa"}),
    "fingerprint, hybrid": ("fingerprint", {**_SURVEY, "feature": "joint-db"}),
    "fingerprint, hybrid, median of APs": ("fingerprint", {**_SURVEY, "feature": "joint-db", "fusion": "median"}),
    "Gaussian process, RSS": ("gpr", {**_REFERENCES, "feature": "rss-db"}),
    "Gaussian process, AOA": ("gpr", {**_REFERENCES, "feature": "aoa"}),
    "Gaussian process, hybrid": ("gpr", {**_REFERENCES, "feature": "joint"}),
}
MODEL_BASED: dict[str, tuple[str, dict[str, Any]]] = {
    "joint-gn": ("joint-gn", {}),
    "untrained": ("untrained", {}),
}


def run(effort: Effort) -> Outcome:
    """Everything on the same unseen drops of cf-200."""
    env = {**ENV, **({"num_ues": 2, "num_sites": 2, "num_antennas": 4} if effort.is_quick else {})}
    own = Effort(**{**effort.__dict__, "small": {}})
    # Who surveys a site measures its shadowing; who only knows the path loss does not. The drops are the same.
    known = {**env, "shadowing_known": True}
    results = compare(ENV_ID, baselines(ENV_ID, own, POLICIES, known), own, known)
    policies = baselines(ENV_ID, own, MODEL_BASED, env)
    train_ahead([Job(ENV_ID, seed, env) for seed in range(effort.seeds)], own, "training")
    policies |= {f"MADDPG #{seed}": train(ENV_ID, own, seed, env) for seed in range(effort.seeds)}
    results |= compare(ENV_ID, policies, own, env)
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
    with new_figure(8.0, 4.5) as (figure, axes):
        draw_cdf(axes, {label: result.errors for label, result in results.items()})
    return Outcome(rows, figure, [f"{ENV_ID}, site cf-200, {effort.episodes} unseen episodes."])
