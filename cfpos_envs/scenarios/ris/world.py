"""One drop: where the UEs are, all that is random about their channels, what they receive, and the bounds.

``draw_scene`` draws all there is to draw; ``receive`` is deterministic, so that surfaces may be set afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from cfpos_envs.measurements.ris import RisMeasurements, SisoMeasurements
from cfpos_envs.physics.ris import channel, information
from cfpos_envs.physics.ris import phases as designs
from cfpos_envs.physics.ris.geometry import (
    Paths,
    azimuth_elevation,
    geometry_valid,
    path_parameters,
    position_jacobian,
    ris_cosines,
    trace_paths,
)
from cfpos_envs.physics.ris.modes import steering
from cfpos_envs.physics.ris.siso import draw_siso_samples
from cfpos_envs.physics.units import SPEED_OF_LIGHT_M_S
from cfpos_envs.scenarios.base import TensorState
from cfpos_envs.scenarios.ris.config import RisConfig
from cfpos_envs.streams import Streams

_DESIGNS: dict[str, Callable[..., Tensor]] = {
    "svd": designs.svd_profile,
    "balanced": designs.balanced_profile,
    "chirp": designs.chirp_profile,
}


@dataclass
class Scene(TensorState):
    """B episodes, J UEs, I base stations, R surfaces, L = R + 1 paths. Positions in float64, samples in complex64.

    Attributes:
        bs_m [B, I, 3], ris_m [B, R, 3], rotation [B, J, 3, 3]: known.
        ue_m [B, J, 3], bias_m [B, J, I], blocked [B, J, I], gain_phase_rad [B, J, I, L]: hidden.
        white [B, J, I, U1, U2, B1, B2, N]: fading of the line of sight plus noise.
        scattered [B, J, I, R, U1, U2, N]: what scatters between each surface and the UE.
        link_offset_m [B, J-1, 3]: measured p_0 - p_j; None without links.
        siso_phases [B, T, NR], siso_received [B, J, I, T, 2, N]: see ``SisoMeasurements``.
    """

    bs_m: Tensor
    ris_m: Tensor
    rotation: Tensor
    ue_m: Tensor
    bias_m: Tensor
    blocked: Tensor
    gain_phase_rad: Tensor
    white: Tensor
    scattered: Tensor
    link_offset_m: Tensor | None
    siso_phases: Tensor
    siso_received: Tensor

    @property
    def pairs(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of each pair: UE, base station [B, J, I, 3], surfaces [B, J, I, R, 3] and rotation [B, J, I, 3, 3]."""
        batch = self.bias_m.shape
        return (
            self.ue_m.unsqueeze(2).expand(*batch, 3),
            self.bs_m.unsqueeze(1).expand(*batch, 3),
            self.ris_m[:, None, None].expand(*batch, -1, 3),
            self.rotation.unsqueeze(2).expand(*batch, 3, 3),
        )

    @property
    def paths(self) -> Paths:
        """The paths of every pair."""
        ue, bs, ris, _ = self.pairs
        return trace_paths(ue, bs, ris)

    @property
    def parameters(self) -> Tensor:
        """[B, J, I, L, 5] path parameters of every pair, see ``geometry.path_parameters``."""
        ue, bs, ris, rotation = self.pairs
        return path_parameters(ue, self.bias_m, bs, ris, rotation)


def draw_scene(config: RisConfig, streams: Streams, batch: int) -> Scene:
    """Everything that is random in a batch of episodes.

    Places come from the stream ``drop``, clocks from ``clock``, phases and fading of the paths from ``fading``, noise
    from ``noise``, errors of the links from ``links``, the single-antenna measurement from ``siso``.

    Args:
        config: the scene's options.
        streams: source of the random numbers; its device is the scene's.
        batch: episodes B.
    """
    system, device = config.system, streams.device
    counts = (batch, config.num_ues, config.num_bs)
    drop, fading = streams["drop"], streams["fading"]
    ue = config.places_m("ue").to(device)
    shift = 2 * torch.rand(batch, config.num_ues, 3, generator=drop, device=device, dtype=torch.float64) - 1
    blocked = torch.rand(counts, generator=drop, device=device) < config.los_blocked
    phase = 2 * torch.pi * torch.rand(*counts, config.num_ris + 1, generator=fading, device=device, dtype=torch.float64)
    scene = Scene(
        bs_m=config.places_m("bs").to(device).expand(batch, -1, -1),
        ris_m=config.places_m("ris").to(device).expand(batch, -1, -1),
        rotation=config.rotation.to(device).expand(batch, config.num_ues, -1, -1),
        ue_m=ue + config.ue_box_m * shift,
        bias_m=_draw_bias_m(config, streams, batch),
        blocked=blocked,
        gain_phase_rad=phase,
        white=channel.complex_normal(fading, *counts, *system.sizes),
        scattered=channel.complex_normal(fading, *counts, config.num_ris, *system.ue_shape, system.num_subcarriers),
        link_offset_m=None,
        siso_phases=torch.empty(0),
        siso_received=torch.empty(0),
    )
    fading_std = fading_variances(config, scene).sqrt().to(torch.float32)
    noise_std = entry_noise_variance(config) ** 0.5
    # In place: these are the large tensors of an episode.
    scene.white.mul_(fading_std[..., :1, None, None, None, None])
    scene.white.add_(channel.complex_normal(streams["noise"], *counts, *system.sizes), alpha=noise_std)
    scene.scattered.mul_(fading_std[..., 1:, None, None, None])
    siso = _draw_siso(config, scene, streams)
    return scene.replace(
        link_offset_m=_draw_links_m(config, scene.ue_m, streams),
        siso_phases=siso.phases,
        siso_received=siso.received,
    )


def receive(config: RisConfig, scene: Scene, phases: Tensor) -> Tensor:
    """[B, J, I, U1, U2, B1, B2, N] received blocks under profiles [B, R, NR] of the surfaces; deterministic.

    Args:
        config: the scene's options.
        scene: of ``draw_scene``.
        phases: unit modulus.
    """
    system = config.system
    vectors = steering(system.sizes, system.slopes, scene.parameters)
    return channel.received_block(vectors, gains(config, scene, phases), scene.scattered, scene.white)


def gains(config: RisConfig, scene: Scene, phases: Tensor) -> Tensor:
    """[B, J, I, L] complex gains of the paths; 0 for a blocked line of sight.

    Args:
        config, scene, phases: see ``receive``.
    """
    amplitudes = channel.specular_amplitudes(scene.paths, config.propagation)
    found = channel.path_gains(amplitudes, scene.gain_phase_rad, array_gains(config, scene, phases))
    return torch.cat((found[..., :1] * ~scene.blocked.unsqueeze(-1), found[..., 1:]), dim=-1)


def array_gains(config: RisConfig, scene: Scene, phases: Tensor) -> Tensor:
    """[B, J, I, R] array gains rho of the surfaces.

    Args:
        config, scene, phases: see ``receive``.
    """
    ue, bs, ris, _ = scene.pairs
    incoming, outgoing = ris_cosines(ue, bs, ris)
    return designs.array_gain(phases[:, None, None].to(torch.complex128), outgoing, incoming, config.system.ris_shape)


def measurements(config: RisConfig, scene: Scene, phases: Tensor, received: Tensor | None = None) -> RisMeasurements:
    """What the estimators get.

    Args:
        config, scene, phases: see ``receive``.
        received: of ``receive``; None: made here.
    """
    batch, links = len(scene.ue_m), None
    if scene.link_offset_m is not None and config.link_std_m is not None:
        eye = torch.eye(3, dtype=scene.ue_m.dtype, device=scene.ue_m.device)
        links = (config.link_std_m**2 * eye).expand(batch, config.num_ues - 1, 3, 3)
    return RisMeasurements(
        system=config.system,
        bs_positions_m=scene.bs_m,
        ris_positions_m=scene.ris_m,
        rotation=scene.rotation,
        phases=phases,
        received=receive(config, scene, phases) if received is None else received,
        link_offset_m=scene.link_offset_m,
        link_covariance_m2=links,
        site_ids=torch.zeros(batch, dtype=torch.long, device=scene.ue_m.device),
        siso=SisoMeasurements(scene.siso_phases, scene.siso_received),
    )


def scene_valid(config: RisConfig, scene: Scene) -> Tensor:
    """[B, J] whether the model holds for a UE and all its base stations, see ``geometry.geometry_faults``."""
    return geometry_valid(*scene.pairs, config.system.window_m).all(dim=-1)


def pair_information(config: RisConfig, scene: Scene, phases: Tensor) -> Tensor:
    """[B, J, I, 4, 4] information on position and clock bias of every pair by itself.

    Args:
        config, scene, phases: see ``receive``.
    """
    system = config.system
    noise = entry_noise_variance(config) + fading_variances(config, scene).sum(dim=-1)
    found = information.fisher(system.sizes, system.slopes, scene.parameters, gains(config, scene, phases), noise)
    effective = information.effective_information(found, information.num_path_unknowns(config.num_ris + 1))
    return information.position_information(effective, position_jacobian(*scene.pairs))


def drop_bound(config: RisConfig, scene: Scene, phases: Tensor) -> tuple[Tensor, Tensor]:
    """PEB [B, J] and CEB [B, J, I] in metres with all base stations, and links between UEs where there are any.

    Args:
        config, scene, phases: see ``receive``.
    """
    pairs = pair_information(config, scene, phases)
    alone = information.without_clock(pairs).sum(dim=2)
    links = None
    if config.link_std_m is not None:
        eye = torch.eye(3, dtype=alone.dtype, device=alone.device)
        links = (config.link_std_m**2 * eye).expand(len(alone), config.num_ues - 1, 3, 3)
    covariance = information.cooperative_covariance(alone, links)
    peb = information.root_trace(covariance)
    ceb = information.clock_variance(pairs, covariance.nan_to_num(posinf=0.0).unsqueeze(2)).sqrt()
    return peb, torch.where(torch.isfinite(peb).unsqueeze(-1), ceb, torch.inf)


def draw_phases(config: RisConfig, streams: Streams, batch: int) -> Tensor:
    """[B, R, NR] profiles of the configured design; random ones come from the stream ``surfaces``."""
    if config.phases == "random":
        return designs.random_profiles(streams["surfaces"], batch, config.num_ris, config.system.num_ris_elements)
    return design(config).to(streams.device).expand(batch, -1, -1)


def design(config: RisConfig) -> Tensor:
    """[R, NR] profiles that serve the sector around the middle of the UEs.

    Args:
        config: with a design other than ``random``.
    """
    aim, bs, ris = config.aim_m, config.places_m("bs"), config.places_m("ris")
    incoming, _ = ris_cosines(aim.expand(len(bs), 3), bs, ris.expand(len(bs), -1, -1))
    azimuth, elevation = azimuth_elevation(torch.nn.functional.normalize(aim - ris, dim=-1))
    half = float(torch.deg2rad(torch.tensor(config.sector_deg, dtype=torch.float64)))
    profiles = []
    for r in range(config.num_ris):
        arriving = tuple((float(x), float(y)) for x, y in incoming[:, r])
        where = (float(azimuth[r]), float(elevation[r]))
        profiles.append(_DESIGNS[config.phases](config.system.ris_shape, arriving, *where, half))
    return torch.stack(profiles)


def noise_w(config: RisConfig) -> float:
    """sigma^2, noise power per received sample: P h^2 / SNR of the unchanged preset."""
    return _reference_power_w(config.preset) / 10 ** (config.snr_db / 10)


def entry_noise_variance(config: RisConfig) -> float:
    """Variance of the noise in every entry of a received block."""
    system = config.system
    return channel.estimate_noise_variance(noise_w(config), system.num_bs_antennas, system.num_slots, system.power_w)


@lru_cache(maxsize=8)
def _reference_power_w(preset: str) -> float:
    """P h^2 with h^2 = sum of |g_l|^2, which random phases of the gains do not change."""
    config = RisConfig(preset=preset)
    ue, bs, ris = config.places_m("ue")[0], config.places_m("bs")[0], config.places_m("ris")
    incoming, outgoing = ris_cosines(ue, bs, ris)
    found = channel.path_gains(
        channel.specular_amplitudes(trace_paths(ue, bs, ris), config.propagation),
        torch.zeros(config.num_ris + 1, dtype=torch.float64),
        designs.array_gain(design(config), outgoing, incoming, config.system.ris_shape),
    )
    return config.power_w * float(found.abs().square().sum())


def fading_variances(config: RisConfig, scene: Scene) -> Tensor:
    """[B, J, I, L] fading per entry of a block; nothing scatters along a blocked line of sight."""
    found = channel.fading_variances(scene.paths, config.propagation, config.system.num_ris_elements)
    return torch.cat((found[..., :1] * ~scene.blocked.unsqueeze(-1), found[..., 1:]), dim=-1)


def _draw_bias_m(config: RisConfig, streams: Streams, batch: int) -> Tensor:
    """[B, J, I]: one clock per UE, and every further base station's a step later."""
    low, high = config.bias_range_ns
    drawn = torch.rand(batch, config.num_ues, 1, generator=streams["clock"], device=streams.device, dtype=torch.float64)
    ue = torch.arange(config.num_ues, device=streams.device, dtype=torch.float64).unsqueeze(-1)
    bs = torch.arange(config.num_bs, device=streams.device, dtype=torch.float64)
    return 1e-9 * SPEED_OF_LIGHT_M_S * (low + (high - low) * drawn + config.bias_step_ns * (ue + bs))


def _draw_links_m(config: RisConfig, ue_m: Tensor, streams: Streams) -> Tensor | None:
    if config.link_std_m is None or config.num_ues < 2:
        return None
    truth = ue_m[:, :1] - ue_m[:, 1:]
    error = torch.randn(truth.shape, generator=streams["links"], device=truth.device, dtype=truth.dtype)
    return truth + config.link_std_m * error


def _draw_siso(config: RisConfig, scene: Scene, streams: Streams) -> SisoMeasurements:
    """First surface alone; its profiles are the same in all episodes of a seed, power and noise those of the block."""
    system = config.system
    profiles = designs.random_profiles(
        streams.fresh("profiles"), max(system.num_slots // 2, 1), system.num_ris_elements
    )
    ue, bs, ris, _ = scene.pairs
    incoming, outgoing = ris_cosines(ue, bs, ris[..., :1, :])
    first = scene.paths
    amplitude = channel.specular_amplitudes(first, config.propagation)[..., :2]
    received = draw_siso_samples(
        streams["siso"],
        profiles,
        system.ris_shape,
        outgoing.squeeze(-2),
        incoming.squeeze(-2),
        scene.parameters[..., :2, 4],
        torch.polar(amplitude, scene.gain_phase_rad[..., :2]) * _present(scene),
        channel.fading_variances(first, config.propagation, 1)[..., :2] * _present(scene),
        noise_w(config) / system.power_w,
        system.num_subcarriers,
        system.slopes[4],
    )
    return SisoMeasurements(profiles.to(torch.complex64).expand(len(ue), -1, -1), received)


def _present(scene: Scene) -> Tensor:
    """[B, J, I, 2] of line of sight and surface: false where blocked."""
    return torch.stack((~scene.blocked, torch.ones_like(scene.blocked)), dim=-1)
