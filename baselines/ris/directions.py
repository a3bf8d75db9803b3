"""Stage 2, directions: unit vectors from cosines, and how errors of the cosines become errors of the vectors."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.physics.ris.geometry import BS_AXES

from ..least_squares import scaled_inverse
from .kernels import sighted

# The third cosine is the root of what is left; its derivative explodes where nothing is.
LARGEST_SINE = 0.995
SPHERE_STEPS = 5


def line_of_sight_direction(
    cosines: Float[Tensor, "T 4"],
    covariance: Float[Tensor, "T 4 4"],
    rotation: Float[Tensor, "T 3 3"],
    steps: int = SPHERE_STEPS,
) -> tuple[Float[Tensor, "T 3"], Float[Tensor, "T 3 4"]]:
    """Direction of propagation u from y = (theta_1, theta_2, psi_1, psi_2), and its error map du = H dy.

    y is linear in u, y = T u. The weighted solution is normalised; Gauss-Newton steps on the sphere follow,
    u <- normalise(u + B (B^T N B)^-1 B^T T^T W (y - T u)), N = T^T W T, B a basis of the plane across u. Without them
    the information in the length of the weighted solution is thrown away (1.5 % of the RMSE).

    Args:
        cosines: y.
        covariance: of y, up to a factor.
        rotation: orientation of the UE.
        steps: on the sphere; 0 leaves the normalised weighted solution.
    """
    base = torch.tensor(BS_AXES, dtype=cosines.dtype, device=cosines.device).expand(len(cosines), 2, 3)
    mapping = torch.cat((-rotation[..., :, :2].mT, base), dim=-2)
    weight = scaled_inverse(covariance)
    found = sighted(cosines, mapping, weight, steps) if steps else None
    return sight_by_tables(cosines, mapping, weight, steps) if found is None else found


def sight_by_tables(
    cosines: Float[Tensor, "T 4"], mapping: Float[Tensor, "T 4 3"], weight: Float[Tensor, "T 4 4"], steps: int
) -> tuple[Float[Tensor, "T 3"], Float[Tensor, "T 3 4"]]:
    """``line_of_sight_direction`` from T and W by torch's own operations: what the kernel is compared with."""
    weighted = mapping.mT @ weight  # T^T W
    normal = weighted @ mapping
    solve = torch.linalg.inv_ex(normal).inverse @ weighted
    loose = (solve @ cosines.unsqueeze(-1)).squeeze(-1)
    length = torch.linalg.vector_norm(loose, dim=-1, keepdim=True)
    u = loose / length
    for _ in range(steps):
        across = _error_map(u, normal, weighted)
        residual = cosines - (mapping @ u.unsqueeze(-1)).squeeze(-1)
        u = u + (across @ residual.unsqueeze(-1)).squeeze(-1)
        u = u / torch.linalg.vector_norm(u, dim=-1, keepdim=True)
    if steps:
        return u, _error_map(u, normal, weighted)
    eye = torch.eye(3, dtype=u.dtype, device=u.device)
    return u, (eye - u.unsqueeze(-1) * u.unsqueeze(-2)) @ solve / length.unsqueeze(-1)


def surface_direction(
    cosines: Float[Tensor, "T R 2"], rotation: Float[Tensor, "T 3 3"]
) -> tuple[Float[Tensor, "T R 3"], Float[Tensor, "T R 3 2"]]:
    """Direction u = -R (theta_1, theta_2, +sqrt(1 - theta_1^2 - theta_2^2)) and its error map; |theta| at most 0.995.

    Args:
        cosines: theta at the UE.
        rotation: orientation of the UE.
    """
    size = torch.linalg.vector_norm(cosines, dim=-1, keepdim=True)
    inside = cosines * (LARGEST_SINE / size.clamp(min=LARGEST_SINE))
    third = torch.sqrt(1.0 - inside.square().sum(dim=-1, keepdim=True))
    turned = rotation.unsqueeze(-3)
    u = -(turned @ torch.cat((inside, third), dim=-1).unsqueeze(-1)).squeeze(-1)
    eye = torch.eye(2, dtype=cosines.dtype, device=cosines.device).expand(*cosines.shape[:-1], 2, 2)
    slopes = torch.cat((eye, -(inside / third).unsqueeze(-2)), dim=-2)
    return u, -(turned @ slopes)


def _error_map(u: Tensor, normal: Tensor, weighted: Tensor) -> Tensor:
    """B (B^T N B)^-1 B^T T^T W, B a basis of the plane across u: there N is inverted, along u nothing is left."""
    along = u.unsqueeze(-1) * u.unsqueeze(-2)
    across = torch.eye(3, dtype=u.dtype, device=u.device) - along
    size = normal.diagonal(dim1=-2, dim2=-1).sum(dim=-1)[..., None, None]
    inverse = torch.linalg.inv_ex(across @ normal @ across + size * along).inverse
    return across @ inverse @ across @ weighted
