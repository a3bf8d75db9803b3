"""A hall with four arrays and one user: what the tests of powers and angles share."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cfpos_envs.measurements import RadioMeasurements, RadioModel
from cfpos_envs.physics.arrays import angular_power, ula_response

APS = np.array([[1.0, 1.0], [39.0, 1.0], [1.0, 39.0], [39.0, 39.0]])
AXES = np.deg2rad([45.0, 135.0, -45.0, 225.0])
USER = (12.0, 27.0)
HEIGHT_M = 4.0
RADIO = RadioModel(
    side_m=40.0,
    wrap=False,
    path_loss_intercept_db=-40.0,
    path_loss_slope_db=30.0,
    tx_power_w=0.1,
    num_pilots=1,
    noise_power_w=1e-12,
    num_antennas=4,
    spacing_wavelengths=0.5,
    angular_spread_rad=math.radians(5.0),
    num_paths=20,
    snapshots=100,
)


def hall_covariance() -> Tensor:
    """Sample covariances [1, 4, 4, 4] of the channel estimate, the user first."""
    away = torch.tensor(USER) - torch.tensor(APS).float()
    slant = torch.sqrt(away.square().sum(dim=-1) + HEIGHT_M**2)
    gain = 10 ** ((-40 - 30 * torch.log10(slant)) / 20)
    fading = torch.randn(4, 100, 1, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    bearing = torch.atan2(away[:, 1], away[:, 0]) - torch.tensor(AXES).float()
    channel = gain[:, None, None] * fading * ula_response(bearing, 4)[:, None]
    return (channel.mT @ channel.conj() / 100)[None]


def hall(keep: Sequence[int] = (0, 1, 2, 3), origin_m: float = 0.0) -> RadioMeasurements:
    """Made by hand, with some of the APs, all coordinates moved by ``origin_m``."""
    covariance = hall_covariance()[0, list(keep)]
    power_w = RADIO.tx_power_w * torch.diagonal(covariance, dim1=1, dim2=2).real.sum(-1)
    return RadioMeasurements(
        radio=RADIO,
        ap_positions_m=torch.tensor(APS[None, list(keep)]).float() + origin_m,
        ap_orientation_rad=torch.tensor(AXES[None, list(keep)]).float(),
        height_diff_m=torch.full((1, len(keep)), HEIGHT_M),
        rss_dbm=(10 * torch.log10(power_w) + 30)[None, :, None],
        angular_power=angular_power(covariance)[None, :, None],
        covariance=covariance[None, :, None],
        shadowing_maps=None,
        shadowing_std_db=3.0,
        site_ids=torch.zeros(1, dtype=torch.long),
    )
