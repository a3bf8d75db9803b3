"""What the whole covariance is worth: estimators on every site preset by the front end that reads their links."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt

from cfpos.scripts.experiments.common import Effort, Outcome, bars, baselines, compare, progress, row
from cfpos.scripts.experiments.dcp.presets import ENV_ID, PRESETS

FRONT_ENDS: dict[str, tuple[str, ...]] = {
    "joint-gn": ("dft", "likelihood", "covariance"),
    "joint-em": ("dft", "covariance"),
}
"""Policy -> values of its option ``links``."""
FAULTY = "hard"
"""Site whose faults ``joint-em`` is told; elsewhere it is told wrong."""


def run(effort: Effort) -> Outcome:
    """Every policy with each of its front ends on the same unseen drops; nothing is trained but single links."""
    presets = effort.chosen(PRESETS)
    rows: list[dict[str, Any]] = []
    for site in progress(presets, "evaluation"):
        wanted = {
            f"{name}, {links}": (name, {"links": links})
            for name, all_links in FRONT_ENDS.items()
            for links in all_links
            if name != "joint-em" or site == FAULTY
        }
        env = {"site": site}
        results = compare(ENV_ID, baselines(ENV_ID, effort, wanted, env), effort, env)
        for label, result in results.items():
            low, high = result.ci("rmse")
            line = row(label, [result])
            shown = {
                name: line[name]
                for name in ("policy", "rmse_m", "median_m", "p99_m", "bound_m", "rmse/bound", "bound_of", "ms/user")
            }
            rows.append({"site": site, **shown, "from_m": low, "to_m": high})
    figure, panels = plt.subplots(2, (len(presets) + 1) // 2, figsize=(12, 8), squeeze=False, layout="constrained")
    for axes, site in zip(panels.flat, presets):
        bars(axes, [line for line in rows if line["site"] == site], title=site)
    remark = (
        f"{ENV_ID}, unseen sites and drops; bound_of: what is measured that the bound is of; "
        "from, to: 95 % interval of the RMSE."
    )
    return Outcome(rows, figure, [remark])
