"""What a trained ECC system takes: lost base stations, noise, coarse gains, coarser codes than in training."""

from __future__ import annotations

import dataclasses
from typing import Any

import matplotlib.pyplot as plt
import torch

from cfpos.scripts.experiments.common import Effort, Outcome
from cfpos.scripts.experiments.ecc import common as ecc
from cfpos.scripts.experiments.ecc.learning import trained
from cfpos_envs.drawing.figures import OKABE_ITO, plain_numbers
from cfpos_envs.supervised.data import Pool

LOST = (0, 1, 2)
SNR_DB = (0.0, 10.0, 20.0, 30.0, 40.0, 50.0)
GAIN_BITS = (4, 8, 32)
TEST_BITS = (2, 3, 4, 6, 8)
TRAININGS = {"without lost messages": 0.0, "with 10 % lost messages": 0.1}


def run(effort: Effort) -> Outcome:
    """Train with and without lost messages; change one thing at a time in the test."""
    rows: list[dict[str, Any]] = []
    for label, share in TRAININGS.items():
        config = ecc.fast(effort, bs_dropout=share)
        network = trained(config, effort)
        pool = ecc.test_pool(config, effort)
        cases: list[tuple[str, float, Any, Pool]] = []
        for lost in LOST:
            cases.append(("lost base stations", lost, network, without(pool, lost)))
        for snr_db in effort.chosen(SNR_DB):
            cases.append(("SNR at 100 m [dB]", snr_db, network, ecc.test_pool(config, effort, snr_db=snr_db)))
        for bits in GAIN_BITS:
            cases.append(("bits of the gain", bits, ecc.with_settings(network, gain_bits=bits), pool))
        for bits in TEST_BITS:
            cases.append(("bits per latent, trained for 4", bits, ecc.with_settings(network, bits=bits), pool))
        for test, value, changed, tested in cases:
            rows.append(ecc.row({"training": label, "test": test, "value": value}, changed, tested))
    tests = list(dict.fromkeys(line["test"] for line in rows))
    figure, panels = plt.subplots(1, len(tests), figsize=(13, 3.4), layout="constrained", sharey=True)
    for axes, test in zip(panels, tests, strict=True):
        for index, label in enumerate(TRAININGS):
            lines = [line for line in rows if line["test"] == test and line["training"] == label]
            values = [line["value"] for line in lines]
            axes.plot(values, [line["mean_m"] for line in lines], "o-", color=OKABE_ITO[index], label=label)
        axes.set(xlabel=test, yscale="log")
        plain_numbers(axes.yaxis, (1.0, 1.5, 2.0, 3.0, 5.0, 7.0))
        axes.grid(True, which="both", color="#E4E4E4")
    panels[0].set_ylabel("mean 3-D error [m]")
    panels[0].legend()
    config = ecc.fast(effort)
    remark = (
        f"{ecc.ENV_ID}; ecc-fast, d_z = 4, Q = 4, head={config.head}, {config.samples} snapshots, one seed; the noise "
        "of training is that of the scene, not that of the test."
    )
    return Outcome(rows, figure, [remark])


def without(pool: Pool, lost: int) -> Pool:
    """The pool with ``lost`` base stations of every snapshot, drawn anew for each, silent."""
    order = torch.rand(pool.valid.shape, generator=torch.Generator().manual_seed(lost)).argsort(dim=1)
    return dataclasses.replace(pool, valid=pool.valid & (order >= lost))
