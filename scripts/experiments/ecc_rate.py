"""Accuracy against fronthaul: how few bits per base station a position needs."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator

from agents.ecc.bitstream import fronthaul_ratio
from cfpos_envs.rendering import OKABE_ITO
from scripts.experiments import ecc_common as ecc
from scripts.experiments.common import Effort, Outcome, progress

# (d_z, Q); D = 24 d_z numbers of Q bits.
POINTS = ((1, 1), (1, 2), (1, 4), (2, 4), (4, 4), (8, 4), (16, 4), (32, 4), (32, 10))
SCALAR_BITS = (1, 2, 4)


def run(effort: Effort) -> Outcome:
    """Train ``ecc-fast`` at every point, and the raw averaged CSI quantised without an encoder beside it."""
    known = ecc.system()
    rows: list[dict[str, Any]] = []

    def add(label: str, network: Any, config: Any) -> None:
        bits = network.layout.payload_bits
        ratio = fronthaul_ratio(bits, known.num_slots, known.num_antennas, known.num_subcarriers)
        labels = {"model": label, "bits_per_bs": bits, "percent": 100 * ratio}
        rows.append(ecc.row(labels, network, ecc.test_pool(config, effort)))

    for width, bits in progress(effort.chosen(POINTS), "training", len(effort.chosen(POINTS))):
        config = ecc.fast(effort, latent_width=width, bits=bits)
        add(f"ecc-fast d_z={width} Q={bits}", ecc.trained(config, effort), config)
    for bits in effort.chosen(SCALAR_BITS):
        config = ecc.fast(effort, features="stabilised", strategy="scalar", bits=bits)
        add(f"csi-scalar-q Q={bits}", ecc.trained(config, effort), config)
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for index, name in enumerate(("ecc-fast", "csi-scalar-q")):
        lines = sorted((line for line in rows if line["model"].startswith(name)), key=lambda line: line["bits_per_bs"])
        bits_sent = [line["bits_per_bs"] for line in lines]
        for key, style in (("mean_m", "o-"), ("p90_m", "o:")):
            values = [line[key] for line in lines]
            axes.plot(bits_sent, values, style, color=OKABE_ITO[index], label=f"{name}, {key[:-2]}")
    axes.set(xscale="log", yscale="log", xlabel="payload per base station [bit]", ylabel="3-D error [m]")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(True, color="#E4E4E4")
    axes.legend()
    config = ecc.fast(effort)
    remark = (
        f"{ecc.ENV_ID}; every network sees {config.samples} snapshots drawn from {config.pool}; one seed; tested on "
        "unseen places; 100 % is complex64 forwarding; gain (8 bits) and path flag (1 bit) come on top."
    )
    return Outcome(rows, figure, [remark])
