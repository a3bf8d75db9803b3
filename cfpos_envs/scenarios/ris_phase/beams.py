"""Profiles of the surfaces from actions, and what they do in every direction.

Everything is written in *turned* cosines, outgoing minus incoming, because a profile's gain depends on nothing else.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.physics.ris.geometry import RIS_AXES, spherical_direction

GRID = 11
"""Directions along each angle of a sector on which the belief lives."""
_FLOOR = 1e-4


def sector_grid(
    azimuth_rad: Float[Tensor, "*batch"],
    elevation_rad: Float[Tensor, "*batch"],
    half_width_rad: float,
    incoming: Float[Tensor, "*#batch 2"],
    points: int,
) -> Float[Tensor, "*batch {points} {points} 2"]:
    """Turned cosines of the directions of a sector (azimuth first).

    Args:
        azimuth_rad, elevation_rad: middle of the sector.
        half_width_rad: in either angle.
        incoming: cosines from the base station.
        points: per angle.
    """
    offsets = torch.linspace(-half_width_rad, half_width_rad, points, dtype=azimuth_rad.dtype, device=incoming.device)
    azimuth = (azimuth_rad.unsqueeze(-1) + offsets).unsqueeze(-1).expand(*azimuth_rad.shape, points, points)
    elevation = (elevation_rad.unsqueeze(-1) + offsets).unsqueeze(-2).expand_as(azimuth)
    axes = torch.tensor(RIS_AXES, dtype=azimuth.dtype, device=azimuth.device)
    return spherical_direction(azimuth, elevation) @ axes.mT - incoming[..., None, None, :]


def sweep(low: Float[Tensor, "*batch"], high: Float[Tensor, "*batch"], size: int) -> Float[Tensor, "*batch {size}"]:
    """Phases of a chirp: the local cosine runs from ``low`` to ``high`` along the axis.

    Phase of element i = pi times the sum of the first i of size - 1 local cosines, as in ``physics.ris.phases``.
    """
    ramp = torch.linspace(0.0, 1.0, max(size - 1, 1), dtype=low.dtype, device=low.device)[: size - 1]
    local = low.unsqueeze(-1) + (high - low).unsqueeze(-1) * ramp
    return math.pi * torch.cat((torch.zeros_like(local[..., :1]), local.cumsum(dim=-1)), dim=-1)


def chirp_phases(
    low: Float[Tensor, "*batch 2"], high: Float[Tensor, "*batch 2"], shape: tuple[int, int]
) -> Float[Tensor, "*batch n1 n2"]:
    """Phases of the chirp over turned cosines between ``low`` and ``high``."""
    first = sweep(low[..., 0], high[..., 0], shape[0])
    second = sweep(low[..., 1], high[..., 1], shape[1])
    return first.unsqueeze(-1) + second.unsqueeze(-2)


def beam_phases(
    low: Float[Tensor, "*batch 2"],
    high: Float[Tensor, "*batch 2"],
    actions: Float[Tensor, "*batch 4"],
    shape: tuple[int, int],
) -> Float[Tensor, "*batch n1 n2"]:
    """Phases of a beam: action (direction_1, direction_2, width_1, width_2) in [-1, 1].

    Along each axis the chirp's middle lies ``direction`` half-widths off the middle of the sector, its half-width is
    1 + ``width`` times the sector's: -1 is a pencil beam, and action 0 the chirp over the sector.

    Args:
        low, high: edges of the sector.
        actions: in [-1, 1].
        shape: elements of the surface.
    """
    middle, half = (low + high) / 2, (high - low) / 2
    centre, width = middle + half * actions[..., :2], half * (1 + actions[..., 2:])
    return chirp_phases(centre - width, centre + width, shape)


def relative_gain(
    phases: Float[Tensor, "*batch n1 n2"], turned: Float[Tensor, "*batch P 2"]
) -> Float[Tensor, "*batch P"]:
    """Power |v^H phi|^2 / N_R^2 of profiles in directions, in [0, 1]; differentiable.

    Args:
        phases: radians.
        turned: turned cosines.
    """
    n1, n2 = phases.shape[-2:]
    first, second = (
        _steering(turned[..., axis], size).conj().to(torch.complex64) for axis, size in enumerate((n1, n2))
    )
    profile = torch.polar(torch.ones_like(phases), phases).to(torch.complex64)
    return ((first @ profile) * second).sum(dim=-1).abs().square() / (n1 * n2) ** 2


def to_db(power: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """10 log10(power + 1e-4): what is weaker than -40 dB is taken for -40 dB."""
    return 10 * torch.log10(power + _FLOOR)


def _steering(cosine: Tensor, size: int) -> Tensor:
    index = torch.arange(size, dtype=cosine.dtype, device=cosine.device)
    phase = math.pi * cosine.unsqueeze(-1) * index
    return torch.polar(torch.ones_like(phase), phase)
