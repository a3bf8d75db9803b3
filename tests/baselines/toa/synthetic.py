"""Time measurements drawn straight from the physics functions, for tests of estimators without any scenario."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from baselines import make_policy
from cfpos_envs.measurements.base import PositionEstimate
from cfpos_envs.measurements.toa import TimingMeasurements
from cfpos_envs.physics.geometry import grid_layout
from cfpos_envs.physics.toa.bounds import peb, range_fisher, unit_vectors_to
from cfpos_envs.physics.toa.delay_estimation import first_peak_delay_s
from cfpos_envs.physics.toa.link_features import draw_features
from cfpos_envs.physics.toa.model import TimingModel
from cfpos_envs.physics.toa.ranging import draw_nlos_excess_m
from cfpos_envs.physics.units import SPEED_OF_LIGHT_M_S
from cfpos_envs.physics.waveform import add_noise, channel_features, draw_paths, frequency_response

SIDE_M = 100.0
MODEL = TimingModel("toa", SIDE_M, 64, 1.5625e6, -30.5, 36.7, 0.1, 1e-14, 8, 0.5, 0.0, 10.0, 0.0)
GRID_16 = grid_layout(16, SIDE_M).double()


def points(*positions: tuple[float, float]) -> Tensor:
    return torch.tensor(positions, dtype=torch.float64)


SQUARE = points((0, 0), (100, 0), (0, 100), (100, 100))


@dataclass(frozen=True)
class TimingDrop:
    measurements: TimingMeasurements
    truth_m: Tensor

    def errors_m(self, estimate: PositionEstimate) -> Tensor:
        return torch.linalg.vector_norm(estimate.position - self.truth_m, dim=-1)

    def rmse_m(self, estimate: PositionEstimate) -> float:
        return float(self.errors_m(estimate).square().mean().sqrt())

    def bound_m(self) -> float:
        """Root mean squared position error bound of the ranges with their told variances."""
        m = self.measurements
        unit, _ = unit_vectors_to(m.ap_positions_m, m.height_diff_m, self.truth_m)
        return float(peb(range_fisher(m.model.family, unit, m.valid / m.variance_m2)).square().mean().sqrt())


def located(drop: TimingDrop, name: str, **options: Any) -> PositionEstimate:
    return make_policy(name, **options).locate(drop.measurements)  # type: ignore[attr-defined,no-any-return]


def ranges_drop(
    episodes: int,
    seed: int,
    *,
    family: str = "toa",
    aps: Tensor = GRID_16,
    height_m: Any = 10.0,
    truth_m: Tensor | None = None,
    std_m: Any = 0.3,
    noise: bool = True,
    nlos_share: float = 0.0,
    num_ues: int = 1,
) -> TimingDrop:
    """Ranges of the statistical model; ``truth_m`` [K, 2] puts every episode's users there, else they are uniform."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    if truth_m is None:
        truth = torch.rand(episodes, num_ues, 2, generator=generator, dtype=torch.float64) * SIDE_M
    else:
        truth = truth_m.expand(episodes, *truth_m.shape[-2:])
    sites = aps.expand(episodes, *aps.shape[-2:])
    heights = torch.as_tensor(height_m, dtype=torch.float64).expand(episodes, sites.shape[1])
    _, slant = unit_vectors_to(sites, heights, truth)
    std = torch.as_tensor(std_m, dtype=torch.float64)
    std = (std.unsqueeze(-1) if std.dim() == 1 else std).expand(slant.shape)
    is_los = torch.rand(slant.shape, generator=generator) >= nlos_share
    excess = draw_nlos_excess_m(generator, is_los, MODEL.nlos_mean_m).double()
    ranges = slant + excess + (std * normal(*slant.shape) if noise else 0.0)
    if family == "tdoa":
        ranges = ranges + 30.0 * normal(episodes, 1, truth.shape[1])
    model = dataclasses.replace(MODEL, family=family)
    rss_dbm = 10 * torch.log10(model.snr_linear(slant) / model.max_snr_linear * model.tx_power_w) + 30
    measurements = TimingMeasurements(
        model=model,
        ap_positions_m=sites,
        ap_orientation_rad=torch.zeros_like(heights),
        height_diff_m=heights,
        range_m=ranges,
        variance_m2=std.square(),
        snr_db=10 * torch.log10(model.snr_linear(slant)),
        features=draw_features(generator, is_los, rss_dbm),
        valid=torch.ones_like(is_los),
        is_los=is_los,
        cfr=None,
        site_ids=torch.zeros(episodes, dtype=torch.long),
    )
    return TimingDrop(measurements, truth)


def changed(drop: TimingDrop, **fields: Any) -> TimingDrop:
    """The drop with other fields of its measurements; ``model`` may be a dict of changes."""
    if isinstance(fields.get("model"), dict):
        fields["model"] = dataclasses.replace(drop.measurements.model, **fields["model"])
    return TimingDrop(dataclasses.replace(drop.measurements, **fields), drop.truth_m)


@dataclass(frozen=True)
class WaveformDrop(TimingDrop):
    channel: Tensor
    delay_s: Tensor
    cosine: Tensor


def waveform_drop(
    episodes: int, seed: int, snr_db: float, *, num_paths: int = 20, nlos_share: float = 0.0, num_aps: int = 9
) -> WaveformDrop:
    """Channels with the SNR ``snr_db`` on every antenna and subcarrier of every link, and what is read from them."""
    generator = torch.Generator().manual_seed(seed)
    noise = MODEL.cfr_noise_variance
    gain_db = snr_db + 10 * math.log10(noise)
    mean_m = MODEL.nlos_mean_m if nlos_share else 0.0
    model = dataclasses.replace(MODEL, path_loss_intercept_db=gain_db, path_loss_slope_db=0.0, nlos_mean_m=mean_m)
    aps = grid_layout(num_aps, SIDE_M).double().expand(episodes, -1, -1)
    heights = torch.full(aps.shape[:-1], 8.0, dtype=torch.float64)
    orientation = 2 * math.pi * torch.rand(aps.shape[:-1], generator=generator).double()
    truth = torch.rand(episodes, 1, 2, generator=generator).double() * SIDE_M
    _, slant = unit_vectors_to(aps, heights, truth)
    is_los = torch.rand(slant.shape, generator=generator) >= nlos_share
    delay = (slant + draw_nlos_excess_m(generator, is_los, MODEL.nlos_mean_m)) / SPEED_OF_LIGHT_M_S
    away = truth.unsqueeze(1) - aps.unsqueeze(2)
    angle = torch.atan2(away[..., 1], away[..., 0]) - orientation.unsqueeze(-1)
    gain = torch.full_like(slant, 10 ** (gain_db / 10))
    paths = draw_paths(generator, is_los, delay, gain, angle, num_paths, 50e-9, 10.0, math.radians(10))
    size, spacing = model.num_subcarriers, model.subcarrier_spacing_hz
    channel = frequency_response(paths, model.num_antennas, model.spacing_wavelengths, size, spacing)
    cfr = add_noise(generator, channel, noise)
    snr = model.snr_linear(slant)
    measurements = TimingMeasurements(
        model=model,
        ap_positions_m=aps,
        ap_orientation_rad=orientation,
        height_diff_m=heights,
        range_m=SPEED_OF_LIGHT_M_S * first_peak_delay_s(cfr, spacing, noise),
        variance_m2=model.range_variance_m2(snr),
        snr_db=10 * torch.log10(snr),
        features=channel_features(cfr, spacing, model.tx_power_w, noise),
        valid=torch.ones_like(is_los),
        is_los=is_los,
        cfr=cfr,
        site_ids=torch.zeros(episodes, dtype=torch.long),
    )
    return WaveformDrop(measurements, truth, channel, delay, torch.cos(angle))
