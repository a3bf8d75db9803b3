"""From the paper's game with plain MADDPG to the default, one change at a time."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt

from cfpos.scripts.experiments.common import Effort, Outcome, bars, compare, progress, row
from cfpos.scripts.experiments.dcp.training import Job, train, train_ahead

ENV_ID = "dcp-jar-v0"
SITE = {"site": "shadowed"}
_PAPER = {"formulation": "strict", "action": "polar", "reward": "local", "fusion": "mean", "similarity": "paper"}
_GAIN = {"action": "gain", "reward": "shared", "fusion": "line-search", "similarity": "log"}
STEPS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "paper's game, plain MADDPG": ({**SITE, **_PAPER, "start": "centroid"}, {"preset": "paper"}),
    "+ gain actions": ({**SITE, **_GAIN, "start": "centroid"}, {"preset": "paper"}),
    "+ local reward": ({**SITE, **_GAIN, "start": "centroid", "reward": "local"}, {}),
    "+ information fusion": ({**SITE, "reward": "counterfactual"}, {}),
    "+ held-out reward": (SITE, {}),
}
"""Name -> (environment overrides, agent overrides); the last step is the default of the environment."""


def run(effort: Effort) -> Outcome:
    """Train every step with ``seeds`` seeds and evaluate on the same unseen drops."""
    seeds = range(effort.seeds)
    train_ahead([Job(ENV_ID, seed, *options) for options in STEPS.values() for seed in seeds], effort, "training")
    rows = []
    for name, (env, agent) in progress(STEPS.items(), "ablation"):
        results = []
        for seed in seeds:
            maddpg = train(ENV_ID, effort, seed, env, agent)
            results.append(compare(ENV_ID, {name: maddpg}, effort, env)[name])
        rows.append(row(name, results))
    figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
    bars(axes, rows)
    return Outcome(rows, figure, [f"{ENV_ID}, default site, unseen drops; {effort.seeds} seeds per step."])
