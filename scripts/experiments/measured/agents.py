"""Agents on measured epochs: trained in simulation, gone on without labels on a set's training part, or only there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from cfpos.agents import make_agent
from cfpos.baselines import make_policy
from cfpos.scripts.experiments.common import Effort, Outcome, progress
from cfpos.scripts.experiments.dcp.training import train
from cfpos.scripts.experiments.measured.sets import FOLDERS, VARIABLE, found_sets
from cfpos_envs import make_env
from cfpos_envs.drawing.figures import OKABE_ITO
from cfpos_envs.evaluation import EvaluationResult, evaluate_many
from cfpos_envs.scenarios.measured.stored import EPISODES

ENV_ID = "measured-v0"
GAMES: dict[str, tuple[str, dict[str, Any]]] = {
    "rtt": (
        "rtt-v0",
        {
            "site": {
                "preset": "office",
                "num_aps": 6,
                "side_m": 40.0,
                "range_std_m": 1.0,
                "nlos_share": 0.5,
                "nlos_share_random": True,
                "nlos_mean_m": 3.0,
                "height_diff_m": 0.0,
            }
        },
    ),
    "dcp": (
        "dcp-rss-v0",
        {
            "site": {"preset": "shadowed", "num_aps": 12, "side_m": 40.0, "wrap": False, "height_diff_m": 1.0},
            "num_antennas": 2,
        },
    ),
}
"""Family -> the simulated game and network in which its agents are trained: none of the sets."""
SETS = {
    "rtt": (
        "feng/office",
        "feng/corridor",
        "haiyao/CarPark",
        "haiyao/Library_every3rd",
        "lias/8_14",
        "hanyang/NLOS/Trajectory_B/Case_3",
    ),
    "dcp": ("tetam/set1", "feng/office"),
}
BESIDE = {"rtt": ("rtt-wls", "toa-huber", "toa-em", "untrained"), "dcp": ("rss-gn", "centroid", "untrained")}
NUM_UES = 4
"""Epochs in an episode of training."""
_AGENT: dict[str, dict[str, Any]] = {"rtt": {"critic": "model", "share": "entity"}, "dcp": {"share": "entity"}}


def run(effort: Effort) -> Outcome:
    """Estimators and three kinds of agents on the test parts; positions of a set are never used in training."""
    families = ("rtt",) if effort.is_quick else tuple(GAMES)
    rows: list[dict[str, Any]] = []
    for family in families:
        trained = [_simulated(family, effort, seed) for seed in range(effort.seeds)]
        for name in progress(("sample",) if effort.is_quick else _there(family), family):
            rows += _of_set(family, name, trained, effort)
    remark = (
        f"Metres over all test epochs ({EPISODES} episodes show each once). `simulated`: trained in "
        f"{GAMES['rtt'][0]} (half of the links may be blocked) or {GAMES['dcp'][0]}, and never on measured data; "
        "`gone on`: with a quarter as many steps on the set's training part, where held-out links are the reward; "
        f"`here alone`: the same steps from fresh weights. {effort.seeds} seed(s); where several, means."
    )
    return Outcome(rows, _picture(rows), [remark])


def _there(family: str) -> tuple[str, ...]:
    found = found_sets()
    return tuple(name for name in SETS[family] if name in found)


def _simulated(family: str, effort: Effort, seed: int) -> Any:
    env_id, env = GAMES[family]
    return train(env_id, effort, seed, {} if effort.is_quick else env, _AGENT[family])


def _of_set(family: str, name: str, trained: list[Any], effort: Effort) -> list[dict[str, Any]]:
    place: dict[str, Any] = {"family": family}
    if name != "sample":
        place |= {"set": name, "data": str(Path(os.environ.get(VARIABLE, "measured")) / FOLDERS[name])}
    env = make_env(ENV_ID, num_envs=1, seed=0, split="test", **place)
    kinds: dict[str, list[Any]] = {policy: [make_policy(policy, env)] for policy in BESIDE[family]}
    kinds["agent, simulated"] = trained
    for label, goes_on in (("agent, gone on", True), ("agent, here alone", False)):
        kinds[label] = [
            _trained_here(family, place, effort, seed, agent if goes_on else None) for seed, agent in enumerate(trained)
        ]
    flat = [policy for policies in kinds.values() for policy in policies]
    results = iter(evaluate_many(env, flat, episodes=EPISODES))
    return [
        {"set": name, "family": family, "policy": label, **_scores([next(results) for _ in policies])}
        for label, policies in kinds.items()
    ]


def _trained_here(family: str, place: dict[str, Any], effort: Effort, seed: int, start: Any) -> Any:
    env = make_env(ENV_ID, num_envs=effort.num_envs, seed=seed, num_ues=NUM_UES, **place)
    quick = {"batch_size": 16, "warmup_steps": 0} if effort.is_quick and start is None else {}
    settings = start.config.to_dict() if start is not None else {**_AGENT[family], **quick}
    settings |= {"seed": seed, "evaluations": 4, "test_envs": 0}
    agent = make_agent("maddpg", env, **settings)
    with tempfile.TemporaryDirectory() as folder:
        if start is not None:
            start.save(Path(folder) / "start.pt")
            agent.begin_with(Path(folder) / "start.pt")
        agent.train(total_steps=max(effort.train_steps // 4, effort.num_envs), log_dir=folder, progress=False)
    return agent


def _scores(results: list[EvaluationResult]) -> dict[str, float]:
    def mean(values: list[float]) -> float:
        return float(np.mean(values))

    return {
        "median": mean([result.median for result in results]),
        "RMSE": mean([result.rmse for result in results]),
        "p90": mean([float(np.percentile(result.errors, 90)) for result in results]),
        "answered": mean([result.valid_share for result in results]),
    }


def _picture(rows: list[dict[str, Any]]) -> Any:
    """RMSE of every policy by set, one panel per family."""
    families = list(dict.fromkeys(line["family"] for line in rows))
    figure, panels = plt.subplots(
        1, len(families), squeeze=False, figsize=(7 * len(families), 4.5), layout="constrained"
    )
    for axes, family in zip(panels.flat, families):
        names = list(dict.fromkeys(line["set"] for line in rows if line["family"] == family))
        policies = list(dict.fromkeys(line["policy"] for line in rows if line["family"] == family))
        width = 0.8 / len(policies)
        for index, policy in enumerate(policies):
            values = [line["RMSE"] for line in rows if line["family"] == family and line["policy"] == policy]
            axes.bar(
                np.arange(len(names)) + index * width,
                values,
                width,
                label=policy,
                color=OKABE_ITO[index % len(OKABE_ITO)],
            )
        axes.set_xticks(np.arange(len(names)) + 0.4, names, rotation=30, ha="right", fontsize=7)
        axes.set(ylabel="RMSE [m]", title=family, yscale="log")
        axes.legend(fontsize=7)
    return figure
