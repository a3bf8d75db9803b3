"""What tells that a network is asked about something that it was not trained for: gains and places.

A network answers anything. What is stored with every one of them, the long-term averages of the gains and the area,
tells other units and other scenes; it does not tell other phases, orders of antennas or exchanged stations.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfpos_envs.measurements.base import Reason, first_reason
from cfpos_envs.measurements.ecc import CsiSystem
from cfpos_envs.supervised.data import Batch

MOST_GAIN = 3.5
"""Mean of a user's standardised gains, in deviations, that no user of the training has: they reach 2.1 in the games."""

MARGIN = 0.1
"""Share of the area's longest side by which an answer may lie outside of it."""


def learned_doubts(system: CsiSystem, batch: Batch, position_m: Float[Tensor, "B 3"]) -> Int[Tensor, " B"]:
    """``Reason`` of every answer of a network, 0 where nothing speaks against it.

    Args:
        system: of the network's training.
        batch: what it was asked.
        position_m: what it answered, before it is moved into the area.
    """
    heard = batch.valid.sum(dim=1)
    mean = (batch.log_gain * batch.valid).sum(dim=1) / heard.clamp(min=1)
    low, high = (position_m.new_tensor(corner) for corner in (system.area_min_m, system.area_max_m))
    beyond = torch.maximum(low - position_m, position_m - high).amax(dim=1)
    failures = (
        (Reason.TOO_FEW_LINKS, heard == 0),
        (Reason.UNFAMILIAR, mean.abs() > MOST_GAIN),
        (Reason.OUTSIDE, ~(beyond <= MARGIN * 2 * system.scale_m)),
    )
    doubted = torch.zeros_like(heard, dtype=torch.bool)
    for _, failed in failures:
        doubted = doubted | failed
    return first_reason(~doubted, *failures)
