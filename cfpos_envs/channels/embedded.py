"""The embedded city as a source of channels: users anywhere, moved anywhere."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs import draws
from cfpos_envs.channels.city import draw_city, draw_points, inside_buildings
from cfpos_envs.channels.city_paths import choose_mirrors, line_of_sight, surfaces_of, trace
from cfpos_envs.channels.scene import EccSceneConfig
from cfpos_envs.channels.sources import Users
from cfpos_envs.physics.ecc.csi import CsiPaths
from cfpos_envs.physics.units import SPEED_OF_LIGHT_M_S
from cfpos_envs.streams import Streams

_Part = TypeVar("_Part")

TRACE_CHUNK = 256
"""Users traced at once: what they need fits into a cache."""


class EmbeddedCity:
    """A ``CsiSource`` that computes its channels; the scene is a function of ``settings.scene_seed`` alone.

    Args:
        settings: scene and radio.
        device: where the tensors live.
    """

    max_displacement_m = math.inf

    def __init__(self, settings: EccSceneConfig, device: torch.device | str = "cpu") -> None:
        # Drawn on the processor, so that every device sees the same streets.
        streams = Streams(settings.scene_seed, "scene")
        wide, deep, high = settings.size_m
        city = draw_city(
            streams["city"],
            (wide, deep, high),
            (settings.blocks[0], settings.blocks[1]),
            (settings.building_height_m[0], settings.building_height_m[1]),
            settings.num_bs,
            settings.bs_height_m,
            settings.num_scatterers,
        )
        self._wavelength_m = SPEED_OF_LIGHT_M_S / settings.carrier_hz
        self._num_paths = settings.num_paths
        surfaces = surfaces_of(city)
        count = settings.num_reflections
        mirrors = choose_mirrors(streams["mirrors"], city, surfaces, count, count, self._wavelength_m)
        self.city, self._surfaces, self._mirrors = (
            _moved(city, device),
            _moved(surfaces, device),
            _moved(mirrors, device),
        )
        self.name = f"city {settings.scene_seed}"
        self.area_min_m = (0.0, 0.0, 0.0)
        self.area_max_m = (wide, deep, high)
        self.bs_positions_m: Tensor = self.city.bs_position_m
        self.bs_orientation_rad: Tensor = self.city.bs_orientation_rad
        self.box_min_m: Tensor = self.city.box_min_m
        self.box_max_m: Tensor = self.city.box_max_m

    def draw_users(self, generator: draws.Source, count: int, split: str) -> Users:
        """See ``CsiSource``; every split draws from its own generator and shares no place with another one."""
        position = draw_points(generator, self.city, count)
        return Users(position, torch.full((count,), -1, dtype=torch.long, device=position.device))

    def paths(self, users: Users, displacement_m: Float[Tensor, "U S 3"]) -> CsiPaths:
        """See ``CsiSource``."""
        points = users.position_m.unsqueeze(1) + displacement_m
        traced = [
            trace(self.city, self._surfaces, self._mirrors, part, self._wavelength_m, self._num_paths)
            for part in points.flatten(0, 1).split(TRACE_CHUNK)
        ]
        fields = zip(*((part.gain, part.delay_s, part.direction) for part in traced))
        return CsiPaths(*(torch.cat(parts).unflatten(0, points.shape[:2]) for parts in fields))

    def is_free(self, points_m: Float[Tensor, "*batch 3"]) -> Bool[Tensor, "*batch"]:
        """See ``CsiSource``."""
        low, high = points_m.new_tensor(self.area_min_m), points_m.new_tensor(self.area_max_m)
        return ((points_m >= low) & (points_m <= high)).all(dim=-1) & ~inside_buildings(self.city, points_m)

    def stored_users(self, split: str) -> int | None:
        """None: every draw is another place."""
        del split
        return None

    def sees(self, points_m: Float[Tensor, "U 3"], split: str) -> Bool[Tensor, "U L"]:
        """See ``CsiSource``."""
        del split
        return self.line_of_sight(points_m)

    def line_of_sight(self, points_m: Float[Tensor, "U 3"]) -> Bool[Tensor, "U L"]:
        """Which BSs see points; for reports, no policy knows it."""
        return line_of_sight(self.city, points_m)


def _moved(part: _Part, device: torch.device | str) -> _Part:
    """A dataclass of tensors on another device."""
    return type(part)(**{name: value.to(device) for name, value in vars(part).items()})
