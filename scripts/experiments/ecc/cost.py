"""What locating one user costs: processor time at a base station and at the central unit, multiply-adds, parameters."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest import mock

import matplotlib.pyplot as plt
import torch

from cfpos.agents.memory import keep_freed_memory
from cfpos.scripts.experiments.common import Effort, Outcome, progress
from cfpos.scripts.experiments.ecc import common as ecc
from cfpos_envs.drawing.figures import OKABE_ITO
from cfpos_envs.registry import make_scenario
from cfpos_envs.scenarios.ecc.pool import draw_snapshots
from cfpos_envs.supervised import convolutions
from cfpos_envs.supervised.agent_config import EccAgentConfig, EccFastAgentConfig
from cfpos_envs.supervised.data import Batch, Pool
from cfpos_envs.supervised.fit_config import FitConfig
from cfpos_envs.supervised.fitting import fit
from cfpos_envs.supervised.inputs import batch_of, network_shape
from cfpos_envs.supervised.network import EccNetwork

MODELS: dict[str, EccAgentConfig] = {
    "ecc-fast small": EccFastAgentConfig.preset("small"),
    "ecc-fast urban": EccFastAgentConfig.preset("urban"),
    "ecc small": EccAgentConfig.preset("small"),
    "ecc paper": EccAgentConfig.preset("paper"),
    # A user that stands still: the mean of its slots holds all that they say in white noise.
    "ecc paper, slots averaged": EccAgentConfig.preset("paper", slots=1),
}
BATCH, _QUICK_BATCH = 64, 8
# The paper's network trains in smaller batches, so that a few of its steps take seconds and not minutes.
_PAPER_SHARE = 4
_SECONDS = 0.5
_TURNS = 2
_MATRIX = 1024


def run(effort: Effort) -> Outcome:
    """Time untrained networks of every preset: what they cost does not depend on their weights."""
    keep_freed_memory()  # as every training does
    known = ecc.system()
    users = _QUICK_BATCH if effort.is_quick else BATCH
    part = next(draw_snapshots(make_scenario(ecc.ENV_ID).config, users, seed=0, chunk=users))
    rows: list[dict[str, Any]] = []
    for label, config in progress(MODELS.items(), "timing", len(MODELS)):
        network = EccNetwork(config, network_shape(config, known), torch.Generator().manual_seed(0)).eval()
        batch = batch_of(part.csi, part.valid, config, known)
        messages = network.encode(batch)
        one = dataclasses.replace(messages, data=messages.data[:1], received=messages.received[:1])
        seconds = 0.01 if effort.is_quick else _SECONDS

        def features(config: EccAgentConfig = config) -> Any:
            return batch_of(part.csi, part.valid, config, known)

        def at_bs(network: EccNetwork = network, batch: Any = batch) -> Any:
            return network.encode(batch)

        def at_cu(network: EccNetwork = network, messages: Any = messages) -> Any:
            return network.decode(messages)

        def alone(network: EccNetwork = network, one: Any = one) -> Any:
            return network.decode(one)

        stations = users * known.num_bs
        trained = users // (_PAPER_SHARE if label.startswith("ecc paper") else 1)
        rows.append(
            {
                "model": label,
                "bs_features_ms": 1e3 * cpu_seconds(features, seconds) / stations,
                "bs_encoder_ms": 1e3 * cpu_seconds(at_bs, seconds) / stations,
                "cu_ms": 1e3 * cpu_seconds(at_cu, seconds) / users,
                "cu_one_user_ms": 1e3 * cpu_seconds(alone, seconds),
                "bs_multiply_adds": network.encoder_multiply_adds(),
                "bs_parameters": network.encoder_parameters(),
                "cu_parameters": network.fusion_parameters(),
                "all_parameters": known.num_bs * network.encoder_parameters() + network.fusion_parameters(),
                "message_bits": network.layout.message_bits,
                **training_rates(network, batch, trained, effort),
            }
        )
    figure = model_bars(rows, ("bs_features_ms", "bs_encoder_ms", "cu_ms"), "processor time per user [ms]")
    remark = (
        f"process time of one core in float32, {users} users at once (cu_one_user_ms: one); bs columns are for one "
        "base station; features include normalisation and phase stabilisation or autocorrelation; trained_per_s: "
        "snapshots per processor second of Stage II, batches of 64 (paper: 16), mixed precision where there is "
        "hardware; plain_per_s: the same by torch's own convolutions and normalisations, both in turn, best of "
        f"{_TURNS}; "
        f"square matrices of {_MATRIX} multiplied at {matrix_rate(effort):.3g} GFLOP/s (float32) on the same core."
    )
    return Outcome(rows, figure, [remark])


def model_bars(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], label: str) -> Any:
    """A picture of some columns, one bar per model and column on a logarithmic axis.

    Args:
        rows: of a table with the column ``model``.
        columns: of positive numbers.
        label: of the axis.
    """
    figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    height = min(0.3, 0.75 / len(columns))
    for index, name in enumerate(columns):
        places = [place + height * (index - 0.5 * (len(columns) - 1)) for place in range(len(rows))]
        axes.barh(places, [row[name] for row in rows], height=height, color=OKABE_ITO[index], label=name)
    axes.set(xscale="log", xlabel=label)
    axes.set_yticks(range(len(rows)), [row["model"] for row in rows])
    axes.invert_yaxis()
    axes.legend()
    return figure


def training_rates(network: EccNetwork, batch: Batch, size: int, effort: Effort) -> dict[str, float | None]:
    """Snapshots per processor second of Stage II: as it is, and where the encoder has kernels of ours, without them.

    Args:
        network: is changed.
        batch: to train on.
        size: snapshots per step.
        effort: as for ``training_rate``.
    """
    if network.config.encoder != "segnet":
        return {"trained_per_s": training_rate(network, batch, size, effort), "plain_per_s": None, "times": None}
    found, plain = [], []
    # In turn, so that what disturbs the core disturbs both; the best counts, because it only ever adds.
    for _ in range(1 if effort.is_quick else _TURNS):
        found.append(training_rate(network, batch, size, effort))
        with mock.patch.object(convolutions, "is_served", return_value=False):
            plain.append(training_rate(network, batch, size, effort))
    return {"trained_per_s": max(found), "plain_per_s": max(plain), "times": max(found) / max(plain)}


def matrix_rate(effort: Effort) -> float:
    """Giga-operations per processor second of a product of large square matrices: what this core can do at best."""
    factor = torch.ones(_MATRIX, _MATRIX)
    return 2e-9 * _MATRIX**3 / cpu_seconds(lambda: torch.mm(factor, factor), 0.01 if effort.is_quick else _SECONDS)


def training_rate(network: EccNetwork, batch: Batch, size: int, effort: Effort) -> float:
    """Snapshots per processor second of Stage II, in the precision that suits this processor.

    Args:
        network: is changed.
        batch: to train on.
        size: snapshots per step.
        effort: two steps in quick mode.
    """
    pool = Pool(batch.features.half(), batch.log_gain, batch.valid, batch.position_m)
    settings: dict[str, Any] = {
        "batch_size": size,
        "evaluations": 0,
        "precision": network.config.precision,
    }
    # The first steps choose their routines and are not counted.
    fit(network, pool, FitConfig(samples=2 * size, **settings), progress=False)
    steps = 2 if effort.is_quick else max(2, min(200, int(_SECONDS * 4e9 / (size * network_work(network)))))
    return fit(network, pool, FitConfig(samples=steps * size, **settings), progress=False).samples_per_s


def network_work(network: EccNetwork) -> float:
    """Multiply-adds of one snapshot forwards, roughly: all encoders and the CU's parameters once per token."""
    tokens = 1 if network.config.fusion == "mlp" else network.shape.num_tokens
    return network.shape.num_bs * network.encoder_multiply_adds() + tokens * network.fusion_parameters()


def cpu_seconds(function: Callable[[], Any], at_least: float) -> float:
    """Processor seconds of one call, over as many calls as take ``at_least`` seconds."""
    function()
    count, began = 0, time.process_time()
    while time.process_time() - began < at_least:
        function()
        count += 1
    return (time.process_time() - began) / max(count, 1)
