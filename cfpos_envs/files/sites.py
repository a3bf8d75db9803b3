"""A person's own site: where its access points stand, what its area is, and where on earth it lies."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.checks import one_of
from cfpos_envs.files.areas import Area
from cfpos_envs.files.calibrations import DEVICES_KEY, stored_calibration
from cfpos_envs.files.coordinates import GeoOrigin
from cfpos_envs.files.site_formats import (
    PLACE_KEYS,
    SITE_KEYS,
    Description,
    Row,
    read_description,
    refuse_misspelt,
    refuse_unknown,
)
from cfpos_envs.measurements.calibration import RangeCalibration

UNITS_M = {"m": 1.0, "ft": 0.3048}
ORIGIN_KEYS = ("latitude", "longitude", "height_m", "north")
_PLACES = (("x_m", "y_m"), ("x", "y"), ("latitude", "longitude"))
USER_HEIGHT_M = 1.5
"""Of people who hold a phone or wear a tag; used where a site has heights and nobody says otherwise."""
FAR_M = 1e4
"""Coordinates beyond this are a map's (UTM, web mercator) and are moved near zero."""
_FARTHEST_M = 1e5
_SAME_POINT_M = 1e-3
# Two places given to six decimals of a degree agree to this.
_ON_BORDER_M = 0.15
# APs whose second principal axis is shorter than this share of the first one stand on a line.
_LINE_SHARE = 1e-4


@dataclass(frozen=True)
class SiteFile:
    """What a site file says; None where it is silent. All lengths in metres of the site, in double precision.

    Attributes:
        ap_positions_m: [M, 2] horizontal positions, in the order of the file.
        ap_height_m: [M] heights above ground.
        orientation_rad: [M] directions of the array axes, counter-clockwise from +x.
        ap_names: M different names.
        area: where users may be: what the file declares as ``area``, or the square [0, side_m].
        geo_origin: latitude and longitude of these coordinates.
        origin_m: what to add to these coordinates to have those of the file; not zero where the file's are a map's.
        name: of the site; the file's stem if it gives none.
        path: of the file.
        preset: the named site that a game starts from.
        fields: further keys of the file, for the config of a game.
        in_degrees: whether the file gives the APs' places in latitude and longitude.
        calibration: of the ranges to its APs.
    """

    ap_positions_m: Float[Tensor, "M 2"]
    ap_height_m: Float[Tensor, " M"] | None
    orientation_rad: Float[Tensor, " M"] | None
    ap_names: tuple[str, ...]
    area: Area | None
    geo_origin: GeoOrigin | None
    origin_m: tuple[float, float]
    name: str
    path: str
    preset: str | None
    fields: dict[str, Any]
    in_degrees: bool = False

    @property
    def user_height_m(self) -> float:
        """Height of the users: ``ue_height_m`` of the file, else that of somebody who holds a phone.

        Raises:
            ValueError: the file's is no number.
        """
        return typed_number(self.fields.get("ue_height_m", USER_HEIGHT_M), f"site file {self.path}: ue_height_m")

    calibration: RangeCalibration | None = None

    @property
    def bounds_m(self) -> tuple[Float[Tensor, " 2"], Float[Tensor, " 2"]]:
        """Lower left and upper right corner of the area; of the APs if none is declared."""
        if self.area is not None:
            return self.area.bounds_m
        return self.ap_positions_m.amin(dim=0), self.ap_positions_m.amax(dim=0)

    @property
    def line(self) -> tuple[Float[Tensor, " 2"], Float[Tensor, " 2"]] | None:
        """A point and the direction of the line on which all APs stand (to 1e-4 of its length), or None.

        Ranges to them do not tell a place from its mirror image in that line.
        """
        if len(self.ap_positions_m) < 2:
            return None
        middle = self.ap_positions_m.mean(dim=0)
        _, lengths, axes = torch.linalg.svd(self.ap_positions_m - middle, full_matrices=False)
        return (middle, axes[0]) if float(lengths[1]) < _LINE_SHARE * float(lengths[0]) else None

    def excludes_mirror_images(self, area: Area) -> bool:
        """Whether no two places of ``area`` have the same distances to all APs: they span the plane, or are its wall.

        Args:
            area: in the coordinates of the site.
        """
        line = self.line
        return line is None or area.on_one_side_of(*line, margin_m=_ON_BORDER_M)

    def mirrored(self, points_m: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 2"]:
        """Mirror images of points in the line of the APs: the other places with the same distances to all of them.

        Raises:
            ValueError: the APs do not stand on one line, so that there are none.
        """
        line = self.line
        if line is None:
            raise ValueError(f"the APs of {self.path} do not stand on one line; no place has a mirror image")
        point, direction = line
        along = ((points_m - point) @ direction).unsqueeze(-1) * direction
        return 2 * (point + along) - points_m

    def with_degrees_exchanged(self) -> SiteFile | None:
        """The APs where they are if the file has latitudes as longitudes and the reverse; None where it cannot have.

        East-west distances grow with the cosine of the latitude, so measured ranges fit one of the two alone. The area
        is not kept.
        """
        origin = self.geo_origin
        if not self.in_degrees or origin is None:
            return None
        latitude, longitude, _ = origin.to_geodetic(self.ap_positions_m)
        try:
            turned = GeoOrigin(origin.longitude_deg, origin.latitude_deg, origin.height_m)
            places = turned.to_local(longitude, latitude)[:, :2]
        except ValueError:
            return None
        return dataclasses.replace(self, ap_positions_m=places, area=None, geo_origin=turned, origin_m=(0.0, 0.0))

    def moved(self, corner_m: Sequence[float]) -> SiteFile:
        """The same in coordinates whose origin lies at ``corner_m``."""
        x, y = float(corner_m[0]), float(corner_m[1])
        if x == 0.0 and y == 0.0:
            return self
        return dataclasses.replace(
            self,
            ap_positions_m=self.ap_positions_m - self.ap_positions_m.new_tensor([x, y]),
            area=None if self.area is None else self.area.moved((-x, -y)),
            geo_origin=None if self.geo_origin is None else self.geo_origin.moved((x, y)),
            origin_m=(self.origin_m[0] + x, self.origin_m[1] + y),
        )


def load_site(path: str | Path, columns: Mapping[str, str | None] | None = None) -> SiteFile:
    """Read a site from ``*.yaml``/``*.yml``, ``*.csv`` or ``*.geojson``; docs/data/sites.md describes the three.

    Every AP has a place, ``x_m, y_m`` or ``latitude, longitude``, and may have ``name``, ``height_m`` and
    ``orientation_deg``; heights and orientations are given for all APs or for none. ``origin`` says where x = y = 0
    lies on earth; without one, places in degrees are relative to the south-west corner of all places. Plain ``x``,
    ``y``, ``height`` are in the ``units`` (``m`` or ``ft``) that the file must then declare.

    Args:
        path: the file.
        columns: how it calls the values of an AP -> how we do, e.g. ``{"sensor": "name", "z_m": "height_m"}``; None
            passes one over. Names that it does not have do no harm.

    Raises:
        ValueError: anything missing, misspelt, not finite or contradictory; two APs with one name or on one point; an
            AP outside the area; names file and line or AP.
        ModuleNotFoundError: latitude and longitude without pyproj.
    """
    said = read_description(path, columns)
    general = dict(said.general)
    refuse_misspelt(general, SITE_KEYS, said.where)
    unit = _unit(general.pop("units", None), said.where)
    corners = _corner_rows(general.pop("area", None), unit, said.where)
    origin, ground_known = _origin(general.pop("origin", None), (*said.rows, *corners), said.where)
    positions = torch.stack([_place(row, origin, unit) for row in said.rows])
    outline = [tuple(_place(row, origin, unit).tolist()) for row in corners]
    height = _heights(said.rows, unit, origin if ground_known else None)
    orientation = _column(said.rows, "orientation_deg")
    names = _names(said.rows)
    calibration = stored_calibration(said.rows, names, general.pop(DEVICES_KEY, None), said.where)
    site = SiteFile(
        ap_positions_m=positions,
        ap_height_m=height,
        orientation_rad=None if orientation is None else torch.deg2rad(orientation),
        ap_names=names,
        area=_area(outline, said.where),
        geo_origin=origin,
        origin_m=(0.0, 0.0),
        name=str(general.pop("name")),
        path=str(path),
        preset=general.pop("preset", None),
        fields=general,
        in_degrees=all(_place_keys(row)[0] == "latitude" for row in said.rows),
        calibration=calibration,
    )
    _refuse_shared_points(site, said)
    return _with_square(_near_zero(site, said.where), said)


def typed_number(value: Any, what: str) -> float:
    """A finite number, also as text: YAML reads 10e9 as text and CSV knows nothing else.

    Raises:
        ValueError: anything else.
    """
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{what} must be a number, got {value!r}") from None
    if not math.isfinite(number):
        raise ValueError(f"{what} must be a finite number, got {value!r}")
    return number


def _unit(said: Any, where: str) -> str | None:
    if said is not None and said not in UNITS_M:
        raise ValueError(f"{where}: units={said!r} is not one of {', '.join(UNITS_M)}")
    return said


def _origin(said: Any, rows: Sequence[Row], where: str) -> tuple[GeoOrigin | None, bool]:
    """The origin, and whether its height is known."""
    if said is None:
        degrees = [row for row in rows if _place_keys(row)[0] == "latitude"]
        if not degrees:
            return None, False
        if len(degrees) < len(rows):
            metric = next(row for row in rows if row not in degrees)
            raise ValueError(
                f"{metric.label} is given in metres and {degrees[0].label.removeprefix(f'{where}, ')} in degrees; "
                "say where x = y = 0 lies: origin: {latitude: ..., longitude: ...}"
            )
        south, west = (min(_given(row, key) for row in rows) for key in ("latitude", "longitude"))
        return _made(where, latitude_deg=south, longitude_deg=west), False
    what = f"{where}, origin"
    if not isinstance(said, Mapping):
        raise ValueError(f"{what}: must be a mapping with {', '.join(ORIGIN_KEYS)}, got {said!r}")
    refuse_unknown(said, ORIGIN_KEYS, what)
    row = Row(what, said)
    # ``true`` is a switch in YAML.
    north = {True: "true"}.get(said.get("north", "true"), said.get("north", "true"))
    one_of(f"{what}: north", north, ("true", "grid"))
    height = _given(row, "height_m") if "height_m" in said else 0.0
    origin = _made(
        what,
        latitude_deg=_given(row, "latitude"),
        longitude_deg=_given(row, "longitude"),
        height_m=height,
        north=north,
    )
    return origin, "height_m" in said


def _made(where: str, **values: Any) -> GeoOrigin:
    try:
        return GeoOrigin(**values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _given(row: Row, key: str) -> float:
    """The number under a key that must be there."""
    if row.values.get(key) is None:
        raise ValueError(f"{row.label}: {key} is missing")
    return typed_number(row.values[key], f"{row.label}: {key}")


def _place_keys(row: Row) -> tuple[str, str]:
    """The two keys by which an AP or a corner says where it is."""
    said = [pair for pair in _PLACES if any(key in row.values for key in pair)]
    if len(said) > 1:
        raise ValueError(f"{row.label}: has {said[0][0]} and {said[1][0]}; give its place in one way")
    return said[0] if said else _PLACES[0]


def _place(row: Row, origin: GeoOrigin | None, unit: str | None) -> Tensor:
    """X and y of an AP or a corner, metres."""
    first, second = _place_keys(row)
    pair = _given(row, first), _given(row, second)
    if first == "latitude":
        assert origin is not None
        try:
            return origin.to_local(*(torch.tensor(value, dtype=torch.float64) for value in pair))[:2]
        except ValueError as error:
            raise ValueError(f"{row.label}: {error}") from None
    return torch.tensor(pair, dtype=torch.float64) * _metres(row, first, unit)


def _metres(row: Row, key: str, unit: str | None) -> float:
    """Metres in one of the units in which a key is written."""
    if key.endswith("_m"):
        if unit not in (None, "m"):
            raise ValueError(f"{row.label}: {key} is in metres, but units: {unit}; write {key[:-2]} instead")
        return 1.0
    if unit is None:
        raise ValueError(f"{row.label}: {key} has no unit; write {key}_m, or declare units: m or units: ft")
    return UNITS_M[unit]


def _heights(rows: Sequence[Row], unit: str | None, ground: GeoOrigin | None) -> Tensor | None:
    heights = [_height(row, unit, ground) for row in rows]
    if all(height is None for height in heights):
        return None
    for row, height in zip(rows, heights):
        if height is None:
            raise ValueError(f"{row.label}: height_m is missing")
    return torch.tensor(heights, dtype=torch.float64)


def _height(row: Row, unit: str | None, ground: GeoOrigin | None) -> float | None:
    keys = [key for key in ("height_m", "height") if row.values.get(key) is not None]
    if len(keys) > 1:
        raise ValueError(f"{row.label}: has height_m and height; give one")
    if keys:
        return _given(row, keys[0]) * _metres(row, keys[0], unit)
    if row.values.get("altitude_m") is None:
        return None
    if ground is None:
        raise ValueError(
            f"{row.label}: its position has a height above the ellipsoid; say how high the ground is "
            "(height_m of the origin) or give the AP the property height_m"
        )
    return _given(row, "altitude_m") - ground.height_m


def _column(rows: Sequence[Row], key: str) -> Tensor | None:
    """One value per AP, or None if no AP has it."""
    if not any(row.values.get(key) is not None for row in rows):
        return None
    return torch.tensor([_given(row, key) for row in rows], dtype=torch.float64)


def _names(rows: Sequence[Row]) -> tuple[str, ...]:
    given = [row.values.get("name") for row in rows]
    names = tuple(f"ap{m}" if name is None else str(name).strip() for m, name in enumerate(given))
    for m, name in enumerate(names):
        first = names.index(name)
        if first < m:
            raise ValueError(f"{rows[m].label}: AP {first + 1} has the name {name!r} too; names must differ")
    return names


def _corner_rows(said: Any, unit: str | None, where: str) -> list[Row]:
    """Corners of the area: mappings, or pairs of x and y in the file's unit, metres if it declares none."""
    if said is None:
        return []
    if not isinstance(said, list) or len(said) < 2:
        raise ValueError(
            f"{where}: area must list 2 opposite corners of a rectangle or at least 3 corners of a polygon, "
            f"such as [[0, 0], [40, 24]], got {said!r}"
        )
    rows = []
    for number, corner in enumerate(said, start=1):
        label = f"{where}, corner {number} of the area"
        if isinstance(corner, (list, tuple)) and len(corner) == 2:
            rows.append(Row(label, dict(zip(("x_m", "y_m") if unit is None else ("x", "y"), corner))))
        elif isinstance(corner, Mapping):
            refuse_unknown([key for key in corner if key != "altitude_m"], PLACE_KEYS, label)
            rows.append(Row(label, corner))
        else:
            raise ValueError(f"{label}: must be [x, y] or a mapping with {', '.join(PLACE_KEYS)}, got {corner!r}")
    return rows


def _area(outline: Sequence[tuple[float, float]], where: str) -> Area | None:
    if not outline:
        return None
    try:
        return Area.rectangle(*outline) if len(outline) == 2 else Area(tuple(outline))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _near_zero(site: SiteFile, where: str) -> SiteFile:
    """Coordinates of a map moved near zero, to whole metres below all of them."""
    low, high = site.bounds_m
    low = torch.minimum(low, site.ap_positions_m.amin(dim=0))
    high = torch.maximum(high, site.ap_positions_m.amax(dim=0))
    if bool((high - low > _FARTHEST_M).any()):
        extent = ", ".join(f"{value:g}" for value in (high - low).tolist())
        raise ValueError(
            f"{where} is {extent} m wide; a site may be {_FARTHEST_M:g} m wide (are all places in one system?)"
        )
    farthest = float(torch.maximum(low.abs(), high.abs()).max())
    if farthest <= FAR_M:
        return site
    if site.geo_origin is not None:
        if farthest > _FARTHEST_M:
            raise ValueError(
                f"{where}: places are {farthest:g} m from the origin; x_m and y_m count from it, so give them without "
                "the map's own offset, or leave origin out"
            )
        return site
    return site.moved(low.floor().tolist())


def _with_square(site: SiteFile, said: Description) -> SiteFile:
    """The square [0, side_m] as the area of a file that declares no other, and APs only where the area is."""
    side = site.fields.get("side_m")
    if side is not None:
        side = typed_number(side, f"{said.where}: side_m")
        if side <= 0:
            raise ValueError(f"{said.where}: side_m must be positive, got {side:g}")
        square = Area.rectangle((0.0, 0.0), (side, side))
        if site.area is not None and not bool(square.contains(site.area.corners, _ON_BORDER_M).all()):
            raise ValueError(f"{said.where}: the area leaves the square [0, {side:g}] m of side_m; drop side_m")
        site = site if site.area is not None else dataclasses.replace(site, area=square)
    if site.area is None:
        return site
    outside = (~site.area.contains(site.ap_positions_m, _ON_BORDER_M)).nonzero().flatten().tolist()
    if outside:
        row = said.rows[outside[0]]
        if said.general.get("area") is None:
            raise ValueError(f"{row.label}: lies outside the area [0, {side:g}] m; enlarge side_m")
        away = float(site.area.border_distance_m(site.ap_positions_m[outside[0]]))
        raise ValueError(f"{row.label}: lies {away:.2f} m outside the area; move the AP or enlarge the area")
    return site


def _refuse_shared_points(site: SiteFile, said: Description) -> None:
    positions = site.ap_positions_m
    gaps = torch.cdist(positions, positions, compute_mode="donot_use_mm_for_euclid_dist")
    if site.ap_height_m is not None:
        gaps = torch.hypot(gaps, site.ap_height_m - site.ap_height_m.unsqueeze(1))
    close = torch.triu(gaps < _SAME_POINT_M, diagonal=1).nonzero()
    if len(close):
        first, second = (int(index) + 1 for index in close[0])
        raise ValueError(f"{said.where}: APs {first} and {second} stand on one point; move or remove one of them")
