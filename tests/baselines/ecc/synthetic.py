"""CSI of users in plain sight of a few arrays, straight from the physics functions; noise only where asked for."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from cfpos_envs.measurements.ecc import CsiMeasurements, CsiSystem
from cfpos_envs.physics.ecc.csi import CsiPaths, channel, complex_noise, slot_gains

C_M_S = 299_792_458.0
PLACES_M = torch.tensor([[0.0, 0.0, 9.0], [40.0, 0.0, 8.0], [20.0, 40.0, 7.0]])
# Facing the middle of the area, (20, 20).
FACING_RAD = torch.tensor([[math.pi / 4, 0.0, 0.0], [3 * math.pi / 4, 0.0, 0.0], [-math.pi / 2, 0.0, 0.0]])

SYSTEM = CsiSystem(
    carrier_hz=3.5e9,
    subcarrier_spacing_hz=720e3,
    num_subcarriers=8,
    num_slots=3,
    array_shape=(2, 4),
    spacing_wavelengths=0.5,
    num_bs=3,
    area_min_m=(0.0, 0.0, 0.0),
    area_max_m=(40.0, 40.0, 6.0),
    pilot_power_w=1e-3,
    noise_power_w=1e-15,
    log_gain_mean=(-2.4, -2.4, -2.4),
    log_gain_std=(0.3, 0.3, 0.3),
)


def draw_places(count: int, seed: int) -> Tensor:
    """Users [count, 3], uniform in the area."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, generator=generator) * torch.tensor(SYSTEM.area_max_m)


def measure(users_m: Tensor, seed: int = 0, noise_variance: float = 0.0) -> CsiMeasurements:
    """One user per episode, line of sight only, with an oscillator phase of its own in every slot."""
    generator = torch.Generator().manual_seed(seed)
    away = users_m[:, None] - PLACES_M
    length = away.norm(dim=-1)
    wavelength = C_M_S / SYSTEM.carrier_hz
    gain = torch.polar(wavelength / (4 * math.pi * length), -2 * math.pi * length / wavelength)
    paths = CsiPaths(gain[..., None], (length / C_M_S)[..., None], (away / length[..., None])[..., None, :])
    slots = slot_gains(generator, tuple(length.shape), SYSTEM.num_slots, 1, 0.0)
    csi = channel(paths, FACING_RAD, SYSTEM.array_shape, 0.5, SYSTEM.num_subcarriers, 720e3, slots)
    if noise_variance:
        csi = csi + complex_noise(generator, csi.shape, noise_variance)
    return CsiMeasurements.from_csi(SYSTEM, PLACES_M, FACING_RAD, csi[:, None].to(torch.complex64))


def silenced(measurements: CsiMeasurements, lost: Tensor) -> CsiMeasurements:
    """The same where the base stations in ``lost``, broadcastable to [B, J, L], send nothing."""
    valid = measurements.valid & ~lost
    return dataclasses.replace(measurements, csi=measurements.csi * valid[..., None, None, None], valid=valid)
