"""What memory of a site is worth: agents at its first drop and after ten others, beside estimators of one drop."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from cfpos.scripts.experiments.common import Effort, Outcome, baselines, compare, progress, row
from cfpos.scripts.experiments.dcp.presets import ENV_ID
from cfpos.scripts.experiments.dcp.training import Job, train, train_ahead
from cfpos_envs.drawing.figures import OKABE_ITO

SITES = ("hard", "miscalibrated", "harsh", "drifting", "shadowed", "clean")

ABLATED = "hard"
"""Where memory is left out."""

LINKS = "covariance"
DROPS_BEFORE = 10
NUM_ENVS = 64
"""Parallel episodes in training: many sites in every gradient."""
STEPS_FACTOR = 4
"""Environment steps per agent, in units of the other experiments': an episode has eight drops."""

GAME: dict[str, Any] = {
    "links": LINKS,
    "action": "confidence-correction",
    "memory": "site",
    "drops": 8,
    "rng": "counter",
}
QUICK: dict[str, Any] = {"links": "dft", "drops": 2}
"""No network of links has to be learned for that."""

WITHOUT: dict[str, dict[str, Any]] = {
    "memory of earlier drops": {"memory": "drop"},
    "any memory": {"memory": "none"},
}
AGENT: dict[str, Any] = {"critic": "model", "actor_hidden": (96, 96), "critic_hidden": (96, 96)}
LABEL = "model critic"
ESTIMATORS = ("joint-gn", "joint-em")


def run(effort: Effort) -> Outcome:
    """An agent per preset and seed, and on ``hard`` without memory of earlier drops, and without any."""
    sites, seeds = SITES[:1] if effort.is_quick else SITES, range(effort.seeds)
    num_envs = effort.num_envs if effort.is_quick else NUM_ENVS
    longer = dataclasses.replace(effort, train_steps=STEPS_FACTOR * effort.train_steps, num_envs=num_envs)
    game = {**GAME, **(QUICK if effort.is_quick else {})}
    wanted: list[tuple[str, dict[str, Any]]] = [(site, {}) for site in sites]
    wanted += [(ABLATED, change) for change in WITHOUT.values()]
    jobs = [Job(ENV_ID, seed, {"site": site, **game, **change}, AGENT) for site, change in wanted for seed in seeds]
    train_ahead(jobs, longer, "training")
    rows: list[dict[str, Any]] = []
    for site in progress(sites, "evaluation"):
        env = {"site": site, **game}
        wanted_policies = {name: (name, {"links": env["links"]}) for name in ESTIMATORS}
        others = baselines(ENV_ID, effort, {"untrained": ("untrained", {}), **wanted_policies}, env)
        rows += _rows(site, others, env, effort)
        rows += _trained(site, LABEL, env, longer)
        if site == ABLATED:
            for name, change in WITHOUT.items():
                rows += _trained(site, f"{LABEL} without {name}", {**env, **change}, longer)
    remark = (
        f"{ENV_ID}, {', '.join(f'{name}={value}' for name, value in game.items())}; unseen sites and drops; agents: "
        f"{effort.seeds} seeds, {longer.train_steps} steps, a policy per preset. first_m: RMSE at the first drop of a "
        f"site, after_{DROPS_BEFORE}_m: at the drop after {DROPS_BEFORE} others of the same site. Estimators see one "
        "drop; joint-em is told the laws of 'hard'."
    )
    return Outcome(rows, _picture(rows, sites), [remark])


def _trained(site: str, label: str, env: Mapping[str, Any], effort: Effort) -> list[dict[str, Any]]:
    agents = {f"{label} #{seed}": train(ENV_ID, effort, seed, env, AGENT) for seed in range(effort.seeds)}
    return _rows(site, agents, env, effort, label)


def _rows(
    site: str, policies: Mapping[str, Any], env: Mapping[str, Any], effort: Effort, label: str | None = None
) -> list[dict[str, Any]]:
    """A line per policy, or one for all of them as seeds of ``label``."""
    first = compare(ENV_ID, policies, effort, {**env, "drops": 1})
    drops = env["drops"] if effort.is_quick else DROPS_BEFORE + 1
    after = compare(ENV_ID, policies, effort, {**env, "drops": drops})
    groups = {name: [name] for name in policies} if label is None else {label: list(policies)}
    lines = []
    for name, members in groups.items():
        early, late = (row(name, [found[member] for member in members]) for found in (first, after))
        lines.append(
            {
                "site": site,
                "policy": name,
                "first_m": early["rmse_m"],
                f"after_{DROPS_BEFORE}_m": late["rmse_m"],
                "lowest_m": late["lowest_m"],
                "highest_m": late["highest_m"],
                "p99_m": late["p99_m"],
                "bound_m": late["bound_m"],
                "bound_of": late.get("bound_of", ""),
                "seeds": len(members),
            }
        )
    return lines


def _picture(rows: list[dict[str, Any]], sites: Any) -> Figure:
    figure, panels = plt.subplots(2, (len(sites) + 1) // 2, figsize=(14, 7), squeeze=False, layout="constrained")
    for axes, site in zip(panels.flat, sites):
        lines = [line for line in rows if line["site"] == site and " without " not in line["policy"]]
        for place, line in enumerate(lines):
            for shift, name, colour, said in (
                (-0.2, "first_m", OKABE_ITO[1], "first drop"),
                (0.2, f"after_{DROPS_BEFORE}_m", OKABE_ITO[0], f"after {DROPS_BEFORE} drops"),
            ):
                axes.barh(place + shift, line[name], 0.4, color=colour, label=said if place == 0 else None)
                axes.annotate(
                    f"{line[name]:.3g}",
                    (line[name], place + shift),
                    xytext=(3, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=8,
                )
        axes.set_yticks(range(len(lines)), [line["policy"] for line in lines])
        axes.invert_yaxis()
        longest_m = max(max(line["first_m"], line[f"after_{DROPS_BEFORE}_m"]) for line in lines)
        axes.set(title=site, xlabel="RMSE [m]", xlim=(0, 1.15 * longest_m))
    panels[0, 0].legend(loc="lower right", fontsize=8)
    return figure
