"""Episodes of several drops of one site: one after another, and what the access points remember in between."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from cfpos_envs.scenarios.dcp.config import DcpConfig
from cfpos_envs.scenarios.dcp.memory import nothing, residuals
from cfpos_envs.scenarios.dcp.state import DcpState


def joined(config: DcpConfig, states: Sequence[DcpState]) -> DcpState:
    """Episodes that begin with the first of ``states`` and hold the others' users and measurements for later."""
    first = states[0]
    return first.replace(
        true_position_m=torch.cat([state.true_position_m for state in states], dim=1),
        sequence_covariance=torch.cat([state.sequence_covariance for state in states], dim=1),
        sequence_rss_dbm=torch.cat([state.sequence_rss_dbm for state in states], dim=1),
        sequence_start_m=torch.stack([state.start_m for state in states], dim=1),
        sequence_fused=torch.stack([state.fused for state in states], dim=1),
        drop=torch.zeros_like(first.round),
        past=nothing(first, len(states) - 1) if config.memory == "site" else None,
    )


def within(config: DcpConfig, state: DcpState) -> DcpState:
    """The state with its round counted from the beginning of the drop."""
    return state if state.drop is None else state.replace(round=state.round - state.drop * config.rounds)


def entered(config: DcpConfig, state: DcpState) -> DcpState:
    """The state as a round finds it: episodes that have played all rounds of a drop stand at the start of the next.

    Until then a state is that of the drop which was played, so that its last estimate can be looked at. Measurements
    have to be heard again where the result is another object.
    """
    if state.drop is None:
        return state
    due = torch.div(state.round, config.rounds, rounding_mode="floor").clamp(max=config.drops - 1)
    new = due > state.drop
    return _begun(state, due).replace(past=_remembered(config, state, new)) if bool(new.any()) else state


def at_last(config: DcpConfig, state: DcpState) -> DcpState:
    """The state at the start of its last drop, whatever was played before."""
    if state.drop is None:
        return state
    last = torch.full_like(state.drop, config.drops - 1)
    return _begun(state.replace(round=last * config.rounds), last)


def _begun(state: DcpState, due: Int[Tensor, " B"]) -> DcpState:
    """With the episodes whose drop is not ``due`` at the start of that one."""
    assert state.drop is not None
    assert state.sequence_start_m is not None
    assert state.sequence_fused is not None
    new, moved = due != state.drop, state.replace(drop=due)
    start_m = moved.now(state.sequence_start_m)
    return moved.replace(
        start_m=start_m,
        consensus_m=torch.where(new[:, None, None], start_m, state.consensus_m),
        spread_m=torch.where(new[:, None], torch.zeros_like(state.spread_m), state.spread_m),
        fused=moved.now(state.sequence_fused),
    )


def _remembered(config: DcpConfig, state: DcpState, new: Bool[Tensor, " B"]) -> Tensor | None:
    """Memories with the residuals of the drop that was played, of episodes that begin a new one."""
    if state.past is None:
        return None
    assert state.drop is not None
    past, index = state.past.clone(), torch.nonzero(new).squeeze(-1)
    past[index, state.drop[index]] = residuals(config, state)[index]
    return past
