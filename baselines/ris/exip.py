"""Stage 2, reference: the extended invariance principle, least squares on all channel parameters together.

Minimising (eta - f(p, b))^T F_e (eta - f(p, b)) is asymptotically maximum likelihood (Zhang, Wang, Tay, arXiv
2306.07504); the weighted least squares over path positions is the same up to second order and the correlation
between paths.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.physics.ris.geometry import path_parameters, position_jacobian

from .links import Links
from .refine import free_parameters, scaled_inverse
from .stage1 import ChannelEstimate

STEPS = 4
LONGEST_STEP_M = 5.0


def climb_likelihood(
    links: Links,
    channels: ChannelEstimate,
    information: Float[Tensor, "T n n"],
    position_m: Float[Tensor, "T 3"],
    bias_m: Float[Tensor, " T"],
) -> tuple[Float[Tensor, "T 3"], Float[Tensor, " T"]]:
    """Gauss-Newton from a solution.

    Args:
        links: where everything is.
        channels: eta of stage 1.
        information: F_e, zero for absent paths.
        position_m, bias_m: start; the bias belongs to the unwrapped delays.
    """
    free = free_parameters(channels.present.shape[-1], position_m.device)
    measured = channels.parameters.flatten(-2)[..., free]
    for _ in range(STEPS):
        model = path_parameters(position_m, bias_m, links.bs_m, links.ris_m, links.rotation).flatten(-2)[..., free]
        jacobian = position_jacobian(position_m, links.bs_m, links.ris_m, links.rotation)
        weighted = jacobian.mT @ information
        step = (scaled_inverse(weighted @ jacobian) @ (weighted @ (measured - model).unsqueeze(-1))).squeeze(-1)
        step = torch.where(torch.isfinite(step), step, 0.0)
        length = torch.linalg.vector_norm(step[..., :3], dim=-1, keepdim=True)
        step = step * (LONGEST_STEP_M / length.clamp(min=LONGEST_STEP_M))
        position_m, bias_m = position_m + step[..., :3], bias_m + step[..., 3]
    return position_m, bias_m
