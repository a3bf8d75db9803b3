"""What two-stage estimators make of efficient channel estimates, by linearising them at the truth.

The weighted least squares reaches the bound up to the correlation between paths; leaving out the constraint |u| = 1 of
the line of sight's direction costs 1.5 %, equal weights on arrival cosines alone a factor of 2.6 (default scene).

Source: Zhang, Wang, Tay, arXiv 2306.07504, positions per path and their weighted least squares; linearised here.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.physics.ris.geometry import BS_AXES, RisPaths, arrival_cosines, position_jacobian, trace_paths
from cfpos_envs.physics.ris.information import path_blocks

_RTOL = 1e-10


def wls_covariance(
    channel_covariance: Float[Tensor, "*batch n n"],
    ue_m: Float[Tensor, "*batch 3"],
    bs_m: Float[Tensor, "*#batch 3"],
    ris_m: Float[Tensor, "*#batch R 3"],
    rotation: Float[Tensor, "*#batch 3 3"],
    constrained: bool = True,
) -> Float[Tensor, "*batch 4 4"]:
    """Covariance of (p, b) from the weighted least squares p + b u_l = s_l + t_l u_l with weights Sigma_l^-1.

    Sigma_l = E_l C_l E_l^T is the covariance of a path's own position, C_l its block of the channel covariance, E_l =
    [r_l H_l, u_l] the derivative of that position by the path's cosines and delay.

    Args:
        channel_covariance: of ``information.channel_covariance``.
        ue_m, bs_m, ris_m: true positions.
        rotation: orientation of the UE.
        constrained: directions of the line of sight are fitted on the unit sphere; else freely, then normalised.
    """
    paths = trace_paths(ue_m, bs_m, ris_m)
    los_block, ris_blocks = path_blocks(channel_covariance)
    los = los_direction_map(los_block[..., :4, :4], paths, rotation, constrained)
    maps = [los, *ris_direction_maps(paths, rotation).unbind(dim=-3)]
    normal, pulls = torch.zeros(()), []
    for path, (direction_map, block) in enumerate(zip(maps, [los_block, *ris_blocks.unbind(dim=-3)])):
        u = paths.direction[..., path, :].unsqueeze(-1)
        design = torch.cat((torch.eye(3, dtype=u.dtype, device=u.device).expand(*u.shape[:-2], 3, 3), u), dim=-1)
        spread = torch.cat((paths.range_m[..., path, None, None] * direction_map, u), dim=-1)
        weighted = design.mT @ torch.linalg.inv(spread @ block @ spread.mT)
        normal = normal + weighted @ design
        pulls.append(weighted @ spread)
    sensitivity = torch.linalg.solve(normal, torch.cat(pulls, dim=-1))
    return sensitivity @ channel_covariance @ sensitivity.mT


def ls_covariance(
    channel_covariance: Float[Tensor, "*batch n n"],
    ue_m: Float[Tensor, "*batch 3"],
    bs_m: Float[Tensor, "*#batch 3"],
    ris_m: Float[Tensor, "*#batch R 3"],
    rotation: Float[Tensor, "*#batch 3 3"],
) -> Float[Tensor, "*batch 3 3"]:
    """Covariance of the position from equal-weight least squares on the arrival cosines of all paths.

    Args:
        channel_covariance, ue_m, bs_m, ris_m, rotation: see ``wls_covariance``.
    """
    paths = ris_m.shape[-2] + 1
    rows = [0, 1, *(5 + 3 * r + i for r in range(paths - 1) for i in range(2))]
    slopes = position_jacobian(ue_m, bs_m, ris_m, rotation)[..., rows, :3]
    sensitivity = torch.linalg.solve(slopes.mT @ slopes, slopes.mT)
    return sensitivity @ channel_covariance[..., rows, :][..., rows] @ sensitivity.mT


def los_direction_map(
    covariance: Float[Tensor, "*batch 4 4"],
    paths: RisPaths,
    rotation: Float[Tensor, "*#batch 3 3"],
    constrained: bool,
) -> Float[Tensor, "*batch 3 4"]:
    """Derivative of the line of sight's fitted direction by its cosines (theta_1, theta_2, psi_1, psi_2).

    The cosines are y = T u, T = [-(R e_1)^T; -(R e_2)^T; E_B], fitted with weights W = covariance^-1. On the sphere the
    map is (Q N Q)^+ T^T W with N = T^T W T, Q = I - u u^T; freely it is Q N^-1 T^T W.

    Args:
        covariance: of the four cosines.
        paths: of ``geometry.trace_paths``.
        rotation: orientation of the UE.
        constrained: fit on the sphere.
    """
    u = paths.direction[..., 0, :]
    axes = torch.tensor(BS_AXES, dtype=u.dtype, device=u.device)
    table = torch.cat((-rotation[..., :, :2].mT.expand(*u.shape[:-1], 2, 3), axes.expand(*u.shape[:-1], 2, 3)), dim=-2)
    pull = table.mT @ torch.linalg.inv(covariance)
    normal = pull @ table
    across = torch.eye(3, dtype=u.dtype, device=u.device) - u.unsqueeze(-1) * u.unsqueeze(-2)
    if constrained:
        return torch.linalg.pinv(across @ normal @ across, rtol=_RTOL, hermitian=True) @ pull
    return across @ torch.linalg.solve(normal, pull)


def ris_direction_maps(paths: RisPaths, rotation: Float[Tensor, "*#batch 3 3"]) -> Float[Tensor, "*batch R 3 2"]:
    """Derivative of u_r = -R (theta_1, theta_2, sqrt(1 - theta_1^2 - theta_2^2)) by the two cosines, for each surface.

    Args:
        paths: of ``geometry.trace_paths``.
        rotation: orientation of the UE.
    """
    theta = arrival_cosines(paths, rotation)[..., 1:, :]
    eye = torch.eye(2, dtype=theta.dtype, device=theta.device).expand(*theta.shape[:-1], 2, 2)
    third = -(theta[..., :2] / theta[..., 2:]).unsqueeze(-2)
    return -(rotation.unsqueeze(-3) @ torch.cat((eye, third), dim=-2))
