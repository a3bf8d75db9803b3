"""From stored paths to the paths of a user who has moved a little: every path keeps its image source."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from cfpos_envs.physics.ecc.csi import CsiPaths

SPEED_OF_LIGHT_M_S = 299_792_458.0


@dataclass(frozen=True)
class StoredPaths:
    """Paths as the ray tracer left them; entries without a path have zero amplitude.

    Attributes:
        amplitude: complex amplitude without the phase of the delay.
        delay_s: propagation delay.
        bs_azimuth_rad, bs_zenith_rad: direction at the base station.
        ue_azimuth_rad, ue_zenith_rad: direction at the user, towards where the path comes from.
        reflections: number of specular reflections.
    """

    amplitude: Complex[Tensor, "*batch P"]
    delay_s: Float[Tensor, "*batch P"]
    bs_azimuth_rad: Float[Tensor, "*batch P"]
    bs_zenith_rad: Float[Tensor, "*batch P"]
    ue_azimuth_rad: Float[Tensor, "*batch P"]
    ue_zenith_rad: Float[Tensor, "*batch P"]
    reflections: Int[Tensor, "*batch P"]

    def select(self, index: slice | Tensor) -> StoredPaths:
        """Only the entries ``index`` of the first dimension."""
        return StoredPaths(**{name: value[index] for name, value in self.__dict__.items()})

    def unsqueeze(self, dim: int) -> StoredPaths:
        """With a dimension of length one put in."""
        return StoredPaths(**{name: value.unsqueeze(dim) for name, value in self.__dict__.items()})


def unit_vector(zenith_rad: Float[Tensor, "*batch"], azimuth_rad: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch 3"]:
    """(sin z cos a, sin z sin a, cos z).

    Args:
        zenith_rad: angle from the z axis, 0 to pi.
        azimuth_rad: angle from the x axis in the horizontal plane.
    """
    sine = zenith_rad.sin()
    return torch.stack((sine * azimuth_rad.cos(), sine * azimuth_rad.sin(), zenith_rad.cos()), dim=-1)


def moved_paths(
    stored: StoredPaths, displacement_m: Float[Tensor, "*#batch 3"], carrier_hz: float, min_length_m: float = 0.1
) -> CsiPaths:
    """The paths of users who have moved by ``displacement_m``, their image sources staying where they are.

    A chain of mirrors seen from the user is one source at q = p + c tau u, with u the stored direction at the user.
    At p' = p + d the path has the length |q - p'|, its amplitude scales with the inverse of it, and its phase is
    exp(-j 2 pi f_c tau'). The direction at the base station turns with the direction at the user through the same
    mirrors: vertical walls turn azimuths alone, by reversing (odd number of walls) or by keeping (even) differences;
    level surfaces reverse the elevation. That a link gains or loses paths on the way is not seen, and amplitudes of
    reflection keep their values: good for a metre or so (docs/raytracing.md has the measured error).

    Args:
        stored: paths of links, any batch shape.
        displacement_m: how far the user of each link has moved.
        carrier_hz: f_c.
        min_length_m: shortest length of a path, so that no user is inside an antenna.
    """
    towards = unit_vector(stored.ue_zenith_rad, stored.ue_azimuth_rad)
    length = (SPEED_OF_LIGHT_M_S * stored.delay_s).clamp(min=min_length_m)
    image = length.unsqueeze(-1) * towards - displacement_m.unsqueeze(-2)
    new_length = image.norm(dim=-1).clamp(min=min_length_m)
    new_towards = image / new_length.unsqueeze(-1)
    delay_s = new_length / SPEED_OF_LIGHT_M_S
    # In cycles and double precision: c tau is some thousand wavelengths.
    cycles = (delay_s.double() * carrier_hz).frac().to(delay_s)
    phase = (-2 * math.pi) * cycles
    gain = stored.amplitude * torch.polar(length / new_length, phase)
    return CsiPaths(gain, delay_s * (stored.amplitude != 0), _turned(stored, new_towards))


def _turned(stored: StoredPaths, towards: Float[Tensor, "*batch P 3"]) -> Float[Tensor, "*batch P 3"]:
    """Direction at the base station after the one at the user has become ``towards``."""
    # Unfolded, a path runs from the base station along the opposite of ``towards``.
    level = (stored.bs_zenith_rad.cos() * -stored.ue_zenith_rad.cos()).sign()
    level = torch.where(level == 0, torch.ones_like(level), level)
    walls = stored.reflections - (level < 0).to(stored.reflections.dtype)
    sense = torch.where(walls % 2 == 0, 1.0, -1.0)
    old_azimuth = stored.ue_azimuth_rad + math.pi
    azimuth = stored.bs_azimuth_rad + sense * (torch.atan2(-towards[..., 1], -towards[..., 0]) - old_azimuth)
    vertical = (level * -towards[..., 2]).clamp(-1.0, 1.0)
    return unit_vector(torch.acos(vertical), azimuth)
