"""RMSE of fingerprinting, the best classical estimator and MADDPG while one parameter of the network grows.

MADDPG is trained once, on the default network: its actor serves any number of APs and antennas as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cfpos.scripts.experiments.common import Effort, Outcome, baselines, compare, progress, row
from cfpos.scripts.experiments.dcp.training import Job, train, train_ahead
from cfpos_envs.drawing.figures import draw_convergence, new_figure

ENV_ID = "dcp-jar-v0"
# Without shadowing a database made from the path loss knows as much as everybody else.
TRAINING = {"site": "clean"}
SPACINGS_M = (0.5, 1.0, 1.5, 2.0, 2.5)


def sweep(effort: Effort, parameter: str, values: Sequence[int], axis_label: str) -> Outcome:
    """Evaluate at every value of ``parameter``.

    Args:
        effort: seeds, episodes, steps.
        parameter: override of the environment.
        values: its values.
        axis_label: of the picture.
    """
    # A dense database is what the paper compares with; in quick mode the sparse ones suffice.
    spacings = SPACINGS_M[-2:] if effort.is_quick else SPACINGS_M
    wanted: dict[str, tuple[str, dict[str, Any]]] = {
        f"fingerprint, {spacing:g} m": ("fingerprint", {"spacing": spacing}) for spacing in spacings
    }
    wanted["joint-gn"] = ("joint-gn", {})
    jobs = [Job(ENV_ID, seed, TRAINING) for seed in range(effort.seeds)]
    train_ahead(jobs, effort, "training")
    agents = {f"MADDPG #{job.seed}": train(ENV_ID, effort, job.seed, job.env) for job in jobs}
    rows: list[dict[str, Any]] = []
    for value in progress(values, parameter):
        env = {**TRAINING, parameter: value}
        policies = baselines(ENV_ID, effort, wanted, env)
        results = compare(ENV_ID, {**policies, **agents}, effort, env)
        rows += [{parameter: value, **row(label, [results[label]])} for label in policies]
        rows.append({parameter: value, **row("MADDPG", [results[label] for label in agents])})
    curves = {
        label: (list(values), [line["rmse_m"] for line in rows if line["policy"] == label])
        for label in (*wanted, "MADDPG")
    }
    curves["bound"] = (list(values), [line["bound_m"] for line in rows if line["policy"] == "MADDPG"])
    with new_figure(8.0, 4.5) as (figure, axes):
        draw_convergence(axes, curves, xlabel=axis_label)
    remark = f"{ENV_ID}, unseen sites, no shadowing; MADDPG: {effort.seeds} seeds, trained on M = 36, L = 8 alone."
    return Outcome(rows, figure, [remark])
