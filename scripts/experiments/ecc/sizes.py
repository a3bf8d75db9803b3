"""Size of the networks at both ends: parameters of a base station and of the central unit, multiply-adds, files."""

from __future__ import annotations

from typing import Any

import torch

from cfpos.scripts.experiments.common import Effort, Outcome
from cfpos.scripts.experiments.ecc import common as ecc
from cfpos.scripts.experiments.ecc.cost import model_bars, network_work
from cfpos_envs.supervised.agent_config import EccAgentConfig, EccFastAgentConfig
from cfpos_envs.supervised.inputs import network_shape
from cfpos_envs.supervised.network import EccNetwork

MODELS: dict[str, EccAgentConfig] = {
    "ecc-fast small": EccFastAgentConfig.preset("small"),
    "ecc-fast small, three numbers": EccFastAgentConfig.preset("small", head="regression"),
    "ecc-fast urban": EccFastAgentConfig.preset("urban"),
    "ecc small": EccAgentConfig.preset("small"),
    "ecc paper": EccAgentConfig.preset("paper"),
    "ecc paper, bins": EccAgentConfig.preset("paper", head="bins"),
    "ecc paper, bins, slots averaged": EccAgentConfig.preset("paper", head="bins", slots=1),
}
_HALF_BYTES = 2


def run(effort: Effort) -> Outcome:
    """Count; nothing is measured, so that every machine finds the same."""
    known = ecc.system()
    rows: list[dict[str, Any]] = []
    for label, config in MODELS.items():
        network = EccNetwork(config, network_shape(config, known), torch.Generator().manual_seed(0))
        station, centre = network.encoder_parameters(), network.fusion_parameters()
        together = known.num_bs * station + centre
        rows.append(
            {
                "model": label,
                "head": config.head,
                "station_parameters": station,
                "centre_parameters": centre,
                "all_parameters": together,
                "half_precision_MB": _HALF_BYTES * together / 1e6,
                "station_multiply_adds": network.encoder_multiply_adds(),
                "snapshot_multiply_adds": int(network_work(network)),
                "message_bits": network.layout.message_bits,
            }
        )
    figure = model_bars(rows, ("station_parameters", "centre_parameters"), "parameters")
    remark = (
        f"Counted in {ecc.ENV_ID}: {known.num_bs} base stations with weights of their own; multiply-adds of one "
        "snapshot forwards, all encoders and roughly the central unit; training takes three times that."
    )
    return Outcome(rows, figure, [remark])
