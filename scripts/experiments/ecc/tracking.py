"""Following users along spirals through the ray-traced city, every point of which was traced.

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
from cfpos.scripts.experiments.ecc.data import BEST, ENV_ID, TracedData, Trained, kept, located, train_network
from cfpos_envs import make_env
from cfpos_envs.channels.tracing.ways import WAY_POINTS
from cfpos_envs.drawing.figures import OKABE_ITO
from cfpos_envs.supervised.agent_config import EccFastAgentConfig

SAMPLES = 800_000
REFERENCES = 18_432
_ECC, _QUICK_SAMPLES, _QUICK_REFERENCES = "ecc-fast", 512, 256


def run(effort: Effort) -> Outcome:
    """Train ECC as for users that stand still, then locate every point of the ways by itself."""
    dataset = "" if effort.agents_folder is None else str(Path(effort.agents_folder).parent / "munich")
    data, split = TracedData(dataset), "test" if effort.is_quick else "spiral"
    samples = _QUICK_SAMPLES if effort.is_quick else SAMPLES
    policies: dict[str, dict[str, Any]] = {
        "csi-knn": {"references": _QUICK_REFERENCES if effort.is_quick else REFERENCES},
        "music": {},
    }

    def ecc() -> Trained:
        train, ways = (data.measured(part, ("acf",)).pools["acf"] for part in ("train", split))
        return train_network(EccFastAgentConfig(**BEST, samples=samples), data, train, ways, samples)

    def baseline(name: str) -> Trained:
        policy: Any = make_policy(name, make_env(ENV_ID, num_envs=1, seed=0, dataset=dataset), **policies[name])
        return Trained(located(policy, data, split), [], float(policy.fronthaul_bits), 0.0)

    runs = {_ECC: kept(effort.agents_folder, "tracking-bins-ecc-fast", ecc)}
    for name in policies:
        runs[name] = kept(effort.agents_folder, f"tracking-{name}", lambda name=name: baseline(name))  # type: ignore[misc]
    rows = [way_row(name, trained) for name, trained in runs.items()]
    remark = (
        f"{data.source.recipe.scene}: {len(ways_of(runs[_ECC]))} spirals of three turns of 6 m radius through open "
        f"places, {WAY_POINTS} traced points each; every point is located by itself, nothing is smoothed. ecc-fast was "
        f"trained on {samples} snapshots of {len(data.source.users('train').index)} standing users, one seed."
    )
    return Outcome(rows, _figure(runs), [remark])


def way_row(name: str, trained: Trained) -> dict[str, Any]:
    """One table line: errors of all points, and of the best and the worst way."""
    return {
        "policy": name,
        "bits/BS": trained.bits,
        "mean_m": float(trained.errors_m.mean()),
        "median_m": float(np.median(trained.errors_m)),
        "p90_m": float(np.percentile(trained.errors_m, 90)),
        "best_way_mean_m": float(min(way.mean() for way in ways_of(trained))),
        "worst_way_mean_m": float(max(way.mean() for way in ways_of(trained))),
    }


def ways_of(trained: Trained) -> list[np.ndarray]:
    """Errors of each way, metres; a last one that the data set cuts short is kept."""
    return np.split(trained.errors_m, np.arange(WAY_POINTS, len(trained.errors_m), WAY_POINTS))


def _figure(runs: dict[str, Trained]) -> Any:
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for index, (name, trained) in enumerate(runs.items()):
        whole = [way for way in ways_of(trained) if len(way) == WAY_POINTS]
        axes.plot(np.arange(1, WAY_POINTS + 1), np.median(whole, axis=0), color=OKABE_ITO[index], label=name)
    axes.set(xlabel="point of the way, from the ground up", ylabel="3-D error, median of the ways [m]", yscale="log")
    axes.grid(True, color="#E4E4E4")
    axes.legend()
    return figure
