"""How an episode of the surfaces' game is drawn, and the bound on positions that its profiles allow."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs import draws
from cfpos_envs.physics.ris import channel, information
from cfpos_envs.physics.ris.geometry import (
    azimuth_elevation,
    geometry_valid,
    path_parameters,
    position_jacobian,
    ris_cosines,
    spherical_direction,
    trace_paths,
)
from cfpos_envs.scenarios.ris.world import entry_noise_variance
from cfpos_envs.scenarios.ris_phase.beams import GRID, chirp_phases, sector_grid
from cfpos_envs.scenarios.ris_phase.config import RisPhaseConfig
from cfpos_envs.scenarios.ris_phase.state import RisPhaseState
from cfpos_envs.streams import Streams

_CANDIDATES = 256


def draw_state(config: RisPhaseConfig, streams: Streams, batch: int) -> RisPhaseState:
    """Users, then surfaces such that every user's direction is uniform in their sectors; chirps to begin with.

    The middle of every sector is drawn first, then the first user's offset from it, then the surface is put where it
    sees the user in that direction: so nothing that the surface knows fixes the offset. Further users are uniform in
    what all sectors have in common.
    """
    scene, device = config.scene, streams.device
    system, drop = scene.system, streams["drop"]
    middle = scene.places_m("ue")[0].to(device)
    first = middle + config.ue_box_m * _uniform(drop, batch, 3)
    nominal = middle - scene.places_m("ris").to(device)
    azimuth, elevation = azimuth_elevation(torch.nn.functional.normalize(nominal, dim=-1))
    site = torch.deg2rad(torch.tensor(config.site_deg, dtype=middle.dtype)) * _uniform(drop, batch, config.num_ris, 2)
    azimuth, elevation = azimuth + site[..., 0], elevation + site[..., 1]
    offset = config.sector_rad * _uniform(drop, batch, config.num_ris, 2)
    direction = spherical_direction(azimuth + offset[..., 0], elevation + offset[..., 1])
    distance = nominal.norm(dim=-1) * (1 + config.site_share * _uniform(drop, batch, config.num_ris))
    ris = first.unsqueeze(1) - distance.unsqueeze(-1) * direction
    users = _draw_users(config, drop, first, ris, azimuth, elevation)

    bs = scene.places_m("bs")[0].to(device)
    pair_bs, pair_ris = bs.expand_as(users), ris.unsqueeze(1).expand(-1, config.num_ues, -1, -1)
    rotation = scene.rotation.to(device).expand(batch, config.num_ues, 3, 3)
    incoming, outgoing = ris_cosines(users, pair_bs, pair_ris)
    grid = sector_grid(azimuth, elevation, config.sector_rad, incoming[:, 0], GRID).flatten(2, 3).to(torch.float32)
    low, high = grid.amin(dim=2), grid.amax(dim=2)
    paths = trace_paths(users, pair_bs, pair_ris)
    amplitude = channel.specular_amplitudes(paths, scene.propagation)
    scattered = channel.fading_variances(paths, scene.propagation, system.num_ris_elements).sum(dim=-1)
    entry_variance = entry_noise_variance(scene) + scattered
    fading, noise = streams["fading"], streams["noise"]
    gain_phase = torch.pi * (_uniform(fading, batch, config.num_ues, config.num_ris + 1) + 1)
    white = channel.complex_normal(noise, batch, config.rounds, config.num_ris, config.num_ues)
    # One sample of the block holds the path with its amplitude; the matched filter averages over all of them.
    size = torch.tensor(system.sizes).prod()
    full = amplitude[..., 1:].mT * system.num_ris_elements
    relative = (entry_variance.unsqueeze(1) / size).sqrt() / full
    phases = chirp_phases(low, high, system.ris_shape)
    return RisPhaseState(
        true_position_m=users,
        parameters=path_parameters(users, torch.zeros_like(entry_variance), pair_bs, pair_ris, rotation),
        jacobian=position_jacobian(users, pair_bs, pair_ris, rotation),
        amplitude=amplitude,
        gain_phase_rad=gain_phase,
        entry_variance=entry_variance,
        turned=(outgoing - incoming).transpose(1, 2).to(torch.float32),
        report_noise=white * relative.unsqueeze(1).to(torch.float32),
        estimate_noise=draws.normal(streams["estimate"], batch, config.num_ues, 3, dtype=torch.float64),
        valid=geometry_valid(users, pair_bs, pair_ris, rotation, system.window_m),
        bs_m=bs.expand(batch, 3),
        ris_m=ris,
        azimuth_rad=azimuth,
        elevation_rad=elevation,
        incoming=incoming[:, 0],
        low=low,
        high=high,
        log_belief=torch.zeros(batch, config.num_ris, config.num_ues, GRID * GRID, device=device),
        last_action=torch.zeros(batch, config.num_ris, 4, device=device),
        reported_db=torch.zeros(batch, config.rounds, config.num_ris, config.num_ues, device=device),
        phases=phases,
        position_m=middle.to(torch.float32).expand_as(users).clone(),
        # Before the first pilots all that is known is where users may be.
        given=torch.ones(batch, dtype=torch.bool, device=device),
        round=torch.zeros(batch, dtype=torch.long, device=device),
    )


def position_covariance_m2(
    config: RisPhaseConfig, state: RisPhaseState, relative: Float[Tensor, "B R J"]
) -> Float[Tensor, "B J 3 3"]:
    """Bound of the position's covariance, clock and gains unknown; differentiable in the gains.

    Args:
        config, state: the game.
        relative: power of the array gains over N_R^2.
    """
    system = config.scene.system
    array = relative.clamp(min=1e-12).sqrt().mT.to(state.amplitude) * system.num_ris_elements
    size = torch.cat((state.amplitude[..., :1], state.amplitude[..., 1:] * array), dim=-1)
    gains = torch.polar(size, state.gain_phase_rad)
    found = information.fisher(system.sizes, system.slopes, state.parameters, gains, state.entry_variance)
    effective = information.effective_information(found, information.num_path_unknowns(config.num_ris + 1))
    pair = information.position_information(effective, state.jacobian)
    return information.covariance_bound(information.without_clock(pair))


def played_from_m(state: RisPhaseState) -> Float[Tensor, "B J 3"]:
    """The users' places as the physics holds them: departure and length of the line of sight; hidden."""
    psi, length = state.parameters[..., 0, 2:4], state.parameters[..., 0, 4:5]
    ahead = (1 - psi.square().sum(dim=-1, keepdim=True)).clamp(min=0.0).sqrt()
    return state.bs_m.unsqueeze(1) + length * torch.cat((ahead, psi), dim=-1)


def _draw_users(
    config: RisPhaseConfig,
    generator: draws.Source,
    first: Float[Tensor, "B 3"],
    ris: Float[Tensor, "B R 3"],
    azimuth: Float[Tensor, "B R"],
    elevation: Float[Tensor, "B R"],
) -> Float[Tensor, "B J 3"]:
    """The first user and, by rejection, others in what all sectors have in common."""
    if config.num_ues == 1:
        return first.unsqueeze(1)
    reach = 2 * config.sector_rad * (first.unsqueeze(1) - ris).norm(dim=-1).amin(dim=1)
    shift = _uniform(generator, len(first), _CANDIDATES, 3)
    points = first.unsqueeze(1) + reach[:, None, None] * shift
    seen = torch.nn.functional.normalize(points.unsqueeze(2) - ris.unsqueeze(1), dim=-1)
    a, e = azimuth_elevation(seen)
    inside = ((a - azimuth.unsqueeze(1)).abs() <= config.sector_rad) & (
        (e - elevation.unsqueeze(1)).abs() <= config.sector_rad
    )
    # Those inside come first, in the order drawn; where there are too few, the first user stands in for them.
    order = torch.argsort((~inside.all(dim=-1)).to(torch.int8), dim=1, stable=True)[:, : config.num_ues - 1]
    found = inside.all(dim=-1).gather(1, order)
    others = points.gather(1, order.unsqueeze(-1).expand(-1, -1, 3))
    others = torch.where(found.unsqueeze(-1), others, first.unsqueeze(1))
    return torch.cat((first.unsqueeze(1), others), dim=1)


def _uniform(generator: draws.Source, *shape: int) -> Tensor:
    """Uniform in [-1, 1], double precision."""
    return 2 * draws.uniform(generator, *shape, dtype=torch.float64) - 1
