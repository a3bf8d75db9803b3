"""Several base stations and UEs: fixes of pairs weighted by their information, UEs tied by measured differences."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs.physics.ris.information import covariance_bound


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
    """Joint weighted least squares over all pairs and links.

    The minimum of sum_ij |p_j - p_ij|^2_{W_ij} + sum_j |p_0 - p_j - Delta_j|^2_{S_j^-1}, found by elimination along the
    links, which all end at UE 0: what UE j knows arrives there as information (1 + W_j S_j)^-1 W_j, and goes back
    likewise. Nothing singular is inverted: exact links and UEs without a fix of their own are no exception.

    Args:
        position_m: p_ij of every pair.
        information: W_ij, without the pair's clock, 1/m^2.
        valid: pairs that count.
        link_offset_m, link_covariance_m2: Delta_j = p_0 - p_j as measured, and its covariance S_j (zero is allowed);
            None: UEs do not measure each other.
    """
    weights = torch.where(valid[..., None, None], information, 0.0)
    own = weights.sum(dim=2)
    pull = (weights @ torch.where(valid.unsqueeze(-1), position_m, 0.0).unsqueeze(-1)).sum(dim=2)
    if link_offset_m is not None and link_covariance_m2 is not None:
        own, pull = _along_links(own, pull, link_offset_m.to(own.dtype).unsqueeze(-1), link_covariance_m2.to(own.dtype))
    covariance = covariance_bound(own)
    located = torch.isfinite(covariance).all(dim=-1).all(dim=-1)
    finite = torch.where(located[..., None, None], covariance, 0.0)
    return Fused((finite @ pull).squeeze(-1), covariance, located)


def _along_links(own: Tensor, pull: Tensor, offset: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
    """Information [B, J, 3, 3] of every UE and its product with the position, with what comes from the others."""
    others, pulls = own[:, 1:], pull[:, 1:]
    arriving, arriving_pull = _through(others, pulls + others @ offset, spread)
    first = own[:, :1] + arriving.sum(dim=1, keepdim=True)
    first_pull = pull[:, :1] + arriving_pull.sum(dim=1, keepdim=True)
    # A UE is not told again what came from itself.
    rest = first - arriving
    back, back_pull = _through(rest, first_pull - arriving_pull - rest @ offset, spread)
    return torch.cat((first, others + back), dim=1), torch.cat((first_pull, pulls + back_pull), dim=1)


def _through(information: Tensor, pull: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
    """Information W and W p after an error of covariance S: (1 + W S)^-1 times them."""
    eye = torch.eye(3, dtype=spread.dtype, device=spread.device)
    both = torch.linalg.solve_ex(eye + information @ spread, torch.cat((information, pull), dim=-1)).result
    return (both[..., :3] + both[..., :3].mT) / 2, both[..., 3:]


def average(
    position_m: Float[Tensor, "B J I 3"], covariance_m2: Float[Tensor, "B J I 3 3"], valid: Bool[Tensor, "B J I"]
) -> Fused:
    """Equal weights over the base stations, for methods that have no better ones."""
    share = valid / valid.sum(dim=-1, keepdim=True).clamp(min=1)
    position = torch.where(valid.unsqueeze(-1), position_m, 0.0) * share.unsqueeze(-1)
    covariance = torch.where(valid[..., None, None], covariance_m2, 0.0) * share[..., None, None].square()
    return Fused(position.sum(dim=2), covariance.sum(dim=2), valid.any(dim=-1))
