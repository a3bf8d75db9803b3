"""Every policy on every site preset: one agent per preset and one for all, beside every baseline and the bound."""

from __future__ import annotations

import dataclasses
from typing import Any

import matplotlib.pyplot as plt

from cfpos.scripts.experiments.common import Effort, Outcome, bars, baselines, compare, progress, row
from cfpos.scripts.experiments.dcp.training import Job, train, train_ahead

ENV_ID = "dcp-jar-v0"
PRESETS = ("clean", "shadowed", "miscalibrated", "hard")
MIXED = "mixed"
# With good and bad sites in one batch the fixed scales of ``cauchy`` keep the bad ones from drowning the good ones.
TRAINING: dict[str, dict[str, Any]] = {
    **{site: {"site": site} for site in PRESETS},
    MIXED: {"site": MIXED, "similarity": "cauchy"},
}
AGENTS: dict[str, dict[str, Any]] = {"MADDPG": {}, "model critic": {"critic": "model"}}
BASELINES: dict[str, tuple[str, dict[str, Any]]] = {
    "fingerprint, 0.5 m": ("fingerprint", {"spacing": 0.5}),
    "fingerprint, 2.5 m": ("fingerprint", {"spacing": 2.5}),
    "music": ("music", {}),
    "beamscan": ("beamscan", {}),
    "rss-gn": ("rss-gn", {}),
    "joint-gn": ("joint-gn", {}),
    "joint-gn, assuming 0 dB": ("joint-gn", {"sigma_db": 0.0}),
    "joint-gn, assuming 4 dB": ("joint-gn", {"sigma_db": 4.0}),
    "joint-gn, MUSIC bearings": ("joint-gn", {"links": "music"}),
    "joint-gn, self-calibrated": ("joint-gn", {"self_calibrate": True}),
    "direct-search": ("direct-search", {}),
    "centroid": ("centroid", {}),
    "untrained": ("untrained", {}),
}
_QUICK_BASELINES = ("fingerprint, 2.5 m", "joint-gn", "untrained")


def run(effort: Effort) -> Outcome:
    """Train ``seeds`` agents of each kind on each preset and on their mixture, evaluate all on unseen sites."""
    presets = effort.chosen(PRESETS)
    # One policy for four kinds of site has more to learn than one for a single kind: twice the steps.
    efforts = dict.fromkeys(presets, effort)
    efforts[MIXED] = dataclasses.replace(effort, train_steps=2 * effort.train_steps)
    trained: dict[tuple[str, str, int], Any] = {}
    for site, spent in efforts.items():
        jobs = {
            (kind, site, seed): Job(ENV_ID, seed, TRAINING[site], AGENTS[kind])
            for kind in AGENTS
            for seed in range(effort.seeds)
        }
        train_ahead(list(jobs.values()), spent, f"training, {site}")
        trained |= {key: train(ENV_ID, spent, job.seed, job.env, job.agent) for key, job in jobs.items()}
    wanted = {name: BASELINES[name] for name in _QUICK_BASELINES} if effort.is_quick else BASELINES
    rows: list[dict[str, Any]] = []
    for site in progress(presets, "evaluation"):
        env = {"site": site}
        groups: dict[str, dict[str, Any]] = {
            label: {label: policy} for label, policy in baselines(ENV_ID, effort, wanted, env).items()
        }
        for kind in AGENTS:
            for name, source in ((kind, site), (f"{kind}, one for all", MIXED)):
                groups[name] = {f"{name} #{seed}": trained[kind, source, seed] for seed in range(effort.seeds)}
        results = compare(
            ENV_ID, {key: policy for group in groups.values() for key, policy in group.items()}, effort, env
        )
        rows += [{"site": site, **row(label, [results[key] for key in group])} for label, group in groups.items()]
    return Outcome(rows, _bars(rows, presets), [f"{ENV_ID}, unseen sites and drops; agents: {effort.seeds} seeds."])


def _bars(rows: list[dict[str, Any]], presets: Any) -> Any:
    figure, panels = plt.subplots(2, (len(presets) + 1) // 2, figsize=(12, 9), squeeze=False, layout="constrained")
    for axes, site in zip(panels.flat, presets):
        bars(axes, [entry for entry in rows if entry["site"] == site], title=site)
    return figure
