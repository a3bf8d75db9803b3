"""A person's own site: what YAML, CSV and GeoJSON say, and what games make of it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cfpos import make_env
from cfpos.baselines import make_policy
from cfpos_envs.files.areas import Area
from cfpos_envs.files.coordinates import GeoOrigin
from cfpos_envs.physics.geometry import metres_outside
from cfpos_envs.scenarios.dcp.config import DcpConfig
from cfpos_envs.scenarios.site_files import SiteFile, load_site
from cfpos_envs.scenarios.toa.config import ToaConfig

EXAMPLES = Path(__file__).parents[2] / "docs" / "data" / "examples"
NAMES = ("gate", "dock", "crane", "stairs", "office", "press")


def written(folder: Path, text: str, name: str = "own.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def loaded(folder: Path, text: str, name: str = "own.yaml") -> SiteFile:
    return load_site(written(folder, text, name))


@pytest.mark.parametrize("suffix", ["yaml", "csv", "geojson"])
def test_the_examples_say_the_same(suffix: str) -> None:
    if suffix == "geojson":
        pytest.importorskip("pyproj", reason="latitude and longitude need the extra geo")
    site = load_site(EXAMPLES / f"hall.{suffix}")
    assert site.ap_names == NAMES
    places = [[1.0, 1.0], [39.0, 1.0], [39.0, 23.0], [13.0, 23.0], [1.0, 15.0], [22.0, 8.0]]
    torch.testing.assert_close(site.ap_positions_m, torch.tensor(places).double(), atol=1e-3, rtol=0)
    assert site.ap_height_m is not None
    assert site.ap_height_m.tolist() == [6.0, 6.0, 7.5, 6.0, 4.0, 7.5]
    assert site.orientation_rad is not None
    assert site.orientation_rad[1].item() == pytest.approx(2.356194490192345)
    assert site.area is not None
    assert site.area.size_m2 == pytest.approx(1600.0 if suffix == "csv" else 40 * 24 - 12 * 8, abs=0.1)
    assert (site.geo_origin is None) == (suffix == "csv")


APS = "aps: [{x_m: 1, y_m: 1}, {x_m: 39, y_m: 1}, {x_m: 20, y_m: 23}]"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (APS, ("ap0", "ap1", "ap2")),
        ("aps: [{x_m: 1, y_m: 1, name: 7}, {x_m: 2, y_m: 1}, {x_m: 3, y_m: 1, name: ' B 2 '}]", ("7", "ap1", "B 2")),
    ],
)
def test_every_ap_has_a_name(tmp_path: Path, text: str, names: tuple[str, ...]) -> None:
    assert loaded(tmp_path, text).ap_names == names


def test_heights_tell_aps_of_one_mast_apart(tmp_path: Path) -> None:
    site = loaded(tmp_path, "aps: [{x_m: 1, y_m: 1, height_m: 3}, {x_m: 1, y_m: 1, height_m: 6}]")
    assert len(site.ap_names) == 2


def test_feet_are_read_where_they_are_declared(tmp_path: Path) -> None:
    text = "units: ft\narea: [[0, 0], [100, 50]]\naps: [{x: 10, y: 20, height: 10}, {x: 100, y: 0, height: 20}]"
    site = loaded(tmp_path, text)
    assert site.ap_positions_m.flatten().tolist() == pytest.approx([3.048, 6.096, 30.48, 0.0])
    assert site.ap_height_m is not None
    assert site.ap_height_m.tolist() == pytest.approx([3.048, 6.096])
    assert site.area is not None
    assert site.area.corners_m[2] == pytest.approx((30.48, 15.24))


def test_a_csv_says_side_and_wrap_and_may_be_german(tmp_path: Path) -> None:
    text = "Name;x_m;y_m;side_m;wrap\nTür;1,5;2;60;false\nTor, links;50,25;30;;\n".replace("Name", "name")
    site = loaded(tmp_path, text, "halle.csv")
    assert site.ap_names == ("Tür", "Tor, links")
    assert site.ap_positions_m.tolist() == [[1.5, 2.0], [50.25, 30.0]]
    assert site.fields == {"side_m": "60", "wrap": False}
    assert site.area == Area.rectangle((0.0, 0.0), (60.0, 60.0))
    wrapped = DcpConfig(site=str(written(tmp_path, text.replace("false", "TRUE"), "torus.csv")))
    assert (wrapped.settings.wrap, wrapped.settings.side_m) == (True, 60.0)


def test_coordinates_of_a_map_keep_their_decimals(tmp_path: Path) -> None:
    text = "x_m,y_m\n691611.25,5411000.25\n691611.25,5411000.45\n691700.5,5411050\n"
    site = loaded(tmp_path, text, "utm.csv")
    assert site.origin_m == (691611.0, 5411000.0)
    gap = site.ap_positions_m[1] - site.ap_positions_m[0]
    torch.testing.assert_close(gap, torch.tensor([0.0, 0.2]).double(), atol=1e-8, rtol=0)
    back = site.ap_positions_m + torch.tensor(site.origin_m).double()
    assert back[2].tolist() == [691700.5, 5411050.0]
    # In the game's single precision they are still two, and its square begins at the site's corner.
    config = ToaConfig(site=site.path)
    assert config.site_file is not None
    assert config.site_file.origin_m == (691611.25, 5411000.25)
    assert config.settings.side_m == pytest.approx(89.25)
    assert config.site_file.ap_positions_m.float()[1].tolist() == pytest.approx([0.0, 0.2])


def test_places_in_degrees_count_from_the_south_west_corner(tmp_path: Path) -> None:
    pytest.importorskip("pyproj", reason="latitude and longitude need the extra geo")
    # 1 degree of longitude at 60 deg N is 55.80 km, of latitude 111.41 km.
    text = "latitude,longitude\n60.001,25.000\n60.000,25.002\n60.000,25.001\n"
    site = loaded(tmp_path, text, "geo.csv")
    expected = torch.tensor([[0.0, 111.41], [111.60, 0.0], [55.80, 0.0]]).double()
    torch.testing.assert_close(site.ap_positions_m, expected, atol=0.02, rtol=0)
    assert site.geo_origin == GeoOrigin(60.0, 25.0)


def test_north_of_the_origin_is_true_north_unless_the_grid_is_named(tmp_path: Path) -> None:
    pytest.importorskip("pyproj", reason="latitude and longitude need the extra geo")
    # 300 m due east of 48.1372 N, 11.5756 E: 0.004030781 degrees of longitude.
    text = "origin: {latitude: 48.1372, longitude: 11.5756NORTH}\naps: [{latitude: 48.1372, longitude: 11.579630781}]"
    for north, place in (
        ("", (300.0, 0.01)),
        (", north: true", (300.0, 0.01)),
        (", north: grid", (299.85, 10.05)),
    ):
        site = loaded(tmp_path, text.replace("NORTH", north))
        assert site.ap_positions_m[0].tolist() == pytest.approx(place, abs=0.01)


def feature(kind: str, coordinates: object, **properties: object) -> dict[str, object]:
    return {"type": "Feature", "properties": properties, "geometry": {"type": kind, "coordinates": coordinates}}


RING = [[11.0, 48.0], [11.001, 48.0], [11.001, 48.001], [11.0, 48.001], [11.0, 48.0]]
GATE = feature("Point", [11.0005, 48.0005, 545.5], name="gate", comment="near the door", height_m=None)


def geojson(*features: object, **members: object) -> str:
    return json.dumps({"type": "FeatureCollection", "features": features, **members})


def test_heights_above_the_ellipsoid_become_heights_above_the_ground(tmp_path: Path) -> None:
    pytest.importorskip("pyproj", reason="latitude and longitude need the extra geo")
    origin = {"latitude": 48.0, "longitude": 11.0, "height_m": 540}
    site = loaded(tmp_path, geojson(GATE, feature("MultiPolygon", [[RING]]), origin=origin), "own.geojson")
    assert site.ap_height_m is not None
    assert site.ap_height_m.tolist() == pytest.approx([5.5])
    assert site.area is not None
    assert len(site.area.corners_m) == 4
    # 74.6 m by 111.2 m
    assert site.area.size_m2 == pytest.approx(74.6 * 111.2, rel=2e-3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("units: yd\n" + APS, r"units='yd' is not one of m, ft"),
        ("aps: [{x: 1, y: 2}]", "AP 1: x has no unit; write x_m, or declare units: m or units: ft"),
        ("units: ft\n" + APS, "AP 1: x_m is in metres, but units: ft; write x instead"),
        ("aps: [{x_m: 1, y_m: 2, latitude: 3}]", "AP 1: has x_m and latitude; give its place in one way"),
        ("aps: [{name: a, x_m: 1, y_m: 2}, {name: a, x_m: 2, y_m: 2}]", r"AP 2 \(a\): AP 1 has the name 'a' too"),
        ("aps: [{x_m: 1, y_m: 2, name: ap1}, {x_m: 2, y_m: 2}]", "AP 2: AP 1 has the name 'ap1' too"),
        ("aps: [{x_m: 1, y_m: 2, height_m: 3, height: 3}]", "has height_m and height; give one"),
        ("area: [[0, 0]]\n" + APS, "area must list 2 opposite corners of a rectangle or at least 3"),
        ("area: [[0, 0], [40]]\n" + APS, r"corner 2 of the area: must be \[x, y\]"),
        ("area: [[0, 0], [40, 24, 3]]\n" + APS, r"corner 2 of the area: must be \[x, y\]"),
        ("area: [[0, 0], [40, nowhere]]\n" + APS, "corner 2 of the area: y_m must be a number, got 'nowhere'"),
        (
            "area: [[0, 0], [40, 24], [40, 0], [0, 24]]\n" + APS,
            "crosses itself: the edge from corner 1 meets that from",
        ),
        ("area: [[0, 0], [40, 0], [20, 0]]\n" + APS, "on one line"),
        ("area: [[0, 0], [0, 24]]\n" + APS, "has no extent"),
        ("area: [[0, 0], [38, 24]]\n" + APS, "AP 2: lies 1.00 m outside the area"),
        ("side_m: 30\narea: [[0, 0], [40, 24]]\n" + APS, r"the area leaves the square \[0, 30\] m of side_m"),
        ("side_m: -1\n" + APS, "side_m must be positive"),
        ("orign: {latitude: 48, longitude: 11}\n" + APS, "unknown key 'orign'; did you mean origin"),
        ("origin: Munich\n" + APS, "origin: must be a mapping with latitude, longitude, height_m, north"),
        ("origin: {latitude: 48}\n" + APS, "origin: longitude is missing"),
        ("origin: {latitude: 48, longitude: 11, north: grit}\n" + APS, "north='grit' is not one of true, grid"),
        ("origin: {latitude: 98, longitude: 11}\n" + APS, "origin: latitude=98.0 must be at most 90"),
        ("aps: [{latitude: 48, longitude: 11}, {x_m: 3, y_m: 4}]", "AP 2 is given in metres and AP 1 in degrees"),
        (
            "aps: [{x_m: 3, y_m: 4}, {x_m: 691611, y_m: 5411000}]",
            "m wide; a site may be 100000 m wide .are all places in one system",
        ),
        (
            "origin: {latitude: 48, longitude: 11}\naps: [{x_m: 691611, y_m: 5411000}]",
            "places are 5.411e.06 m from the origin; x_m and y_m count from it",
        ),
    ],
)
def test_what_a_site_cannot_be_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        loaded(tmp_path, text)
    assert "\n" not in str(caught.value)
    assert "own.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON: line 1"),
        ("[]", "must be a GeoJSON FeatureCollection"),
        (geojson(), "has no APs"),
        (geojson(GATE), r"feature 1, AP 1 \(gate\): its position has a height above the ellipsoid"),
        (geojson(feature("LineString", RING)), "feature 1: geometry 'LineString' is neither a Point"),
        (geojson(feature("Point", [11.0])), r"feature 1, AP 1: a position must be \[longitude, latitude\]"),
        (geojson(feature("Point", [11.0, 48.0], hight_m=3)), "unknown key 'hight_m'; did you mean height_m"),
        (geojson(GATE, feature("Polygon", [RING, RING])), "feature 2: the area must be one polygon without holes"),
        (geojson(*[feature("Polygon", [RING])] * 2), "feature 2: a second polygon"),
        (geojson(GATE, crs={"properties": {"name": "urn:ogc:def:crs:EPSG::25832"}}), "is not in WGS 84 but"),
    ],
)
def test_what_geojson_cannot_be_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        loaded(tmp_path, text, "own.geojson")
    assert "\n" not in str(caught.value)
    assert "own.geojson" in str(caught.value)


def test_errors_in_a_csv_name_the_line_that_an_editor_shows(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"own\.csv, line 5, AP 2 \(b\): y_m must be a number, got 'four'"):
        loaded(tmp_path, "# hall\nname,x_m,y_m\na,1,2\n\nb,3,four\n", "own.csv")


def test_a_line_of_units_may_not_contradict_the_names_of_the_columns(tmp_path: Path) -> None:
    text = "x_m,y_m\n[m],[m]\n1,2\n3,4\n"
    assert loaded(tmp_path, text, "own.csv").ap_positions_m.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    with pytest.raises(ValueError, match="y_m is in metres, but the line below the header says 'ft'"):
        loaded(tmp_path, text.replace("[m]\n", "[ft]\n"), "own.csv")


# Games


def test_a_game_is_played_in_the_smallest_square_around_area_and_aps(tmp_path: Path) -> None:
    path = str(written(tmp_path, "area: [[100, 200], [140, 224]]\naps: [{x_m: 101, y_m: 201}, {x_m: 139, y_m: 223}]"))
    config = DcpConfig(site=path)
    assert (config.settings.side_m, config.settings.wrap) == (40.0, False)
    assert config.site_file is not None
    assert config.site_file.ap_positions_m.tolist() == [[1.0, 1.0], [39.0, 23.0]]
    assert config.site_file.origin_m == (100.0, 200.0)
    # A side that is said leaves the coordinates as they are written.
    said = DcpConfig(site=path, side_m=250.0)
    assert said.site_file is not None
    assert said.site_file.ap_positions_m.tolist() == [[101.0, 201.0], [139.0, 223.0]]
    with pytest.raises(ValueError, match=r"AP 1 of site file .* lies outside the square \[0, 150\] m"):
        DcpConfig(site=path, side_m=150.0)


def test_one_ap_does_not_say_how_large_its_site_is(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one AP spans no area; say side_m or area"):
        DcpConfig(site=str(written(tmp_path, "aps: [{x_m: 1, y_m: 1}]")))


@pytest.mark.parametrize("wall", ["lower", "upper", "left", "right"])
def test_aps_along_a_wall_are_taken_where_the_hall_lies_on_one_side(tmp_path: Path, wall: str) -> None:
    places = {
        "lower": [(2, 0), (20, 0), (38, 0)],
        "upper": [(2, 24), (20, 24), (38, 24)],
        "left": [(0, 2), (0, 12), (0, 22)],
        "right": [(40, 2), (40, 12), (40, 22)],
    }[wall]
    aps = "aps: [" + ", ".join(f"{{x_m: {x}, y_m: {y}}}" for x, y in places) + "]"
    with pytest.raises(ValueError, match=r"stand on one line, which fixes no position .*declare an area"):
        ToaConfig(site=str(written(tmp_path, aps)))
    path = str(written(tmp_path, f"area: [[0, 0], [40, 24]]\n{aps}"))
    env = make_env("toa-v0", site={"file": path, "range_std_m": 0.05}, num_ues=3, num_envs=20, seed=3)
    env.reset()
    # The game's first estimate is searched on a lattice of 2 m in its square, which no mirror image shares.
    error = torch.linalg.vector_norm(env.estimate - env.truth()["true_position"], dim=-1)
    assert float(error.median()) < 2.0
    site = load_site(path)
    points = torch.tensor([[7.0, 5.0], [33.0, 20.0]]).double()
    images = site.mirrored(points)
    assert site.area is not None
    assert not bool(site.area.contains(images).any())
    distances = [torch.cdist(site.ap_positions_m, places) for places in (points, images)]
    torch.testing.assert_close(*distances, atol=1e-9, rtol=0)
    inner = f"area: [[0, 0], [40, 24]]\naps: {[{'x_m': x, 'y_m': 12} for x in (2, 20, 38)]}"
    with pytest.raises(ValueError, match="stand on one line"):
        ToaConfig(site=str(written(tmp_path, inner)))


@pytest.mark.parametrize("game", ["toa-v0", "tdoa-v0", "hybrid-v0"])
def test_games_along_a_wall_tell_the_policies_on_which_side_the_users_are(tmp_path: Path, game: str) -> None:
    aps = "aps: [{x_m: 2, y_m: 0}, {x_m: 11, y_m: 0}, {x_m: 20, y_m: 0}, {x_m: 30, y_m: 0}, {x_m: 38, y_m: 0}]"
    path = str(written(tmp_path, f"area: [[0, 0], [40, 40]]\n{aps}"))
    env = make_env(game, site={"file": path, "range_std_m": 0.05, "nlos_share": 0.0}, num_ues=25, num_envs=4, seed=3)
    env.reset()
    assert env.measurements.area_m == ((0.0, 0.0), (40.0, 0.0), (40.0, 40.0), (0.0, 40.0))
    found = make_policy("hybrid-gn" if game == "hybrid-v0" else "toa-em").locate(env.measurements)
    inside = found.position[found.valid]
    assert float(found.valid.double().mean()) > 0.9
    assert float(inside[..., 1].min()) > -1.0  # no image behind the wall
    drawn = make_env(game, num_envs=1, seed=3)
    drawn.reset()
    assert drawn.measurements.area_m is None


@pytest.mark.parametrize(
    ("game", "name"), [("toa-v0", "hall.yaml"), ("hybrid-v0", "hall.yaml"), ("dcp-rss-v0", "hall.csv")]
)
def test_games_take_an_own_site_without_a_torus(game: str, name: str) -> None:
    env = make_env(game, site=str(EXAMPLES / name), num_ues=8, num_envs=40, seed=1)
    env.reset()
    measured = env.measurements
    places = load_site(EXAMPLES / name).ap_positions_m.float()
    assert torch.equal(measured.ap_positions_m, places.expand(40, 6, 2))
    truth = torch.as_tensor(env.truth()["true_position"])
    plane = torch.linalg.vector_norm(truth.unsqueeze(1) - places.view(1, -1, 1, 2), dim=-1)
    slant = torch.hypot(plane, measured.height_diff_m.unsqueeze(-1))
    # On a torus of 40 m nothing is farther away than 28.3 m.
    far = plane > 30.0
    assert int(far.sum()) > 100
    if game == "dcp-rss-v0":
        radio = measured.radio
        gain_db = radio.path_loss_intercept_db - radio.path_loss_slope_db * torch.log10(slant)
        power_w = radio.tx_power_w * radio.num_pilots * radio.num_antennas
        expected = gain_db + 10 * math.log10(power_w) + 30
        error_db = (measured.rss_dbm - expected)[far]
        assert float(error_db.abs().median()) < 1.0
    else:
        error_m = ((measured.range_m if game == "toa-v0" else measured.values[..., 0]) - slant)[far]
        assert float(error_m.abs().median()) < 1.0


# Areas


@given(
    radii=st.lists(st.floats(1.0, 5.0), min_size=3, max_size=9),
    shift=st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_a_star_contains_what_its_radius_reaches(radii: list[float], shift: tuple[float, float], seed: int) -> None:
    count = len(radii)
    angles = [2 * math.pi * i / count for i in range(count)]
    corners = [(r * math.cos(a) + shift[0], r * math.sin(a) + shift[1]) for r, a in zip(radii, angles)]
    area = Area(tuple(corners))
    sectors = sum(radii[i] * radii[(i + 1) % count] for i in range(count)) * math.sin(2 * math.pi / count) / 2
    assert area.size_m2 == pytest.approx(sectors, rel=1e-6)
    points = 12 * torch.rand(200, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 6
    # In the sector between two corners the border is their chord.
    angle = torch.remainder(torch.atan2(points[:, 1], points[:, 0]), 2 * math.pi)
    index = (angle * count / (2 * math.pi)).long().clamp(max=count - 1)
    near, far = torch.tensor(radii).double()[index], torch.tensor(radii).double()[(index + 1) % count]
    step = 2 * math.pi / count
    past = angle - index * step
    chord = near * far * math.sin(step) / (near * torch.sin(past) + far * torch.sin(step - past))
    clear = (points.norm(dim=-1) - chord).abs() > 1e-6
    inside = area.contains(points + torch.tensor(shift).double())
    assert torch.equal(inside[clear], (points.norm(dim=-1) < chord)[clear])
    assert bool(area.contains(area.corners).all())


def test_points_on_the_border_belong_to_the_area_whatever_double_precision_makes_of_them() -> None:
    corners = torch.tensor([[0.1, 0.2], [40.3, 12.7], [13.9, 33.3]]).double()
    share = torch.linspace(0, 1, 101).double().unsqueeze(-1)
    border = torch.cat([a + share * (b - a) for a, b in zip(corners, corners.roll(-1, dims=0))])
    area = Area(tuple((x, y) for x, y in corners.tolist()))
    assert bool((metres_outside(border, corners) > 0).any())
    assert bool(area.contains(border).all())
    outwards = border - corners.mean(dim=0)
    assert not bool(area.contains(border + 1e-6 * outwards).any())


def test_border_and_margin_of_an_area() -> None:
    hall = load_site(EXAMPLES / "hall.yaml").area
    assert hall is not None
    points = torch.tensor([[12.0, 20.0], [6.0, 16.0], [11.5, 20.0], [6.0, 20.0], [40.3, 12.0], [40.4, 24.3]])
    points = points.double().mul(10).round().div(10)
    assert hall.contains(points).tolist() == [True, True, False, False, False, False]
    assert hall.contains(points, 0.5).tolist() == [True, True, True, False, True, True]
    assert hall.border_distance_m(points).tolist() == pytest.approx([0.0, 0.0, 0.5, 4.0, 0.3, 0.5])
    assert not hall.is_rectangle
    assert Area.rectangle((40.0, 0.0), (0.0, 24.0)) == Area(((0.0, 0.0), (40.0, 0.0), (40.0, 24.0), (0.0, 24.0)))
    assert hall.moved((1.0, -2.0)).bounds_m[1].tolist() == [41.0, 22.0]
    assert hall.contains(torch.tensor([math.nan, 1.0])).item() is False


@pytest.mark.parametrize(
    "corners",
    [
        ((0.0, 0.0), (4.0, 0.0), (4.0, 4.0), (2.0, 0.0), (0.0, 4.0)),  # a corner on an edge
        ((0.0, 0.0), (4.0, 4.0), (4.0, 0.0), (0.0, 4.0)),
        ((0.0, 0.0), (4.0, 0.0), (4.0, 0.0), (0.0, 4.0)),
        ((0.0, 0.0), (4.0, 0.0)),
        ((0.0, 0.0), (4.0, math.inf), (0.0, 4.0)),
    ],
)
def test_what_is_no_area_is_refused(corners: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(ValueError, match=r"area|corners"):
        Area(corners)
