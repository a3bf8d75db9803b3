import math

import pytest

from cfpos_envs.physics.dcp.model import RadioModel
from cfpos_envs.physics.units import thermal_noise_w


@pytest.fixture
def radio() -> RadioModel:
    """The radio of the reference scenario: 100 m torus, 36.7 dB per decade, 8 antennas, 10 degrees of spread."""
    return RadioModel(
        side_m=100.0,
        wrap=True,
        path_loss_intercept_db=-30.5,
        path_loss_slope_db=36.7,
        tx_power_w=0.1,
        num_pilots=6,
        noise_power_w=thermal_noise_w(200e3, 7.0),
        num_antennas=8,
        spacing_wavelengths=0.5,
        angular_spread_rad=math.radians(10.0),
        num_paths=20,
        snapshots=100,
    )
