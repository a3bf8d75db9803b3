"""What a surface sees: its sector in its own units, and what has been reported so far; every entry in [-1, 1].

Directions of users are given in half-widths of the sector from its middle ("sector units"), so that a policy means the
same at every site.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.physics.ris.geometry import RIS_AXES, spherical_direction
from cfpos_envs.scenarios.features import Feature, evaluate
from cfpos_envs.scenarios.ris_phase.config import RisPhaseConfig
from cfpos_envs.scenarios.ris_phase.fusion import belief_moments, grid_cosines, network_estimate_m
from cfpos_envs.scenarios.ris_phase.state import RisPhaseState, in_sector_units, turned_cosines

_MOST_BEAMS = 10.0
_REPORT_SCALE_DB = 20.0


@dataclass(frozen=True)
class RisPhaseView:
    """What the entries of an observation are computed from: the game and its state."""

    config: RisPhaseConfig
    state: RisPhaseState


def observe(
    features: tuple[Feature[RisPhaseView], ...], config: RisPhaseConfig, state: RisPhaseState
) -> Float[Tensor, "B R entries"]:
    """What every surface sees, in [-1, 1]."""
    return evaluate(features, RisPhaseView(config, state), state.low.shape[:2])


def features_of(config: RisPhaseConfig) -> tuple[Feature[RisPhaseView], ...]:
    """The entries of an observation in order; more feedback, more entries."""
    always = (
        Feature("middle", "cosines of the sector's middle to both axes of the surface", _middle, size=2),
        Feature("beams", "pencil beams that fit into the sector along each axis", _beams, _MOST_BEAMS, 2),
        Feature("progress", "rounds played / rounds", _progress),
    )
    energies = "dB, reported energy of every round so far relative to the full gain, mean over the users"
    belief = "mean, standard deviation, likeliest value of the users' direction given the reports, in sector units"
    reported = (
        Feature("reported", energies, _reported, _REPORT_SCALE_DB, config.rounds),
        Feature("last", "beam of the round before (action=beam)", _last, size=4),
        Feature("belief", belief, _belief, size=6),
    )
    found = Feature("found", "direction to the network's estimate, in sector units", _found, size=2)
    return {"none": always, "energy": (*always, *reported), "position": (*always, *reported, found)}[config.feedback]


def _middle(view: RisPhaseView) -> Tensor:
    state = view.state
    axes = torch.tensor(RIS_AXES, dtype=state.azimuth_rad.dtype, device=state.azimuth_rad.device)
    return spherical_direction(state.azimuth_rad, state.elevation_rad) @ axes.mT


def _beams(view: RisPhaseView) -> Tensor:
    state = view.state
    return (state.high - state.low) / 2 * torch.tensor(view.config.scene.system.ris_shape, device=state.low.device)


def _progress(view: RisPhaseView) -> Tensor:
    return (view.state.round.to(torch.float32) / view.config.rounds)[:, None, None]


def _reported(view: RisPhaseView) -> Tensor:
    return view.state.reported_db.mean(dim=-1).transpose(1, 2)


def _last(view: RisPhaseView) -> Tensor:
    return view.state.last_action


def _belief(view: RisPhaseView) -> Tensor:
    """Mean over the users of mean, spread and likeliest place of their directions; nothing before the first report."""
    state = view.state
    grid = in_sector_units(state, grid_cosines(view.config, state))
    mean, std = belief_moments(state.log_belief, grid)
    best = state.log_belief.argmax(dim=-1, keepdim=True)
    likeliest = torch.take_along_dim(grid.unsqueeze(2), best.unsqueeze(-1), dim=3).squeeze(3)
    believed = torch.cat((mean, std, likeliest), dim=-1).mean(dim=2)
    return torch.where((state.round > 0)[:, None, None], believed, torch.zeros_like(believed))


def _found(view: RisPhaseView) -> Tensor:
    """Middle of the directions to the network's estimates; nothing before the first round."""
    state = view.state
    found = in_sector_units(state, turned_cosines(state, network_estimate_m(view.config, state))).mean(dim=2)
    return torch.where((state.round > 0)[:, None, None], found, torch.zeros_like(found))
