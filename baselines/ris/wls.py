"""Stage 2, position: every path gives one position per clock bias; the bias is the one for which they agree best.

With s_l the source, t_l the delay less the known first hop and r = t_l - b, path l says

    p_l(b) = s_l + r u_l,    Sigma_l(b) = [r I | u_l] C_l [r I | u_l]^T,    C_l the covariance of (u_l, t_l),

and p, b minimise J(p, b) = sum_l (p - p_l)^T Sigma_l^-1 (p - p_l) (Zhang, Wang, Tay, arXiv 2306.07504).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

GRID = 121
_ZOOM, _ZOOMS = 17, 8
NEAREST_M = 0.5
_FLOOR = 1e-9
_REWEIGHTINGS = 3


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


def inverse_3x3(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Inverse by cofactors: for many small matrices an order of magnitude faster than a factorisation of each."""
    a, b, c = matrix.unbind(dim=-2)
    columns = (torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b))
    determinant = (a * columns[0]).sum(dim=-1)
    return torch.stack(columns, dim=-1) / determinant[..., None, None]


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
    return longest - farthest_m, shortest - NEAREST_M


def search(fixes: PathFixes, farthest_m: float) -> tuple[Float[Tensor, "T 3"], Float[Tensor, " T"]]:
    """Position and bias by a search over the bias: 121 points of the bracket, then finer ones around the best.

    Args:
        fixes: at least two present paths.
        farthest_m: longest distance of the UE from a source.
    """
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
    share = torch.linspace(0.0, 1.0, GRID, dtype=low.dtype, device=low.device)
    tried = low.unsqueeze(-1) + (high - low).unsqueeze(-1) * share
    return _best(fixes, tried), (high - low).abs() / (GRID - 1)


def _best(fixes: PathFixes, bias_m: Tensor) -> Tensor:
    _, cost = position_given_bias(fixes, bias_m)
    return bias_m.gather(-1, cost.argmin(dim=-1, keepdim=True)).squeeze(-1)
