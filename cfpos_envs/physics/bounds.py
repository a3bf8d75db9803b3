"""Position error bounds and error ellipses of any Fisher matrix, and the Fisher information of bearings."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.physics.geometry import rotate_quarter

_SINGULAR = 1e-14
_SMALLEST_DISTANCE_M = 1e-3


def aoa_fisher(
    vectors_m: Float[Tensor, "*batch M K 2"], information_per_rad2: Float[Tensor, "*batch M K"]
) -> Float[Tensor, "*batch K 2 2"]:
    """Fisher information of independent bearings: sum_m J_m v_m v_m^T / d_m^2, v_m the tangential unit vector, 1/m^2.

    Args:
        vectors_m: horizontal vectors from AP to UE; distances below 1 mm count as 1 mm.
        information_per_rad2: information J_m on each bearing.
    """
    distance = torch.linalg.vector_norm(vectors_m, dim=-1).clamp(min=_SMALLEST_DISTANCE_M)
    scaled = rotate_quarter(vectors_m) * (information_per_rad2.sqrt() / distance.square()).unsqueeze(-1)
    return torch.einsum("...mki,...mkj->...kij", scaled, scaled)


def position_error_bound(fisher: Float[Tensor, "*batch D D"]) -> Float[Tensor, "*batch"]:
    """PEB = sqrt(tr J^-1), the lower bound of the RMS error of an unbiased estimator, metres.

    Args:
        fisher: information matrices, 1/m^2.

    Returns:
        The bound; infinite where the information is singular (the position cannot be determined) or not finite.
    """
    values, _ = _spectral(fisher)
    return torch.where(values > 0, 1 / values, torch.inf).sum(dim=-1).sqrt()


def error_ellipse(
    fisher: Float[Tensor, "*batch 2 2"], probability: float | None = None
) -> tuple[Float[Tensor, "*batch 2"], Float[Tensor, "*batch"]]:
    """Ellipse of the covariance J^-1: semi-axes (long, short) in metres and direction of the long one, [-pi/2, pi/2).

    Args:
        fisher: information matrices, 1/m^2.
        probability: content of the ellipse in (0, 1); None gives one standard deviation (39.3 %).

    Raises:
        ValueError: for a probability outside (0, 1).
    """
    if probability is not None and not 0.0 < probability < 1.0:
        raise ValueError(f"probability must lie in (0, 1), got {probability}")
    scale = 1.0 if probability is None else math.sqrt(-2 * math.log1p(-probability))
    values, vectors = _spectral(fisher)
    axes = scale * torch.where(values > 0, 1 / values, torch.inf).sqrt()
    angle = torch.atan2(vectors[..., 1, 0], vectors[..., 0, 0])
    return axes, torch.remainder(angle + math.pi / 2, math.pi) - math.pi / 2


def _spectral(fisher: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, ascending, and vectors; those below rounding (or of a matrix that is not finite) become zero."""
    finite = torch.isfinite(fisher).all(dim=-1).all(dim=-1)
    safe = torch.where(finite[..., None, None], fisher, torch.zeros_like(fisher)).to(torch.float64)
    scale = safe.abs().amax(dim=(-2, -1)).clamp(min=torch.finfo(torch.float64).tiny)
    values, vectors = torch.linalg.eigh(safe / scale[..., None, None])
    kept = torch.where(values > _SINGULAR, values, torch.zeros_like(values))
    return kept * scale.unsqueeze(-1), vectors
