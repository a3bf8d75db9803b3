"""A small city of boxes: buildings, base stations, scatterers, and which straight lines the buildings cut."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfpos_envs import draws

WALL_PERMITTIVITY = (3.9, 6.3)
"""Relative permittivity of walls is drawn between those of brick and glass (ITU-R P.2040, table 3)."""
GROUND_PERMITTIVITY = 5.24
"""Concrete, ITU-R P.2040, table 3."""
SCATTERER_RCS_M2 = (20.0, 200.0)
"""Bistatic radar cross sections: parts of facades and street furniture."""
_TOUCH_M = 0.01
_TRIES = 12


@dataclass(frozen=True)
class City:
    """Everything that stands still.

    Attributes:
        area_min_m, area_max_m: corners of the box in which users are; the ground is z = 0 and has no end.
        box_min_m, box_max_m: buildings.
        wall_permittivity: relative permittivity of each building.
        bs_position_m, bs_orientation_rad: arrays; (yaw, pitch, roll), see ``physics.ecc.csi.rotation_matrix``.
        scatterer_m, scatterer_rcs_m2: point scatterers around each BS.
    """

    area_min_m: Float[Tensor, " 3"]
    area_max_m: Float[Tensor, " 3"]
    box_min_m: Float[Tensor, "buildings 3"]
    box_max_m: Float[Tensor, "buildings 3"]
    wall_permittivity: Float[Tensor, " buildings"]
    bs_position_m: Float[Tensor, "L 3"]
    bs_orientation_rad: Float[Tensor, "L 3"]
    scatterer_m: Float[Tensor, "L scatterers 3"]
    scatterer_rcs_m2: Float[Tensor, "L scatterers"]


def draw_city(
    generator: draws.Source,
    size_m: tuple[float, float, float],
    blocks: tuple[int, int],
    building_height_m: tuple[float, float],
    num_bs: int,
    bs_height_m: float,
    num_scatterers: int,
) -> City:
    """Blocks of a street grid with one building each, BSs around the area looking inwards, scatterers near them.

    A building covers 35 to 65 % of its block along each axis, somewhere in it. BSs stand on an ellipse near the edge,
    at ``bs_height_m`` or 3 m above the roof below them.

    Args:
        generator: source of randomness.
        size_m: extent of the area; its corner is the origin.
        blocks: number along x and y.
        building_height_m: least and largest.
        num_bs: L.
        bs_height_m: above ground where no building is below.
        num_scatterers: per BS.
    """
    device = generator.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * draws.uniform(generator, *shape)

    size = torch.tensor(size_m, device=device)
    count = blocks[0] * blocks[1]
    block = size[:2] / torch.tensor(blocks, device=device)
    cell = torch.cartesian_prod(torch.arange(blocks[0]), torch.arange(blocks[1])).to(block) * block
    footprint = block * uniform(0.35, 0.65, count, 2)
    low = cell + (block - footprint) * uniform(0.15, 0.85, count, 2)
    height = uniform(*building_height_m, count, 1)
    box_min, box_max = torch.cat((low, 0 * height), dim=1), torch.cat((low + footprint, height), dim=1)

    azimuth = (2 * math.pi / num_bs) * (torch.arange(num_bs, device=device) + uniform(-0.2, 0.2, num_bs))
    ring = torch.stack((azimuth.cos(), azimuth.sin()), dim=-1) * uniform(0.40, 0.48, num_bs, 1)
    ground = size[:2] * (0.5 + ring)
    below = ((ground[:, None] > box_min[:, :2]) & (ground[:, None] < box_max[:, :2])).all(dim=-1)
    roof = (below * box_max[:, 2]).amax(dim=1)
    position = torch.cat((ground, torch.maximum(roof + 3.0, torch.full_like(roof, bs_height_m))[:, None]), dim=1)
    inwards = 0.5 * size[:2] - ground
    yaw = torch.atan2(inwards[:, 1], inwards[:, 0])
    orientation = torch.stack((yaw, torch.zeros_like(yaw), torch.zeros_like(yaw)), dim=-1)

    # Scatterers all over the area, at most half way up the masts, outside of buildings.
    reach = torch.stack((size[0], size[1], torch.tensor(0.5 * bs_height_m, device=device)))
    candidates = uniform(0.0, 1.0, num_bs, num_scatterers, _TRIES, 3) * reach
    city = City(
        area_min_m=torch.zeros(3, device=device),
        area_max_m=size,
        box_min_m=box_min,
        box_max_m=box_max,
        wall_permittivity=uniform(*WALL_PERMITTIVITY, count),
        bs_position_m=position,
        bs_orientation_rad=orientation,
        scatterer_m=position.new_zeros(num_bs, num_scatterers, 3),
        scatterer_rcs_m2=uniform(*SCATTERER_RCS_M2, num_bs, num_scatterers),
    )
    return City(**{**vars(city), "scatterer_m": first_free(city, candidates)})


def inside_buildings(city: City, points_m: Float[Tensor, "*batch 3"]) -> Bool[Tensor, "*batch"]:
    """Whether points are within a building (its surface included)."""
    points = points_m.unsqueeze(-2)
    return ((points >= city.box_min_m) & (points <= city.box_max_m)).all(dim=-1).any(dim=-1)


def first_free(city: City, candidates_m: Float[Tensor, "*batch tries 3"]) -> Float[Tensor, "*batch 3"]:
    """The first of several points that is outside of all buildings; where none is, the first one lifted onto its roof.

    Args:
        city: the buildings.
        candidates_m: points to choose from.
    """
    inside = inside_buildings(city, candidates_m)
    index = (~inside).to(torch.uint8).argmax(dim=-1)
    chosen = candidates_m.gather(-2, index[..., None, None].expand(*index.shape, 1, 3)).squeeze(-2)
    highest = city.box_max_m[:, 2].max() + 1.0
    lifted = torch.cat((chosen[..., :2], highest.expand_as(chosen[..., 2:])), dim=-1)
    return torch.where(inside.all(dim=-1).unsqueeze(-1), lifted, chosen)


def draw_points(generator: draws.Source, city: City, count: int) -> Float[Tensor, "count 3"]:
    """Users uniform in the area outside of the buildings.

    Every user is drawn ``_TRIES`` times, so that what the buildings hold never shifts the random numbers of others.

    Args:
        generator: source of randomness.
        city: area and buildings.
        count: number of users.
    """
    share = draws.uniform(generator, count, _TRIES, 3)
    return first_free(city, city.area_min_m + share * (city.area_max_m - city.area_min_m))


def count_crossings(
    city: City, start_m: Float[Tensor, "legs 3"], end_m: Float[Tensor, "legs 3"]
) -> Int[Tensor, " legs"]:
    """Number of buildings that cut the straight line between two points, by the slab method.

    Touching a wall is no cut: buildings are taken ``_TOUCH_M`` smaller on every side, so that a reflected path may
    begin on a wall.

    Args:
        city: the buildings.
        start_m, end_m: ends of the lines.
    """
    enter, leave = torch.zeros_like(start_m[:, :1]), torch.ones_like(start_m[:, :1])
    for axis in range(3):
        begin = start_m[:, axis, None]
        step = end_m[:, axis, None] - begin
        # A line parallel to a slab is in it all the way or never: a tiny slope decides which.
        inverse = 1.0 / torch.where(step.abs() < 1e-6, torch.full_like(step, 1e-6), step)
        one = (city.box_min_m[:, axis] + _TOUCH_M - begin) * inverse
        other = (city.box_max_m[:, axis] - _TOUCH_M - begin) * inverse
        enter = torch.maximum(enter, torch.minimum(one, other))
        leave = torch.minimum(leave, torch.maximum(one, other))
    return (leave > enter).sum(dim=-1)
