"""A ray-traced city: ECC at several payloads, features, strategies and amounts of data, beside its baselines.

Needs a data set with spirals in the folder ``munich`` beside the results, made by ``scripts/make_dataset.py --spiral
500`` (quick mode takes the small one that comes with the package). Rows that are finished are kept in the folder
``agents`` and taken from there; Ctrl-C ends the run early and writes those.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from torch import Tensor

from cfpos.baselines import make_policy
from cfpos.scripts.experiments.common import Effort, Outcome
from cfpos.scripts.experiments.ecc.baselines import BASELINES, EQUAL, City
from cfpos.scripts.experiments.ecc.data import (
    BEST,
    COPIES,
    ENV_ID,
    HEAD,
    INPUTS,
    Measured,
    TracedData,
    Trained,
    by_sight,
    kept,
    located,
    processor_remark,
    train_network,
)
from cfpos_envs import make_env
from cfpos_envs.channels.tracing.recipe import Recipe
from cfpos_envs.drawing.figures import OKABE_ITO
from cfpos_envs.supervised.agent_config import EccAgentConfig, EccFastAgentConfig

CLOCK_OFFSET_NS = 100.0
_LONGEST, _LONG, _SHORT, _SLOW, _LOCAL = 2_400_000, 800_000, 120_000, 24_000, 12_000
_QUICK_SAMPLES = 512
# Few snapshots per second, so small batches: the steps count.
_SEGNET: dict[str, Any] = {
    "encoder": "segnet",
    "channels": (8, 16),
    "fusion": "cma",
    "fusion_hidden": 128,
    "loss": "distance",
    "batch_size": 32,
    # Bins need more snapshots than these see before they pay.
    "head": "regression",
}


@dataclass(frozen=True)
class Case:
    """One network to train.

    Attributes:
        group, label: where it stands in the table.
        samples: snapshots seen in training.
        inputs: label of ``ecc_data.INPUTS``.
        changes: fields of ``EccFastAgentConfig``.
        users: training users; None: all.
        env: environment overrides.
        copies: places within a metre beside every training user, to which its stored paths are moved.
    """

    group: str
    label: str
    samples: int
    inputs: str = "acf"
    changes: Mapping[str, Any] = field(default_factory=dict)
    users: int | None = None
    env: Mapping[str, Any] = field(default_factory=dict)
    copies: int = 0

    def config(self, samples: int) -> EccAgentConfig:
        """Settings of the network and its training."""
        fields: dict[str, Any] = {**INPUTS[self.inputs], "bs_dropout": 0.0, **HEAD, **self.changes}
        local = min(samples, fields.pop("local_samples", _LOCAL))
        return EccFastAgentConfig(**fields, local_samples=local, samples=samples)


def cases() -> Iterator[Case]:
    """Everything of ECC that is trained, what matters most first."""
    yield Case("ECC", "ecc-fast, users moved, 800 000 snapshots seen", _LONG, changes=BEST, copies=COPIES)
    yield Case("ECC", "ecc-fast, 800 000 snapshots seen", _LONG, changes=BEST)
    yield Case("features", "ecc-fast, acf", _SHORT)
    for name in ("stabilised", "amplitude", "cov", "stabilised per slot"):
        yield Case("features", f"ecc-fast, {name}", _SHORT, inputs=name)
    for bits in (10, 8, 6, 2, 0):
        label = f"ecc-fast, Q {bits}" if bits else "ecc-fast, not quantised"
        yield Case("payload", label, _SHORT, changes={"bits": bits})
    for width, bits in ((1, 1), (1, 2), (32, 4), (32, 10)):
        changes = {"latent_width": width, "bits": bits}
        yield Case("payload", f"ecc-fast, d_z {width}, Q {bits}", _SHORT, changes=changes)
    for users in (2250, 4500, 9000):
        yield Case("positions", f"ecc-fast, {users} positions", _SHORT, users=users)
    yield Case("ECC", "ecc-fast, users moved, 2 400 000 snapshots seen", _LONGEST, changes=BEST, copies=COPIES)
    for count in (6, 12, 48):
        # As many latent numbers per BS at every width of the band: the payload stays what it is.
        narrow: dict[str, Any] = {"changes": {"latent_width": 96 // count}, "env": {"num_subcarriers": count}}
        yield Case("subcarriers", f"ecc-fast, {count} subcarriers", _SHORT, **narrow)
    for strategy in ("scratch", "local-joint", "local-split", "raw"):
        yield Case("strategy", f"ecc (acf), {strategy}", _SLOW, changes={**_SEGNET, "strategy": strategy})
    paper = {**_SEGNET, "strategy": "local-joint", "loss": "wmse"}
    yield Case("strategy", "ecc, the paper's preprocessing and loss", _SLOW, inputs="stabilised", changes=paper)
    offset = {"clock_offset_ns": CLOCK_OFFSET_NS}
    yield Case("clock", f"ecc-fast, clocks off by up to {CLOCK_OFFSET_NS:g} ns", _SHORT, env=offset)


ESTIMATORS: dict[str, dict[str, Any]] = {"csi-knn": {"references": 18_432}, "music": {}}


def run(effort: Effort) -> Outcome:
    """Train all of ``cases``; the learned baselines are those of ``ecc-baselines``; all on the same held-out users."""
    city = City(effort)
    measured = _Measured(city, effort.is_quick)
    source = measured.plain.source
    lit = source.line_of_sight(source.users("test")).sum(dim=1)
    runs: dict[str, tuple[str, Trained]] = {}
    last = 2 if effort.is_quick else None
    todo = list(itertools.islice(cases(), last))
    first = [case for case in todo if case.group == "features" or case.samples == _LONG]
    remarks = _remarks(measured.plain)
    try:
        for case in first:
            runs[case.label] = case.group, _trained(case, effort, measured)
        runs[EQUAL] = "ECC", city.row(EQUAL).held_out
        for name in itertools.islice(ESTIMATORS, last):
            runs[name] = "baseline", _estimator(name, effort, measured)
        for name in itertools.islice(BASELINES, last):
            runs[name] = "baseline", city.row(name).held_out
        for case in todo:
            if case not in first:
                runs[case.label] = case.group, _trained(case, effort, measured)
    except KeyboardInterrupt:
        if not runs:
            raise
        remarks.append(f"Stopped early: {len(runs)} of {len(todo) + 1 + len(ESTIMATORS) + len(BASELINES)} rows.")
    groups = ("ECC", "baseline", "features", "payload", "positions", "subcarriers", "strategy", "clock")
    ordered = dict(sorted(runs.items(), key=lambda item: groups.index(item[1][0])))
    rows = [_row(group, label, trained, lit) for label, (group, trained) in ordered.items()]
    return Outcome(rows, _figure(ordered, lit), remarks)


def _trained(case: Case, effort: Effort, measured: _Measured) -> Trained:
    samples = _QUICK_SAMPLES if effort.is_quick else case.samples
    label = "".join(letter if letter.isalnum() else "-" for letter in case.label)
    # Rows that an earlier build kept are of another head.
    name = f"{case.config(samples).head}-{case.config(samples).bins}-{label}"

    def make() -> Trained:
        data, train, test = measured.of(case.env)
        train = train if case.users is None else train.first(case.users)
        pool = data.with_moved(train.pools[case.inputs], case.copies, case.inputs)
        return train_network(case.config(samples), data, pool, test.pools[case.inputs], samples)

    return kept(effort.agents_folder, name, make)


def _estimator(name: str, effort: Effort, measured: _Measured) -> Trained:
    options = {"references": 256} if effort.is_quick and name == "csi-knn" else ESTIMATORS[name]

    def make() -> Trained:
        policy: Any = make_policy(name, make_env(ENV_ID, num_envs=1, seed=0, dataset=measured.dataset), **options)
        return Trained(located(policy, measured.plain, "test"), [], float(policy.fronthaul_bits), 0.0)

    return kept(effort.agents_folder, name, make)


class _Measured:
    """Pools of the plain environment and of the one with other clocks, one of them in memory at a time."""

    def __init__(self, city: City, quick: bool) -> None:
        self.dataset, self.quick = city.dataset, quick
        self.plain = city.data
        self._key: str | None = None
        self._found: tuple[TracedData, Measured, Measured]

    def of(self, env: Mapping[str, Any]) -> tuple[TracedData, Measured, Measured]:
        """Data, training and held-out users under environment overrides."""
        if self._key != str(dict(env)):
            data = TracedData(self.dataset, **env) if env else self.plain
            inputs = ("acf",) if env or self.quick else tuple(INPUTS)
            self._found = data, data.measured("train", inputs), data.measured("test", inputs)
            self._key = str(dict(env))
        return self._found


def _row(group: str, label: str, trained: Trained, lit: Tensor) -> dict[str, Any]:
    errors = trained.errors_m
    return {
        "group": group,
        "policy": label,
        "bits/BS": trained.bits,
        "mean_m": float(errors.mean()),
        "median_m": float(np.median(errors)),
        "p90_m": float(np.percentile(errors, 90)),
        **by_sight(errors, lit),
        "training CPU-s": round(trained.cpu_s),
    }


def _remarks(data: TracedData) -> list[str]:
    recipe = data.source.recipe
    assert isinstance(recipe, Recipe)  # traced above, not imported
    train, test = (len(data.source.users(split).index) for split in ("train", "test"))
    return [
        f"{recipe.scene}, {train} training and {test} held-out outdoor users, paths of at most {recipe.max_depth} "
        f"interactions from {recipe.rays} rays, one seed per row; three-dimensional errors.",
        "The payload counts flag and gain; without a quantiser its numbers are counted as 32-bit floats.",
        "Snapshots seen are those of the rows, not of the command line; the networks without a number of their own saw "
        f"{_SHORT}, adcpm 40960. Learned baselines take batches of 64, adcpm of 32, ecc-fast 256, "
        f"128 in the rows of 800 000 and more; the networks of the strategies {_SLOW} in batches of 32, after {_LOCAL} "
        "without labels where there is a Stage I.",
        f"All state bins, {HEAD['bins']} along the longest edge of the area, but the networks of the strategies, which "
        f"state three numbers. Moved users: each also at {COPIES} places within {data.source.max_displacement_m:g} m.",
        processor_remark("training CPU-s"),
    ]


def _figure(runs: dict[str, tuple[str, Trained]], lit: Tensor) -> Any:
    """Distributions of errors, errors by links in sight, learning curves over data and compute."""
    figure, axes = plt.subplots(1, 3, figsize=(14, 4.4), layout="constrained")
    first = [label for label, (group, _) in runs.items() if group == "ECC" and label != EQUAL][-1]
    equal = [label for label, (group, _) in runs.items() if group == "features"][:1]
    shown = [first, *equal, *(label for label, (group, _) in runs.items() if group == "baseline")]
    for index, label in enumerate(shown):
        errors = np.sort(runs[label][1].errors_m)
        axes[0].plot(errors, np.linspace(0, 1, len(errors)), color=OKABE_ITO[index % len(OKABE_ITO)], label=label)
    axes[0].set(xscale="log", xlabel="3-D error [m]", ylabel="share of users", title="held-out users", xlim=(0.1, 200))
    axes[0].legend(fontsize=7, loc="lower right")
    errors, views = runs[first][1].errors_m, lit.numpy()
    for count in range(7):
        part = np.sort(errors[views[: len(errors)] == count])
        if len(part):
            colour = plt.get_cmap("viridis")(count / 6)
            axes[1].plot(part, np.linspace(0, 1, len(part)), color=colour, label=f"{count} ({len(part)} users)")
    axes[1].set(xscale="log", xlabel="3-D error [m]", title=f"{first}: by base stations in sight", xlim=(0.1, 200))
    axes[1].legend(fontsize=7, loc="lower right")
    curve = np.array(runs[first][1].curve).reshape(-1, 2)
    axes[2].plot(curve[:, 0], curve[:, 1], "o-", color=OKABE_ITO[0], label="snapshots seen, all positions")
    sizes = [(int(label.split()[1]), trained) for label, (group, trained) in runs.items() if group == "positions"]
    if sizes:
        points = [(count, float(trained.errors_m.mean())) for count, trained in sizes]
        axes[2].plot(*zip(*points, strict=True), "s--", color=OKABE_ITO[1], label=f"positions, {_SHORT} snapshots seen")
    axes[2].set(xscale="log", yscale="log", xlabel="number", ylabel="mean 3-D error [m]", title="what is learned from")
    axes[2].legend(fontsize=7)
    for part in axes:
        part.grid(True, color="#E4E4E4")
    return figure
