"""Sites and drops of the DCP games: where everything is, what is wrong with the site, and what the APs measure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from cfpos_envs import draws
from cfpos_envs.physics import geometry, propagation
from cfpos_envs.physics.chunks import by_chunks, chunk_rows
from cfpos_envs.physics.dcp import channel
from cfpos_envs.physics.dcp.innovations import predicted_rss_dbm
from cfpos_envs.physics.dcp.links import link_geometry
from cfpos_envs.physics.dcp.model import RadioModel
from cfpos_envs.physics.units import watts_to_dbm
from cfpos_envs.scenarios.ap_game import user_ways
from cfpos_envs.scenarios.dcp.config import DcpConfig
from cfpos_envs.scenarios.dcp.drop_kernel import DropKernel
from cfpos_envs.scenarios.dcp.sites import DcpSiteConfig
from cfpos_envs.scenarios.sites import Places, SitePool, draw_places
from cfpos_envs.streams import Streams

_MAX_REDRAWS = 1000
_LEAST_SHARE = 1e-6
"""Of blocked links, to divide by; that of native/episode.cpp."""


@dataclass(frozen=True)
class DcpSite(Places):
    """One site, fixed over all its episodes. M APs; hidden entries are never observed.

    Attributes:
        orientation_error_rad [D, M], rss_bias_db [D, M], bearing_noise_rad [M]: hidden miscalibration, drop by drop.
        shadowing_maps [M, G, G] dB; shadowing_std_db: hidden unless ``shadowing_known``.
        nlos_share: share of blocked links.
        candidates_m [P, 2], candidate_rss_dbm [M, P], candidate_angle_rad [M, P]: the coarse grid and its prediction.
    """

    orientation_error_rad: Tensor
    rss_bias_db: Tensor
    bearing_noise_rad: Tensor
    shadowing_maps: Tensor
    shadowing_std_db: float
    nlos_share: float
    candidates_m: Tensor
    candidate_rss_dbm: Tensor
    candidate_angle_rad: Tensor


def draw_site(config: DcpConfig, streams: Streams, index: int) -> DcpSite:
    """Layout, orientations, shadowing maps and miscalibration of site ``index``, each from its own stream."""
    settings, device = config.settings_of(index), streams.device
    layout = streams.fresh("layout", index)
    places = draw_places(
        settings, config.site_file, config.ue_height_m, layout, settings.wrap, settings.orientation_deg
    )
    maps_stream = streams.fresh("map", index)
    std_db = settings.shadowing_db
    if settings.shadowing_random:
        std_db *= float(draws.uniform(maps_stream, 1))
    maps = propagation.shadowing_maps(
        maps_stream,
        settings.num_aps,
        settings.side_m,
        settings.wrap,
        settings.map_resolution_m,
        std_db,
        settings.shadowing_decorrelation_m,
    )
    faults = streams.fresh("impairments", index)
    biased, bias_sign, offset = draws.uniform(faults, 3, settings.num_aps)
    walk_rad, presence = _drift(settings, streams, index, config.drops)
    # An exact share, not a coin per AP: sites of one preset then differ in which APs are wrong, not in how many.
    is_biased = biased.argsort().argsort() < round(settings.biased_share * settings.num_aps)
    bias_db = torch.where(bias_sign < 0.5, -settings.bias_db, settings.bias_db)
    if settings.bias_law == "student":
        bias_db = settings.bias_db * _student_t3(streams.fresh("bias", index), settings.num_aps)
    candidates = geometry.lattice(settings.side_m, min(config.coarse_spacing_m, settings.side_m)).to(device)
    links = link_geometry(
        places.ap_positions_m,
        places.ap_orientation_rad,
        places.height_diff_m,
        candidates,
        settings.side_m,
        settings.wrap,
    )
    known = (
        propagation.sample_maps(maps, candidates, settings.side_m, settings.wrap) if config.shadowing_known else None
    )
    return DcpSite(
        **vars(places),
        orientation_error_rad=(2 * offset - 1) * math.radians(settings.array_offset_deg) + walk_rad,
        rss_bias_db=is_biased * bias_db * presence,
        bearing_noise_rad=is_biased * math.radians(settings.bearing_noise_deg),
        shadowing_maps=maps,
        shadowing_std_db=std_db,
        nlos_share=settings.nlos_share,
        candidates_m=candidates,
        candidate_rss_dbm=predicted_rss_dbm(config.radio, links, known),
        candidate_angle_rad=links.angle_rad,
    )


def _drift(settings: DcpSiteConfig, streams: Streams, index: int, drops: int) -> tuple[Tensor, Tensor]:
    """[D, M] how far every array has turned since the first drop of a site, radians, and the share of biases there."""
    drift = streams.fresh("drift", index)
    # First, so that a site's first drop does not depend on how many follow.
    phase = draws.uniform(drift, 1, settings.num_aps)
    steps = draws.normal(drift, drops, settings.num_aps)
    walk_rad = math.radians(settings.orientation_walk_deg) * (steps.cumsum(dim=0) - steps[:1])
    if settings.bias_period_drops == 0.0:
        return walk_rad, torch.ones_like(walk_rad)
    turns = torch.arange(drops, device=phase.device).unsqueeze(1) / settings.bias_period_drops + phase
    return walk_rad, 0.5 * (1.0 - torch.cos(2.0 * math.pi * turns))


def _student_t3(source: draws.Source, count: int) -> Tensor:
    """Student-t numbers of three degrees of freedom: a normal one over the root mean square of three others."""
    numbers = draws.normal(source, 4, count)
    return numbers[0] / numbers[1:].square().mean(dim=0).sqrt()


@dataclass(frozen=True)
class DcpDrop:
    """Users of B episodes over T measurement rounds (T = 1 when static) and what the APs measure of them.

    Attributes:
        true_position_m: [B, T, K, 2] hidden.
        covariance: [B, T, M, K, L, L] sample covariance of the LS estimates, eqs. (1)-(3).
        rss_dbm: [B, T, M, K] eq. (4), with the AP's bias.
    """

    true_position_m: Tensor
    covariance: Tensor
    rss_dbm: Tensor


def draw_drop(
    config: DcpConfig,
    pool: SitePool[DcpSite],
    site_ids: Tensor,
    streams: Streams,
    kernel: DropKernel | None = None,
    drop: int = 0,
) -> DcpDrop:
    """Positions, path angles, fading and noise of a batch of episodes; with a kernel the costly part is compiled.

    ``drop`` is the number of the drop on its site, where faults drift.

    Positions and blocked links come from the stream ``drop``, path angles and sample covariances from ``fading``.
    """
    settings, batch, num_ues = config.settings, len(site_ids), config.num_ues
    ap_positions = pool.stack(site_ids, "ap_positions_m")
    positions = draw_positions(config, ap_positions, streams)
    times = positions.shape[1]
    true_orientation = (
        pool.stack(site_ids, "ap_orientation_rad") + pool.stack(site_ids, "orientation_error_rad")[:, drop]
    )
    # [B, M, T*K]: the rounds of a moving user are further points of the same site.
    links = link_geometry(
        ap_positions,
        true_orientation,
        pool.stack(site_ids, "height_diff_m"),
        positions.flatten(1, 2),
        settings.side_m,
        settings.wrap,
    )
    drop_stream, shape = streams["drop"], (batch, settings.num_aps, num_ues)
    blocked, turn, side = (draws.uniform(drop_stream, *shape) for _ in range(3))
    noise = draws.normal(drop_stream, *shape)
    is_blocked = (blocked < pool.stack(site_ids, "nlos_share").view(-1, 1, 1)).float()
    low, high = math.radians(settings.nlos_offset_min_deg), math.radians(settings.nlos_offset_max_deg)
    detour = is_blocked * (low + (high - low) * turn) * torch.where(side < 0.5, -1.0, 1.0)
    detour = detour + noise * pool.stack(site_ids, "bearing_noise_rad").unsqueeze(-1)
    gain_db = propagation.path_gain_db(
        links.distance_3d_m, config.radio.path_loss_intercept_db, config.radio.path_loss_slope_db
    )
    gain_db = gain_db + _shadowing_db(pool, site_ids, positions.flatten(1, 2), settings)
    # Where it is below the share, a uniform number over that share is uniform again.
    further = blocked / pool.stack(site_ids, "nlos_share").clamp(min=_LEAST_SHARE).view(-1, 1, 1)
    loss_db = (settings.nlos_loss_db + settings.nlos_loss_spread_db * further) * is_blocked
    gain_db = gain_db - loss_db.repeat(1, 1, times)
    angle_rad = links.angle_rad + detour.repeat(1, 1, times)
    if kernel is None:
        covariance = _sample_covariance(config, angle_rad, gain_db, streams)
        rss_w = channel.rss_w(covariance, config.radio.tx_power_w, config.radio.num_pilots)
    else:
        covariance, trace = kernel.sample(streams["fading"], angle_rad, gain_db)
        rss_w = config.radio.tx_power_w * config.radio.num_pilots * trace
    rss = watts_to_dbm(rss_w)
    rss = rss + pool.stack(site_ids, "rss_bias_db")[:, drop].unsqueeze(-1)

    def by_round(values: Tensor) -> Tensor:
        return values.unflatten(2, (times, num_ues)).transpose(1, 2)

    return DcpDrop(positions, by_round(covariance), by_round(rss))


def draw_positions(config: DcpConfig, ap_positions_m: Tensor, streams: Streams) -> Tensor:
    """[B, T, K, 2] users in all rounds, T = 1 where they stand still."""
    return user_ways(config, _starting_points(config, ap_positions_m, streams), config.settings.wrap, streams)


def _starting_points(config: DcpConfig, ap_positions_m: Tensor, streams: Streams) -> Tensor:
    """[B, K, 2] uniform in the area, each redrawn until it keeps ``min_ue_distance_m`` from every AP."""
    settings, generator = config.settings, streams["drop"]
    shape = (len(ap_positions_m), config.num_ues, 2)
    points = draws.uniform(generator, *shape) * settings.side_m
    if settings.min_ue_distance_m == 0.0:
        return points
    for source in draws.tries(generator, _MAX_REDRAWS, *shape):
        vectors = geometry.displacement(ap_positions_m, points, settings.side_m, settings.wrap)
        nearest_m = torch.linalg.vector_norm(vectors, dim=-1).amin(dim=-2)
        is_close = (nearest_m < settings.min_ue_distance_m).unsqueeze(-1)
        if not bool(is_close.any()):
            return points
        others = draws.uniform(source, *shape) * settings.side_m
        points = torch.where(is_close, others, points)
    raise ValueError(
        f"no user finds a place min_ue_distance_m={settings.min_ue_distance_m} from every AP in a square of "
        f"{settings.side_m} m; lower it"
    )


def _shadowing_db(pool: SitePool[DcpSite], site_ids: Tensor, points_m: Tensor, settings: DcpSiteConfig) -> Tensor:
    shadowing = torch.zeros(len(site_ids), settings.num_aps, points_m.shape[1], device=points_m.device)
    for index in torch.unique(site_ids):
        chosen = torch.nonzero(site_ids == index).squeeze(-1)
        flat = points_m[chosen].flatten(0, 1)
        values = propagation.sample_maps(pool[int(index)].shadowing_maps, flat, settings.side_m, settings.wrap)
        shadowing[chosen] = values.unflatten(1, (len(chosen), -1)).transpose(0, 1)
    return shadowing


def _sample_covariance(config: DcpConfig, angle_rad: Tensor, gain_db: Tensor, streams: Streams) -> Tensor:
    radio, fading = config.radio, streams["fading"]
    angles = channel.path_angles(fading, angle_rad, radio.num_paths, radio.angular_spread_rad)
    white = channel.draw_white(fading, gain_db.shape, radio.num_antennas, radio.snapshots)
    per_row = gain_db[0].numel() * radio.num_antennas**2
    return by_chunks(partial(_coloured, radio), chunk_rows(per_row, gain_db.device), angles, gain_db, white)


def _coloured(radio: RadioModel, angles_rad: Tensor, gain_db: Tensor, white: Tensor) -> Tensor:
    """Sample covariances of channels with the given path angles and gains from the random part ``white``."""
    gain = torch.pow(10.0, gain_db / 10.0)
    # Eq. (3): the LS estimate is the channel plus noise of power sigma^2 / (p tau_p) per antenna.
    noise = radio.noise_power_w / (radio.tx_power_w * radio.num_pilots)
    # Double precision and unit gain: close to an AP the noise lies 75 dB below the signal, which float32 cannot tell
    # from a singular matrix.
    covariance = channel.channel_covariance(
        angles_rad.double(), torch.ones_like(gain).double(), radio.num_antennas, radio.spacing_wavelengths
    )
    identity = torch.eye(radio.num_antennas, device=gain.device)
    noisy = covariance + (noise / gain)[..., None, None] * identity
    sampled = channel.sample_covariance_of(noisy, white, radio.snapshots)
    return gain[..., None, None] * sampled
