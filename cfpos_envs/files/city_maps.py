"""Buildings of a map as triangles in metres: CityJSON with solids, GeoJSON with footprints and heights."""

from __future__ import annotations

import hashlib
import json
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from cfpos_envs.files.coordinates import GeoOrigin
from cfpos_envs.files.polygons import signed_area, triangles

MAP_SUFFIXES = (".json", ".geojson")
STOREY_M = 3.0
"""Of a storey, where a footprint says how many it has and no height (``building:levels`` of OpenStreetMap)."""

_HEIGHT_KEYS = ("height_m", "height")
_STOREY_KEYS = ("building:levels", "levels")
_SOLID_DEPTH = {"Solid": 1, "MultiSolid": 2, "CompositeSolid": 2, "MultiSurface": 0, "CompositeSurface": 0}
"""Nesting above the list of surfaces."""
_EPSG = re.compile(r"EPSG(?:/[\d.]*/|::?)(\d+)$")
_DEGREES_WIDE = 1.0


@dataclass(frozen=True)
class CityMap:
    """Buildings on flat ground.

    Attributes:
        name: of the file.
        vertices_m: x, y from the middle of the buildings, z from the ground; each building stands on z = 0.
        faces: triangles, counter-clockwise from outside.
        building: of every triangle, counted from 0.
        origin: where x = y = 0 lies in the file's own coordinates.
        crs: name of those coordinates, or that they have none.
        geo_origin: the same origin in latitude and longitude, for GeoJSON.
    """

    name: str
    vertices_m: Float[np.ndarray, "V 3"]
    faces: Int[np.ndarray, "F 3"]
    building: Int[np.ndarray, " F"]
    origin: tuple[float, float]
    crs: str
    geo_origin: GeoOrigin | None = None

    @property
    def centre_m(self) -> tuple[float, float]:
        """Middle of the buildings."""
        low, high = self.vertices_m[:, :2].min(axis=0), self.vertices_m[:, :2].max(axis=0)
        x, y = (low + high) / 2
        return round(float(x), 3), round(float(y), 3)

    @property
    def size_m(self) -> tuple[float, float]:
        """Extent along x and y."""
        width, depth = np.ptp(self.vertices_m[:, :2], axis=0)
        return round(float(width), 3), round(float(depth), 3)

    @property
    def heights_m(self) -> Float[np.ndarray, " B"]:
        """Of the highest point of every building."""
        top = self.vertices_m[self.faces, 2].max(axis=1)
        highest = np.full(int(self.building.max()) + 1, -np.inf)
        np.maximum.at(highest, self.building, top)
        return highest


def is_map(scene: str) -> bool:
    """Whether a scene is named by a file of a map."""
    return Path(scene).suffix.lower() in MAP_SUFFIXES


def map_digest(path: str | Path) -> str:
    """SHA-256 of a map's file, 16 hexadecimal digits.

    Raises:
        ValueError: there is no such file.
    """
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"map {file} does not exist; give the path of a CityJSON (.json) or GeoJSON (.geojson) file")
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def read_map(path: str | Path) -> CityMap:
    """Read the buildings of a CityJSON or GeoJSON file.

    CityJSON: objects ``Building``, ``BuildingPart``, ... with their geometry of the highest level of detail, in the
    metres (or feet) of their reference system. GeoJSON: polygons in latitude and longitude with ``height_m``,
    ``height`` (metres) or ``building:levels``; a member ``origin`` (latitude, longitude, north) says where x = y = 0
    lies, without it the middle of the buildings.

    Polygons that cross themselves are left out with a warning that counts them.

    Raises:
        ValueError: no such file or no such format, no building, no heights, coordinates in degrees where metres belong;
            names file and object.
        ModuleNotFoundError: latitudes need the extra ``geo``.
    """
    file = Path(path)
    map_digest(file)
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"map {file.name} is not valid JSON: {error}") from error
    kind = content.get("type") if isinstance(content, dict) else None
    if kind == "CityJSON":
        return _from_city_json(content, file.name)
    if kind == "FeatureCollection":
        return _from_geojson(content, file.name)
    raise ValueError(f"map {file.name} has type {kind!r}; it must be CityJSON or a GeoJSON FeatureCollection")


def _from_city_json(content: Mapping[str, Any], name: str) -> CityMap:
    vertices = np.asarray(content.get("vertices") or np.zeros((0, 3)), dtype=np.float64)
    if vertices.ndim != 2 or vertices.shape[1] != 3:
        raise ValueError(f"map {name}: vertices must be triples, got an array of shape {vertices.shape}")
    objects = content.get("CityObjects") or {}
    surfaces = [
        (_root(label, objects), label, rings)
        for label, item in objects.items()
        if str(item.get("type", "")).startswith("Building")
        for rings in _surfaces(item, f"map {name}, {label}")
    ]
    if not surfaces:
        raise ValueError(f"map {name} has no building with a geometry of {', '.join(_SOLID_DEPTH)}")
    if transform := content.get("transform"):
        vertices = vertices * np.asarray(transform["scale"]) + np.asarray(transform["translate"])
    used = vertices[np.unique(np.concatenate([ring for _, _, rings in surfaces for ring in rings]))]
    crs, unit_m = _reference_system(content, used, name)
    vertices = vertices * unit_m
    solids: dict[str, list[np.ndarray]] = {}
    lost: list[str] = []
    for root, label, rings in surfaces:
        try:
            solids.setdefault(root, []).append(_flat_triangles(vertices, rings))
        except ValueError as error:
            lost.append(f"{label}: {error}")
    _tell(lost, len(surfaces), "surfaces", name)
    return _assembled(name, [vertices[np.concatenate(parts)] for parts in solids.values()], crs, None)


def _root(label: str, objects: Mapping[str, Any]) -> str:
    """The building that a part of one belongs to."""
    seen = {label}
    while parents := objects.get(label, {}).get("parents"):
        label = str(parents[0])
        if label in seen:
            break
        seen.add(label)
    return label


def _surfaces(item: Mapping[str, Any], where: str) -> Iterator[list[np.ndarray]]:
    """Outlines and holes, as indices of vertices, of an object's finest geometry."""
    known = [geometry for geometry in item.get("geometry") or () if geometry.get("type") in _SOLID_DEPTH]
    if not known:
        return
    finest = max(known, key=lambda geometry: float(geometry.get("lod") or 0))
    nested = finest["boundaries"]
    for _ in range(_SOLID_DEPTH[finest["type"]]):
        nested = [surface for shell in nested for surface in shell]
    for surface in nested:
        rings = [np.asarray(ring, dtype=np.int64) for ring in surface]
        if any(ring.ndim != 1 for ring in rings):
            raise ValueError(f"{where}: boundaries are not nested as {finest['type']} says")
        yield rings


def _tell(lost: Sequence[str], count: int, what: str, name: str) -> None:
    """Warn of polygons that cannot be; a city has some, and the rest is a city all the same.

    Raises:
        ValueError: nothing is left.
    """
    if not lost:
        return
    text = f"map {name}: left out {len(lost)} of {count} {what}, the first {lost[0]}"
    if len(lost) == count:
        raise ValueError(f"{text}; none is left")
    warnings.warn(text, stacklevel=3)


def _flat_triangles(vertices: np.ndarray, rings: Sequence[np.ndarray]) -> np.ndarray:
    """Triangles [T, 3] (indices of vertices) of a flat surface in space, in its own sense of rotation."""
    corners = vertices[rings[0]]
    normal = np.cross(corners - corners[0], np.roll(corners, -1, axis=0) - corners[0]).sum(axis=0)
    if not np.linalg.norm(normal) > 0:
        return np.zeros((0, 3), dtype=np.int64)
    across = int(np.argmax(np.abs(normal)))
    axes = [(1, 2), (2, 0), (0, 1)][across]
    order = np.concatenate(rings)
    found = order[triangles([vertices[ring][:, axes] for ring in rings])]
    return found if normal[across] > 0 else found[:, ::-1]


def _reference_system(content: Mapping[str, Any], places: np.ndarray, name: str) -> tuple[str, float]:
    """Name of the coordinates and metres per unit of them.

    Raises:
        ValueError: degrees.
    """
    said = str((content.get("metadata") or {}).get("referenceSystem") or "")
    number = _EPSG.search(said)
    advice = "reproject it to metres first, e.g. cjio FILE crs_reproject 25832 save OUT"
    if number is not None:
        try:
            from pyproj import CRS
        except ImportError:
            pass
        else:
            axis = CRS.from_epsg(int(number[1])).axis_info[0]
            if axis.unit_name == "degree":
                raise ValueError(f"map {name} is in degrees (EPSG:{number[1]}); {advice}")
            return f"EPSG:{number[1]}", float(axis.unit_conversion_factor)
    width = np.ptp(places[:, :2], axis=0).max()
    if width < _DEGREES_WIDE and (np.abs(places[:, :2]) <= (180.0, 180.0)).all():
        raise ValueError(
            f"map {name}: its buildings are {width:.2g} wide in all, as degrees are and not metres; {advice}"
        )
    return (f"EPSG:{number[1]}" if number else "coordinates without a reference system"), 1.0


def _from_geojson(content: Mapping[str, Any], name: str) -> CityMap:
    if "crs" in content and "CRS84" not in json.dumps(content["crs"]) and "4326" not in json.dumps(content["crs"]):
        raise ValueError(
            f"map {name} has projected coordinates (crs); GeoJSON is in latitude and longitude, convert it"
        )
    footprints: list[tuple[list[np.ndarray], float]] = []
    for number, feature in enumerate(content.get("features") or (), start=1):
        where, geometry = f"map {name}, feature {number}", feature.get("geometry") or {}
        kind, given = geometry.get("type"), geometry.get("coordinates") or ()
        if kind not in ("Polygon", "MultiPolygon"):
            continue
        height = _height_m(feature.get("properties") or {}, where)
        for polygon in [given] if kind == "Polygon" else given:
            footprints.append(([_ring(ring, where) for ring in polygon], height))
    if not footprints:
        raise ValueError(f"map {name} has no polygons; buildings are Polygon or MultiPolygon features")
    degrees = np.concatenate([rings[0] for rings, _ in footprints])
    origin = _geo_origin(content.get("origin"), degrees, name)
    solids, lost = [], []
    for number, (rings, height) in enumerate(footprints, start=1):
        try:
            solids.append(prism([_local(origin, ring) for ring in rings], height))
        except ValueError as error:
            lost.append(f"polygon {number}: {error}")
    _tell(lost, len(footprints), "polygons", name)
    return _assembled(name, solids, "WGS 84", origin)


def _local(origin: GeoOrigin, degrees: np.ndarray) -> np.ndarray:
    longitude, latitude = torch.from_numpy(degrees).unbind(dim=1)
    return origin.to_local(latitude, longitude).numpy()[:, :2]


def _ring(given: Any, where: str) -> np.ndarray:
    ring = np.asarray([corner[:2] for corner in given], dtype=np.float64)
    if len(ring) > 1 and (ring[0] == ring[-1]).all():
        ring = ring[:-1]
    if len(ring) < 3:
        raise ValueError(f"{where}: a ring has fewer than three corners")
    return ring


def _height_m(properties: Mapping[str, Any], where: str) -> float:
    for key in (*_HEIGHT_KEYS, *_STOREY_KEYS):
        said = properties.get(key)
        if said is None:
            continue
        text = str(said).strip().removesuffix("m").strip()
        try:
            value = float(text) * (STOREY_M if key in _STOREY_KEYS else 1.0)
        except ValueError:
            raise ValueError(f"{where}: {key} is {said!r}; it must be a number of metres") from None
        if not 0 < value < math.inf:
            raise ValueError(f"{where}: {key} is {said!r}; it must be above 0")
        return value
    raise ValueError(f"{where} has no height; give {', '.join(_HEIGHT_KEYS)} (metres) or {_STOREY_KEYS[0]}")


def _geo_origin(said: Any, degrees: np.ndarray, name: str) -> GeoOrigin:
    if not (np.abs(degrees) <= (180.0, 90.0)).all():
        raise ValueError(
            f"map {name} has coordinates as {degrees[0].tolist()}, which are no longitudes and latitudes; GeoJSON is "
            "in degrees, convert it"
        )
    if said is None:
        middle = (degrees.min(axis=0) + degrees.max(axis=0)) / 2
        return GeoOrigin(float(middle[1]), float(middle[0]))
    allowed = {"latitude": "latitude_deg", "longitude": "longitude_deg", "height_m": "height_m", "north": "north"}
    if not isinstance(said, Mapping) or not {"latitude", "longitude"} <= set(said) <= set(allowed):
        raise ValueError(f"map {name}: origin is {said!r}; it must have latitude and longitude, and may have north")
    return GeoOrigin(**{allowed[key]: value for key, value in said.items()})


def prism(rings: Sequence[Float[np.ndarray, "_ 2"]], height_m: float) -> Float[np.ndarray, "T 3 3"]:
    """Walls and a flat roof over a footprint, triangles seen counter-clockwise from outside.

    Args:
        rings: outline and courts.
        height_m: of the roof.

    Raises:
        ValueError: rings that cross.
    """
    corners = np.concatenate(rings)
    roof = np.concatenate((corners, np.full((len(corners), 1), height_m)), axis=1)[triangles(rings)]
    parts = [roof]
    for number, ring in enumerate(rings):
        outward = ring if (signed_area(ring) > 0) == (number == 0) else ring[::-1]
        following = np.roll(outward, -1, axis=0)
        low, high = np.zeros((len(ring), 1)), np.full((len(ring), 1), height_m)
        a, b = np.concatenate((outward, low), axis=1), np.concatenate((following, low), axis=1)
        c, d = np.concatenate((following, high), axis=1), np.concatenate((outward, high), axis=1)
        parts += [np.stack((a, b, c), axis=1), np.stack((a, c, d), axis=1)]
    return np.concatenate(parts)


def _assembled(name: str, solids: Sequence[np.ndarray], crs: str, geo_origin: GeoOrigin | None) -> CityMap:
    """Solids [T, 3, 3] as one mesh, each on the ground; a map's coordinates begin at the middle of the buildings."""
    solids = [solid for solid in solids if len(solid)]
    standing = [solid - np.array([0.0, 0.0, solid[..., 2].min()]) for solid in solids]
    corners = np.concatenate(standing).reshape(-1, 3)
    middle = np.zeros(2)
    if geo_origin is None:
        middle = (corners[:, :2].min(axis=0) + corners[:, :2].max(axis=0)) / 2
    corners = corners - np.array([*middle, 0.0])
    vertices, index = np.unique(corners, axis=0, return_inverse=True)
    return CityMap(
        name,
        vertices,
        index.reshape(-1, 3),
        np.repeat(np.arange(len(standing)), [len(solid) for solid in standing]),
        (float(middle[0]), float(middle[1])),
        crs,
        geo_origin,
    )
