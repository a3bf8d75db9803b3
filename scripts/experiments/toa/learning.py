"""Whom to believe: agents against robust estimators with 0, 30 and 50 % of the links without line of sight."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from cfpos.scripts.experiments.common import Effort, Outcome, baselines, compare, progress, row
from cfpos.scripts.experiments.dcp.training import Job, train, train_ahead
from cfpos_envs.drawing.figures import OKABE_ITO

ENV_ID = "toa-v0"
SITES = ("nlos-0", "nlos-30", "nlos-50")
ANY = "nlos-any"
_MODEL: dict[str, Any] = {"critic": "model"}
AGENTS: dict[str, tuple[bool, dict[str, Any], dict[str, Any]]] = {
    "MADDPG": (False, {}, {}),
    "MADDPG, one for all": (True, {}, {}),
    "model critic": (False, {}, _MODEL),
    "model critic, one for all": (True, {}, _MODEL),
    "the same, judged by the fused links": (True, {"reward": "similarity"}, _MODEL),
    "the same, judged by the truth": (True, {"reward": "error"}, _MODEL),
}
"""Label -> (trained on all shares at once, environment overrides, agent overrides)."""
BASELINES: dict[str, tuple[str, dict[str, Any]]] = {
    name: (name, {}) for name in ("toa-wls", "untrained", "toa-nlos-drop", "toa-huber", "toa-em", "toa-oracle")
}


def run(effort: Effort) -> Outcome:
    """Train ``seeds`` agents of each kind, per share of blocked views or on all of them; evaluate on unseen drops."""
    sites = effort.chosen(SITES)
    jobs = {
        (label, site, seed): Job(ENV_ID, seed, {"site": ANY if on_all else site, **env}, agent)
        for label, (on_all, env, agent) in AGENTS.items()
        for site in sites
        for seed in range(effort.seeds)
    }
    different = list({job.file_name(effort): job for job in jobs.values()}.values())
    train_ahead(different, effort, "training")
    known = {job.file_name(effort): train(ENV_ID, effort, job.seed, job.env, job.agent) for job in different}
    rows: list[dict[str, Any]] = []
    for site in progress(sites, "evaluation"):
        # The oracle alone looks at what is revealed; the drops are the same for all.
        env = {"site": site, "reveal_los": True}
        groups: dict[str, dict[str, Any]] = {
            label: {label: policy} for label, policy in baselines(ENV_ID, effort, BASELINES, env).items()
        }
        for label in AGENTS:
            chosen = [known[jobs[label, site, seed].file_name(effort)] for seed in range(effort.seeds)]
            groups[label] = {f"{label} #{seed}": agent for seed, agent in enumerate(chosen)}
        flat = {key: policy for group in groups.values() for key, policy in group.items()}
        results = compare(ENV_ID, flat, effort, env)
        medians = {label: [results[key].median for key in group] for label, group in groups.items()}
        for label, group in groups.items():
            line = row(label, [results[key] for key in group])
            low, high = min(medians[label]), max(medians[label])
            extra = {"lowest_median_m": low, "highest_median_m": high}
            extra["median/EM"] = line["median_m"] / medians["toa-em"][0]
            rows.append({"site": site, **line, **extra})
    remark = (
        f"{ENV_ID}, 16 APs on a grid, ranges of 0.3 m, excess exponential with 10 m; agents: {effort.seeds} seeds, "
        "trained without labels; the bound is that of an oracle that knows the links with a line of sight."
    )
    return Outcome(rows, _medians(rows, sites), [remark])


def _medians(rows: list[dict[str, Any]], sites: Any) -> Any:
    """Median error of every policy at every share, logarithmic; a line from the lowest to the highest seed."""
    names = list(dict.fromkeys(line["policy"] for line in rows))
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    places = np.arange(len(names))
    for index, site in enumerate(sites):
        lines = {line["policy"]: line for line in rows if line["site"] == site}
        values = np.array([lines[name]["median_m"] for name in names])
        spread = np.array([[lines[n]["lowest_median_m"], lines[n]["highest_median_m"]] for n in names]).T
        errors = np.abs(spread - values)
        axes.errorbar(values, places, xerr=errors, fmt="os^"[index], color=OKABE_ITO[index], label=site, capsize=2)
    axes.set(xscale="log", xlabel="median position error [m]")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.grid(True, axis="x", color="#E4E4E4")
    axes.legend()
    return figure
