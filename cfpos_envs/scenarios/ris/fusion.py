"""From actions to the joint estimate and back, with the clock biases that go with a position."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.measurements.ris import RisSystem
from cfpos_envs.physics.ris.modes import BS_MODES, DELAY_MODE, UE_MODES, mode_vector, steering
from cfpos_envs.scenarios.features import Row
from cfpos_envs.scenarios.ris.options import RisGameConfig
from cfpos_envs.scenarios.ris.state import RisState, pair_parameters

_BIAS_POINTS, _BIAS_ZOOMS = 49, 3

Estimate = tuple[Float[Tensor, "B J 3"], Float[Tensor, "B J I"]]
"""Positions and clock biases, metres."""


def action_rows(config: RisGameConfig) -> tuple[Row, ...]:
    """The entries of an action: three coordinates and one clock bias per base station."""
    low, high = config.clock_m
    if config.action == "absolute":
        place = f"x, y, z in the cube of {2 * config.area_m:g} m around the UEs' middle"
        return Row("position", place, size=3), Row(
            "clock", f"clock bias of each base station in [{low:.1f} m, {high:.1f} m]", size=config.num_bs
        )
    place = f"x, y, z: moved by up to the reach, {config.reach_m:g} m, times {config.zoom:g} after every round"
    clock = "clock bias of each base station, likewise, in metres"
    return Row("move", place, size=3), Row("clock move", clock, size=config.num_bs)


def moved(config: RisGameConfig, state: RisState, actions: Float[Tensor, "B J act"]) -> Estimate:
    """The estimate after actions in [-1, 1]; ``scaled`` is its inverse where the action is absolute."""
    if config.action == "absolute":
        low, high = config.clock_m
        aim = config.aim_m.to(actions)
        return aim + config.area_m * actions[..., :3], low + (high - low) * (actions[..., 3:] + 1) / 2
    step = config.reach_in(state.round)[:, None, None] * actions
    return inside(config, state.position_m + step[..., :3], state.bias_m + step[..., 3:])


def inside(config: RisGameConfig, position_m: Float[Tensor, "B J 3"], bias_m: Float[Tensor, "B J I"]) -> Estimate:
    """The nearest estimate in the area and in the clock's range."""
    aim = config.aim_m.to(position_m)
    return aim + (position_m - aim).clamp(-config.area_m, config.area_m), bias_m.clamp(*config.clock_m)


def scaled(config: RisGameConfig, state: RisState) -> Float[Tensor, "B J act"]:
    """The estimate relative to the area and to the clock's range: within [-1, 1], 0 in the middle."""
    low, high = config.clock_m
    position = (state.position_m - config.aim_m.to(state.position_m)) / config.area_m
    return torch.cat((position, 2 * (state.bias_m - low) / (high - low) - 1), dim=-1)


def encode(config: RisGameConfig, state: RisState, target: RisState) -> Float[Tensor, "B J act"]:
    """Actions that lead to the estimate of ``target``, or as near to it as a correction of this round reaches."""
    if config.action == "absolute":
        return scaled(config, target).clamp(-1.0, 1.0)
    moves = torch.cat((target.position_m - state.position_m, target.bias_m - state.bias_m), dim=-1)
    return (moves / config.reach_in(state.round)[:, None, None]).clamp(-1.0, 1.0)


@torch.no_grad()
def best_bias_m(
    state: RisState, system: RisSystem, position_m: Float[Tensor, "B J 3"], low_m: float, high_m: float
) -> Float[Tensor, "B J I"]:
    """Clock biases that explain most of the received energy at given positions, metres.

    Towards a given position every path is one tone over the subcarriers, and a bias turns all of them alike: the sum of
    their periodograms is searched on a grid, then on finer ones around its maximum.

    Args:
        state: with received blocks.
        system: the radio.
        position_m: hypothesised.
        low_m, high_m: range of the search.
    """
    parameters = pair_parameters(state, position_m, torch.zeros_like(state.bias_m))
    sizes, slopes = system.sizes, system.slopes
    vectors = steering(sizes, slopes, parameters)
    ue, bs = ((vectors[a].unsqueeze(-1) * vectors[b].unsqueeze(-2)).flatten(-2) for a, b in (UE_MODES, BS_MODES))
    block = state.received.flatten(-5, -4).flatten(-3, -2)
    tones = torch.einsum("...ubn,...lu,...lb->...ln", block, ue.conj(), bs.conj()) * vectors[DELAY_MODE].conj()
    bias = torch.full_like(state.bias_m, (low_m + high_m) / 2)
    half, steps = (high_m - low_m) / 2, torch.linspace(-1.0, 1.0, _BIAS_POINTS, device=bias.device)
    for _ in range(_BIAS_ZOOMS):
        tried = (bias.unsqueeze(-1) + half * steps).clamp(low_m, high_m)
        delay = mode_vector(tried, sizes[DELAY_MODE], slopes[DELAY_MODE])
        power = (tones @ delay.conj().mT).abs().square().sum(dim=-2)
        bias = tried.gather(-1, power.argmax(dim=-1, keepdim=True)).squeeze(-1)
        half = 2 * half / (_BIAS_POINTS - 1)
    return bias
