"""One drop: where the UEs are, all that is random about their channels, what they receive, and the bounds.

``draw_scene`` draws all there is to draw; ``receive`` is deterministic, so that surfaces may be set afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from cfpos_envs import draws
from cfpos_envs.measurements.ris import RisMeasurements, SisoMeasurements
from cfpos_envs.physics.ris import channel, information
from cfpos_envs.physics.ris import phases as designs
from cfpos_envs.physics.ris.geometry import (
    azimuth_elevation,
    geometry_valid,
    position_jacobian,
    ris_cosines,
    trace_paths,
)
from cfpos_envs.physics.ris.modes import steering
from cfpos_envs.physics.ris.siso import draw_siso_samples
from cfpos_envs.physics.units import SPEED_OF_LIGHT_M_S
from cfpos_envs.scenarios.ris.config import RisConfig, RisGameConfig
from cfpos_envs.scenarios.ris.state import RisState, Scene, as_measurements, link_covariance_m2
from cfpos_envs.streams import Streams

_DESIGNS: dict[str, Callable[..., Tensor]] = {
    "svd": designs.svd_profile,
    "balanced": designs.balanced_profile,
    "chirp": designs.chirp_profile,
}


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
    shift = 2 * draws.uniform(drop, batch, config.num_ues, 3, dtype=torch.float64) - 1
    blocked = draws.uniform(drop, *counts) < config.los_blocked
    phase = 2 * torch.pi * draws.uniform(fading, *counts, config.num_ris + 1, dtype=torch.float64)
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


def receive(
    config: RisConfig, scene: Scene, phases: Complex[Tensor, "B R NR"]
) -> Complex[Tensor, "B J I U1 U2 B1 B2 N"]:
    """Received blocks under profiles of the surfaces; deterministic.

    Args:
        config: the scene's options.
        scene: of ``draw_scene``.
        phases: unit modulus.
    """
    system = config.system
    vectors = steering(system.sizes, system.slopes, scene.parameters)
    return channel.received_block(vectors, gains(config, scene, phases), scene.scattered, scene.white)


def gains(config: RisConfig, scene: Scene, phases: Complex[Tensor, "B R NR"]) -> Complex[Tensor, "B J I L"]:
    """Complex gains of the paths; 0 for a blocked line of sight."""
    amplitudes = channel.specular_amplitudes(scene.paths, config.propagation)
    found = channel.path_gains(amplitudes, scene.gain_phase_rad, array_gains(config, scene, phases))
    return torch.cat((found[..., :1] * ~scene.blocked.unsqueeze(-1), found[..., 1:]), dim=-1)


def array_gains(config: RisConfig, scene: Scene, phases: Complex[Tensor, "B R NR"]) -> Complex[Tensor, "B J I R"]:
    """Array gains rho of the surfaces."""
    ue, bs, ris, _ = scene.pairs
    incoming, outgoing = ris_cosines(ue, bs, ris)
    return designs.array_gain(phases[:, None, None].to(torch.complex128), outgoing, incoming, config.system.ris_shape)


def measurements(config: RisConfig, scene: Scene, phases: Complex[Tensor, "B R NR"]) -> RisMeasurements:
    """What the estimators get."""
    return as_measurements(config, scene, phases, receive(config, scene, phases))


def scene_valid(config: RisConfig, scene: Scene) -> Bool[Tensor, "B J"]:
    """Whether the model holds for a UE and all its base stations, see ``geometry.geometry_faults``."""
    return geometry_valid(*scene.pairs, config.system.window_m).all(dim=-1)


def pair_information(config: RisConfig, scene: Scene, phases: Complex[Tensor, "B R NR"]) -> Float[Tensor, "B J I 4 4"]:
    """Information on position and clock bias of every pair by itself."""
    system = config.system
    noise = entry_noise_variance(config) + fading_variances(config, scene).sum(dim=-1)
    found = information.fisher(system.sizes, system.slopes, scene.parameters, gains(config, scene, phases), noise)
    effective = information.effective_information(found, information.num_path_unknowns(config.num_ris + 1))
    return information.position_information(effective, position_jacobian(*scene.pairs))


def drop_bound(
    config: RisConfig, scene: Scene, phases: Complex[Tensor, "B R NR"]
) -> tuple[Float[Tensor, "B J"], Float[Tensor, "B J I"]]:
    """PEB and CEB in metres with all base stations, and links between UEs where there are any."""
    pairs = pair_information(config, scene, phases)
    alone = information.without_clock(pairs).sum(dim=2)
    covariance = information.cooperative_covariance(alone, link_covariance_m2(config, alone))
    peb = information.root_trace(covariance)
    ceb = information.clock_variance(pairs, covariance.nan_to_num(posinf=0.0).unsqueeze(2)).sqrt()
    return peb, torch.where(torch.isfinite(peb).unsqueeze(-1), ceb, torch.inf)


def draw_phases(config: RisConfig, streams: Streams, batch: int) -> Complex[Tensor, "B R NR"]:
    """Profiles of the configured design; random ones come from the stream ``surfaces``."""
    if config.phases == "random":
        return designs.random_profiles(streams["surfaces"], batch, config.num_ris, config.system.num_ris_elements)
    return design(config).to(streams.device).expand(batch, -1, -1)


def design(config: RisConfig) -> Complex[Tensor, "R NR"]:
    """Profiles that serve the sector around the middle of the UEs.

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


def fading_variances(config: RisConfig, scene: Scene) -> Float[Tensor, "B J I L"]:
    """Fading per entry of a block; nothing scatters along a blocked line of sight."""
    found = channel.fading_variances(scene.paths, config.propagation, config.system.num_ris_elements)
    return torch.cat((found[..., :1] * ~scene.blocked.unsqueeze(-1), found[..., 1:]), dim=-1)


def draw_state(config: RisGameConfig, streams: Streams, batch: int) -> RisState:
    """A drop whose estimate is the middle of the area and of the clock's range."""
    scene = draw_scene(config, streams, batch)
    phases = draw_phases(config, streams, batch)
    received = receive(config, scene, phases)
    rms = received.abs().square().mean(dim=(-5, -4, -3, -2, -1)).sqrt()
    peb_m, ceb_m = drop_bound(config, scene, phases)
    return RisState(
        true_position_m=scene.ue_m,
        true_bias_m=scene.bias_m,
        peb_m=peb_m.to(torch.float32),
        ceb_m=ceb_m.to(torch.float32),
        valid=scene_valid(config, scene),
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
        bias_m=torch.full_like(rms, sum(config.clock_m) / 2),
        round=torch.zeros(batch, dtype=torch.long, device=rms.device),
    )


def _draw_bias_m(config: RisConfig, streams: Streams, batch: int) -> Tensor:
    """[B, J, I]: one clock per UE, and every further base station's a step later."""
    low, high = config.bias_range_ns
    drawn = draws.uniform(streams["clock"], batch, config.num_ues, 1, dtype=torch.float64)
    ue = torch.arange(config.num_ues, device=streams.device, dtype=torch.float64).unsqueeze(-1)
    bs = torch.arange(config.num_bs, device=streams.device, dtype=torch.float64)
    return 1e-9 * SPEED_OF_LIGHT_M_S * (low + (high - low) * drawn + config.bias_step_ns * (ue + bs))


def _draw_links_m(config: RisConfig, ue_m: Float[Tensor, "B J 3"], streams: Streams) -> Tensor | None:
    if config.link_std_m is None or config.num_ues < 2:
        return None
    truth = ue_m[:, :1] - ue_m[:, 1:]
    error = draws.normal(streams["links"], *truth.shape, dtype=truth.dtype)
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
