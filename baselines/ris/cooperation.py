"""Several base stations and UEs: fixes of pairs weighted by their information, UEs tied by measured differences."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs.physics.ris.information import cooperative_information, covariance_bound

# A difference that is measured exactly would have infinite weight.
_SMALLEST_LINK_VARIANCE_M2 = 1e-12


@dataclass(frozen=True)
class Fused:
    """Positions of J UEs.

    Attributes:
        position_m, covariance_m2: joint least squares and its covariance (finite where ``valid``).
        valid: UEs that have a position of their own or are tied to one that has.
    """

    position_m: Float[Tensor, "B J 3"]
    covariance_m2: Float[Tensor, "B J 3 3"]
    valid: Bool[Tensor, "B J"]


def fuse(
    position_m: Float[Tensor, "B J I 3"],
    information: Float[Tensor, "B J I 3 3"],
    valid: Bool[Tensor, "B J I"],
    link_offset_m: Float[Tensor, "B _links 3"] | None,
    link_covariance_m2: Float[Tensor, "B _links 3 3"] | None,
) -> Fused:
    """Joint weighted least squares: (W_j + ties) p = sum_i W_ij p_ij + ties times differences.

    With Delta_j = p_0 - p_j measured and A_j the inverse of its covariance, A_j stands in the blocks of UE 0 and UE
    j, its negative between them, and A_j Delta_j is added for UE 0 and taken from UE j.

    Args:
        position_m: p_ij of every pair.
        information: W_ij, without the pair's clock, 1/m^2.
        valid: pairs that count.
        link_offset_m, link_covariance_m2: Delta_j and its covariance; None: UEs do not measure each other.
    """
    weights = torch.where(valid[..., None, None], information, 0.0)
    own = weights.sum(dim=2)
    right = (weights @ torch.where(valid.unsqueeze(-1), position_m, 0.0).unsqueeze(-1)).sum(dim=2).squeeze(-1)
    located = valid.any(dim=-1)
    if link_offset_m is not None and link_covariance_m2 is not None:
        eye = torch.eye(3, dtype=own.dtype, device=own.device)
        link_covariance_m2 = link_covariance_m2.to(own.dtype) + _SMALLEST_LINK_VARIANCE_M2 * eye
        pull = torch.linalg.solve(link_covariance_m2, link_offset_m.to(own.dtype).unsqueeze(-1)).squeeze(-1)
        right = right + torch.cat((pull.sum(dim=1, keepdim=True), -pull), dim=1)
        located = located.any(dim=-1, keepdim=True).expand_as(located)
    else:
        link_covariance_m2 = None
    joint = cooperative_information(own, link_covariance_m2)
    everything = covariance_bound(joint)
    blocks = everything.unflatten(-1, (-1, 3)).unflatten(-3, (-1, 3))
    covariance = blocks.diagonal(dim1=-4, dim2=-2).movedim(-1, 1)
    finite = torch.isfinite(covariance).all(dim=-1).all(dim=-1)
    # What is not determined must not reach the others through infinity times zero.
    safe = torch.where(torch.isfinite(everything), everything, 0.0)
    position = (safe @ right.flatten(1).unsqueeze(-1)).squeeze(-1).unflatten(-1, (-1, 3))
    return Fused(position, covariance, located & finite)


def average(
    position_m: Float[Tensor, "B J I 3"], covariance_m2: Float[Tensor, "B J I 3 3"], valid: Bool[Tensor, "B J I"]
) -> Fused:
    """Equal weights over the base stations, for methods that have no better ones."""
    share = valid / valid.sum(dim=-1, keepdim=True).clamp(min=1)
    position = torch.where(valid.unsqueeze(-1), position_m, 0.0) * share.unsqueeze(-1)
    covariance = torch.where(valid[..., None, None], covariance_m2, 0.0) * share[..., None, None].square()
    return Fused(position.sum(dim=2), covariance.sum(dim=2), valid.any(dim=-1))
