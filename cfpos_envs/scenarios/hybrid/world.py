"""Drops of the hybrid game: users and ranges of the time-based game, directions and powers of the same links."""

from __future__ import annotations

import torch
from torch import Tensor

from cfpos_envs import draws
from cfpos_envs.physics.hybrid import direction_variance, predict
from cfpos_envs.scenarios.hybrid.config import HybridConfig
from cfpos_envs.scenarios.sites import SitePool
from cfpos_envs.scenarios.toa.world import ToaSite, draw_drop
from cfpos_envs.streams import Streams


def draw_measurements(
    config: HybridConfig, pool: SitePool[ToaSite], site_ids: Tensor, streams: Streams
) -> dict[str, Tensor]:
    """Fields of a new ``HybridState`` that are drawn.

    A range and a direction without line of sight have an error that the network does not know of; a power only has its
    shadowing, which the SNR of the same link has too.
    """
    model, drop = config.model, draw_drop(config.timing, pool, site_ids, streams)
    times, noise = drop.true_position_m.shape[1], streams["noise"]
    positions, orientation, height = (
        pool.stack(site_ids, name).unsqueeze(1) for name in ("ap_positions_m", "ap_orientation_rad", "height_diff_m")
    )
    exact, _ = predict(
        model,
        positions.expand(-1, times, -1, -1),
        orientation.expand(-1, times, -1),
        height.expand(-1, times, -1),
        drop.true_position_m,
    )
    snr_db = drop.snr_db
    variance = direction_variance(model, torch.pow(10.0, snr_db / 10)) + config.direction_error_std**2
    extra = config.nlos_direction_std * draws.normal(noise, *drop.is_los.shape)
    error = variance.sqrt() * draws.normal(noise, *snr_db.shape)
    direction = exact[..., 1] + torch.nan_to_num(error, posinf=0.0, neginf=0.0)
    direction = direction + (extra * ~drop.is_los).unsqueeze(1)
    # The SNR of a link holds its shadowing: the power that belongs to it.
    power_dbm = snr_db + 10 * torch.log10(torch.tensor(1e3 * model.tx_power_w / model.max_snr_linear))
    shadowing = torch.full_like(variance, config.settings.shadowing_db**2)
    return {
        "true_position_m": drop.true_position_m,
        "is_los": drop.is_los,
        "valid": drop.valid,
        "sequence_values": torch.stack((drop.range_m, direction, power_dbm), dim=-1),
        "sequence_variance": torch.stack((drop.variance_m2, variance, shadowing), dim=-1),
    }
