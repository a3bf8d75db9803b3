"""Accuracy against fronthaul: how few bits per base station a position needs."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from cfpos.baselines import make_policy
from cfpos.scripts.experiments.common import Effort, Outcome, progress
from cfpos.scripts.experiments.ecc import common as ecc
from cfpos.scripts.experiments.ecc.data import Trained, kept, train_policy
from cfpos.scripts.experiments.ecc.learning import trained
from cfpos_envs.drawing.figures import OKABE_ITO, plain_numbers
from cfpos_envs.registry import make_scenario
from cfpos_envs.scenarios.ecc.pool import draw_snapshots
from cfpos_envs.supervised.bitstream import fronthaul_ratio
from cfpos_envs.supervised.data import Pool, joined
from cfpos_envs.supervised.errors import errors_m

# (d_z, Q); D = 24 d_z numbers of Q bits.
POINTS = ((1, 1), (1, 2), (1, 4), (2, 4), (4, 4), (8, 4), (16, 4), (32, 4), (32, 10))
SCALAR_BITS = (1, 2, 4, 8)
# With 256 there are 400 steps only, and which width of the code learns fastest hides what it can carry.
_TRAINING: dict[str, Any] = {"batch_size": 64}
_SIDE_BITS = 9
_CHUNK = 2048


def run(effort: Effort) -> Outcome:
    """Train ``ecc-fast`` at every point, and the policy ``csi-scalar-q`` over its own bits, with several seeds."""
    seeds = range(effort.seeds)
    rows: list[dict[str, Any]] = []
    points = effort.chosen(POINTS)
    for width, bits in progress(points, "training", len(points)):
        errors = []
        for seed in seeds:
            config = ecc.fast(effort, latent_width=width, bits=bits, seed=seed, **_TRAINING)
            errors.append(errors_m(trained(config, effort), ecc.test_pool(config, effort)))
        rows.append(_row(f"ecc-fast d_z={width} Q={bits}", 24 * width * bits, errors))
    for bits, payload, errors in _scalar(effort, effort.chosen(SCALAR_BITS)):
        rows.append(_row(f"csi-scalar-q Q={bits}", payload, errors))
    config = ecc.fast(effort, **_TRAINING)
    remark = (
        f"{ecc.ENV_ID}; head={config.head}; every network sees {config.samples} snapshots drawn from {config.pool} in "
        f"batches of {config.batch_size}; {effort.seeds} seed(s) of weights and order, mean_m being their mean, lowest "
        "and highest beside it; tested on the same unseen places; csi-scalar-q is the policy of that name, which takes "
        "the same phase-free features after the fronthaul that ecc-fast takes before it; 100 % is complex64 "
        "forwarding; gain (8 bits) and path flag (1 bit) come on top."
    )
    return Outcome(rows, _figure(rows), [remark, ahead(rows, "csi-scalar-q")])


def ahead(rows: Sequence[Mapping[str, Any]], other: str) -> str:
    """A sentence: at which payloads another model has the smaller mean error than ``ecc-fast`` at the same bits.

    Args:
        rows: of the table.
        other: how the other models' names begin.
    """
    means = {line["bits_per_bs"]: line["mean_m"] for line in rows if line["model"].startswith("ecc-fast")}
    lines = [line for line in rows if line["model"].startswith(other) and line["bits_per_bs"] in means]
    won = [line["bits_per_bs"] for line in lines if line["mean_m"] < means[line["bits_per_bs"]]]
    where = f"at {', '.join(map(str, won))} bits" if won else "nowhere"
    return f"At equal bits {other} is ahead of ecc-fast {where} (of {len(lines)} payloads)."


def _scalar(effort: Effort, bits: Sequence[int]) -> Iterator[tuple[int, int, list[np.ndarray]]]:
    """(Q, payload bits, errors of every seed) of the baseline without an encoder."""
    config = ecc.fast(effort, **_TRAINING)
    pools: dict[str, dict[int, Pool]] = {}

    def received(split: str, number: int) -> Pool:
        if split not in pools:
            count = max(config.batch_size, config.pool) if split == "train" else ecc.test_count(effort)
            pools[split] = _received(split, count, bits)
        return pools[split][number]

    def make(number: int, seed: int) -> Trained:
        policy = _policy(number, seed, max(1, config.samples // config.batch_size), config.batch_size)
        return train_policy(policy, received("train", number), received("test", number))

    for number in bits:
        runs = []
        for seed in range(effort.seeds):
            name = f"scalar-{number}-{config.samples}-{config.head}-{seed}"
            runs.append(kept(effort.agents_folder, name, functools.partial(make, number, seed)))
        yield number, int(runs[0].bits) - _SIDE_BITS, [found.errors_m for found in runs]


def _policy(bits: int, seed: int, steps: int, batch_size: int) -> Any:
    policy: Any = make_policy(
        "csi-scalar-q",
        bits=bits,
        seed=seed,
        train_steps=steps,
        batch_size=batch_size,
        train_samples=batch_size,
    )
    policy.system = ecc.system()
    return policy


def _received(split: str, count: int, bits: Sequence[int]) -> dict[int, Pool]:
    """What the CU has of the same snapshots after a fronthaul of so many bits per number."""
    policies = {number: _policy(number, 0, 1, 1) for number in bits}
    pieces: dict[int, list[Pool]] = {number: [] for number in bits}
    chunk = min(count, _CHUNK)
    whole = -(-count // chunk) * chunk
    parts = draw_snapshots(make_scenario(ecc.ENV_ID, split=split).config, whole, seed=0, chunk=chunk)
    for part in progress(parts, f"csi-scalar-q, {split}", whole // chunk):
        for number, policy in policies.items():
            batch = policy.inputs(part.csi, part.valid, ecc.system())
            pieces[number].append(Pool(batch.features.half(), batch.log_gain, batch.valid, part.position_m))
    return {number: joined(found).first(count) for number, found in pieces.items()}


def _row(label: str, bits: int, errors: list[np.ndarray]) -> dict[str, Any]:
    known = ecc.system()
    means = [float(found.mean()) for found in errors]
    together = np.concatenate(errors)
    return {
        "model": label,
        "bits_per_bs": bits,
        "percent": 100 * fronthaul_ratio(bits, known.num_slots, known.num_antennas, known.num_subcarriers),
        "mean_m": float(np.mean(means)),
        "lowest_mean_m": min(means),
        "highest_mean_m": max(means),
        "median_m": float(np.median(together)),
        "p90_m": float(np.percentile(together, 90)),
    }


def _figure(rows: list[dict[str, Any]]) -> Any:
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for index, name in enumerate(("ecc-fast", "csi-scalar-q")):
        lines = sorted((line for line in rows if line["model"].startswith(name)), key=lambda line: line["bits_per_bs"])
        bits = [line["bits_per_bs"] for line in lines]
        for key, style in (("mean_m", "o-"), ("p90_m", "o:")):
            values = [line[key] for line in lines]
            axes.plot(bits, values, style, color=OKABE_ITO[index], label=f"{name}, {key[:-2]}")
        low, high = ([line[f"{end}_mean_m"] for line in lines] for end in ("lowest", "highest"))
        axes.fill_between(bits, low, high, color=OKABE_ITO[index], alpha=0.2, linewidth=0)
    axes.set(xscale="log", yscale="log", xlabel="payload per base station [bit]", ylabel="3-D error [m]")
    plain_numbers(axes.yaxis)
    axes.grid(True, color="#E4E4E4")
    axes.legend()
    return figure
