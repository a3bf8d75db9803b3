"""The source's Table II: its own network at its own sizes and payloads, as far as a budget of snapshots goes.

One network is trained through the finest quantiser; from there on one for every Q. ``--steps`` is the budget of the
first.
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt

from cfpos.scripts.experiments.common import Effort, Outcome, progress
from cfpos.scripts.experiments.ecc import common as ecc
from cfpos.scripts.experiments.ecc.learning import learned
from cfpos_envs.drawing.figures import OKABE_ITO
from cfpos_envs.supervised.agent_config import EccAgentConfig
from cfpos_envs.supervised.bitstream import fronthaul_ratio

BITS = (10, 8, 6, 4)
SAMPLES, FURTHER, LOCAL = 4_000, 1_000, 2_000
TEST = 1_000
SOURCE_M = {None: (0.42, 0.75), 10: (0.48, 0.83), 8: (0.52, 0.90), 6: (0.54, 0.92), 4: (0.56, 0.97)}
"""Q -> mean and 90th percentile that the source states for its own scene, metres; None: lossless CSI."""
_BUDGET: dict[str, Any] = {
    "pool": 6_000,
    "batch_size": 8,
    "compile": False,
    "evaluations": 0,
    "head": ecc.NARROW["head"],
}
_QUICK: dict[str, Any] = {"pool": 60, "slots": 1, "channels": (4,), "fusion_size": 8, "fusion_hidden": 8}


def run(effort: Effort) -> Outcome:
    """Train the preset ``paper`` of ``ecc`` at d_z = 32 for every Q, and lossless CSI at the CU on as much."""
    first, further = _samples(effort)
    trunk = learned(settings(effort, samples=first), effort).network
    rows = [_row("lossless CSI, no encoder", settings(effort, strategy="raw", samples=first + further), None, effort)]
    bits = effort.chosen(BITS)
    for number in progress(bits, "training", len(bits)):
        rows.append(_row(f"Q = {number}", settings(effort, bits=number, samples=further), trunk, effort))
    config = settings(effort, samples=first)
    remarks = [
        f"{ecc.ENV_ID}; preset paper of ecc ({config.slots or 'all'} slots, channels {config.channels}, d_z = "
        f"{config.latent_width}) with head={config.head}: {config.local_samples} snapshots in Stage I and {first} in "
        f"Stage II at Q = {BITS[0]}, then {further} at the row's Q, in batches of {config.batch_size} from "
        f"{config.pool}; lossless: {first + further} in one go; one seed. The source saw 3 000 fresh ones in each of "
        "hundreds of epochs: these networks have hardly begun, and rows are to be compared with each other, not with "
        "the source's, which are of another scene. Percent: D Q of 122 880 bits, without gain and flag."
    ]
    return Outcome(rows, _figure(rows), remarks)


def settings(effort: Effort, **changes: Any) -> EccAgentConfig:
    """The preset ``paper`` within the budget.

    Args:
        effort: quick or not.
        changes: on top.
    """
    local = 64 if effort.is_quick else LOCAL
    small = _QUICK if effort.is_quick else {}
    fields = {"local_samples": local, "threads": 1, "bits": BITS[0], **_BUDGET, **small, **changes}
    return EccAgentConfig.preset("paper", **fields)


def _samples(effort: Effort) -> tuple[int, int]:
    """Snapshots of the common part and of every row."""
    if effort.is_quick:
        return 64, 32
    first = SAMPLES if effort.train_steps == Effort.train_steps else effort.train_steps
    return first, first * FURTHER // SAMPLES


def _row(label: str, config: EccAgentConfig, start: Any, effort: Effort) -> dict[str, Any]:
    network = learned(config, effort, start).network
    known, bits = ecc.system(), network.layout.payload_bits or None
    pool = ecc.test_pool(config, effort).first(TEST)
    mean, p90 = SOURCE_M[config.quantiser_bits]
    ratio = None if bits is None else fronthaul_ratio(bits, known.num_slots, known.num_antennas, known.num_subcarriers)
    labels = {"setting": label, "bits_per_bs": bits, "percent": 100.0 if ratio is None else 100 * ratio}
    return {**ecc.row(labels, network, pool), "source mean_m": mean, "source p90_m": p90}


def _figure(rows: list[dict[str, Any]]) -> Any:
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    lines = sorted(rows[1:], key=lambda line: line["bits_per_bs"])
    bits = [line["bits_per_bs"] for line in lines]
    for index, (prefix, name) in enumerate((("", "here"), ("source ", "the source, on its scene"))):
        for key, style in (("mean_m", "o-"), ("p90_m", "o:")):
            values = [line[prefix + key] for line in lines]
            axes.plot(bits, values, style, color=OKABE_ITO[index], label=f"{name}, {key[:-2]}")
    axes.set(xlabel="payload per base station [bit]", ylabel="3-D error [m]", yscale="log")
    axes.grid(True, color="#E4E4E4")
    axes.legend()
    return figure
