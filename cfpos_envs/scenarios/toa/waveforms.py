"""The waveform fidelity of a drop: channels with noise, and the ranges and features estimated from them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cfpos_envs import draws
from cfpos_envs.physics import waveform
from cfpos_envs.physics.toa.delay_estimation import first_peak_delay_s, music_delay_s
from cfpos_envs.physics.units import SPEED_OF_LIGHT_M_S
from cfpos_envs.scenarios.toa.config import ToaConfig
from cfpos_envs.streams import Streams


def measure_waveforms(
    config: ToaConfig,
    streams: Streams,
    path_m: Tensor,
    gain: Tensor,
    angle_rad: Tensor,
    is_los: Tensor,
    clock_error_s: Tensor,
    ue_offset_s: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Ranges [B, T, M, K] (m), features [B, T, M, K, 5] and noisy uplink CFRs [B, T, M, K, N, S].

    The uplink holds all clock errors as delay. RTT adds a downlink over the same channel, in which the UE's offset has
    the other sign, and an error of the reported processing time.

    Args:
        config: the game's options.
        streams: ``fading`` draws the paths, ``noise`` everything else.
        path_m: [B, T, M, K] length of the first path: slant distance plus excess.
        gain: [B, T, M, K] linear gain in line of sight; without, ``nlos_loss_db`` goes off.
        angle_rad: [B, T, M, K] direction of the UE to the array axis.
        is_los: [B, M, K].
        clock_error_s: [B, M]; ue_offset_s: [B, K].
    """
    settings, model = config.settings, config.model
    noise = streams["noise"]
    is_los = is_los.unsqueeze(1).expand_as(path_m)
    gain = torch.where(is_los, gain, gain * 10 ** (-settings.nlos_loss_db / 10))
    delay = path_m / SPEED_OF_LIGHT_M_S
    paths = waveform.draw_paths(
        streams["fading"],
        is_los,
        delay,
        gain,
        angle_rad,
        settings.num_paths,
        settings.delay_spread_s,
        settings.k_factor_db,
        math.radians(settings.angular_spread_deg),
    )

    def heard(offset_s: Tensor) -> Tensor:
        """Noisy CFR with every path later by ``offset_s`` [B, T or 1, M, K]."""
        later = waveform.WaveformPaths(paths.gain, paths.delay_s + offset_s.unsqueeze(-1), paths.angle_rad)
        clean = waveform.frequency_response(
            later, model.num_antennas, model.spacing_wavelengths, model.num_subcarriers, model.subcarrier_spacing_hz
        )
        return waveform.add_noise(noise, clean, model.cfr_noise_variance)

    def arrival_s(cfr: Tensor) -> Tensor:
        find = music_delay_s if config.delay_estimator == "music" else first_peak_delay_s
        return find(cfr, model.subcarrier_spacing_hz, model.cfr_noise_variance)

    clock, offset = clock_error_s[:, None, :, None], ue_offset_s[:, None, None, :]
    uplink = heard(clock + offset)
    found_s = arrival_s(uplink)
    if model.family == "rtt":
        processing = draws.normal(noise, *path_m.shape)
        back_s = arrival_s(heard(-offset.expand_as(path_m)))
        found_s = 0.5 * (found_s + back_s + model.processing_error_std_s * processing)
    features = waveform.channel_features(
        uplink, model.subcarrier_spacing_hz, model.tx_power_w, model.cfr_noise_variance
    )
    return SPEED_OF_LIGHT_M_S * found_s, features, uplink
