"""Stage 2 as a whole: from channel parameters to position and clock bias, with the information that they carry.

With s_l the source, t_l the delay less the known first hop and r = t_l - b, path l says

    p_l(b) = s_l + r u_l,    Sigma_l(b) = [r I | u_l] C_l [r I | u_l]^T,    C_l the covariance of (u_l, t_l),

and p, b minimise J(p, b) = sum_l (p - p_l)^T Sigma_l^-1 (p - p_l) (Zhang, Wang, Tay, arXiv 2306.07504). The reference,
``climb_likelihood``, is least squares on all channel parameters together, which is asymptotically maximum likelihood;
the fit of positions is the same up to second order and the correlation between paths.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfpos_envs.measurements.base import Rows
from cfpos_envs.measurements.ris import RisSystem
from cfpos_envs.physics.ris.geometry import path_parameters, position_jacobian
from cfpos_envs.physics.ris.information import num_path_unknowns, path_blocks, position_information
from cfpos_envs.physics.ris.modes import DELAY_MODE

from ..least_squares import gauss_newton, inverse_3x3, scaled_inverse
from .channel import FEWEST_PATHS, ChannelEstimate
from .directions import SPHERE_STEPS, line_of_sight_direction, surface_direction
from .kernels import searched
from .pairs import PairGeometry
from .refine import free_parameters, masked_information, unknowns_present

SOLVERS = ("search", "linear", "exip")
_GRID = 121
_ZOOM, _ZOOMS = 17, 8
_NEAREST_M = 0.5
_FLOOR = 1e-9
_REWEIGHTINGS = 3
_LIKELIHOOD_STEPS = 4
_LONGEST_STEP_M = 5.0
_EDGE = 1e-3
_RESOLUTION = 1e-4


@dataclass(frozen=True)
class PathFixes:
    """What every path says about the position.

    Attributes:
        source_m: s_l, the base station or a surface.
        direction: u_l, unit vectors towards the UE.
        pseudo_range_m: t_l = delay less first hop; holds the bias.
        covariance: C_l of (u_l, t_l), up to a factor common to all paths.
        present: paths that count.
    """

    source_m: Float[Tensor, "T L 3"]
    direction: Float[Tensor, "T L 3"]
    pseudo_range_m: Float[Tensor, "T L"]
    covariance: Float[Tensor, "T L 4 4"]
    present: Bool[Tensor, "T L"]


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
    links: PairGeometry, channels: ChannelEstimate, quality: ChannelQuality, sphere_steps: int = SPHERE_STEPS
) -> PathFixes:
    """Direction, pseudo-range and their covariance for every path; one path's own block of C at a time."""
    theta, delay = channels.parameters[..., :2], channels.parameters[..., DELAY_MODE]
    los_block, ris_blocks = path_blocks(quality.covariance)
    los, los_map = line_of_sight_direction(
        channels.parameters[..., 0, :4], los_block[..., :4, :4], links.rotation, sphere_steps
    )
    over, over_map = surface_direction(theta[..., 1:, :], links.rotation)
    los_covariance = _with_delay(los_map, los_block).unsqueeze(-3)
    return PathFixes(
        source_m=links.sources_m,
        direction=torch.cat((los.unsqueeze(-2), over), dim=-2),
        pseudo_range_m=delay - links.first_hop_m,
        covariance=torch.cat((los_covariance, _with_delay(over_map, ris_blocks)), dim=-3),
        present=channels.present,
    )


@dataclass(frozen=True)
class PairFixes(Rows):
    """Stage 2's answer for T pairs.

    Attributes:
        position_m, bias_m: p and b.
        information: M = J^T F_e J on (p, b), 1/m^2, with the estimated noise.
        valid: finite, at least two paths, and some bias puts all of them within reach.
        chi_squared: (eta - f(p, b))^T F_e (eta - f(p, b)) / noise, of all channel parameters.
        degrees_of_freedom: parameters of the present paths, less position and bias.
        at_reach: no bias puts all paths within reach, or the best one is the farthest allowed.
    """

    position_m: Float[Tensor, "T 3"]
    bias_m: Float[Tensor, " T"]
    information: Float[Tensor, "T 4 4"]
    valid: Bool[Tensor, " T"]
    chi_squared: Float[Tensor, " T"]
    degrees_of_freedom: Int[Tensor, " T"]
    at_reach: Bool[Tensor, " T"]


def locate_pairs(
    system: RisSystem, links: PairGeometry, channels: ChannelEstimate, solver: str, farthest_m: float
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
    solve = reweighted if solver == "linear" else search
    position, bias = solve(fixes, farthest_m)
    if solver == "exip":
        position, bias = climb_likelihood(links, channels, quality.information, position, bias)
    low, high = bias_bracket(fixes, farthest_m)
    enough = channels.valid & (channels.present.sum(dim=-1) >= FEWEST_PATHS)
    within = low < high
    # The last step of the search is far below this share of the bracket. Of no bracket it makes any bias.
    at_reach = enough & (~within | (bias - low < _EDGE * (high - low)))
    valid = enough & within
    valid = valid & torch.isfinite(position).all(dim=-1) & torch.isfinite(bias)
    position = torch.where(valid.unsqueeze(-1), position, links.sources_m.mean(dim=-2))
    information = pair_information(links, quality.information, channels.noise, position)
    chi_squared = misfit(links, channels, quality.information, position, torch.where(valid, bias, 0.0))
    freedom = unknowns_present(channels.present)[..., : num_path_unknowns(channels.present.shape[-1])].sum(dim=-1) - 4
    return PairFixes(
        position,
        _principal(bias, valid, system.window_m),
        information,
        valid,
        torch.where(valid, chi_squared, 0.0),
        torch.where(valid, freedom, 0),
        at_reach,
    )


def misfit(
    links: PairGeometry,
    channels: ChannelEstimate,
    information: Float[Tensor, "T n n"],
    position_m: Float[Tensor, "T 3"],
    bias_m: Float[Tensor, " T"],
) -> Float[Tensor, " T"]:
    """Chi squared of the channel parameters at a position and a bias.

    Args:
        links: where everything is.
        channels: eta of stage 1 and the noise.
        information: F_e for noise variance 1, zero for absent paths.
        position_m, bias_m: answers; the bias belongs to the unwrapped delays.
    """
    free = free_parameters(channels.present.shape[-1], position_m.device)
    model = path_parameters(position_m, bias_m, links.bs_m, links.ris_m, links.rotation)
    off = (channels.parameters - model).flatten(-2)[..., free].unsqueeze(-1)
    # Without noise the rounding of the samples and the search's last step are what is left.
    strongest = torch.where(channels.present, channels.gains.abs(), 0.0).amax(dim=-1)
    floor = (_RESOLUTION * strongest).square().clamp(min=torch.finfo(channels.noise.dtype).tiny)
    noise = torch.maximum(channels.noise, floor)
    return (off.mT @ information @ off)[..., 0, 0].nan_to_num() / noise


def pair_information(
    links: PairGeometry,
    information: Float[Tensor, "T n n"],
    noise: Float[Tensor, " T"],
    position_m: Float[Tensor, "T 3"],
) -> Float[Tensor, "T 4 4"]:
    """M = J^T F_e J / noise at the estimate."""
    jacobian = position_jacobian(position_m, links.bs_m, links.ris_m, links.rotation)
    scale = noise.clamp(min=torch.finfo(noise.dtype).tiny)[..., None, None]
    return position_information(information, jacobian) / scale


def path_weights(fixes: PathFixes, bias_m: Float[Tensor, "T G"]) -> Float[Tensor, "T G L 3 3"]:
    """Sigma_l(b)^-1 at G biases; zero for absent paths."""
    c, u = fixes.covariance, fixes.direction
    r = (fixes.pseudo_range_m.unsqueeze(1) - bias_m.unsqueeze(-1))[..., None, None]
    cross = c[..., :3, 3:] * u.unsqueeze(-2)
    along = c[..., 3:, 3:] * u.unsqueeze(-1) * u.unsqueeze(-2)
    sigma = r.square() * c[..., :3, :3].unsqueeze(1) + r * (cross + cross.mT).unsqueeze(1) + along.unsqueeze(1)
    trace = sigma.diagonal(dim1=-2, dim2=-1).sum(dim=-1)[..., None, None]
    eye = torch.eye(3, dtype=sigma.dtype, device=sigma.device)
    present = fixes.present[:, None, :, None, None]
    return inverse_3x3(torch.where(present, sigma + _FLOOR * trace * eye, eye)) * present


def position_given_bias(
    fixes: PathFixes, bias_m: Float[Tensor, "T G"]
) -> tuple[Float[Tensor, "T G 3"], Float[Tensor, "T G"]]:
    """p(b) = (sum Sigma_l^-1)^-1 sum Sigma_l^-1 p_l(b), and J there."""
    weights = path_weights(fixes, bias_m)
    r = fixes.pseudo_range_m.unsqueeze(1) - bias_m.unsqueeze(-1)
    said = fixes.source_m.unsqueeze(1) + r.unsqueeze(-1) * fixes.direction.unsqueeze(1)
    pulled = (weights @ said.unsqueeze(-1)).sum(dim=-3)
    position = (inverse_3x3(weights.sum(dim=-3)) @ pulled).squeeze(-1)
    off = (position.unsqueeze(-2) - said).unsqueeze(-1)
    return position, (off.mT @ weights @ off).sum(dim=(-1, -2, -3))


def bias_bracket(fixes: PathFixes, farthest_m: float) -> tuple[Float[Tensor, " T"], Float[Tensor, " T"]]:
    """Biases with which all present paths are between 0.5 m and ``farthest_m`` long; reversed where there is none."""
    t = fixes.pseudo_range_m
    longest = torch.where(fixes.present, t, -torch.inf).amax(dim=-1)
    shortest = torch.where(fixes.present, t, torch.inf).amin(dim=-1)
    return longest - farthest_m, shortest - _NEAREST_M


def search(fixes: PathFixes, farthest_m: float) -> tuple[Float[Tensor, "T 3"], Float[Tensor, " T"]]:
    """Position and bias by a search over the bias: 121 points of the bracket, then finer ones around the best.

    Args:
        fixes: at least two present paths.
        farthest_m: longest distance of the UE from a source.
    """
    paths = fixes.source_m, fixes.direction, fixes.pseudo_range_m, fixes.covariance, fixes.present
    found = searched(paths, (_GRID, _ZOOM, _ZOOMS), (_NEAREST_M, farthest_m), _FLOOR)
    return search_by_tables(fixes, farthest_m) if found is None else found


def search_by_tables(fixes: PathFixes, farthest_m: float) -> tuple[Float[Tensor, "T 3"], Float[Tensor, " T"]]:
    """``search`` by torch's own operations, all biases of a bracket at once: what the kernel is compared with."""
    middle, half = _coarse(fixes, farthest_m)
    offsets = torch.linspace(-1.0, 1.0, _ZOOM, dtype=middle.dtype, device=middle.device)
    for _ in range(_ZOOMS):
        tried = middle.unsqueeze(-1) + half.unsqueeze(-1) * offsets
        middle = _best(fixes, tried)
        half = half * (2.0 / (_ZOOM - 1))
    return position_given_bias(fixes, middle.unsqueeze(-1))[0].squeeze(1), middle


def reweighted(fixes: PathFixes, farthest_m: float) -> tuple[Float[Tensor, "T 3"], Float[Tensor, " T"]]:
    """Position and bias from p + b u_l = s_l + t_l u_l, linear with frozen weights: three solves from the best of 121.

    Args:
        fixes, farthest_m: as in ``search``.
    """
    bias, _ = _coarse(fixes, farthest_m)
    u = fixes.direction
    eye = torch.eye(3, dtype=u.dtype, device=u.device).expand(*u.shape[:-1], 3, 3)
    rows = torch.cat((eye, u.unsqueeze(-1)), dim=-1)
    said = (fixes.source_m + fixes.pseudo_range_m.unsqueeze(-1) * u).unsqueeze(-1)
    found = torch.zeros_like(rows[:, 0, 0, :])
    for _ in range(_REWEIGHTINGS):
        weights = path_weights(fixes, bias.unsqueeze(-1)).squeeze(1)
        normal = (rows.mT @ weights @ rows).sum(dim=-3)
        right = (rows.mT @ weights @ said).sum(dim=-3)
        found = torch.linalg.solve_ex(normal, right).result.squeeze(-1)
        bias = found[..., 3]
    return found[..., :3], bias


def _coarse(fixes: PathFixes, farthest_m: float) -> tuple[Tensor, Tensor]:
    """Best of the grid, and its step."""
    low, high = bias_bracket(fixes, farthest_m)
    share = torch.linspace(0.0, 1.0, _GRID, dtype=low.dtype, device=low.device)
    tried = low.unsqueeze(-1) + (high - low).unsqueeze(-1) * share
    return _best(fixes, tried), (high - low).abs() / (_GRID - 1)


def _best(fixes: PathFixes, bias_m: Tensor) -> Tensor:
    _, cost = position_given_bias(fixes, bias_m)
    return bias_m.gather(-1, cost.argmin(dim=-1, keepdim=True)).squeeze(-1)


def climb_likelihood(
    links: PairGeometry,
    channels: ChannelEstimate,
    information: Float[Tensor, "T n n"],
    position_m: Float[Tensor, "T 3"],
    bias_m: Float[Tensor, " T"],
) -> tuple[Float[Tensor, "T 3"], Float[Tensor, " T"]]:
    """Gauss-Newton on (eta - f(p, b))^T F_e (eta - f(p, b)) from a solution.

    Args:
        links: where everything is.
        channels: eta of stage 1.
        information: F_e, zero for absent paths.
        position_m, bias_m: start; the bias belongs to the unwrapped delays.
    """
    free = free_parameters(channels.present.shape[-1], position_m.device)
    measured = channels.parameters.flatten(-2)[..., free]

    def linearised(at: Float[Tensor, "T 4"]) -> tuple[Float[Tensor, "T n 4"], Float[Tensor, "T n"]]:
        model = path_parameters(at[..., :3], at[..., 3], links.bs_m, links.ris_m, links.rotation)
        jacobian = position_jacobian(at[..., :3], links.bs_m, links.ris_m, links.rotation)
        return jacobian, measured - model.flatten(-2)[..., free]

    start = torch.cat((position_m, bias_m.unsqueeze(-1)), dim=-1)
    found = gauss_newton(linearised, start, _LIKELIHOOD_STEPS, _LONGEST_STEP_M, information)
    return found[..., :3], found[..., 3]


def _principal(bias_m: Tensor, valid: Tensor, window_m: float) -> Tensor:
    """The bias nearest to zero: delays determine it modulo the window only."""
    nearest = torch.remainder(bias_m + window_m / 2, window_m) - window_m / 2
    return torch.where(valid, nearest, 0.0)


def _with_delay(error_map: Tensor, block: Tensor) -> Tensor:
    """Covariance of (u, t): the map of the direction beside the delay itself, which is the block's last unknown."""
    corner = torch.ones(*error_map.shape[:-2], 1, 1, dtype=error_map.dtype, device=error_map.device)
    upper = torch.nn.functional.pad(error_map, (0, 1))
    lower = torch.nn.functional.pad(corner, (error_map.shape[-1], 0))
    both = torch.cat((upper, lower), dim=-2)
    return both @ block @ both.mT
