"""Maps of buildings as scenes: polygons into triangles, closed solids, coordinates, what is refused, recipes."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfpos_envs.channels.tracing.map_scene import write_scene
from cfpos_envs.channels.tracing.recipe import Recipe
from cfpos_envs.channels.tracing.requirements import missing_packages
from cfpos_envs.channels.tracing.tracer import Tracer
from cfpos_envs.files.city_maps import CityMap, prism, read_map
from cfpos_envs.files.polygons import signed_area, triangles
from scripts.plots.city_maps import plan_figure

SQUARE = np.array([[0.0, 0], [10, 0], [10, 10], [0, 10]])
COURT = np.array([[2.0, 2], [8, 2], [8, 8], [2, 8]])
L_SHAPE = np.array([[0.0, 0], [10, 0], [10, 4], [4, 4], [4, 10], [0, 10]])


def covered(rings: list[np.ndarray]) -> float:
    points, found = np.concatenate(rings), triangles(rings)
    areas = [signed_area(points[corner]) for corner in found]
    assert min(areas) > 0
    return float(sum(areas))


def volume(corners: np.ndarray) -> float:
    """Of a closed surface that is seen counter-clockwise from outside (divergence theorem)."""
    return float(np.einsum("ti,ti->t", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6)


@pytest.mark.parametrize("turned", [False, True])
def test_polygons_are_covered_whatever_their_sense(turned: bool) -> None:
    order = slice(None, None, -1 if turned else 1)
    assert covered([SQUARE[order]]) == pytest.approx(100)
    assert covered([L_SHAPE[order]]) == pytest.approx(64)
    assert covered([SQUARE, COURT[order]]) == pytest.approx(64)
    assert covered([SQUARE, COURT[order] / 4 + 0.5, COURT / 4 + [6, 0.5], COURT / 4 + [3, 5]]) == pytest.approx(
        100 - 6.75
    )
    # Corners on a line belong to no triangle of their own.
    assert covered([np.insert(SQUARE, 1, [[3, 0], [7, 0]], axis=0)[order]]) == pytest.approx(100)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 25), st.booleans())
def test_star_shaped_polygons_are_covered(seed: int, count: int, court: bool) -> None:
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * math.pi, count))
    # The middle must be inside.
    if np.diff(np.append(angle, angle[0] + 2 * math.pi)).max() > 3.0:
        angle = np.arange(count) * 2 * math.pi / count
    ring = rng.uniform(3, 10, count)[:, None] * np.stack((np.cos(angle), np.sin(angle)), axis=1) + 1e5
    hole = [0.01 * SQUARE + 1e5] if court else []
    expected = abs(signed_area(ring)) - (0.01 if court else 0.0)
    assert covered([ring, *hole]) == pytest.approx(expected, rel=1e-6)


def test_polygons_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="fewer than three corners"):
        triangles([SQUARE[:2]])
    with pytest.raises(ValueError, match="crosses"):
        triangles([np.array([[0.0, 0], [10, 10], [10, 0], [0, 12]])])
    with pytest.raises(ValueError, match="crosses"):
        triangles([SQUARE, COURT + 5])


def test_a_prism_is_closed_but_for_its_floor() -> None:
    walls = prism([L_SHAPE, COURT / 8 + [0.5, 0.5]], 5.0)
    floor = np.concatenate([L_SHAPE, COURT / 8 + [0.5, 0.5]])[triangles([L_SHAPE, COURT / 8 + [0.5, 0.5]])]
    floor = np.concatenate((floor[:, ::-1], np.zeros((*floor.shape[:2], 1))), axis=2)
    assert volume(np.concatenate((walls, floor))) == pytest.approx(5.0 * (64 - 0.5625))
    assert prism([SQUARE], 5.0)[..., 2].max() == 5.0


def box(low: list[float], high: list[float]) -> tuple[list[list[float]], list[list[list[int]]]]:
    """Eight vertices and six outward faces of one ring."""
    (x, y, z), (u, v, w) = low, high
    vertices = [[x, y, z], [u, y, z], [u, v, z], [x, v, z], [x, y, w], [u, y, w], [u, v, w], [x, v, w]]
    faces = [[3, 2, 1, 0], [4, 5, 6, 7], [0, 1, 5, 4], [1, 2, 6, 5], [2, 3, 7, 6], [3, 0, 4, 7]]
    return [[float(n) for n in vertex] for vertex in vertices], [[face] for face in faces]


def city_json(**changed: Any) -> dict[str, Any]:
    """A street of two houses, 12 m and 9 m high, in metres of Amersfoort / RD with integers of millimetres."""
    first, faces = box([85000, 447000, 1], [85020, 447040, 13])
    second, _ = box([85040, 447000, 0], [85060, 447040, 9])
    origin = [85000, 447000, 0]
    vertices = [[round(1000 * (n - o)) for n, o in zip(vertex, origin)] for vertex in first + second]
    later = [[[at + 8 for at in ring] for ring in face] for face in faces]
    solid = {"type": "Solid", "lod": "1", "boundaries": [faces]}
    plate = {"type": "MultiSurface", "lod": "0", "boundaries": [[[0, 1, 2, 3]]]}
    content = {
        "type": "CityJSON",
        "version": "2.0",
        "metadata": {"referenceSystem": "https://www.opengis.net/def/crs/EPSG/0/7415"},
        "transform": {"scale": [0.001] * 3, "translate": origin},
        "CityObjects": {
            "one": {"type": "Building", "geometry": [plate, solid]},
            "two": {"type": "Building", "children": ["part"]},
            "part": {
                "type": "BuildingPart",
                "parents": ["two"],
                "geometry": [{"type": "MultiSurface", "lod": "2", "boundaries": later}],
            },
            "road": {"type": "Road", "geometry": [plate]},
        },
        "vertices": vertices,
    }
    return {**content, **changed}


def written(folder: Path, content: Any, name: str = "street.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_city_json_solids_stand_on_the_ground_around_the_origin(tmp_path: Path) -> None:
    city = read_map(written(tmp_path, city_json()))
    assert (city.origin, city.crs) == ((85030.0, 447020.0), "EPSG:7415")
    assert (city.centre_m, city.size_m) == ((0.0, 0.0), (60.0, 40.0))
    np.testing.assert_allclose(city.heights_m, [12.0, 9.0])
    assert city.vertices_m[:, 2].min() == 0.0
    corners = city.vertices_m[city.faces]
    assert volume(corners[city.building == 0]) == pytest.approx(20 * 40 * 12)
    assert volume(corners[city.building == 1]) == pytest.approx(20 * 40 * 9)
    figure = plan_figure(city, np.array([[0.0, 0.0, 15.0]]), np.zeros((1, 3)))
    assert "2 buildings" in figure.axes[0].get_title()


def test_feet_are_converted(tmp_path: Path) -> None:
    content = city_json(metadata={"referenceSystem": "http://www.opengis.net/def/crs/EPSG/0/2263"})
    city = read_map(written(tmp_path, content))
    np.testing.assert_allclose(city.size_m, [60 * 0.3048, 40 * 0.3048], atol=1e-3)


def footprint(height: Any, west: float = 11.57, **properties: Any) -> dict[str, Any]:
    ring = [[west, 48.13], [west + 0.0004, 48.13], [west + 0.0004, 48.1303], [west, 48.1303], [west, 48.13]]
    told = properties if height is None else {"height": height, **properties}
    return {"type": "Feature", "properties": told, "geometry": {"type": "Polygon", "coordinates": [ring]}}


def test_geojson_footprints_are_prisms_in_metres(tmp_path: Path) -> None:
    street = {
        "type": "FeatureCollection",
        "features": [footprint("12 m"), footprint(None, 11.571, **{"building:levels": "3"})],
    }
    city = read_map(written(tmp_path, street, "street.geojson"))
    np.testing.assert_allclose(city.heights_m, [12.0, 9.0])
    # A degree of latitude is 111.2 km at 48 degrees, one of longitude cos(48.13 degrees) of 111.5 km.
    np.testing.assert_allclose(city.size_m, [0.0014 * 111_500 * math.cos(math.radians(48.13)), 33.36], rtol=2e-3)
    assert city.geo_origin is not None
    assert city.geo_origin.latitude_deg == pytest.approx(48.13015)
    np.testing.assert_allclose(city.centre_m, [0.0, 0.0], atol=0.01)
    moved = {**street, "origin": {"latitude": 48.13, "longitude": 11.57}}
    np.testing.assert_allclose(read_map(written(tmp_path, moved, "b.geojson")).vertices_m.min(axis=0), 0.0, atol=0.01)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ({"type": "Feature"}, "has type 'Feature'; it must be CityJSON or a GeoJSON FeatureCollection"),
        ({"type": "FeatureCollection", "features": []}, "has no polygons"),
        (
            {"type": "FeatureCollection", "features": [footprint(None)]},
            "feature 1 has no height; give height_m, height",
        ),
        (
            {"type": "FeatureCollection", "features": [footprint("tall")]},
            "height is 'tall'; it must be a number of metres",
        ),
        ({"type": "FeatureCollection", "features": [footprint(-3)]}, "height is -3; it must be above 0"),
        ({"type": "FeatureCollection", "features": [footprint(9, 85000.0)]}, "which are no longitudes and latitudes"),
        (
            {"type": "FeatureCollection", "features": [footprint(9)], "crs": {"properties": {"name": "EPSG:28992"}}},
            "has projected coordinates",
        ),
        (
            {"type": "FeatureCollection", "features": [footprint(9)], "origin": {"lat": 1}},
            "it must have latitude and longitude",
        ),
        (city_json(CityObjects={}), "has no building with a geometry of Solid"),
        (
            city_json(metadata={"referenceSystem": "https://www.opengis.net/def/crs/EPSG/0/4979"}),
            "is in degrees (EPSG:4979); reproject",
        ),
        (
            city_json(metadata={}, transform={"scale": [1e-8] * 3, "translate": [4.35, 52.0, 0.0]}),
            "as degrees are and not metres; reproject",
        ),
        (city_json(vertices=[[0, 0]]), "vertices must be triples"),
    ],
)
def test_maps_that_cannot_be_are_refused_in_a_sentence(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        read_map(written(tmp_path, content))
    assert "\n" not in str(refused.value)


def test_a_polygon_that_crosses_itself_costs_that_polygon_only(tmp_path: Path) -> None:
    bad = footprint(9)
    bad["geometry"]["coordinates"][0][1:3] = bad["geometry"]["coordinates"][0][2:0:-1]
    path = written(tmp_path, {"type": "FeatureCollection", "features": [footprint(12, 11.572), bad]}, "a.geojson")
    with pytest.warns(
        UserWarning, match=r"map a.geojson: left out 1 of 2 polygons, the first polygon 2: a ring crosses"
    ):
        assert read_map(path).heights_m.tolist() == [12.0]
    with pytest.raises(ValueError, match=r"left out 1 of 1 polygons, .*; none is left"):
        read_map(written(tmp_path, {"type": "FeatureCollection", "features": [bad]}, "a.geojson"))


def test_a_recipe_knows_the_map_and_not_where_it_lies(tmp_path: Path) -> None:
    first = Recipe(scene=str(written(tmp_path, city_json())))
    assert first.size_m == (60.0, 40.0)
    (tmp_path / "other").mkdir()
    assert Recipe(scene=str(written(tmp_path / "other", city_json()))).hash == first.hash
    assert Recipe.from_dict(first.as_dict()) == first
    (tmp_path / "street.json").unlink()
    assert Recipe.from_dict(first.as_dict()).hash == first.hash
    changed = Recipe(scene=str(written(tmp_path, json.dumps(city_json()) + " ")))
    assert changed.hash != first.hash
    assert "map_digest" in changed.differences(first)
    with pytest.raises(ValueError, match=r"map .*gone.json does not exist; give the path of a CityJSON"):
        Recipe(scene=str(tmp_path / "gone.json"))
    with pytest.raises(ValueError, match="map_digest is 'ab', but scene 'munich' is no map"):
        Recipe(map_digest="ab")


def test_scene_files_hold_the_mesh(tmp_path: Path) -> None:
    city = read_map(written(tmp_path, city_json()))
    path = write_scene(city, tmp_path / "scene")
    assert path.read_text().count('<shape type="ply"') == 2
    header, _, body = (tmp_path / "scene" / "buildings.ply").read_bytes().partition(b"end_header\n")
    assert f"element vertex {len(city.vertices_m)}\n".encode() in header
    vertices = np.frombuffer(body, "<f4", 3 * len(city.vertices_m)).reshape(-1, 3)
    np.testing.assert_allclose(vertices, city.vertices_m, atol=1e-4)
    records = np.frombuffer(body[vertices.nbytes :], [("count", "u1"), ("vertex", "<i4", 3)])
    assert (records["count"] == 3).all()
    np.testing.assert_array_equal(records["vertex"], city.faces)


@pytest.mark.skipif(bool(missing_packages()), reason="the extra [raytracing] is not installed")
def test_a_map_is_traced(tmp_path: Path) -> None:
    path = str(written(tmp_path, city_json()))
    tracer = Tracer(Recipe(scene=path, num_bss=2, max_depth=1, size_m=(56.0, 36.0), roof_m=8.0))
    np.testing.assert_allclose(sorted(tracer.bs_positions_m[:, 2]), [12.0, 15.0], atol=1e-3)
    np.testing.assert_allclose(
        tracer.surface_m(np.array([[-20.0, 0.0], [0.0, 0.0], [20.0, 0.0]])), [12, 0, 9], atol=1e-3
    )
    # In the middle of the street both roofs' edges hide nobody who is 8 m up; one wall and the ground reflect.
    paths = tracer.trace(np.array([[0.0, 0.0, 8.0]]))
    assert paths.counts().sum() >= 2
    with pytest.raises(ValueError, match="has no roof above 20 m"):
        Tracer(Recipe(scene=path, num_bss=2, roof_m=20.0))


def test_a_city_map_says_its_extent() -> None:
    city = CityMap(
        "made", np.array([[1.0, 2, 0], [3, 2, 0], [1, 6, 5]]), np.array([[0, 1, 2]]), np.zeros(1, int), (0, 0), ""
    )
    assert (city.centre_m, city.size_m, city.heights_m.tolist()) == ((2.0, 4.0), (2.0, 4.0), [5.0])
