"""The same game through every trainer: equal environment steps, equal drops, one evaluator."""

from __future__ import annotations

import importlib.util
from typing import Any

import matplotlib.pyplot as plt

from cfpos.scripts.experiments.common import Effort, Outcome, bars, baselines, compare, progress, row
from cfpos.scripts.experiments.dcp.training import train

ENV_ID = "dcp-jar-v0"
SITE: dict[str, Any] = {"site": "miscalibrated"}
"""Where the untrained policy, a good estimator elsewhere, is far from the bound."""
_AGENT: dict[str, Any] = {"share": "agent", "gamma": 0.0, "lr_final_factor": 0.1}
AGENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "MADDPG": ("maddpg", {}),
    "MADDPG, model critic": ("maddpg", {"critic": "model"}),
    "SB3 PPO": ("sb3-ppo", {}),
    "SB3 SAC": ("sb3-sac", {}),
    "SB3 TD3": ("sb3-td3", {}),
    "SB3 PPO, one row per AP": ("sb3-ppo", _AGENT),
    "SB3 SAC, one row per AP": ("sb3-sac", _AGENT),
    "SB3 TD3, one row per AP": ("sb3-td3", _AGENT),
    "RLlib PPO, one row per AP": ("rllib-ppo", {"gamma": 0.0}),
}
"""Label -> (agent, overrides)."""
_QUICK = ("MADDPG", "SB3 TD3")


def run(effort: Effort) -> Outcome:
    """Train ``seeds`` agents of each kind; evaluate all on unseen drops."""
    left_out = [] if importlib.util.find_spec("ray") else [label for label in AGENTS if "RLlib" in label]
    chosen = [label for label in AGENTS if label not in left_out and (not effort.is_quick or label in _QUICK)]
    policies = baselines(ENV_ID, effort, {"untrained": ("untrained", {})}, SITE)
    groups: dict[str, dict[str, Any]] = {"untrained": policies}
    for label in progress(chosen, "training"):
        name, overrides = AGENTS[label]
        groups[label] = {
            f"{label} #{seed}": train(ENV_ID, effort, seed, SITE, overrides, name=name) for seed in range(effort.seeds)
        }
    results = compare(ENV_ID, {key: policy for group in groups.values() for key, policy in group.items()}, effort, SITE)
    rows = [row(label, [results[key] for key in group]) for label, group in groups.items()]
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    bars(axes, rows)
    remarks = [
        f"{ENV_ID}, site {SITE['site']}, unseen sites and drops; {effort.seeds} seeds each, equal environment steps."
    ]
    if left_out:
        remarks.append(f"Left out, since ray is not installed: {', '.join(left_out)}.")
    return Outcome(rows, figure, remarks)
