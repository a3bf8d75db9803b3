"""Stage 1, matching: which delay and which arrival cosines belong to which path.

``by_energy`` and ``by_delay`` rank lists by energy, as Zhang, Wang, Tay (arXiv 2306.07504) do; the projection matching
compares every candidate with each path's own signature instead, which needs neither distinct energies nor distinct
candidates on every axis.
"""

from __future__ import annotations

import itertools
import math

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

from cfpos_envs.physics.ris.modes import mode_vector

from .harmonics import NEWTON_STEPS, circle, circle_power, climb_from, diagonal_sums, from_circle, wrapped_cosine
from .kernels import climbed_axes

# A candidate that carries less of a path than this share of what its own spectrum reaches is replaced by the latter.
ENOUGH = 0.8
MOST_PATHS = 7
_ROUNDS = 2


def by_energy(
    path_energy: Float[Tensor, "T L"], candidate_energy: Float[Tensor, "T L"], candidates: Float[Tensor, "T L"]
) -> Float[Tensor, "T L"]:
    """The candidate of every path by equal rank. A candidate that is none (energy -inf) stands for the strongest one.

    Args:
        path_energy: of the paths; -inf for those that are absent.
        candidate_energy, candidates: of one list.
    """
    ranked, _ = _ranked(candidate_energy, candidates)
    order = path_energy.argsort(dim=-1, descending=True, stable=True)
    return torch.zeros_like(ranked).scatter(-1, order, ranked)


def line_of_sight_rank(delay_energy: Float[Tensor, "T L"], delays_m: Float[Tensor, "T L"]) -> Int[Tensor, " T"]:
    """Rank by energy of the smallest delay: what the line of sight takes in every list when matching by delay."""
    _, order = _ranked(delay_energy, delays_m)
    exists = torch.isfinite(delay_energy)
    smallest = torch.where(exists, delays_m, math.inf).argmin(dim=-1, keepdim=True)
    return (order == smallest).int().argmax(dim=-1)


def by_delay(
    path_energy: Float[Tensor, "T L"],
    candidate_energy: Float[Tensor, "T L"],
    candidates: Float[Tensor, "T L"],
    los_rank: Int[Tensor, " T"],
) -> Float[Tensor, "T L"]:
    """As ``by_energy``, but path 0 takes the candidate of the rank given and the others follow by energy."""
    # Path 0 goes to its rank: between the other paths that have as many before them.
    others = path_energy[:, 1:].argsort(dim=-1, descending=True, stable=True) + 1
    place = torch.arange(others.shape[-1], device=others.device) + (
        torch.arange(others.shape[-1], device=others.device) >= los_rank.unsqueeze(-1)
    )
    ranked, _ = _ranked(candidate_energy, candidates)
    matched = torch.zeros_like(ranked)
    matched[:, 0] = ranked.gather(-1, los_rank.unsqueeze(-1)).squeeze(-1)
    return matched.scatter(-1, others, ranked.gather(-1, place))


def _ranked(energy: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
    order = energy.argsort(dim=-1, descending=True, stable=True)
    ranked = candidates.gather(-1, order)
    exists = torch.isfinite(energy.gather(-1, order))
    return torch.where(exists, ranked, ranked[:, :1]), order


def assign(cost: Float[Tensor, "T L L"]) -> Int[Tensor, "T L"]:
    """The candidate of every path with the smallest total cost, by enumeration of all permutations.

    Args:
        cost: finite; path by candidate.

    Raises:
        ValueError: more than ``MOST_PATHS`` paths.
    """
    paths = cost.shape[-1]
    if paths > MOST_PATHS:
        raise ValueError(f"matching enumerates permutations of {paths} paths; use at most {MOST_PATHS - 1} surfaces")
    permutations = torch.tensor(list(itertools.permutations(range(paths))), device=cost.device)
    rows = torch.arange(paths, device=cost.device)
    return permutations[cost[:, rows, permutations].sum(dim=-1).argmin(dim=-1)]


def project_delays(
    signatures: Complex[Tensor, "T L U N"],
    candidates: Float[Tensor, "T L"],
    exists: Bool[Tensor, "T L"],
    present: Bool[Tensor, "T L"],
    slope: float,
) -> Float[Tensor, "T L"]:
    """Delays of all paths: assignment by -log of the share that each candidate carries, else the path's own maximum.

    Args:
        signatures: Z.
        candidates, exists: peaks of MUSIC.
        present: which paths there are.
        slope: w of the subcarriers.
    """
    n = signatures.shape[-1]
    power = circle_power(signatures.mT, slope, 4 * n)
    grid = circle(slope, power.shape[-1], power)
    best = power.argmax(dim=-1, keepdim=True)
    # |Z_l d(tau_j)^*|^2 of all paths and candidates.
    carried = (signatures @ mode_vector(candidates, n, slope).conj().mT.unsqueeze(1)).abs().square().sum(dim=-2)
    carried = torch.where(exists.unsqueeze(1), carried, 0.0)
    share = carried / carried.amax(dim=-1, keepdim=True).clamp(min=torch.finfo(carried.dtype).tiny)
    cost = -torch.log(share.clamp(min=1e-30))
    chosen = assign(torch.where(present.unsqueeze(-1), cost, 0.0)).unsqueeze(-1)
    enough = carried.gather(-1, chosen) >= ENOUGH * power.gather(-1, best)
    own = climb_from(from_circle(power, slope, n), slope, grid[best], float(grid[1]))
    return torch.where(enough, candidates.unsqueeze(1).expand_as(cost).gather(-1, chosen), own).squeeze(-1)


def project_angles(
    focused: Complex[Tensor, "T L n1 n2"],
    candidates: tuple[Float[Tensor, "T L"], Float[Tensor, "T L"]],
    exists: tuple[Bool[Tensor, "T L"], Bool[Tensor, "T L"]],
    slopes: tuple[float, float],
) -> Float[Tensor, "T L 2"]:
    """Arrival cosines of all paths: of all pairs of candidates the best, else the maximum of the path's own spectrum.

    Args:
        focused: z_l = Z_l d(tau_l)^*.
        candidates, exists: peaks of MUSIC on both axes.
        slopes: w of the axes.
    """
    shape = focused.shape[-2:]
    rows, columns = (mode_vector(candidates[i], shape[i], slopes[i]).conj().unsqueeze(1) for i in range(2))
    carried = (rows @ focused @ columns.mT).abs().square()  # [T, L, C1, C2]
    carried = torch.where(exists[0][:, None, :, None] & exists[1][:, None, None, :], carried, 0.0).flatten(-2)
    pair = carried.argmax(dim=-1, keepdim=True)
    count = candidates[0].shape[-1]
    paired = torch.stack(
        (candidates[0].gather(-1, pair.squeeze(-1) // count), candidates[1].gather(-1, pair.squeeze(-1) % count)),
        dim=-1,
    )
    own, peak = _own_maximum(focused, slopes)
    enough = carried.gather(-1, pair) >= ENOUGH * peak.unsqueeze(-1)
    return wrapped_cosine(torch.where(enough, paired, own))


def _own_maximum(
    focused: Complex[Tensor, "T L n1 n2"], slopes: tuple[float, float]
) -> tuple[Float[Tensor, "T L 2"], Float[Tensor, "T L"]]:
    """Maximum of the two-dimensional spectrum, 8 points per element and axis, refined; and its height on the grid."""
    shape = focused.shape[-2:]
    grids = [wrapped_cosine(circle(slopes[i], 8 * shape[i], focused.real)) for i in range(2)]
    waves = [mode_vector(grids[i], shape[i], slopes[i]).conj() for i in range(2)]
    power = (waves[0] @ focused @ waves[1].mT).abs().square()
    inside = grids[0].square().unsqueeze(-1) + grids[1].square() <= 1.0
    best = torch.where(inside, power, 0.0).flatten(-2).max(dim=-1)
    found = [grids[0][best.indices // len(grids[1])], grids[1][best.indices % len(grids[1])]]
    start = torch.stack(found, dim=-1)
    widths = (2.0 / (8 * shape[0]), 2.0 / (8 * shape[1]))
    climbed = climbed_axes(focused, slopes, start, widths, (_ROUNDS, NEWTON_STEPS))
    return climb_by_tables(focused, slopes, start, widths) if climbed is None else climbed, best.values


def climb_by_tables(
    focused: Complex[Tensor, "T L n1 n2"],
    slopes: tuple[float, float],
    start: Float[Tensor, "T L 2"],
    widths: tuple[float, float],
) -> Float[Tensor, "T L 2"]:
    """``kernels.climbed_axes`` by torch's own operations: what it is compared with."""
    shape = focused.shape[-2:]
    found = list(start.unbind(dim=-1))
    for _ in range(_ROUNDS):
        for axis in range(2):
            held = mode_vector(found[1 - axis], shape[1 - axis], slopes[1 - axis]).conj().unsqueeze(-1)
            line = ((focused if axis == 0 else focused.mT) @ held).squeeze(-1)
            polynomial = diagonal_sums(line.unsqueeze(-1) * line.conj().unsqueeze(-2))
            found[axis] = climb_from(polynomial, slopes[axis], found[axis].unsqueeze(-1), widths[axis]).squeeze(-1)
    return torch.stack(found, dim=-1)
