"""Following users along spirals through the ray-traced city, every point of which was traced: the source's Fig. 14.

Needs a data set with spirals (``scripts/make_dataset.py --spiral 500``) in the folder ``munich`` beside the results;
quick mode follows held-out users of the small set that comes with the package instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from cfpos.baselines import make_policy
from cfpos.scripts.experiments.common import Effort, Outcome
from cfpos.scripts.experiments.ecc.data import (
    ENV_ID,
    TracedData,
    Trained,
    kept,
    located,
    processor_remark,
    train_network,
    train_policy,
)
from cfpos.scripts.experiments.ecc.munich import BASELINES, BEST
from cfpos_envs import make_env
from cfpos_envs.channels.tracing.ways import WAY_POINTS
from cfpos_envs.drawing.figures import OKABE_ITO
from cfpos_envs.supervised.agent_config import EccFastAgentConfig

SAMPLES = 800_000
_ECC, _LEARNED, _QUICK_SAMPLES = "ecc-fast", "mfcnet", 512
_QUICK: dict[str, dict[str, Any]] = {
    "csi-knn": {"references": 256},
    "mfcnet": {"train_steps": 8, "batch_size": 64},
    "music": {},
}
_DRAWN = 2  # of the ways: neither the best nor the worst was looked for


def run(effort: Effort) -> Outcome:
    """Train ECC as for users that stand still, then locate every point of the ways by itself."""
    dataset = "" if effort.agents_folder is None else str(Path(effort.agents_folder).parent / "munich")
    data, split = TracedData(dataset), "test" if effort.is_quick else "spiral"
    samples = _QUICK_SAMPLES if effort.is_quick else SAMPLES
    policies = _QUICK if effort.is_quick else {name: BASELINES[name] for name in _QUICK}

    def ecc() -> Trained:
        train, ways = (data.measured(part, ("acf",)).pools["acf"] for part in ("train", split))
        return train_network(EccFastAgentConfig(**BEST, samples=samples), data, train, ways, samples)

    def baseline(name: str) -> Trained:
        policy: Any = make_policy(name, make_env(ENV_ID, num_envs=1, seed=0, dataset=dataset), **policies[name])
        return Trained(located(policy, data, split), [], float(policy.fronthaul_bits), 0.0)

    def mfcnet() -> Trained:
        policy: Any = make_policy(_LEARNED, **policies[_LEARNED])
        policy.system = data.system
        return train_policy(policy, *(data.measured(part, (_LEARNED,)).pools[_LEARNED] for part in ("train", split)))

    runs = {_ECC: kept(effort.agents_folder, f"tracking-{EccFastAgentConfig.head}-{_ECC}", ecc)}
    runs[_LEARNED] = kept(effort.agents_folder, f"tracking-{EccFastAgentConfig.head}-{_LEARNED}", mfcnet)
    for name in ("csi-knn", "music"):
        runs[name] = kept(effort.agents_folder, f"tracking-{name}", lambda name=name: baseline(name))  # type: ignore[misc]
    rows = [
        {
            "policy": name,
            "bits/BS": trained.bits,
            "mean_m": float(trained.errors_m.mean()),
            "median_m": float(np.median(trained.errors_m)),
            "p90_m": float(np.percentile(trained.errors_m, 90)),
            "best_way_mean_m": float(min(way.mean() for way in _ways(trained))),
            "worst_way_mean_m": float(max(way.mean() for way in _ways(trained))),
            "training CPU-s": round(trained.cpu_s) if name in (_ECC, _LEARNED) else None,
        }
        for name, trained in runs.items()
    ]
    remark = (
        f"{data.source.recipe.scene}: {len(_ways(runs[_ECC]))} spirals of three turns of 6 m radius through open "
        f"places, {WAY_POINTS} traced points each; every point is located by itself, nothing is smoothed. ecc-fast was "
        f"trained on {samples} snapshots of {len(data.source.users('train').index)} standing users, mfcnet on "
        f"{policies[_LEARNED]['train_steps'] * policies[_LEARNED]['batch_size']}, one seed. The picture has one way."
    )
    truth = data.source.users(split).position_m.numpy()
    return Outcome(rows, _figure(runs, truth), [remark, processor_remark("training CPU-s")])


def _ways(trained: Trained) -> list[np.ndarray]:
    """Errors of each way, metres; a last one that the data set cuts short is kept."""
    return np.split(trained.errors_m, np.arange(WAY_POINTS, len(trained.errors_m), WAY_POINTS))


def _figure(runs: dict[str, Trained], truth_m: np.ndarray) -> Any:
    """One way in space and from above beside the learned estimates, and the errors along all ways."""
    figure = plt.figure(figsize=(13, 4.2), layout="constrained")
    space: Any = figure.add_subplot(1, 3, 1, projection="3d")
    along, above = figure.add_subplot(1, 3, 2), figure.add_subplot(1, 3, 3)
    first = min(_DRAWN, (len(truth_m) - 1) // WAY_POINTS) * WAY_POINTS
    part = slice(first, first + WAY_POINTS)
    space.plot(*truth_m[part].T, color="black", label="truth")
    above.plot(*truth_m[part, :2].T, color="black", label="truth")
    for index, (name, trained) in enumerate(runs.items()):
        colour = OKABE_ITO[index]
        whole = [way for way in _ways(trained) if len(way) == WAY_POINTS] or _ways(trained)
        median = np.median(whole, axis=0)
        along.plot(np.arange(1, len(median) + 1), median, color=colour, label=name)
        if trained.position_m is not None:
            space.plot(*trained.position_m[part].T, ".", color=colour, label=name)
            above.plot(*trained.position_m[part, :2].T, ".", color=colour, label=name)
    space.set(title="one way", xlabel="x [m]", ylabel="y [m]", zlabel="z [m]")
    above.set(title="the same from above", xlabel="x [m]", ylabel="y [m]", aspect="equal")
    along.set(
        title="all ways",
        xlabel="point of the way, from the ground up",
        ylabel="3-D error, median of the ways [m]",
        yscale="log",
    )
    for axes in (along, above):
        axes.grid(True, color="#E4E4E4")
        axes.legend(fontsize=8)
    return figure
