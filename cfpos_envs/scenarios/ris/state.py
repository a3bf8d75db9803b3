"""What an episode of the localisation game consists of, and what follows from its estimate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cfpos_envs.measurements.ris import RisMeasurements, RisSystem, SisoMeasurements
from cfpos_envs.physics.ris.geometry import Paths, path_parameters, trace_paths
from cfpos_envs.physics.ris.modes import (
    BS_MODES,
    DELAY_MODE,
    UE_MODES,
    mode_vector,
)
from cfpos_envs.scenarios.base import TensorState
from cfpos_envs.scenarios.ris import world
from cfpos_envs.scenarios.ris.config import RisConfig
from cfpos_envs.scenarios.ris.options import RisGameConfig
from cfpos_envs.streams import Streams

_BIAS_POINTS, _BIAS_ZOOMS = 49, 3


@dataclass
class RisState(TensorState):
    """B episodes, J UEs, I base stations, R surfaces.

    Attributes:
        true_position_m [B, J, 3], true_bias_m [B, J, I]: hidden.
        peb_m [B, J], ceb_m [B, J, I]: bounds at the truth; hidden.
        valid [B, J]: the model holds for the UE's place.
        bs_m [B, I, 3], ris_m [B, R, 3], rotation [B, J, 3, 3], phases [B, R, NR]: known.
        received [B, J, I, U1, U2, B1, B2, N]: of every pair, scaled to a mean energy of 1 per sample.
        received_rms [B, J, I]: what it was divided by.
        link_offset_m [B, J-1, 3] or None, siso_phases [B, T, NR], siso_received [B, J, I, T, 2, N]: see
            ``RisMeasurements``.
        position_m [B, J, 3], bias_m [B, J, I]: the estimate.
        round [B]: rounds played.
    """

    true_position_m: Tensor
    true_bias_m: Tensor
    peb_m: Tensor
    ceb_m: Tensor
    valid: Tensor
    bs_m: Tensor
    ris_m: Tensor
    rotation: Tensor
    phases: Tensor
    received: Tensor
    received_rms: Tensor
    link_offset_m: Tensor | None
    siso_phases: Tensor
    siso_received: Tensor
    position_m: Tensor
    bias_m: Tensor
    round: Tensor


def draw_state(config: RisGameConfig, streams: Streams, batch: int) -> RisState:
    """A drop whose estimate is the middle of the area and of the clock's range."""
    scene = world.draw_scene(config, streams, batch)
    phases = world.draw_phases(config, streams, batch)
    received = world.receive(config, scene, phases)
    rms = received.abs().square().mean(dim=(-5, -4, -3, -2, -1)).sqrt()
    peb_m, ceb_m = world.drop_bound(config, scene, phases)
    middle = sum(config.clock_m) / 2
    return RisState(
        true_position_m=scene.ue_m,
        true_bias_m=scene.bias_m,
        peb_m=peb_m.to(torch.float32),
        ceb_m=ceb_m.to(torch.float32),
        valid=world.scene_valid(config, scene),
        bs_m=scene.bs_m,
        ris_m=scene.ris_m,
        rotation=scene.rotation,
        phases=phases.to(torch.complex64),
        received=received / rms[..., None, None, None, None, None],
        received_rms=rms,
        link_offset_m=scene.link_offset_m,
        siso_phases=scene.siso_phases,
        siso_received=scene.siso_received,
        position_m=config.aim_m.to(rms).expand(batch, config.num_ues, 3).clone(),
        bias_m=torch.full_like(rms, middle),
        round=torch.zeros(batch, dtype=torch.long, device=rms.device),
    )


def as_measurements(config: RisConfig, state: RisState) -> RisMeasurements:
    """What the estimators get: the samples at their own scale, and everything known."""
    links = None
    if state.link_offset_m is not None and config.link_std_m is not None:
        eye = torch.eye(3, dtype=state.rotation.dtype, device=state.rotation.device)
        links = (config.link_std_m**2 * eye).expand(*state.link_offset_m.shape, 3)
    return RisMeasurements(
        system=config.system,
        bs_positions_m=state.bs_m,
        ris_positions_m=state.ris_m,
        rotation=state.rotation,
        phases=state.phases,
        received=state.received * state.received_rms[..., None, None, None, None, None],
        link_offset_m=state.link_offset_m,
        link_covariance_m2=links,
        site_ids=torch.zeros_like(state.round),
        siso=SisoMeasurements(state.siso_phases, state.siso_received),
    )


def pair_geometry(state: RisState, position_m: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of every pair: UE at ``position_m`` [B, J, 3], base station, surfaces, rotation, in the estimate's precision."""
    pairs = state.bias_m.shape
    bs, ris, rotation = (known.to(position_m) for known in (state.bs_m, state.ris_m, state.rotation))
    return (
        position_m.unsqueeze(2).expand(*pairs, 3),
        bs.unsqueeze(1).expand(*pairs, 3),
        ris[:, None, None].expand(*pairs, -1, 3),
        rotation.unsqueeze(2).expand(*pairs, 3, 3),
    )


def pair_paths(state: RisState) -> Paths:
    """Directions and lengths [B, J, I, L] of the paths to the estimate."""
    ue, bs, ris, _ = pair_geometry(state, state.position_m)
    return trace_paths(ue, bs, ris)


def pair_parameters(state: RisState, position_m: Tensor, bias_m: Tensor) -> Tensor:
    """[B, J, I, L, 5] path parameters of positions [B, J, 3] and clock biases [B, J, I]."""
    ue, bs, ris, rotation = pair_geometry(state, position_m)
    return path_parameters(ue, bias_m, bs, ris, rotation)


@torch.no_grad()
def best_bias_m(state: RisState, system: RisSystem, position_m: Tensor, low_m: float, high_m: float) -> Tensor:
    """Clock biases [B, J, I] that explain most of the received energy at given positions, metres.

    Towards a given position every path is one tone over the subcarriers, and a bias turns all of them alike: the sum of
    their periodograms is searched on a grid, then on finer ones around its maximum.

    Args:
        state: with received blocks.
        system: the radio.
        position_m: [B, J, 3].
        low_m, high_m: range of the search.
    """
    parameters = pair_parameters(state, position_m, torch.zeros_like(state.bias_m))
    sizes, slopes = system.sizes, system.slopes
    vectors = [mode_vector(parameters[..., m], sizes[m], slopes[m]) for m in range(len(sizes))]
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
