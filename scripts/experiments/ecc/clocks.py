"""Users whose clocks are off: a network that trusts them, one that was trained so, and one that does not need them."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import matplotlib.pyplot as plt
import torch

from cfpos.baselines import make_policy
from cfpos.scripts.experiments.common import EVALUATION_SEED, Effort, Outcome, progress
from cfpos.scripts.experiments.ecc import common as ecc
from cfpos.scripts.experiments.ecc.learning import learned
from cfpos_envs import evaluate, make_env
from cfpos_envs.drawing.figures import OKABE_ITO
from cfpos_envs.physics.ecc.clock import delayed
from cfpos_envs.supervised.data import Pool

OFFSETS_NS = (0.0, 5.0, 20.0, 100.0)
TRAINED_NS = 100.0
TRAININGS: dict[str, tuple[dict[str, Any], float]] = {
    "clock=trusted": ({}, 0.0),
    "clock=trusted, trained with clocks off by 100 ns": ({}, TRAINED_NS),
    "clock=free": ({"clock": "free"}, 0.0),
}
BASELINES = ("csi-knn", "music")
BASELINE_USERS = 500


def run(effort: Effort) -> Outcome:
    """Train in three ways, test with clocks off by up to 0, 5, 20 and 100 ns; two baselines that learn no clock."""
    rows: list[dict[str, Any]] = []
    for label, (settings, off_ns) in progress(list(TRAININGS.items()), "training", len(TRAININGS)):
        config = ecc.fast(effort, **settings)
        changed = (f"clocks-off-{off_ns:g}-ns", partial(clocks_off, off_ns=off_ns, seed=1)) if off_ns else None
        network = learned(config, effort, changed=changed).network
        tested = ecc.test_pool(config, effort)
        for offset_ns in effort.chosen(OFFSETS_NS):
            labels = {"receiver": label, "bits_per_bs": network.layout.message_bits, "clocks_off_ns": offset_ns}
            rows.append(ecc.row(labels, network, clocks_off(tested, offset_ns, seed=2)))
    for name in BASELINES:
        rows += _baseline(effort, name)
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for index, label in enumerate(dict.fromkeys(line["receiver"] for line in rows)):
        lines = [line for line in rows if line["receiver"] == label]
        values = [line["clocks_off_ns"] for line in lines]
        axes.plot(values, [line["mean_m"] for line in lines], "o-", color=OKABE_ITO[index], label=label)
    axes.set(xlabel="clocks off by up to [ns]", ylabel="mean 3-D error [m]", yscale="log")
    axes.set_xscale("symlog", linthresh=5.0)
    axes.grid(True, which="both", color="#E4E4E4")
    axes.legend()
    config = ecc.fast(effort)
    remark = (
        f"{ecc.ENV_ID}; ecc-fast, d_z = 4, Q = 4, head={config.head}, {config.samples} snapshots from {config.pool}, "
        "one seed; every user's clock is off by a uniform time up to the stated one, the same at all base stations. "
        f"Baselines: {BASELINE_USERS} users, references of clocks that agree; bits with gain and flag."
    )
    return Outcome(rows, figure, [remark])


def clocks_off(pool: Pool, off_ns: float, seed: int) -> Pool:
    """The snapshots of a pool of ``acf`` with every user's clock off by up to ``off_ns``, as by ``clock_offset_ns``.

    A delay common to all paths only turns the lags, see ``physics.ecc.clock.delayed``.
    """
    generator = torch.Generator().manual_seed(seed)
    off_s = 1e-9 * off_ns * (2 * torch.rand(len(pool), 1, generator=generator) - 1)
    cycles = (off_s * ecc.system().subcarrier_spacing_hz).expand(pool.valid.shape)
    return dataclasses.replace(pool, features=delayed(pool.features.float(), cycles).half())


def _baseline(effort: Effort, name: str) -> list[dict[str, Any]]:
    users = effort.episodes if effort.is_quick else BASELINE_USERS
    references = {"references": 64} if effort.is_quick and name == "csi-knn" else {}
    policy = make_policy(name, make_env(ecc.ENV_ID), **references)
    rows = []
    for offset_ns in effort.chosen(OFFSETS_NS):
        found = evaluate(ecc.ENV_ID, policy, episodes=users, seed=EVALUATION_SEED, clock_offset_ns=offset_ns)
        rows.append(
            {
                "receiver": name,
                "bits_per_bs": round(found.fronthaul_bits),
                "clocks_off_ns": offset_ns,
                "mean_m": found.mean,
                "standard_error_m": float(found.errors.std() / users**0.5),
                "median_m": found.median,
                "p90_m": found.p90,
            }
        )
    return rows
