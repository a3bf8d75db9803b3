"""Bins instead of three numbers in the ray-traced city: ECC and its learned baselines, and the same messages unlearned.

Needs the data set of ``ecc-ways``. Every network is trained once and tested on held-out users (this table) and on
the points of the ways (``ecc-ways``). Rows that are finished are kept in the folder ``agents``; Ctrl-C ends the run
early and writes those.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from cfpos.baselines import make_policy
from cfpos.scripts.experiments.common import Effort, Outcome
from cfpos.scripts.experiments.ecc.data import (
    HEAD,
    TracedData,
    Trained,
    by_sight,
    kept,
    processor_remark,
    train_network,
    train_policy,
)
from cfpos.scripts.experiments.ecc.nearest import NEIGHBOURS
from cfpos_envs.drawing.figures import OKABE_ITO
from cfpos_envs.supervised.agent_config import EccFastAgentConfig
from cfpos_envs.supervised.data import Pool, joined

LONG, SHORT = 400_000, 120_000
EQUAL = "ecc-fast, batches of 64, 120 000 snapshots seen"
"""The row to compare with the learned baselines, which have as many."""
LONGEST = "ecc-fast, batches of 128, 400 000 snapshots seen"
NEAREST = "nearest messages, "
"""How the rows without a network at the CU begin; the rest is the label of the ``ecc-fast`` that sends them."""
_ECC: dict[str, tuple[int, int]] = {EQUAL: (SHORT, 64), LONGEST: (LONG, 128)}
BASELINES: dict[str, dict[str, Any]] = {
    "csi-scalar-q": {"train_steps": SHORT // 64, "batch_size": 64},
    "mfcnet": {"train_steps": SHORT // 64, "batch_size": 64},
    "transformer": {"train_steps": SHORT // 64, "batch_size": 64},
    "adcpm": {"train_steps": 1280, "batch_size": 32},
}
ROWS = (EQUAL, "csi-scalar-q", "mfcnet", LONGEST, "transformer", "adcpm")
"""What matters most first."""
_QUICK_SAMPLES = 512
_ALIKE = 0.05
"""Share by which two means of one seed differ without meaning."""


@dataclass(frozen=True)
class Runs:
    """One network on both sets of places.

    Attributes:
        held_out: on the held-out users.
        ways: on the points of the ways; in quick mode on some held-out users.
    """

    held_out: Trained
    ways: Trained


class City:
    """The data set, measured when a row first needs it.

    Args:
        effort: where the data set is.
    """

    def __init__(self, effort: Effort) -> None:
        self.effort = effort
        quick = effort.is_quick or effort.agents_folder is None
        self.dataset = "" if quick else str(Path(str(effort.agents_folder)).parent / "munich")
        self.data = TracedData(self.dataset)
        self.ways = "test" if effort.is_quick else "spiral"
        self.held_out = len(self.data.source.users("test").index)

    def row(self, label: str) -> Runs:
        """Train one of ``ROWS``, or take it from the folder."""
        name = "".join(letter if letter.isalnum() else "-" for letter in label)
        found = kept(self.effort.agents_folder, f"baselines-{name}", functools.partial(self._make, label))
        return Runs(_part(found, slice(0, self.held_out)), _part(found, slice(self.held_out, None)))

    def _make(self, label: str) -> Trained:
        if label in _ECC:
            samples, batch_size = _ECC[label]
            samples = _QUICK_SAMPLES if self.effort.is_quick else samples
            config = EccFastAgentConfig(**HEAD, bs_dropout=0.0, samples=samples, batch_size=batch_size, evaluations=0)
            return train_network(config, self.data, *self._pools("acf"), samples, nearest=True)
        steps = {"train_steps": 4} if self.effort.is_quick else {}
        policy: Any = make_policy(label, **{**BASELINES[label], **HEAD, **steps})
        policy.system = self.data.system
        return train_policy(policy, *self._pools("acf" if label == "transformer" else label))

    def _pools(self, inputs: str) -> tuple[Pool, Pool]:
        # The plainly quantised CSI is measured with the features of the same snapshots, as it is wanted right after.
        together = ("acf", "csi-scalar-q") if inputs in ("acf", "csi-scalar-q") else (inputs,)
        train, *tests = (self._measured(split, together) for split in ("train", "test", self.ways))
        return train[inputs], joined([pools[inputs] for pools in tests])

    @functools.cache  # noqa: B019 - lives as long as the run
    def _measured(self, split: str, inputs: tuple[str, ...]) -> dict[str, Pool]:
        return self.data.measured(split, inputs).pools


def run(effort: Effort) -> Outcome:
    """Train what ``ROWS`` names, all tested on the same held-out users."""
    city = City(effort)
    source = city.data.source
    lit = source.line_of_sight(source.users("test")).sum(dim=1)
    runs: dict[str, Trained] = {}
    remarks = [
        f"{source.recipe.scene}, {len(source.users('train').index)} training and {city.held_out} held-out outdoor "
        f"users, one seed per row; head=bins, {HEAD['bins']} bins along the longest edge; three-dimensional errors. "
        f"Baselines see {SHORT} snapshots in batches of 64, adcpm 40960 in batches of 32; {NEAREST}...: mean of the "
        f"{NEIGHBOURS} training places whose messages from that ecc-fast are most alike. The payload counts flag and "
        "gain.",
        processor_remark("training CPU-s"),
    ]
    try:
        for label in effort.chosen(ROWS):
            runs[label] = city.row(label).held_out
    except KeyboardInterrupt:
        if not runs:
            raise
        remarks.append(f"Stopped early: {len(runs)} of {len(ROWS)} networks.")
    ordered = {label: runs[label] for label in (*_ECC, *BASELINES) if label in runs}
    ordered |= {NEAREST + label: _nearest(found) for label, found in ordered.items() if found.nearest_m is not None}
    rows = [
        {
            "policy": label,
            "bits/BS": found.bits,
            "mean_m": float(found.errors_m.mean()),
            "median_m": float(np.median(found.errors_m)),
            "p90_m": float(np.percentile(found.errors_m, 90)),
            **by_sight(found.errors_m, lit),
            "training CPU-s": round(found.cpu_s),
        }
        for label, found in ordered.items()
    ]
    return Outcome(rows, _figure(ordered), [*remarks, *yardsticks(rows)])


def yardsticks(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Sentences: whether nearest neighbours of the same messages, or plainly quantised CSI, locate better than ECC.

    Args:
        rows: of the table.
    """
    means = {line["policy"]: (line["bits/BS"], line["mean_m"]) for line in rows}
    sentences = []
    pairs = {
        label.removeprefix(NEAREST): (mean, means[label.removeprefix(NEAREST)][1])
        for label, (_, mean) in means.items()
        if label.startswith(NEAREST)
    }
    if pairs:
        told = "; ".join(f"{_compared(near, mean)} ({label})" for label, (near, mean) in pairs.items())
        sentences.append(
            "At the same bits, the mean error of the nearest training places in the latent space against that of the "
            f"network which reads the same messages: {told}."
        )
    if "csi-scalar-q" in means and EQUAL in means:
        (plain_bits, plain), (bits, mean) = means["csi-scalar-q"], means[EQUAL]
        sentences.append(
            f"csi-scalar-q against ecc-fast on as many snapshots in as large batches: {_compared(plain, mean)}, with "
            f"{plain_bits / bits:.1f} times the bits."
        )
    return sentences


def _compared(mean_m: float, other_m: float) -> str:
    """Two mean errors and what one seed can say of them."""
    word = "better" if mean_m < other_m else "worse"
    if abs(mean_m - other_m) < _ALIKE * other_m:
        word = "alike"
    return f"{mean_m:.2f} against {other_m:.2f} m, {word}"


def _part(whole: Trained, part: slice) -> Trained:
    cut = {name: getattr(whole, name) for name in ("errors_m", "position_m", "nearest_m")}
    errors, position, nearest = (None if value is None else value[part] for value in cut.values())
    assert errors is not None
    return Trained(errors, whole.curve, whole.bits, whole.cpu_s, position, nearest)


def _nearest(run: Trained) -> Trained:
    assert run.nearest_m is not None
    return Trained(run.nearest_m, [], run.bits, run.cpu_s)


def _figure(runs: dict[str, Trained]) -> Any:
    figure, axes = plt.subplots(figsize=(7, 4.4), layout="constrained")
    for index, (label, found) in enumerate(runs.items()):
        errors = np.sort(found.errors_m)
        style = ":" if label.startswith(NEAREST) else "-"
        share = np.linspace(0, 1, len(errors))
        axes.plot(errors, share, style, color=OKABE_ITO[index % len(OKABE_ITO)], label=label)
    axes.set(xscale="log", xlabel="3-D error [m]", ylabel="share of held-out users", xlim=(0.1, 200))
    axes.grid(True, color="#E4E4E4")
    axes.legend(fontsize=7, loc="upper left")
    return figure
