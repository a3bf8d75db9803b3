"""Sites and drops of the time-based games: where everything is, which views are blocked, and what the APs measure."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cfpos_envs import draws
from cfpos_envs.physics import los
from cfpos_envs.physics.toa import ranging as timing
from cfpos_envs.physics.toa.bounds import unit_vectors_to
from cfpos_envs.physics.toa.link_features import draw_features
from cfpos_envs.scenarios.ap_game import user_ways
from cfpos_envs.scenarios.sites import Places, SitePool, draw_places
from cfpos_envs.scenarios.toa.config import ToaConfig
from cfpos_envs.scenarios.toa.waveforms import measure_waveforms
from cfpos_envs.streams import Streams


@dataclass(frozen=True)
class ToaSite(Places):
    """One site, fixed over all its episodes; all of it is known to the network.

    Attributes:
        sync_std_s [M]: standard deviation of the APs' clock errors.
    """

    sync_std_s: Tensor


def draw_site(config: ToaConfig, streams: Streams, index: int) -> ToaSite:
    """Layout and array directions of site ``index``, and what calibration leaves of its clock errors."""
    places = draw_places(config.settings, config.site_file, config.ue_height_m, streams.fresh("layout", index))
    return ToaSite(**vars(places), sync_std_s=_sync_std_s(config, places))


def _sync_std_s(config: ToaConfig, places: Places) -> Tensor:
    clock, model = config.settings.clock, config.model
    if not clock.calibrated:
        return torch.full_like(places.height_diff_m, clock.std_s)
    # The reference node stands in the middle of the area, at the height of the UEs.
    node = torch.full((1, 2), model.side_m / 2, device=places.height_diff_m.device)
    _, slant = unit_vectors_to(places.ap_positions_m, places.height_diff_m, node)
    return timing.calibration_std_s(model.snr_linear(slant[:, 0]), model.rms_bandwidth_hz)


@dataclass(frozen=True)
class ToaDrop:
    """Users of B episodes over T measurement rounds (T = 1 when static) and what the APs measure of them.

    Attributes:
        true_position_m [B, T, K, 2], is_los [B, M, K], excess_m [B, M, K], clock_error_s [B, M], ue_offset_s [B, K]:
            hidden; all but the positions stay for the episode.
        valid [B, M, K]: links that are measured.
        range_m, variance_m2, snr_db [B, T, M, K], features [B, T, M, K, 5], cfr [B, T, M, K, N, S] or None: measured
            and reported, see ``TimingMeasurements``.
    """

    true_position_m: Tensor
    is_los: Tensor
    excess_m: Tensor
    clock_error_s: Tensor
    ue_offset_s: Tensor
    valid: Tensor
    range_m: Tensor
    variance_m2: Tensor
    snr_db: Tensor
    features: Tensor
    cfr: Tensor | None


def draw_drop(config: ToaConfig, pool: SitePool[ToaSite], site_ids: Tensor, streams: Streams) -> ToaDrop:
    """Positions, lines of sight, clocks and measurements of a batch of episodes.

    Positions and lines of sight come from the stream ``drop``, clocks from ``clock``, gains and paths from ``fading``,
    everything else that differs between two measurements of one place from ``noise``.
    """
    settings, model = config.settings, config.model
    aps = pool.stack(site_ids, "ap_positions_m")
    height, sync = pool.stack(site_ids, "height_diff_m"), pool.stack(site_ids, "sync_std_s")
    shape = (len(site_ids), config.num_ues, 2)
    start = settings.side_m * draws.uniform(streams["drop"], *shape)
    positions = user_ways(config, start, False, streams)
    times = positions.shape[1]
    _, slant = unit_vectors_to(
        aps.unsqueeze(1).expand(-1, times, -1, -1), height.unsqueeze(1).expand(-1, times, -1), positions
    )

    drop, links = streams["drop"], slant[:, 0].shape
    is_los = los.draw_los(drop, _los_probability(config, aps, positions[:, 0], drop))
    excess = timing.draw_nlos_excess_m(drop, is_los, settings.nlos_mean_m, settings.excess_shape)
    valid = draws.uniform(drop, *links) >= settings.blocked_share
    clock = timing.draw_clock_errors(streams["clock"], sync)
    offset = config.ue_clock_std * draws.normal(streams["clock"], links[0], config.num_ues)
    shadowing_db = settings.shadowing_db * draws.normal(streams["fading"], *links)

    snr = model.snr_linear(slant) * torch.pow(10.0, shadowing_db.unsqueeze(1) / 10.0)
    if config.measurement == "waveform":
        gain = snr / model.max_snr_linear
        vectors = positions.unsqueeze(2) - aps[:, None, :, None]
        angle = torch.atan2(vectors[..., 1], vectors[..., 0])
        angle = angle - pool.stack(site_ids, "ap_orientation_rad")[:, None, :, None]
        ranges, features, cfr = measure_waveforms(
            config, streams, slant + excess.unsqueeze(1), gain, angle, is_los, clock, offset
        )
    else:
        # The stored SNR is reported, so the RSS of the same link is the one that belongs to it.
        expected_dbm = 10 * torch.log10(snr * (model.tx_power_w / model.max_snr_linear)) + 30
        noise = streams["noise"]
        features = draw_features(noise, is_los.unsqueeze(1).expand_as(slant), expected_dbm)
        ranges = timing.draw_ranges(
            noise,
            model.family,
            slant,
            timing.delay_variance_s2(snr, model.rms_bandwidth_hz),
            clock.unsqueeze(1).expand(slant.shape[:3]),
            excess.unsqueeze(1).expand_as(slant),
            offset.unsqueeze(1).expand(*slant.shape[:2], -1),
            model.processing_error_std_s,
        )
        cfr = None
    return ToaDrop(
        true_position_m=positions,
        is_los=is_los,
        excess_m=excess,
        clock_error_s=clock,
        ue_offset_s=offset,
        valid=valid,
        range_m=ranges,
        variance_m2=model.range_variance_m2(snr, sync[:, None, :, None]),
        snr_db=10 * torch.log10(snr),
        features=features,
        cfr=cfr,
    )


def _los_probability(config: ToaConfig, aps: Tensor, points: Tensor, generator: draws.Source) -> Tensor:
    """[B, M, K] chance of a line of sight."""
    settings = config.settings
    distance = torch.linalg.vector_norm(points.unsqueeze(1) - aps.unsqueeze(2), dim=-1)
    if settings.nlos_share is None:
        return los.los_probability(settings.los, distance)
    share = torch.full((len(aps), 1, 1), settings.nlos_share, device=aps.device)
    if settings.nlos_share_random:
        share = share * draws.uniform(generator, len(aps), 1, 1)
    return (1.0 - share).expand_as(distance)
