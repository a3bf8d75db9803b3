"""RMSE of fingerprinting, the best classical estimator and MADDPG while one parameter of the network grows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt

from scripts.experiments.common import Effort, Outcome, baselines, compare, progress, row, train

ENV_ID = "dcp-jar-v0"
SPACINGS_M = (0.5, 1.0, 1.5, 2.0, 2.5)


def sweep(effort: Effort, parameter: str, values: Sequence[int], axis_label: str) -> Outcome:
    """Evaluate at every value of ``parameter``; MADDPG is trained anew at each.

    Args:
        effort: seeds, episodes, steps.
        parameter: override of the environment.
        values: its values.
        axis_label: of the picture.
    """
    # A dense database is what the paper compares with; in quick mode the sparse ones tell as much.
    spacings = SPACINGS_M[-2:] if effort.is_quick else SPACINGS_M
    wanted: dict[str, tuple[str, dict[str, Any]]] = {
        f"fingerprint, {spacing:g} m": ("fingerprint", {"spacing": spacing}) for spacing in spacings
    }
    wanted["joint-gn"] = ("joint-gn", {})
    rows: list[dict[str, Any]] = []
    for value in progress(values, parameter):
        env = {parameter: value}
        policies = baselines(ENV_ID, effort, wanted, env)
        agents = {f"MADDPG #{seed}": train(ENV_ID, effort, seed, env) for seed in range(effort.seeds)}
        results = compare(ENV_ID, {**policies, **agents}, effort, env)
        rows += [{parameter: value, **row(label, [results[label]])} for label in policies]
        rows.append({parameter: value, **row("MADDPG", [results[label] for label in agents])})
    figure, axes = plt.subplots(figsize=(7, 4.5))
    for label in [*wanted, "MADDPG"]:
        line = [entry for entry in rows if entry["policy"] == label]
        axes.plot([entry[parameter] for entry in line], [entry["rmse_m"] for entry in line], marker="o", label=label)
    line = [entry for entry in rows if entry["policy"] == "MADDPG"]
    axes.plot([e[parameter] for e in line], [e["bound_m"] for e in line], "k:", label="bound")
    axes.set(xlabel=axis_label, ylabel="RMSE [m]", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return Outcome(rows, figure, [f"{ENV_ID}, unseen sites; MADDPG is the mean over {effort.seeds} seeds."])
