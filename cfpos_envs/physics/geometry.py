"""Areas with and without wrap-around, AP layouts, polar and cartesian coordinates."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs import draws
from cfpos_envs.checks import fits

# What is computed for every point of a lattice, for all links: so many that 2^24 points are the most.
_NUMBERS_PER_POINT = 256


def nearest_image(delta_m: Float[Tensor, "*batch"], side_m: float, wrap: bool) -> Float[Tensor, "*batch"]:
    """Shortest representative of a coordinate difference on the torus of side ``side_m``; unchanged if not ``wrap``."""
    if not wrap:
        return delta_m
    return torch.sub(delta_m, torch.round(delta_m * (1.0 / side_m)), alpha=side_m)


def into_area(points_m: Float[Tensor, "*batch 2"], side_m: float, wrap: bool) -> Float[Tensor, "*batch 2"]:
    """Points brought into the square [0, side_m]: wrapped on the torus, else clamped to the border."""
    if wrap:
        return torch.remainder(points_m, side_m)
    return points_m.clamp(0.0, side_m)


def displacement(
    origins_m: Float[Tensor, "*batch M 2"], points_m: Float[Tensor, "*batch K 2"], side_m: float, wrap: bool
) -> Float[Tensor, "*batch M K 2"]:
    """Vectors from every origin to every point (nearest image if ``wrap``).

    Args:
        origins_m: [..., M, 2] metres, e.g. AP positions.
        points_m: [..., K, 2] metres.
        side_m: side of the square area, > 0.
        wrap: torus distances.
    """
    return nearest_image(points_m.unsqueeze(-3) - origins_m.unsqueeze(-2), side_m, wrap)


def polar(vectors_m: Float[Tensor, "*batch 2"]) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Length (m) and azimuth (rad, counter-clockwise from +x, in [-pi, pi])."""
    return torch.linalg.vector_norm(vectors_m, dim=-1), torch.atan2(vectors_m[..., 1], vectors_m[..., 0])


def cartesian(distance_m: Float[Tensor, "*batch"], azimuth_rad: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch 2"]:
    """Inverse of ``polar``."""
    return distance_m.unsqueeze(-1) * unit_vectors(azimuth_rad)


def unit_vectors(azimuth_rad: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch 2"]:
    """Unit vectors of the given azimuths."""
    return torch.stack((torch.cos(azimuth_rad), torch.sin(azimuth_rad)), dim=-1)


def rotate_quarter(vectors: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 2"]:
    """The vectors turned by +90 degrees: radial unit vectors become tangential ones."""
    return torch.stack((-vectors[..., 1], vectors[..., 0]), dim=-1)


def distance_3d(
    distance_m: Float[Tensor, "*batch"], height_diff_m: Float[Tensor, "*#batch"]
) -> Float[Tensor, "*batch"]:
    """Slant distance from horizontal distance and height difference, metres."""
    return torch.sqrt(distance_m.square() + height_diff_m.square())


def metres_outside(points_m: Float[Tensor, "*batch 2"], corners_m: Float[Tensor, "V 2"]) -> Float[Tensor, "*batch"]:
    """Distance of points to a polygon; 0 inside it, by the even-odd rule; NaN of points that are not finite.

    Args:
        points_m: anywhere.
        corners_m: at least three corners in order, either way round.
    """
    start, side = corners_m, corners_m.roll(-1, dims=0) - corners_m
    off = points_m.unsqueeze(-2) - start
    share = ((off * side).sum(dim=-1) / side.square().sum(dim=-1).clamp(min=torch.finfo(side.dtype).tiny)).clamp(
        0.0, 1.0
    )
    distance = torch.linalg.vector_norm(off - share.unsqueeze(-1) * side, dim=-1).amin(dim=-1)
    # A ray to the right crosses the sides whose ends lie above and below it, if these pass on its right.
    above, next_above = off[..., 1] < 0, off[..., 1] < side[..., 1]
    cross = side[..., 0] * off[..., 1] - side[..., 1] * off[..., 0]
    crossed = (above != next_above) & ((cross > 0) == (side[..., 1] > 0))
    inside = (crossed.sum(dim=-1) % 2 == 1) & torch.isfinite(points_m).all(dim=-1)
    return torch.where(inside, 0.0, distance)


def nearest_inside(points_m: Float[Tensor, "*batch 2"], corners_m: Float[Tensor, "V 2"]) -> Float[Tensor, "*batch 2"]:
    """The points themselves in a polygon, else the nearest ones on its border.

    Args:
        points_m, corners_m: as in ``metres_outside``.
    """
    start, side = corners_m, corners_m.roll(-1, dims=0) - corners_m
    off = points_m.unsqueeze(-2) - start
    length = side.square().sum(dim=-1).clamp(min=torch.finfo(side.dtype).tiny)
    share = ((off * side).sum(dim=-1) / length).clamp(0.0, 1.0)
    on_border = start + share.unsqueeze(-1) * side
    away = torch.linalg.vector_norm(points_m.unsqueeze(-2) - on_border, dim=-1)
    chosen = away.argmin(dim=-1)[..., None, None].expand(*away.shape[:-1], 1, 2)
    nearest = torch.gather(on_border, -2, chosen).squeeze(-2)
    return torch.where((metres_outside(points_m, corners_m) > 0).unsqueeze(-1), nearest, points_m)


def grid_layout(num_points: int, side_m: float) -> Float[Tensor, "M 2"]:
    """Regular lattice of ``num_points`` cell centres, rows and columns as equal as the count allows.

    Raises:
        ValueError: if ``num_points`` is not a positive product of two nearly equal factors (a prime above 3 would
            put everything on one line).
    """
    if num_points < 1:
        raise ValueError(f"grid layout needs at least 1 AP, got {num_points}; raise num_aps")
    rows = next(r for r in range(math.isqrt(num_points), 0, -1) if num_points % r == 0)
    columns = num_points // rows
    if rows == 1 and num_points > 3:
        raise ValueError(
            f"a grid of {num_points} APs would be a single line; choose a composite num_aps or layout='uniform'"
        )
    x = (torch.arange(columns) + 0.5) * (side_m / columns)
    y = (torch.arange(rows) + 0.5) * (side_m / rows)
    return torch.cartesian_prod(x, y).to(torch.float32)


def uniform_layout(
    generator: draws.Source, num_points: int, side_m: float, wrap: bool, min_spacing_m: float = 0.0
) -> Float[Tensor, "M 2"]:
    """Independent uniform points, each redrawn until it keeps ``min_spacing_m`` from the earlier ones.

    Raises:
        ValueError: if the spacing cannot be met after 10 000 draws.
    """
    points = torch.empty(0, 2, device=generator.device)
    for _ in range(10_000):
        candidate = draws.uniform(generator, 1, 2) * side_m
        gaps = torch.linalg.vector_norm(nearest_image(points - candidate, side_m, wrap), dim=-1)
        if min_spacing_m == 0.0 or bool((gaps >= min_spacing_m).all()):
            points = torch.cat((points, candidate))
        if len(points) == num_points:
            return points
    raise ValueError(
        f"{num_points} APs cannot keep min_spacing_m={min_spacing_m} in a square of {side_m=} m; "
        f"lower num_aps or min_spacing_m"
    )


def lattice(side_m: float, spacing_m: float, *, to_border: bool = False) -> Float[Tensor, "P 2"]:
    """Reference points that cover the square: cell centres at ``spacing_m`` or, ``to_border``, a grid with its edges.

    Args:
        side_m: side of the square, metres.
        spacing_m: distance of neighbours, rounded to divide the side evenly; 0 < spacing_m <= side_m.
        to_border: put the outermost points on the border.

    Raises:
        ValueError: for a spacing outside (0, side_m], or so fine that the points would not fit into memory.
    """
    if not 0.0 < spacing_m <= side_m:
        raise ValueError(f"spacing must lie in (0, {side_m}] m, got {spacing_m}")
    cells = max(1, round(side_m / spacing_m))
    fits("a lattice", _NUMBERS_PER_POINT * cells**2, f"spacing={spacing_m:g} m on side_m={side_m:g}")
    axis = torch.linspace(0.0, side_m, cells + 1) if to_border else (torch.arange(cells) + 0.5) * (side_m / cells)
    return torch.cartesian_prod(axis, axis).to(torch.float32)
