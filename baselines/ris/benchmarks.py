"""Benchmarks: equal-weight least squares on angles of arrival alone, and direction and delay of the strongest path.

The first needs no delay and gives no clock; the second takes the clock to be right: its error is c times the bias.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs.physics.ris.geometry import path_parameters, position_jacobian

from ..least_squares import gauss_newton, scaled_inverse
from .channel import ChannelEstimate
from .directions import surface_direction
from .pairs import PairGeometry
from .position import PathFixes

FORMS = ("nls", "lines")
_STEPS = 10
_LONGEST_STEP_M = 5.0


def nearest_to_lines(
    links: PairGeometry, cosines: Float[Tensor, "T L 2"], present: Bool[Tensor, "T L"]
) -> Float[Tensor, "T 3"]:
    """Point p = argmin sum_l |(I - u_l u_l^T)(p - s_l)|^2, u_l from the arrival cosines alone.

    Args:
        links: where everything is.
        cosines: theta of every path.
        present: paths that count.
    """
    u, _ = surface_direction(cosines, links.rotation)
    eye = torch.eye(3, dtype=u.dtype, device=u.device)
    across = (eye - u.unsqueeze(-1) * u.unsqueeze(-2)) * present[..., None, None]
    right = (across @ links.sources_m.unsqueeze(-1)).sum(dim=-3)
    return torch.linalg.solve_ex(across.sum(dim=-3), right).result.squeeze(-1)


def fit_cosines(
    links: PairGeometry, cosines: Float[Tensor, "T L 2"], present: Bool[Tensor, "T L"], start_m: Float[Tensor, "T 3"]
) -> Float[Tensor, "T 3"]:
    """Equal-weight least squares on the cosines by Gauss-Newton.

    Args:
        links, cosines, present: as in ``nearest_to_lines``.
        start_m: start.
    """

    def linearised(position_m: Float[Tensor, "T 3"]) -> tuple[Float[Tensor, "T n 3"], Float[Tensor, "T n"]]:
        model = path_parameters(position_m, position_m[..., 0] * 0, links.bs_m, links.ris_m, links.rotation)[..., :2]
        return cosine_slopes(links, position_m, present), ((cosines - model) * present.unsqueeze(-1)).flatten(-2)

    return gauss_newton(linearised, start_m, _STEPS, _LONGEST_STEP_M)


def cosine_slopes(
    links: PairGeometry, position_m: Float[Tensor, "T 3"], present: Bool[Tensor, "T L"]
) -> Float[Tensor, "T n 3"]:
    """Derivatives d theta / dp of the 2 L cosines; zero rows for absent paths."""
    rows = theta_rows(present.shape[-1])
    slopes = position_jacobian(position_m, links.bs_m, links.ris_m, links.rotation)[..., rows, :3]
    return slopes * present.repeat_interleave(2, dim=-1).unsqueeze(-1)


def theta_rows(paths: int) -> list[int]:
    """Where the arrival cosines stand among the n unknowns."""
    return [0, 1, *(5 + 3 * r + i for r in range(paths - 1) for i in range(2))]


def cosine_fit_covariance(
    links: PairGeometry,
    position_m: Float[Tensor, "T 3"],
    covariance: Float[Tensor, "T n n"],
    noise: Float[Tensor, " T"],
    present: Bool[Tensor, "T L"],
) -> Float[Tensor, "T 3 3"]:
    """Covariance of the equal-weight fit by linear theory, G C G^T with G = (J^T J)^-1 J^T.

    Args:
        links, position_m, present: where.
        covariance: C of all n unknowns for noise variance 1.
        noise: variance.
    """
    slopes = cosine_slopes(links, position_m, present)
    gain = scaled_inverse(slopes.mT @ slopes) @ slopes.mT
    rows = theta_rows(present.shape[-1])
    own = covariance[..., rows, :][..., rows]
    return gain @ own @ gain.mT * noise[..., None, None]


def along_strongest_path(
    channels: ChannelEstimate, fixes: PathFixes, window_m: float
) -> tuple[Float[Tensor, "T 3"], Float[Tensor, "T 3 3"]]:
    """Position p = s_l + t_l u_l for the path l of the largest gain, and its covariance.

    Args:
        channels: of stage 1.
        fixes: direction and pseudo-range of every path.
        window_m: delays are taken to lie in [0, window).
    """
    strength = torch.where(channels.present, channels.gains.abs(), -torch.inf)
    best = strength.argmax(dim=-1)
    rows = torch.arange(len(best), device=best.device)
    u, source = fixes.direction[rows, best], fixes.source_m[rows, best]
    delay = channels.parameters[rows, best, 4]
    first_hop = delay - fixes.pseudo_range_m[rows, best]
    r = torch.remainder(delay, window_m) - first_hop
    eye = torch.eye(3, dtype=u.dtype, device=u.device)
    outer = torch.cat((r[:, None, None] * eye, u.unsqueeze(-1)), dim=-1)
    covariance = outer @ fixes.covariance[rows, best] @ outer.mT
    return source + r.unsqueeze(-1) * u, covariance * channels.noise[:, None, None]
