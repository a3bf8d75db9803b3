"""Benchmark: equal-weight least squares on angles of arrival alone; needs no delay and tells no clock."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs.physics.ris.geometry import path_parameters, position_jacobian

from .directions import surface_direction
from .links import Links
from .refine import scaled_inverse

FORMS = ("nls", "lines")
STEPS = 10
LONGEST_STEP_M = 5.0


def nearest_to_lines(
    links: Links, cosines: Float[Tensor, "T L 2"], present: Bool[Tensor, "T L"]
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
    links: Links, cosines: Float[Tensor, "T L 2"], present: Bool[Tensor, "T L"], start_m: Float[Tensor, "T 3"]
) -> Float[Tensor, "T 3"]:
    """Equal-weight least squares on the cosines by Gauss-Newton.

    Args:
        links, cosines, present: as in ``nearest_to_lines``.
        start_m: start.
    """
    position = start_m
    for _ in range(STEPS):
        slopes = cosine_slopes(links, position, present)
        model = path_parameters(position, position[..., 0] * 0, links.bs_m, links.ris_m, links.rotation)[..., :2]
        residual = ((cosines - model) * present.unsqueeze(-1)).flatten(-2).unsqueeze(-1)
        step = (scaled_inverse(slopes.mT @ slopes) @ (slopes.mT @ residual)).squeeze(-1)
        step = torch.where(torch.isfinite(step), step, 0.0)
        length = torch.linalg.vector_norm(step, dim=-1, keepdim=True)
        position = position + step * (LONGEST_STEP_M / length.clamp(min=LONGEST_STEP_M))
    return position


def cosine_slopes(links: Links, position_m: Float[Tensor, "T 3"], present: Bool[Tensor, "T L"]) -> Tensor:
    """Derivatives d theta / dp, [T, 2L, 3]; zero rows for absent paths."""
    rows = theta_rows(present.shape[-1])
    slopes = position_jacobian(position_m, links.bs_m, links.ris_m, links.rotation)[..., rows, :3]
    return slopes * present.repeat_interleave(2, dim=-1).unsqueeze(-1)


def theta_rows(paths: int) -> list[int]:
    """Where the arrival cosines stand among the n unknowns."""
    return [0, 1, *(5 + 3 * r + i for r in range(paths - 1) for i in range(2))]


def spread(
    links: Links,
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
