"""Paths through a city of boxes: line of sight, reflections by image sources up to the second order, scatterers.

The amplitude of a path of length d is lambda / (4 pi d) times the Fresnel coefficient of every reflection and
``BLOCKAGE_DB`` for every building that cuts one of its legs; its phase is -2 pi d / lambda. Over a point scatterer of
cross section s it is lambda sqrt(s) / ((4 pi)^(3/2) d1 d2) (the radar equation).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfpos_envs import draws
from cfpos_envs.channels.city import GROUND_PERMITTIVITY, City, count_crossings, draw_points
from cfpos_envs.physics.ecc.csi import CsiPaths
from cfpos_envs.physics.units import SPEED_OF_LIGHT_M_S

BLOCKAGE_DB = 20.0
"""Loss of one building in the way: two outer walls of brick and what is inside."""
_MOST_CROSSINGS = 5
_SHORTEST_M = 0.5
_PROBES = 128
_FIRST_BOUNCES = 20


@dataclass(frozen=True)
class Surfaces:
    """Reflecting rectangles, each perpendicular to one axis: four walls and a roof per building, and the ground.

    Attributes:
        normal: outward unit normal, along one axis.
        offset: n . p of its points.
        low_m, high_m: extents; without end along its own normal.
        permittivity: relative, real.
    """

    normal: Float[Tensor, "*S 3"]
    offset: Float[Tensor, "*S"]
    low_m: Float[Tensor, "*S 3"]
    high_m: Float[Tensor, "*S 3"]
    permittivity: Float[Tensor, "*S"]

    def take(self, index: Int[Tensor, "*shape"]) -> Surfaces:
        """The surfaces of an index tensor, in its shape."""
        return Surfaces(*(getattr(self, name)[index] for name in self.__dataclass_fields__))

    def mirror(self, points_m: Float[Tensor, "*points 3"]) -> Float[Tensor, "*shape 3"]:
        """Mirror images p - 2 (n . p - c) n of points, whose batch shape is broadcast with that of the surfaces."""
        return points_m - 2 * self.height(points_m).unsqueeze(-1) * self.normal

    def height(self, points_m: Float[Tensor, "*points 3"]) -> Float[Tensor, "*shape"]:
        """Signed distance of points, positive on the outside; broadcast as in ``mirror``."""
        return (points_m * self.normal).sum(dim=-1) - self.offset

    def hit(
        self, image_m: Float[Tensor, "*images 3"], target_m: Float[Tensor, "*targets 3"]
    ) -> tuple[Float[Tensor, "*shape 3"], Bool[Tensor, "*shape"], Float[Tensor, "*shape"]]:
        """Where the line from an image source behind each surface to a target in front of it passes the surface.

        Returns:
            The point, whether it is on the rectangle (and image and target on their sides), |cos| of the incidence.
        """
        way = target_m - image_m
        behind, before = self.height(image_m), self.height(target_m)
        share = -behind / (before - behind).clamp(min=1e-9)
        point = image_m + share.unsqueeze(-1) * way
        on = (point >= self.low_m).all(dim=-1) & (point <= self.high_m).all(dim=-1)
        cosine = (before - behind) / torch.linalg.vector_norm(way, dim=-1).clamp(min=1e-9)
        return point, on & (behind < 0) & (before > 0), cosine.clamp(0.0, 1.0)


def surfaces_of(city: City) -> Surfaces:
    """All walls and roofs of a city and its ground, ground last."""
    device, boxes = city.box_min_m.device, len(city.box_min_m)
    parts = []
    for axis in range(3):
        for sign, corner in ((-1.0, city.box_min_m), (1.0, city.box_max_m)):
            if axis == 2 and sign < 0:
                continue  # nothing is under the floor
            normal = torch.zeros(boxes, 3, device=device)
            normal[:, axis] = sign
            low, high = city.box_min_m.clone(), city.box_max_m.clone()
            low[:, axis], high[:, axis] = -math.inf, math.inf
            parts.append((normal, sign * corner[:, axis], low, high, city.wall_permittivity))
    up = torch.tensor([[0.0, 0.0, 1.0]], device=device)
    endless = torch.full((1, 3), math.inf, device=device)
    ground = (up, torch.zeros(1, device=device), -endless, endless, torch.full((1,), GROUND_PERMITTIVITY).to(device))
    return Surfaces(*(torch.cat(columns) for columns in zip(*parts, ground)))


def fresnel(cos_incidence: Float[Tensor, "*batch"], permittivity: Float[Tensor, "*#batch"]) -> Float[Tensor, "*batch"]:
    """Reflection coefficient of a lossless wall, perpendicular polarisation: (c - q) / (c + q), q^2 = e - 1 + c^2.

    Args:
        cos_incidence: c, cosine between ray and normal, in [0, 1].
        permittivity: e, relative, >= 1.

    Returns:
        In [-1, 0]: -1 at grazing incidence.
    """
    root = (permittivity - 1.0 + cos_incidence.square()).sqrt()
    return (cos_incidence - root) / (cos_incidence + root)


@dataclass(frozen=True)
class Mirrors:
    """Image sources of every BS that matter: one-bounce surfaces and two-bounce pairs, chosen by ``choose_mirrors``.

    Attributes:
        single: surface numbers.
        first, second: surface numbers of the pairs; the BS' side first.
    """

    single: Int[Tensor, "L C1"]
    first: Int[Tensor, "L C2"]
    second: Int[Tensor, "L C2"]


@dataclass(frozen=True)
class _Legs:
    """Candidate paths as columns [U, L, C]: amplitude, length, direction at the BS and the ends of each leg."""

    amplitude: Tensor
    length_m: Tensor
    direction: Tensor
    ends: tuple[tuple[Tensor, Tensor], ...]

    def blocked(self, city: City) -> _Legs:
        """With the loss of all buildings in the way; only paths that are there at all are looked at."""
        alive = self.amplitude != 0
        crossings = torch.zeros_like(self.amplitude[alive])
        for start, end in self.ends:
            crossings = crossings + count_crossings(
                city, start.expand_as(self.direction)[alive], end.expand_as(self.direction)[alive]
            )
        loss = torch.pow(10.0, (-BLOCKAGE_DB / 20) * crossings.clamp(max=_MOST_CROSSINGS))
        amplitude = self.amplitude.clone()
        amplitude[alive] *= loss
        return _Legs(amplitude, self.length_m, self.direction, self.ends)


def trace(
    city: City, surfaces: Surfaces, mirrors: Mirrors, points_m: Float[Tensor, "U 3"], wavelength_m: float, most: int
) -> CsiPaths:
    """Paths from users to all BSs, strongest first.

    Args:
        city, surfaces, mirrors: the scene and the image sources to try.
        points_m: users.
        wavelength_m: of the carrier.
        most: paths kept per link, P.

    Returns:
        Paths with batch shape [U, L].
    """
    parts = [
        part.blocked(city)
        for part in (
            _direct(city, points_m, wavelength_m),
            _one_bounce(city, surfaces, mirrors.single, points_m, wavelength_m),
            _two_bounces(city, surfaces, mirrors.first, mirrors.second, points_m, wavelength_m),
            _scattered(city, points_m, wavelength_m),
        )
    ]
    amplitude = torch.cat([part.amplitude for part in parts], dim=-1)
    order = amplitude.abs().topk(min(most, amplitude.shape[-1]), dim=-1).indices
    length = torch.cat([part.length_m for part in parts], dim=-1).gather(-1, order)
    direction = torch.cat([part.direction for part in parts], dim=-2)
    direction = direction.gather(-2, order.unsqueeze(-1).expand(*order.shape, 3))
    amplitude = amplitude.gather(-1, order)
    # Whole wavelengths first: the phase of a long path would cost digits.
    phase = (-2 * math.pi) * torch.remainder(length / wavelength_m, 1.0)
    gain = torch.complex(amplitude * phase.cos(), amplitude * phase.sin())
    return CsiPaths(gain, length / SPEED_OF_LIGHT_M_S, direction)


def line_of_sight(city: City, points_m: Float[Tensor, "U 3"]) -> Bool[Tensor, "U L"]:
    """Which BSs see which users."""
    shape = (len(points_m), len(city.bs_position_m), 3)
    start, end = city.bs_position_m.expand(shape), points_m.unsqueeze(1).expand(shape)
    return (count_crossings(city, start.reshape(-1, 3), end.reshape(-1, 3)) == 0).view(shape[:2])


def choose_mirrors(
    generator: draws.Source, city: City, surfaces: Surfaces, singles: int, pairs: int, wavelength_m: float
) -> Mirrors:
    """The image sources that bring the most power to users all over the area, blockage counted.

    A city of S surfaces has S^2 pairs, of which only few are ever seen. Probe users decide: all surfaces are tried;
    pairs are tried whose first surface is one of the ``_FIRST_BOUNCES`` that most probes see in it.

    Args:
        generator: source of the probes.
        city, surfaces: the scene.
        singles, pairs: numbers kept per BS, C1 and C2 (fewer if there are not so many).
        wavelength_m: of the carrier.
    """
    probes = draw_points(generator, city, _PROBES)
    count, device = len(surfaces.offset), probes.device
    everything = torch.arange(count, device=device)
    chosen: list[tuple[Tensor, Tensor, Tensor]] = []
    for index in range(len(city.bs_position_m)):
        alone = City(
            **{
                name: value[index : index + 1] if name.startswith(("bs_", "scatterer_")) else value
                for name, value in vars(city).items()
            }
        )
        one = _one_bounce(alone, surfaces, everything[None], probes, wavelength_m).blocked(city)
        power = one.amplitude[:, 0].square().sum(dim=0)
        lit = power.topk(min(_FIRST_BOUNCES, count)).indices
        first = lit.repeat_interleave(count)[None]
        second = everything.repeat(len(lit))[None]
        apart = first != second
        first, second = first[apart][None], second[apart][None]
        two = _two_bounces(alone, surfaces, first, second, probes, wavelength_m).blocked(city)
        best = two.amplitude[:, 0].square().sum(dim=0).topk(min(pairs, first.shape[1])).indices
        chosen.append((power.topk(min(singles, count)).indices, first[0, best], second[0, best]))
    return Mirrors(*(torch.stack(column) for column in zip(*chosen)))


def _spreading(length_m: Tensor, wavelength_m: float) -> Tensor:
    return wavelength_m / (4 * math.pi * length_m.clamp(min=_SHORTEST_M))


def _direct(city: City, points_m: Tensor, wavelength_m: float) -> _Legs:
    bs, point = city.bs_position_m[None, :, None], points_m[:, None, None]
    way = point - bs
    length = torch.linalg.vector_norm(way, dim=-1)
    direction = way / length.clamp(min=1e-6).unsqueeze(-1)
    return _Legs(_spreading(length, wavelength_m), length, direction, ((bs, point),))


def _one_bounce(city: City, surfaces: Surfaces, single: Tensor, points_m: Tensor, wavelength_m: float) -> _Legs:
    bs, point = city.bs_position_m[:, None], points_m[:, None, None]
    wall = surfaces.take(single)  # [L, C]
    image = wall.mirror(bs)
    at, seen, cosine = wall.hit(image, point)
    way = point - image
    length = torch.linalg.vector_norm(way, dim=-1)
    amplitude = seen * fresnel(cosine, wall.permittivity) * _spreading(length, wavelength_m)
    direction = _turned(way / length.unsqueeze(-1), wall.normal)
    return _Legs(amplitude, length, direction, ((bs[None], at), (at, point)))


def _two_bounces(
    city: City, surfaces: Surfaces, first: Tensor, second: Tensor, points_m: Tensor, wavelength_m: float
) -> _Legs:
    bs, point = city.bs_position_m[:, None], points_m[:, None, None]
    near, far = surfaces.take(first), surfaces.take(second)
    image = near.mirror(bs)
    twice = far.mirror(image)
    at_far, seen_far, cos_far = far.hit(twice, point)
    at_near, seen_near, cos_near = near.hit(image, at_far)
    # The first bounce must happen in front of the second wall.
    seen = seen_far & seen_near & (far.height(at_near) > 0)
    way = point - twice
    length = torch.linalg.vector_norm(way, dim=-1)
    loss = fresnel(cos_far, far.permittivity) * fresnel(cos_near, near.permittivity)
    direction = _turned(_turned(way / length.unsqueeze(-1), far.normal), near.normal)
    amplitude = seen * loss * _spreading(length, wavelength_m)
    return _Legs(amplitude, length, direction, ((bs[None], at_near), (at_near, at_far), (at_far, point)))


def _scattered(city: City, points_m: Tensor, wavelength_m: float) -> _Legs:
    bs, point, middle = city.bs_position_m[:, None], points_m[:, None, None], city.scatterer_m
    near_m = torch.linalg.vector_norm(middle - bs, dim=-1)
    far_m = torch.linalg.vector_norm(point - middle, dim=-1)
    spread = _spreading(near_m, wavelength_m) / far_m.clamp(min=_SHORTEST_M)
    amplitude = (spread * (city.scatterer_rcs_m2 / (4 * math.pi)).sqrt()).expand_as(far_m)
    direction = ((middle - bs) / near_m.unsqueeze(-1)).expand(*far_m.shape, 3)
    return _Legs(amplitude, near_m + far_m, direction, ((bs[None], middle[None]), (middle[None], point)))


def _turned(direction: Tensor, normal: Tensor) -> Tensor:
    """Directions mirrored at a wall."""
    return direction - 2 * (direction * normal).sum(dim=-1, keepdim=True) * normal
