"""Latitude and longitude to metres of a site and back (WGS 84), by pyproj."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.checks import number, one_of
from cfpos_envs.extras import install_command

if TYPE_CHECKING:
    from pyproj import Transformer

NORTHS = ("true", "grid")
_UTM_LATITUDES = (-80.0, 84.0)
_SVALBARD_FROM = 72.0


@dataclass(frozen=True)
class GeoOrigin:
    """Where the origin of a site lies on the earth, and which way its y axis points.

    ``north="true"``: x, y and z point east, north and up at the origin (a plane that touches the ellipsoid there; at a
    distance d the ground lies d^2 / 12 740 km below it: 8 cm at 1 km). ``north="grid"``: x and y are differences of
    UTM eastings and northings in the zone of the origin, as maps and GIS have them. Grid north is off true north by up
    to 3 degrees and more near the poles, 1.9 in Munich, and grid metres are up to 0.04 % short within the middle of a
    zone and up to 0.1 % long at its border.

    Attributes:
        latitude_deg, longitude_deg: of the origin, WGS 84.
        height_m: of the ground there above the ellipsoid.
        north: ``true`` or ``grid``.
        shift_m: what is subtracted from x and y besides, so that a site may be moved without moving its origin.

    Raises:
        ValueError: out of range; ``grid`` where UTM has no zone.
    """

    latitude_deg: float
    longitude_deg: float
    height_m: float = 0.0
    north: str = "true"
    shift_m: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        number("latitude", self.latitude_deg, -90.0, 90.0)
        number("longitude", self.longitude_deg, -180.0, 180.0)
        number("height_m", self.height_m, -1e4, 1e5)
        one_of("north", self.north, NORTHS)
        low, high = _UTM_LATITUDES
        if self.north == "grid" and not low <= self.latitude_deg <= high:
            raise ValueError(
                f"north=grid at latitude={self.latitude_deg:g}: UTM covers [{low:g}, {high:g}] degrees; use north=true"
            )

    def to_local(
        self,
        latitude_deg: Float[Tensor, "*batch"],
        longitude_deg: Float[Tensor, "*batch"],
        height_m: Float[Tensor, "*batch"] | None = None,
    ) -> Float[Tensor, "*batch 3"]:
        """x, y, z in metres, double precision.

        Args:
            latitude_deg, longitude_deg: WGS 84, degrees.
            height_m: above the ellipsoid; None: that of the origin.

        Raises:
            ModuleNotFoundError: pyproj is not installed; names the command that installs it.
            ValueError: a coordinate is out of range or not finite.
        """
        latitude, longitude = latitude_deg.double(), longitude_deg.double()
        if not bool(((latitude.abs() <= 90) & (longitude.abs() <= 180)).all()):
            raise ValueError("latitudes must lie in [-90, 90] and longitudes in [-180, 180] degrees")
        height = torch.full_like(latitude, self.height_m) if height_m is None else height_m.double()
        east, north, up = (value.cpu().numpy() for value in (longitude, latitude, height))
        moved = torch.stack([_double(value) for value in self._transformer.transform(east, north, up)], dim=-1)
        return moved - moved.new_tensor(self._offset_m)

    def to_geodetic(
        self, local_m: Float[Tensor, "*batch D"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Latitude and longitude in degrees and height above the ellipsoid in metres; the inverse of ``to_local``.

        Args:
            local_m: [..., 2] or [..., 3] metres of the site; without z: on the plane z = 0.

        Raises:
            ModuleNotFoundError: as ``to_local``.
        """
        point = local_m.detach().cpu().double()
        if point.shape[-1] == 2:
            point = torch.cat((point, torch.zeros_like(point[..., :1])), dim=-1)
        x, y, z = (value.numpy() for value in (point + point.new_tensor(self._offset_m)).unbind(dim=-1))
        inverse = self._transformer.transform(x, y, z, direction="INVERSE")
        longitude, latitude, height = (_double(value) for value in inverse)
        return latitude, longitude, height

    def moved(self, shift_m: Sequence[float]) -> GeoOrigin:
        """For a site whose coordinates became smaller by (x, y) metres."""
        x, y = self.shift_m
        return dataclasses.replace(self, shift_m=(x + float(shift_m[0]), y + float(shift_m[1])))

    @property
    def utm_zone(self) -> int:
        """Zone of the origin, 1 to 60, with the exceptions of Norway and Svalbard."""
        latitude, longitude = self.latitude_deg, self.longitude_deg
        if 56.0 <= latitude < 64.0 and 3.0 <= longitude < 12.0:
            return 32
        if latitude >= _SVALBARD_FROM and 0.0 <= longitude < 42.0:
            return next(zone for end, zone in ((9.0, 31), (21.0, 33), (33.0, 35), (42.0, 37)) if longitude < end)
        return min(math.floor((longitude + 180.0) / 6.0) + 1, 60)

    @cached_property
    def _transformer(self) -> Transformer:
        try:
            from pyproj import Transformer
        except ImportError as error:
            raise ModuleNotFoundError(
                f"latitude and longitude need pyproj: {install_command('geo')}", name="pyproj"
            ) from error
        if self.north == "grid":
            south = " +south" * (self.latitude_deg < 0)
            return Transformer.from_pipeline(
                "+proj=pipeline +step +proj=unitconvert +xy_in=deg +xy_out=rad "
                f"+step +proj=utm +zone={self.utm_zone}{south} +ellps=WGS84"
            )
        return Transformer.from_pipeline(
            "+proj=pipeline +step +proj=unitconvert +xy_in=deg +xy_out=rad +step +proj=cart +ellps=WGS84 "
            f"+step +proj=topocentric +ellps=WGS84 +lat_0={self.latitude_deg!r} +lon_0={self.longitude_deg!r} "
            f"+h_0={self.height_m!r}"
        )

    @cached_property
    def _offset_m(self) -> tuple[float, float, float]:
        """What the transformed coordinates have too much."""
        x, y = self.shift_m
        if self.north == "true":
            return x, y, 0.0
        east, north, _ = self._transformer.transform(self.longitude_deg, self.latitude_deg, self.height_m)
        return float(east) + x, float(north) + y, self.height_m


def _double(value: object) -> Tensor:
    """Pyproj answers a single point with plain numbers."""
    return torch.as_tensor(value, dtype=torch.float64)
