"""Robustness: every estimator of arrival times with 0, 30 and 50 % of the links without line of sight."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from cfpos.scripts.experiments.common import Effort, Outcome, baselines, compare, progress, row
from cfpos_envs.drawing.figures import OKABE_ITO

SITES = {0: "nlos-0", 30: "nlos-30", 50: "nlos-50"}
ROBUST = ("toa-huber", "toa-nlos-drop", "toa-em", "toa-oracle")
POLICIES: dict[str, tuple[str, ...]] = {
    "toa-v0": ("toa-wls", *ROBUST),
    "tdoa-v0": ("tdoa-wls", "tdoa-chan", *ROBUST),
    "rtt-v0": ("rtt-wls", *ROBUST),
}


def run(effort: Effort) -> Outcome:
    """Median error and RMSE of all estimators on the same drops of the three families."""
    rows: list[dict[str, Any]] = []
    for env_id in progress(effort.chosen(list(POLICIES)), "families"):
        for share in effort.chosen(list(SITES)):
            # The oracle alone looks at what is revealed.
            env = {"site": SITES[share], "reveal_los": True}
            wanted: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in POLICIES[env_id]}
            results = compare(env_id, baselines(env_id, effort, wanted, env), effort, env)
            oracle = results["toa-oracle"].median
            rows += [
                {"env": env_id, "NLOS %": share, **row(name, [result]), "median/oracle": result.median / oracle}
                for name, result in results.items()
            ]
    remark = (
        "16 APs on a 4 x 4 grid over 100 m, height difference 10 m, ranges of 0.3 m, excess exponential with 10 m; "
        "the bound is that of the links with a line of sight."
    )
    return Outcome(rows, _medians(rows), [remark])


def _medians(rows: list[dict[str, Any]]) -> Any:
    """Median error over the share of blocked views, one panel per family."""
    families = list(dict.fromkeys(line["env"] for line in rows))
    figure, panels = plt.subplots(
        1, len(families), figsize=(4.2 * len(families), 3.8), sharey=True, squeeze=False, layout="constrained"
    )
    names = list(dict.fromkeys(name for env_id in families for name in POLICIES[env_id]))
    for axes, env_id in zip(panels.flat, families):
        for name in POLICIES[env_id]:
            lines = [line for line in rows if line["env"] == env_id and line["policy"] == name]
            colour = OKABE_ITO[names.index(name) % len(OKABE_ITO)]
            shares = np.array([line["NLOS %"] for line in lines])
            axes.plot(shares, [line["median_m"] for line in lines], "o-", color=colour, label=name)
        axes.set(yscale="log", xlabel="links without line of sight [%]", title=env_id)
        axes.grid(True, color="#E4E4E4")
        axes.legend(fontsize=8)
    panels[0, 0].set_ylabel("median position error [m]")
    return figure
