"""Joint communication and positioning over the SNR: channels and positions of ``joint-cp``, one shot and the genie."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from cfpos.baselines.toa.channel_prior import nmse_db
from cfpos.baselines.toa.joint import JointCp, JointCpOptions
from cfpos.scripts.experiments.common import EVALUATION_SEED, Effort, Outcome, progress
from cfpos_envs.drawing.figures import OKABE_ITO
from cfpos_envs.measurements.toa import TimingMeasurements
from cfpos_envs.physics.geometry import grid_layout
from cfpos_envs.physics.toa.bounds import unit_vectors_to
from cfpos_envs.physics.toa.delay_estimation import first_peak_delay_s
from cfpos_envs.physics.toa.maps import timing_drop_bound
from cfpos_envs.physics.toa.model import TimingModel
from cfpos_envs.physics.units import SPEED_OF_LIGHT_M_S
from cfpos_envs.physics.waveform import add_noise, channel_features, draw_paths, frequency_response

SNRS_DB = (-10, -5, 0, 5, 10, 15, 20)
SIDE_M, HEIGHT_M, NUM_APS, NUM_ANTENNAS = 100.0, 8.0, 9, 8
NUM_SUBCARRIERS, SPACING_HZ = 64, 1.5625e6
NUM_PATHS, SPREAD_S, ANGULAR_SPREAD_RAD, K_FACTOR_DB = 20, 50e-9, math.radians(10.0), 10.0
ALONE_K_FACTOR_DB = 50.0
_DROPS_PER_POINT = 5


@dataclass(frozen=True)
class WaveformDrop:
    """Measurements of equally strong links, and what only a genie knows.

    Attributes:
        measurements: family "toa" with ``cfr``.
        truth_m, channel, delay_s, cosine: positions, noiseless responses, delays and cosines of the first paths.
    """

    measurements: TimingMeasurements
    truth_m: Tensor
    channel: Tensor
    delay_s: Tensor
    cosine: Tensor


def draw(count: int, snr_db: float, num_paths: int, seed: int) -> WaveformDrop:
    """Drops of one user among 9 APs with ``snr_db`` on every antenna and subcarrier of every link.

    Args:
        count: number of drops.
        snr_db: mean power of an entry of the response over its noise.
        num_paths: 1 for a line of sight alone.
        seed: of everything that is drawn.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = 1e-12
    gain_db = snr_db + 10 * math.log10(noise)
    model = TimingModel(
        family="toa",
        side_m=SIDE_M,
        num_subcarriers=NUM_SUBCARRIERS,
        subcarrier_spacing_hz=SPACING_HZ,
        path_loss_intercept_db=gain_db,
        path_loss_slope_db=0.0,
        tx_power_w=1.0,
        noise_power_w=noise / NUM_SUBCARRIERS,
        num_antennas=NUM_ANTENNAS,
        spacing_wavelengths=0.5,
        sync_std_s=0.0,
        nlos_mean_m=0.0,
        processing_error_std_s=0.0,
    )
    aps = grid_layout(NUM_APS, SIDE_M).double().expand(count, -1, -1)
    heights = torch.full(aps.shape[:-1], HEIGHT_M, dtype=torch.float64)
    orientation = 2 * math.pi * torch.rand(aps.shape[:-1], generator=generator, dtype=torch.float64)
    truth = SIDE_M * torch.rand(count, 1, 2, generator=generator, dtype=torch.float64)
    _, slant = unit_vectors_to(aps, heights, truth)
    away = truth.unsqueeze(1) - aps.unsqueeze(2)
    angle = torch.atan2(away[..., 1], away[..., 0]) - orientation.unsqueeze(-1)
    delay, is_los = slant / SPEED_OF_LIGHT_M_S, torch.ones_like(slant, dtype=torch.bool)
    gain = torch.full_like(slant, 10 ** (gain_db / 10))
    paths = draw_paths(generator, is_los, delay, gain, angle, num_paths, SPREAD_S, K_FACTOR_DB, ANGULAR_SPREAD_RAD)
    channel = frequency_response(paths, NUM_ANTENNAS, 0.5, NUM_SUBCARRIERS, SPACING_HZ)
    cfr = add_noise(generator, channel, model.cfr_noise_variance)
    snr = model.snr_linear(slant)
    measurements = TimingMeasurements(
        model=model,
        ap_positions_m=aps,
        ap_orientation_rad=orientation,
        height_diff_m=heights,
        range_m=SPEED_OF_LIGHT_M_S * first_peak_delay_s(cfr, SPACING_HZ, model.cfr_noise_variance),
        variance_m2=model.range_variance_m2(snr),
        snr_db=10 * torch.log10(snr),
        features=channel_features(cfr, SPACING_HZ, model.tx_power_w, model.cfr_noise_variance),
        valid=is_los,
        is_los=is_los,
        cfr=cfr,
        site_ids=torch.zeros(count, dtype=torch.long),
    )
    return WaveformDrop(measurements, truth, channel, delay, torch.cos(angle))


def point(snr_db: float, num_paths: int, count: int) -> dict[str, Any]:
    """One line of the table: NMSE in dB and RMSE over the joint bound at one SNR.

    Args:
        snr_db, num_paths: as in ``draw``.
        count: number of drops.
    """
    drop = draw(count, snr_db, num_paths, EVALUATION_SEED)
    k_factor_db = K_FACTOR_DB if num_paths > 1 else ALONE_K_FACTOR_DB
    policy = JointCp(None, JointCpOptions(k_factor_db=k_factor_db, delay_spread_s=SPREAD_S))
    m, result = drop.measurements, policy.solve(drop.measurements)
    bound = timing_drop_bound(
        m.model, m.ap_positions_m, m.height_diff_m, drop.truth_m, ap_orientation_rad=m.ap_orientation_rad
    )
    bound_m = float(bound.square().mean().sqrt())

    def ratio(positions_m: Tensor) -> float:
        return float((positions_m - drop.truth_m).square().sum(dim=-1).mean().sqrt()) / bound_m

    assert m.cfr is not None
    assert m.is_los is not None
    return {
        "channel": f"{num_paths} paths" if num_paths > 1 else "line of sight alone",
        "SNR dB": snr_db,
        "LS dB": nmse_db(m.cfr, drop.channel),
        "flat LMMSE dB": nmse_db(policy.flat(m), drop.channel),
        "joint dB": nmse_db(result.channel, drop.channel),
        "genie dB": nmse_db(policy.genie(m, drop.delay_s, drop.cosine, m.is_los), drop.channel),
        "bound m": bound_m,
        "one shot/bound": ratio(result.one_shot_m),
        "joint/bound": ratio(result.position_m),
        "rounds": result.rounds,
    }


def run(effort: Effort) -> Outcome:
    """NMSE of LS, flat LMMSE, joint and genie channels and RMSE over the joint bound, -10 to 20 dB."""
    count = max(4, effort.points // _DROPS_PER_POINT)
    cases = [(snr, paths) for paths in (NUM_PATHS, 1) for snr in effort.chosen(SNRS_DB)]
    rows = [point(snr, paths, count) for snr, paths in progress(cases, "SNR")]
    remark = (
        f"{count} drops per line, {NUM_APS} APs with {NUM_ANTENNAS} antennas, 100 MHz in {NUM_SUBCARRIERS} tones, SNR "
        f"per antenna and tone, K = {K_FACTOR_DB:g} dB with {NUM_PATHS} paths; the bound is that of delays and "
        "angles of a line of sight alone, which no estimator reaches with scattered paths behind it."
    )
    return Outcome(rows, _figure(rows), [remark])


def _figure(rows: list[dict[str, Any]]) -> Figure:
    figure, panels = plt.subplots(2, 2, figsize=(10, 7), sharex=True, layout="constrained")
    for column, channel in enumerate(dict.fromkeys(line["channel"] for line in rows)):
        lines = [line for line in rows if line["channel"] == channel]
        snr = [line["SNR dB"] for line in lines]
        upper, lower = panels[0, column], panels[1, column]
        for index, name in enumerate(("LS dB", "flat LMMSE dB", "joint dB", "genie dB")):
            values, look = [line[name] for line in lines], "--" if name.startswith("genie") else "o-"
            upper.plot(snr, values, look, color=OKABE_ITO[index], label=name.removesuffix(" dB"))
        for index, name in enumerate(("one shot/bound", "joint/bound")):
            values = [line[name] for line in lines]
            lower.plot(snr, values, "o-", color=OKABE_ITO[2 * index + 1], label=name.removesuffix("/bound"))
        lower.axhline(1.0, color="black", linestyle=":", label="joint bound")
        upper.set(title=channel, ylabel="channel NMSE [dB]")
        lower.set(xlabel="SNR per antenna and tone [dB]", ylabel="RMSE / bound", yscale="log")
        for axes in (upper, lower):
            axes.grid(True, color="#E4E4E4")
            axes.legend(fontsize=8)
    return figure
