"""Which answers of a network to believe: what tells that it is asked about something it was not trained for, or unsure.

A network answers anything. What is stored with every one of them, the long-term averages of the gains and the area,
tells other units and other scenes; it does not tell other phases, orders of antennas or exchanged stations.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfpos_envs.measurements.base import Reason, first_reason
from cfpos_envs.measurements.ecc import CsiSystem
from cfpos_envs.supervised.beliefs import Answers
from cfpos_envs.supervised.calibration import Answering, Calibration
from cfpos_envs.supervised.data import Batch
from cfpos_envs.supervised.heads import Area
from cfpos_envs.supervised.missing import lacks_messages, leave_one_out

MOST_GAIN = 3.5
"""Mean of a user's standardised gains, in deviations, that no user of the training has: they reach 2.1 in the games."""

MARGIN = 0.1
"""Share of the area's longest side by which an answer may lie outside of it."""

VAGUE = 0.5
"""Stated deviation, over that of a user anywhere in the area, from which on an answer says too little."""


@dataclass(frozen=True)
class Judged:
    """Answers to S snapshots as they are given.

    Attributes:
        position_m: answers.
        covariance_m2, radii: see ``PositionEstimate``; None without a calibration.
        reason: ``Reason`` of every answer, 0 where nothing speaks against it.
    """

    position_m: Float[Tensor, "S 3"]
    covariance_m2: Float[Tensor, "S 3 3"] | None
    radii: Float[Tensor, "S levels"] | None
    reason: Int[Tensor, " S"]


def judge(
    system: CsiSystem, batch: Batch, answers: Answers, calibration: Calibration | None, network: Answering
) -> Judged:
    """What is stated of a network's answers.

    Where messages are missing that the calibration has always had, the network is asked again with one less.

    Args:
        system: of the network's training.
        batch: what it was asked.
        answers: before they are moved into the area.
        calibration: of the network; None: there is none.
        network: that answered.
    """
    position = answers.belief.position_m
    lacks = lacks_messages(answers.valid, calibration)
    rows = lacks.nonzero()[:, 0]
    beside = position.new_zeros((len(position), 3, 3))
    if len(rows):
        beside[rows] = leave_one_out(network, batch.select(rows), position[rows], anywhere(system)).to(beside)
    if calibration is None:
        return Judged(position, None, None, learned_doubts(system, batch, position, beside, lacks))
    stated = calibration.states(answers.to("cpu"), Area(system.area_min_m, system.area_max_m)).to(position.device)
    # Nothing is known of who is not heard at all.
    nowhere = ~answers.valid.any(dim=1)[:, None, None]
    covariance = torch.where(nowhere, anywhere(system).to(stated.covariance_m2), stated.covariance_m2 + beside)
    return Judged(position, covariance, stated.radii, learned_doubts(system, batch, position, covariance, lacks))


def anywhere(system: CsiSystem) -> Float[Tensor, "3 3"]:
    """Covariance of a user anywhere in the area."""
    low, high = (torch.tensor(corner) for corner in (system.area_min_m, system.area_max_m))
    return torch.diag((high - low).square() / 12)


def learned_doubts(
    system: CsiSystem,
    batch: Batch,
    position_m: Float[Tensor, "B 3"],
    covariance_m2: Float[Tensor, "B 3 3"] | None = None,
    lacks: Bool[Tensor, " B"] | None = None,
) -> Int[Tensor, " B"]:
    """``Reason`` of every answer of a network, 0 where nothing speaks against it.

    Args:
        system: of the network's training.
        batch: what it was asked.
        position_m: what it answered, before it is moved into the area.
        covariance_m2: what is stated or known of the errors; None: nothing.
        lacks: answers that lack messages which there have always been: one message alone is then too few; None: none.
    """
    heard = batch.valid.sum(dim=1)
    mean = (batch.log_gain * batch.valid).sum(dim=1) / heard.clamp(min=1)
    low, high = (position_m.new_tensor(corner) for corner in (system.area_min_m, system.area_max_m))
    beyond = torch.maximum(low - position_m, position_m - high).amax(dim=1)
    failures = [
        (Reason.TOO_FEW_LINKS, heard == 0 if lacks is None else (heard == 0) | (lacks & (heard == 1))),
        (Reason.UNFAMILIAR, mean.abs() > MOST_GAIN),
        (Reason.OUTSIDE, ~(beyond <= MARGIN * 2 * system.scale_m)),
    ]
    if covariance_m2 is not None:
        variance = torch.diagonal(covariance_m2, dim1=-2, dim2=-1).sum(dim=-1)
        failures.append((Reason.AMBIGUOUS, variance > VAGUE**2 * float(anywhere(system).trace())))
    doubted = torch.zeros_like(heard, dtype=torch.bool)
    for _, failed in failures:
        doubted = doubted | failed
    return first_reason(~doubted, *failures)
