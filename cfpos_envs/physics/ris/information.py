"""Fisher information of the received block, and the bounds on position and clock that follow from it.

Real unknowns: theta_1, theta_2, psi_1, psi_2, delay of the line of sight, theta_1, theta_2, delay over every surface
(n = 5 + 3R in all), then Re g and Im g of the L = R + 1 paths. Noise and fading are treated as white.

Source: Zhang, Wang, Tay, arXiv 2306.07504, bounds; the closed form over products of axes was derived again.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from cfpos_envs.physics.ris.modes import NUM_MODES, steering, steering_derivatives

# Eigenvalues of a matrix with ones on its diagonal below this are rounding.
_SINGULAR = 1e-11
# Axes of the unknown parameters: base station cosines are known for the paths over surfaces.
_LOS_MODES = (0, 1, 2, 3, 4)
_RIS_MODES = (0, 1, 4)


def num_path_unknowns(num_paths: int) -> int:
    """Unknowns of L paths without their gains: n = 5 + 3 (L - 1)."""
    return len(_LOS_MODES) + len(_RIS_MODES) * (num_paths - 1)


def fisher(
    sizes: Sequence[int],
    slopes: Sequence[float],
    parameters: Float[Tensor, "*batch L 5"],
    gains: Complex[Tensor, "*batch L"],
    noise_variance: Float[Tensor, "*#batch"] | float,
) -> Float[Tensor, "*batch F F"]:
    """F = (2 / sigma_e^2) Re(D^H D), D = derivatives of the mean, without building D; F = n + 2L.

    Two columns with coefficients a, a' (g_l for a path parameter, 1 and j for Re g, Im g) give
    F_ij = (2 / sigma_e^2) Re(conj(a) a' prod_q x_q^H x'_q), x_q the steering vector of axis q or, on the parameter's
    own axis, its derivative.

    Args:
        sizes, slopes: of the axes, see ``modes``.
        parameters: (theta_1, theta_2, psi_1, psi_2, delay_m) of every path.
        gains: g_l.
        noise_variance: sigma_e^2 per entry, > 0.
    """
    paths = parameters.shape[-2]
    owner, axis = _columns(paths)
    vectors = steering(sizes, slopes, parameters)
    primes = steering_derivatives(vectors, slopes)
    one = torch.ones_like(gains)
    coefficients = torch.cat((gains[..., owner[: num_path_unknowns(paths)]], one, 1j * one), dim=-1)
    product = coefficients.conj().unsqueeze(-1) * coefficients.unsqueeze(-2)
    for q in range(NUM_MODES):
        own = torch.tensor([m == q for m in axis], device=parameters.device).unsqueeze(-1)
        column = torch.where(own, primes[q][..., owner, :], vectors[q][..., owner, :])
        product = product * (column.conj() @ column.mT)
    scale = torch.as_tensor(noise_variance, dtype=product.real.dtype, device=product.device)
    return 2.0 * product.real / scale[..., None, None]


def effective_information(information: Float[Tensor, "*batch F F"], keep: int) -> Float[Tensor, "*batch n n"]:
    """F_e = F_11 - F_12 F_22^-1 F_21: what is left of the first ``keep`` unknowns when the others are unknown too.

    Rows and columns are scaled by the diagonal first; an unknown without any information stays without.

    Args:
        information: F.
        keep: n.
    """
    scale = _root_diagonal(information)
    scaled = information / (scale.unsqueeze(-1) * scale.unsqueeze(-2))
    kept, cross, rest = scaled[..., :keep, :keep], scaled[..., :keep, keep:], scaled[..., keep:, keep:]
    left = kept - cross @ torch.linalg.solve(rest, cross.mT)
    size = scale[..., :keep]
    return left * (size.unsqueeze(-1) * size.unsqueeze(-2))


def channel_covariance(information: Float[Tensor, "*batch F F"], keep: int) -> Float[Tensor, "*batch n n"]:
    """C = F_e^-1: the bound of the path parameters' covariance; infinite variance where nothing is known.

    Args:
        information: F.
        keep: n.
    """
    return covariance_bound(effective_information(information, keep))


def path_blocks(
    matrix: Float[Tensor, "*batch n n"],
) -> tuple[Float[Tensor, "*batch 5 5"], Float[Tensor, "*batch R 3 3"]]:
    """Diagonal blocks of an n x n matrix: the line of sight's and every surface's.

    Args:
        matrix: information or covariance of the path unknowns.
    """
    head = len(_LOS_MODES)
    starts = range(head, matrix.shape[-1], len(_RIS_MODES))
    blocks = [matrix[..., s : s + len(_RIS_MODES), s : s + len(_RIS_MODES)] for s in starts]
    return matrix[..., :head, :head], torch.stack(blocks, dim=-3)


def position_information(
    effective: Float[Tensor, "*batch n n"], jacobian: Float[Tensor, "*batch n 4"]
) -> Float[Tensor, "*batch 4 4"]:
    """M = J^T F_e J, information on (p, b).

    Args:
        effective: F_e.
        jacobian: of ``geometry.position_jacobian``.
    """
    return jacobian.mT @ effective @ jacobian


def without_clock(information: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 3 3"]:
    """W = M_pp - M_pb M_bp / M_bb: information on the position where the clock bias is unknown.

    The position's bound with a *known* bias needs M_pp alone.

    Args:
        information: M.
    """
    cross, clock = information[..., :3, 3], information[..., 3, 3]
    # No information on the clock: no path, and nothing to take away either.
    ratio = torch.where(clock > 0, 1.0 / clock.clamp(min=torch.finfo(clock.dtype).tiny), torch.zeros_like(clock))
    return information[..., :3, :3] - cross.unsqueeze(-1) * cross.unsqueeze(-2) * ratio[..., None, None]


def clock_variance(
    information: Float[Tensor, "*batch 4 4"], position_covariance_m2: Float[Tensor, "*#batch 3 3"]
) -> Float[Tensor, "*batch"]:
    """Bound of the clock bias' variance, m^2: 1 / M_bb + M_bp C_p M_pb / M_bb^2.

    With C_p = W^-1 this is the last entry of M^-1; with the smaller C_p of several cooperating links it is that link's
    bound among them.

    Args:
        information: M of the link.
        position_covariance_m2: C_p.
    """
    clock = information[..., 3, 3]
    slope = (information[..., :3, 3] / clock.unsqueeze(-1)).unsqueeze(-1)
    return 1.0 / clock + (slope.mT @ position_covariance_m2 @ slope)[..., 0, 0]


def bounds(information: Float[Tensor, "*batch 4 4"]) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """PEB = sqrt(tr C_p) and CEB = sqrt(var b), both in metres; infinite, never NaN, where nothing is determined.

    Args:
        information: M.
    """
    covariance = covariance_bound(without_clock(information))
    peb = root_trace(covariance)
    determined = torch.isfinite(peb)
    # Infinity times a slope of zero would be NaN.
    finite = torch.where(determined[..., None, None], covariance, torch.zeros_like(covariance))
    return peb, torch.where(determined, clock_variance(information, finite).sqrt(), torch.inf)


def cooperative_information(
    information: Float[Tensor, "*batch J 3 3"], link_covariance_m2: Float[Tensor, "*batch _links 3 3"] | None
) -> Float[Tensor, "*batch F F"]:
    """Joint information on the positions of J UEs that measure p_0 - p_j; F = 3 J.

    A measured difference with covariance S adds S^-1 to both UEs' own blocks and takes it from those between them.

    Args:
        information: of every UE alone, the sum of ``without_clock`` over its base stations.
        link_covariance_m2: S of the links 0-j, j = 1..J-1; None: there are none.

    Raises:
        ValueError: not J - 1 links.
    """
    ues = information.shape[-3]
    grid = torch.zeros(*information.shape[:-3], ues, ues, 3, 3, dtype=information.dtype, device=information.device)
    own = torch.arange(ues, device=information.device)
    grid[..., own, own, :, :] = information
    if link_covariance_m2 is not None:
        if link_covariance_m2.shape[-3] != ues - 1:
            raise ValueError(f"{ues} UEs have {ues - 1} links to the first; got {link_covariance_m2.shape[-3]}")
        tie = torch.linalg.inv(link_covariance_m2)
        for j in range(1, ues):
            added = tie[..., j - 1, :, :]
            grid[..., 0, 0, :, :] += added
            grid[..., j, j, :, :] += added
            grid[..., 0, j, :, :] -= added
            grid[..., j, 0, :, :] -= added
    return grid.movedim(-2, -3).reshape(*information.shape[:-3], 3 * ues, 3 * ues)


def cooperative_covariance(
    information: Float[Tensor, "*batch J 3 3"], link_covariance_m2: Float[Tensor, "*batch _links 3 3"] | None
) -> Float[Tensor, "*batch J 3 3"]:
    """Bound of every UE's position covariance among cooperating UEs, m^2; infinite where not determined.

    Args:
        information, link_covariance_m2: see ``cooperative_information``.
    """
    ues = information.shape[-3]
    joint = cooperative_information(information, link_covariance_m2)
    everything = covariance_bound(joint)
    blocks = everything.reshape(*joint.shape[:-2], ues, 3, ues, 3)
    own = [blocks[..., j, :, j, :] for j in range(ues)]
    return torch.stack(own, dim=-3)


def covariance_bound(information: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """Inverse of an information matrix, scaled by its diagonal; infinite variance for whatever is not determined.

    Args:
        information: symmetric; may be singular or, then nothing is determined, not finite.
    """
    finite = torch.isfinite(information).all(dim=-1).all(dim=-1)[..., None, None]
    safe = torch.where(finite, information, torch.zeros_like(information))
    scale = _root_diagonal(safe)
    frame = scale.unsqueeze(-1) * scale.unsqueeze(-2)
    values, vectors = torch.linalg.eigh(safe / frame)
    kept = values > _SINGULAR
    weights = torch.where(kept, 1.0 / torch.where(kept, values, torch.ones_like(values)), torch.zeros_like(values))
    inverse = (vectors * weights.unsqueeze(-2)) @ vectors.mT / frame
    # An unknown with a part in a direction without information is not determined.
    lost = (vectors.square() * ~kept.unsqueeze(-2)).sum(dim=-1) > _SINGULAR
    inverse = inverse.masked_fill(lost.unsqueeze(-1) | lost.unsqueeze(-2), 0.0)
    return torch.where(torch.diag_embed(lost), torch.inf, inverse)


def root_trace(covariance_m2: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch"]:
    """sqrt(tr C): the root mean square error of an estimate with this covariance."""
    return torch.diagonal(covariance_m2, dim1=-2, dim2=-1).sum(dim=-1).sqrt()


def _root_diagonal(matrix: Tensor) -> Tensor:
    """Square roots of the diagonal; 1 where it is not positive."""
    diagonal = torch.diagonal(matrix, dim1=-2, dim2=-1)
    return torch.where(diagonal > 0, diagonal, torch.ones_like(diagonal)).sqrt()


def _columns(paths: int) -> tuple[list[int], list[int]]:
    """Path and axis (-1: a gain) of every unknown."""
    owner, axis = [0] * len(_LOS_MODES), list(_LOS_MODES)
    for path in range(1, paths):
        owner += [path] * len(_RIS_MODES)
        axis += list(_RIS_MODES)
    for _ in range(2):
        owner += list(range(paths))
        axis += [-1] * paths
    return owner, axis
