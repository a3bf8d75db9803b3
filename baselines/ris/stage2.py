"""Stage 2 as a whole: from channel parameters to position and clock bias, with the information that they carry."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs.measurements.ris import RisSystem
from cfpos_envs.physics.ris.geometry import position_jacobian
from cfpos_envs.physics.ris.information import num_path_unknowns, path_blocks, position_information
from cfpos_envs.physics.ris.modes import DELAY_MODE

from . import directions, wls
from .exip import climb_likelihood
from .links import Links
from .refine import masked_information, scaled_inverse, unknowns_present
from .stage1 import FEWEST_PATHS, ChannelEstimate
from .wls import PathFixes

SOLVERS = ("search", "linear", "exip")


@dataclass(frozen=True)
class ChannelQuality:
    """How well stage 1 knows its parameters, for noise variance 1.

    Attributes:
        covariance: C = F_e^-1 of the n unknowns; identity for those of absent paths.
        information: F_e; zero for those of absent paths.
    """

    covariance: Float[Tensor, "T n n"]
    information: Float[Tensor, "T n n"]


def channel_quality(system: RisSystem, channels: ChannelEstimate) -> ChannelQuality:
    """Bound of stage 1's parameters at its own estimate."""
    full = masked_information(system.sizes, system.slopes, channels.parameters, channels.gains, channels.present)
    n = num_path_unknowns(channels.present.shape[-1])
    covariance = scaled_inverse(full)[..., :n, :n]
    known = unknowns_present(channels.present)[..., :n]
    information = scaled_inverse(covariance) * (known.unsqueeze(-1) & known.unsqueeze(-2))
    return ChannelQuality(covariance, information)


def path_fixes(
    links: Links, channels: ChannelEstimate, quality: ChannelQuality, sphere_steps: int = directions.SPHERE_STEPS
) -> PathFixes:
    """Direction, pseudo-range and their covariance for every path; one path's own block of C at a time."""
    theta, delay = channels.parameters[..., :2], channels.parameters[..., DELAY_MODE]
    los_block, ris_blocks = path_blocks(quality.covariance)
    los, los_map = directions.line_of_sight_direction(
        channels.parameters[..., 0, :4], los_block[..., :4, :4], links.rotation, sphere_steps
    )
    over, over_map = directions.surface_direction(theta[..., 1:, :], links.rotation)
    los_covariance = _with_delay(los_map, los_block).unsqueeze(-3)
    return PathFixes(
        source_m=links.sources_m,
        direction=torch.cat((los.unsqueeze(-2), over), dim=-2),
        pseudo_range_m=delay - links.first_hop_m,
        covariance=torch.cat((los_covariance, _with_delay(over_map, ris_blocks)), dim=-3),
        present=channels.present,
    )


@dataclass(frozen=True)
class PairFixes:
    """Stage 2's answer for T pairs.

    Attributes:
        position_m, bias_m: p and b.
        information: M = J^T F_e J on (p, b), 1/m^2, with the estimated noise.
        valid: finite, at least two paths, and some bias puts all of them within reach.
    """

    position_m: Float[Tensor, "T 3"]
    bias_m: Float[Tensor, " T"]
    information: Float[Tensor, "T 4 4"]
    valid: Bool[Tensor, " T"]


def locate_pairs(
    system: RisSystem, links: Links, channels: ChannelEstimate, solver: str, farthest_m: float
) -> PairFixes:
    """Stage 2 on T pairs.

    Args:
        system: the known radio.
        links: where everything is.
        channels: of stage 1.
        solver: ``search``, ``linear`` or ``exip``.
        farthest_m: longest distance of a UE from base station or surface.
    """
    quality = channel_quality(system, channels)
    fixes = path_fixes(links, channels, quality)
    solve = wls.reweighted if solver == "linear" else wls.search
    position, bias = solve(fixes, farthest_m)
    if solver == "exip":
        position, bias = climb_likelihood(links, channels, quality.information, position, bias)
    low, high = wls.bias_bracket(fixes, farthest_m)
    valid = channels.valid & (channels.present.sum(dim=-1) >= FEWEST_PATHS) & (low < high)
    valid = valid & torch.isfinite(position).all(dim=-1) & torch.isfinite(bias)
    position = torch.where(valid.unsqueeze(-1), position, links.sources_m.mean(dim=-2))
    information = pair_information(links, quality.information, channels.noise, position)
    return PairFixes(position, _principal(bias, valid, system.window_m), information, valid)


def pair_information(
    links: Links, information: Float[Tensor, "T n n"], noise: Float[Tensor, " T"], position_m: Float[Tensor, "T 3"]
) -> Float[Tensor, "T 4 4"]:
    """M = J^T F_e J / noise at the estimate."""
    jacobian = position_jacobian(position_m, links.bs_m, links.ris_m, links.rotation)
    scale = noise.clamp(min=torch.finfo(noise.dtype).tiny)[..., None, None]
    return position_information(information, jacobian) / scale


def _principal(bias_m: Tensor, valid: Tensor, window_m: float) -> Tensor:
    """The bias nearest to zero: delays tell it modulo the window only."""
    nearest = torch.remainder(bias_m + window_m / 2, window_m) - window_m / 2
    return torch.where(valid, nearest, 0.0)


def _with_delay(error_map: Tensor, block: Tensor) -> Tensor:
    """Covariance of (u, t): the map of the direction beside the delay itself, which is the block's last unknown."""
    corner = torch.ones(*error_map.shape[:-2], 1, 1, dtype=error_map.dtype, device=error_map.device)
    upper = torch.nn.functional.pad(error_map, (0, 1))
    lower = torch.nn.functional.pad(corner, (error_map.shape[-1], 0))
    both = torch.cat((upper, lower), dim=-2)
    return both @ block @ both.mT
