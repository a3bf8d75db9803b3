"""From actions to profiles and back, and from what was reported of them to what the network believes."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.scenarios.features import Row
from cfpos_envs.scenarios.ris_phase.beams import GRID, beam_phases, chirp_phases, relative_gain, sector_grid, to_db
from cfpos_envs.scenarios.ris_phase.config import RisPhaseConfig
from cfpos_envs.scenarios.ris_phase.state import RisPhaseState, in_sector_units, turned_cosines
from cfpos_envs.scenarios.ris_phase.world import played_from_m, position_covariance_m2

LOST_M = 10.0
"""Errors and bounds are at most this: users are inside the hall."""

# Actions and profiles ----------------------------------------------------------------------------------------------


def action_rows(config: RisPhaseConfig) -> tuple[Row, ...]:
    """The entries of an action; all zero is the chirp over the sector."""
    if config.action == "raw":
        meaning = "rad, added to the chirp over the sector at every element; rows first"
        return (Row("phase", meaning, math.pi, math.prod(config.scene.system.ris_shape)),)
    return (
        Row("direction", "along each axis: middle of the beam in half-widths of the sector from its middle", size=2),
        Row("width", "along each axis: half-width is 1 + a times the sector's; -1 is a pencil beam", size=2),
    )


def profile_phases(
    config: RisPhaseConfig, state: RisPhaseState, actions: Float[Tensor, "B R act"]
) -> Float[Tensor, "B R n1 n2"]:
    """Radians of what actions in [-1, 1] ask for."""
    shape = config.scene.system.ris_shape
    if config.action == "beam":
        return beam_phases(state.low, state.high, actions, shape)
    return chirp_phases(state.low, state.high, shape) + math.pi * actions.unflatten(-1, shape)


def encode_profiles(state: RisPhaseState, phases: Float[Tensor, "B R n1 n2"]) -> Float[Tensor, "B R act"]:
    """Raw actions that play phases given in radians."""
    n1, n2 = phases.shape[-2:]
    extra = phases - chirp_phases(state.low, state.high, (n1, n2))
    return (torch.remainder(extra / math.pi + 1.0, 2.0) - 1.0).flatten(2)


def encode_beams(
    config: RisPhaseConfig, state: RisPhaseState, positions_m: Float[Tensor, "B J 3"]
) -> Float[Tensor, "B R act"]:
    """Actions by which every surface points a pencil beam at the middle of positions."""
    turned = turned_cosines(state, positions_m).mean(dim=2, keepdim=True)
    direction = in_sector_units(state, turned).squeeze(2).clamp(-1.0, 1.0)
    beam = torch.cat((direction, -torch.ones_like(direction)), dim=-1)
    if config.action == "beam":
        return beam
    return encode_profiles(state, beam_phases(state.low, state.high, beam, config.scene.system.ris_shape))


# Beliefs and the estimate ------------------------------------------------------------------------------------------


def grid_cosines(config: RisPhaseConfig, state: RisPhaseState) -> Float[Tensor, "B R P 2"]:
    """Turned cosines of the directions on which the belief lives."""
    grid = sector_grid(state.azimuth_rad, state.elevation_rad, config.sector_rad, state.incoming, GRID)
    return grid.flatten(2, 3).to(torch.float32)


def after_report(
    config: RisPhaseConfig,
    state: RisPhaseState,
    actions: Float[Tensor, "B R act"],
    phases: Float[Tensor, "B R n1 n2"],
    reported_db: Float[Tensor, "B R J"],
) -> RisPhaseState:
    """The state after a round: profiles that were played, energies that were reported, beliefs that follow."""
    belief = state.log_belief
    if config.feedback != "none":
        pattern = to_db(relative_gain(phases, grid_cosines(config, state)))
        belief = updated_belief(belief, reported_db, pattern, config.report_db)
    now = torch.arange(config.rounds, device=reported_db.device) == state.round.unsqueeze(-1)
    return state.replace(
        log_belief=belief,
        last_action=actions if config.action == "beam" else state.last_action,
        reported_db=torch.where(now[..., None, None], reported_db.unsqueeze(1), state.reported_db),
        phases=phases,
        given=torch.zeros_like(state.given),
        round=state.round + 1,
    )


def updated_belief(
    log_belief: Float[Tensor, "B R J P"],
    reported_db: Float[Tensor, "B R J"],
    pattern_db: Float[Tensor, "B R P"],
    std_db: float,
) -> Float[Tensor, "B R J P"]:
    """Logarithm, up to a constant, of the probability of every direction after an energy has been reported.

    Args:
        log_belief: before.
        reported_db: the energies.
        pattern_db: what the profile gives in each direction.
        std_db: standard deviation of reported energies.
    """
    misfit = (reported_db.unsqueeze(-1) - pattern_db.unsqueeze(2)) / std_db
    belief = log_belief - 0.5 * misfit.square()
    return belief - belief.amax(dim=-1, keepdim=True)


def belief_moments(
    log_belief: Float[Tensor, "B R J P"], directions: Float[Tensor, "B R P 2"]
) -> tuple[Float[Tensor, "B R J 2"], Float[Tensor, "B R J 2"]]:
    """Mean and standard deviation of the direction, in the unit of ``directions``."""
    share = torch.softmax(log_belief, dim=-1).to(directions)
    mean = share @ directions
    square = share @ directions.square()
    return mean, (square - mean.square()).clamp(min=0.0).sqrt()


def network_estimate_m(config: RisPhaseConfig, state: RisPhaseState) -> Float[Tensor, "B J 3"]:
    """Where the network takes the users to be after the profiles that were played last."""
    covariance = position_covariance_m2(config, state, relative_gain(state.phases, state.turned))
    found = efficient_estimate_m(state, covariance).to(state.position_m)
    return torch.where(state.given[:, None, None], state.position_m, found)


def efficient_estimate_m(state: RisPhaseState, covariance_m2: Float[Tensor, "B J 3 3"]) -> Float[Tensor, "B J 3"]:
    """What an estimator at the bound answers, by noise that was drawn with the episode; differentiable.

    Args:
        state: the game's.
        covariance_m2: bound; where it is not finite, of a user anywhere within ``LOST_M``.
    """
    limit = LOST_M**2 / 3 * torch.eye(3, dtype=covariance_m2.dtype, device=covariance_m2.device)
    known = torch.isfinite(covariance_m2).all(dim=-1).all(dim=-1)[..., None, None]
    root = torch.linalg.cholesky(torch.where(known, covariance_m2, limit) + 1e-14 * limit)
    error = (root @ state.estimate_noise.unsqueeze(-1)).squeeze(-1)
    length = torch.linalg.vector_norm(error, dim=-1, keepdim=True)
    return played_from_m(state) + error * (LOST_M / length.clamp(min=LOST_M))
