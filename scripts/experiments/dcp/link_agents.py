"""What the whole covariance is worth to agents: every preset, trained and untrained, beside estimators that read it."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt

from cfpos.scripts.experiments.common import Effort, Outcome, bars, baselines, compare, progress, row
from cfpos.scripts.experiments.dcp.presets import AGENTS, ENV_ID, PRESETS
from cfpos.scripts.experiments.dcp.training import Job, train, train_ahead

LINKS = "covariance"
BASELINES: dict[str, tuple[str, dict[str, Any]]] = {
    "joint-gn": ("joint-gn", {"links": LINKS}),
    "untrained": ("untrained", {}),
}


def run(effort: Effort) -> Outcome:
    """Train ``seeds`` agents of each kind on each preset with ``links=covariance``, evaluate all on unseen sites."""
    presets, seeds = effort.chosen(PRESETS), range(effort.seeds)
    jobs = {
        (kind, site, seed): Job(ENV_ID, seed, {"site": site, "links": LINKS}, AGENTS[kind])
        for site in presets
        for kind in AGENTS
        for seed in seeds
    }
    train_ahead(list(jobs.values()), effort, "training")
    rows: list[dict[str, Any]] = []
    for site in progress(presets, "evaluation"):
        env = {"site": site, "links": LINKS}
        found = compare(ENV_ID, baselines(ENV_ID, effort, BASELINES, env), effort, env)
        rows += [{"site": site, **row(f"{name}, {LINKS}", [result])} for name, result in found.items()]
        plain = {"site": site}
        idle = baselines(ENV_ID, effort, {"untrained": BASELINES["untrained"]}, plain)
        rows.append({"site": site, **row("untrained, dft", list(compare(ENV_ID, idle, effort, plain).values()))})
        for kind in AGENTS:
            agents = {
                f"{kind} #{seed}": train(ENV_ID, effort, seed, jobs[kind, site, seed].env, AGENTS[kind])
                for seed in seeds
            }
            results = compare(ENV_ID, agents, effort, env)
            rows.append({"site": site, **row(f"{kind}, {LINKS}", list(results.values()))})
    remark = (
        f"{ENV_ID}, links={LINKS} unless it says otherwise, unseen sites and drops; agents: {effort.seeds} seeds, an "
        "agent per preset; bound_of: what is measured that the bound is of. The same with dft stands in 'presets'."
    )
    return Outcome(rows, _bars(rows, presets), [remark])


def _bars(rows: list[dict[str, Any]], presets: Any) -> Any:
    figure, panels = plt.subplots(2, (len(presets) + 1) // 2, figsize=(12, 6), squeeze=False, layout="constrained")
    for axes, site in zip(panels.flat, presets):
        bars(axes, [entry for entry in rows if entry["site"] == site], title=site)
    return figure
