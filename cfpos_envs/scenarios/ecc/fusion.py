"""What the base stations send, and what the central unit makes of it: the weighted mean of their reports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs.measurements.ecc import CsiSystem
from cfpos_envs.scenarios.base import FLOAT_BITS
from cfpos_envs.scenarios.ecc.options import EccOptions
from cfpos_envs.scenarios.ecc.state import EccState
from cfpos_envs.scenarios.features import Row

POSITION_SIZE = 3


def action_rows(config: EccOptions, system: CsiSystem) -> tuple[Row, ...]:
    """The entries of a base station's report on one user."""
    report = Row("report", "m, position minus centre of the area", system.scale_m, POSITION_SIZE)
    return (report, Row("confidence", "a, see fusion")) if config.fusion == "confidence" else (report,)


def fuse(
    config: EccOptions, system: CsiSystem, state: EccState, actions: Float[Tensor, "B L J act"]
) -> tuple[Float[Tensor, "B L J 3"], Float[Tensor, "B J 3"]]:
    """Reports of the base stations and their weighted mean within the area, metres.

    Args:
        config, system: weights and area.
        state: whose links count.
        actions: in [-1, 1], see ``action_rows``.
    """
    reports = system.denormalise_position(actions[..., :POSITION_SIZE])
    weights = shares(config, state.now(state.sequence_valid).transpose(1, 2), actions)
    return reports, into_area(system, (weights.unsqueeze(-1) * reports).sum(dim=1))


def shares(
    config: EccOptions, valid: Bool[Tensor, "B L J"], actions: Float[Tensor, "B L J act"]
) -> Float[Tensor, "B L J"]:
    """Weights with sum 1 over the base stations with a link, or over all where none has one."""
    counts = valid | ~valid.any(dim=1, keepdim=True)
    if config.fusion == "confidence":
        logits = config.confidence_scale * actions[..., POSITION_SIZE]
    else:
        logits = torch.zeros_like(actions[..., 0])
    return logits.masked_fill(~counts, -torch.inf).softmax(dim=1)


def into_area(system: CsiSystem, points_m: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """The nearest points of the area."""
    low, high = points_m.new_tensor(system.area_min_m), points_m.new_tensor(system.area_max_m)
    return torch.minimum(torch.maximum(points_m, low), high)


# Fronthaul ---------------------------------------------------------------------------------------------------------


@runtime_checkable
class CountsItsBits(Protocol):
    """A policy that says how many bits a base station sends per user and snapshot, as a number or a method."""

    fronthaul_bits: float | Callable[[], float] | None


@runtime_checkable
class Decentralised(Protocol):
    """A policy that says whether every base station acts on what it alone sees."""

    decentralised: bool


def fronthaul_bits_per_snapshot(config: EccOptions, system: CsiSystem, policy: object) -> float:
    """Bits that a base station sends per user and snapshot under ``policy``.

    What the policy itself says; without it the float32 numbers of the reports where every base station acts on what it
    alone sees, and lossless CSI, (37), where the policy sees all of it at once.
    """
    counted_bits = policy.fronthaul_bits if isinstance(policy, CountsItsBits) else None
    if counted_bits is not None:
        return float(counted_bits() if callable(counted_bits) else counted_bits)
    if isinstance(policy, Decentralised) and policy.decentralised:
        numbers = sum(row.size for row in action_rows(config, system))
        return FLOAT_BITS * numbers * config.rounds / config.snapshots
    return float(system.lossless_bits)


def check_budget(config: EccOptions, bits: float, name: str) -> None:
    """Refuse more bits per base station, user and snapshot than ``fronthaul_bits_max``.

    Raises:
        ValueError: naming the policy.
    """
    most = config.fronthaul_bits_max
    if most is not None and bits > most:
        raise ValueError(
            f"{name} sends {bits:g} bits per BS, user and snapshot, more than fronthaul_bits_max={most:g}; "
            "use a smaller embedding or raise the budget"
        )
