"""What a surface sees: its sector in its own units, and what has been told so far; every entry in [-1, 1].

Directions of users are told in half-widths of the sector from its middle ("sector units"), so that a policy means the
same at every site.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cfpos_envs.physics.ris.geometry import RIS_AXES, spherical_direction
from cfpos_envs.scenarios.ris_phase.beams import GRID, belief_moments, sector_grid
from cfpos_envs.scenarios.ris_phase.config import RisPhaseConfig
from cfpos_envs.scenarios.ris_phase.state import RisPhaseState, network_estimate_m, turned_cosines

_MOST_BEAMS = 10.0
_TOLD_DB = 20.0


@dataclass(frozen=True)
class Feature:
    """A run of entries of an observation.

    Attributes:
        name: short name.
        meaning: what it is, with the unit before scaling.
        feedback: in which modes of feedback it is there.
        size: entries, given the rounds T.
        compute: to [B, R, size].
    """

    name: str
    meaning: str
    feedback: tuple[str, ...]
    size: Callable[[RisPhaseConfig], int]
    compute: Callable[[RisPhaseConfig, RisPhaseState], Tensor]


def observe(config: RisPhaseConfig, state: RisPhaseState) -> Tensor:
    """[B, R, observation_size] float32 in [-1, 1]."""
    values = [feature.compute(config, state) for feature in features(config)]
    return torch.cat(values, dim=-1).to(torch.float32).clamp(-1.0, 1.0)


def features(config: RisPhaseConfig) -> list[Feature]:
    """The features of a mode of feedback in order."""
    return [feature for feature in _FEATURES if config.feedback in feature.feedback]


def in_sector_units(state: RisPhaseState, turned: Tensor) -> Tensor:
    """Turned cosines [B, R, P, 2] in half-widths of the sector from its middle."""
    middle, half = (state.low + state.high) / 2, (state.high - state.low) / 2
    return (turned - middle.unsqueeze(2)) / half.unsqueeze(2)


def grid_cosines(config: RisPhaseConfig, state: RisPhaseState) -> Tensor:
    """[B, R, G G, 2] turned cosines of the directions on which the belief lives."""
    grid = sector_grid(state.azimuth_rad, state.elevation_rad, config.sector_rad, state.incoming, GRID)
    return grid.flatten(2, 3).to(torch.float32)


def _middle(config: RisPhaseConfig, state: RisPhaseState) -> Tensor:
    axes = torch.tensor(RIS_AXES, dtype=state.azimuth_rad.dtype, device=state.azimuth_rad.device)
    return spherical_direction(state.azimuth_rad, state.elevation_rad) @ axes.mT


def _beams(config: RisPhaseConfig, state: RisPhaseState) -> Tensor:
    elements = torch.tensor(config.scene.system.ris_shape, device=state.low.device)
    return (state.high - state.low) / 2 * elements / _MOST_BEAMS


def _progress(config: RisPhaseConfig, state: RisPhaseState) -> Tensor:
    share = state.round.to(torch.float32) / config.rounds
    return share[:, None, None].expand(*state.low.shape[:2], 1)


def _history(config: RisPhaseConfig, state: RisPhaseState) -> Tensor:
    return state.told_db.mean(dim=-1).transpose(1, 2) / _TOLD_DB


def _last(config: RisPhaseConfig, state: RisPhaseState) -> Tensor:
    return state.last_action


def _belief(config: RisPhaseConfig, state: RisPhaseState) -> Tensor:
    """Mean over the users of mean, spread and likeliest place of their directions; nothing before anything was told."""
    grid = in_sector_units(state, grid_cosines(config, state))
    mean, std = belief_moments(state.log_belief, grid)
    best = state.log_belief.argmax(dim=-1, keepdim=True)
    likeliest = torch.take_along_dim(grid.unsqueeze(2), best.unsqueeze(-1), dim=3).squeeze(3)
    told = torch.cat((mean, std, likeliest), dim=-1).mean(dim=2)
    return torch.where((state.round > 0)[:, None, None], told, torch.zeros_like(told))


def _found(config: RisPhaseConfig, state: RisPhaseState) -> Tensor:
    """Middle of the directions to the network's estimates; nothing before the first round."""
    told = in_sector_units(state, turned_cosines(state, network_estimate_m(config, state))).mean(dim=2)
    return torch.where((state.round > 0)[:, None, None], told, torch.zeros_like(told))


_ALWAYS = ("none", "energy", "position")
_TOLD = ("energy", "position")
_FEATURES = (
    Feature("middle", "cosines of the sector's middle to both axes of the surface", _ALWAYS, lambda c: 2, _middle),
    Feature("beams", "pencil beams that fit into the sector along each axis / 10", _ALWAYS, lambda c: 2, _beams),
    Feature("progress", "rounds played / rounds", _ALWAYS, lambda c: 1, _progress),
    Feature(
        "told",
        "told energy of every round so far, relative to the full gain / 20 dB, mean over the users",
        _TOLD,
        lambda c: c.rounds,
        _history,
    ),
    Feature("last", "beam of the round before (action=beam)", _TOLD, lambda c: 4, _last),
    Feature(
        "belief",
        "mean, standard deviation, likeliest value of the users' direction given what was told, in sector units",
        _TOLD,
        lambda c: 6,
        _belief,
    ),
    Feature("found", "direction to the network's estimate, in sector units", ("position",), lambda c: 2, _found),
)
