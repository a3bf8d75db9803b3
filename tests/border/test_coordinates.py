"""Latitude and longitude to metres of a site and back."""

from __future__ import annotations

import math
import sys

import pytest
import torch

from cfpos_envs.files.coordinates import GeoOrigin

MUNICH = (48.1372, 11.5756)
SEMI_MAJOR_M, ECCENTRICITY_2 = 6378137.0, 0.00669437999014


def doubles(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def degrees_per_metre_east(latitude: float) -> float:
    """Of longitude, from the radius of the parallel."""
    sine = math.sin(math.radians(latitude))
    normal_m = SEMI_MAJOR_M / math.sqrt(1 - ECCENTRICITY_2 * sine**2)
    return math.degrees(1 / (normal_m * math.cos(math.radians(latitude))))


def needs_pyproj() -> None:
    pytest.importorskip("pyproj", reason="latitude and longitude need the extra geo")


def test_300_m_true_east_of_munich_are_10_m_north_on_the_grid() -> None:
    needs_pyproj()
    latitude, longitude = MUNICH
    place = doubles(latitude), doubles(longitude + 300 * degrees_per_metre_east(latitude))
    # The chord is 0.1 um shorter than the arc; the parallel turns 8 mm away from the tangent plane's east.
    torch.testing.assert_close(GeoOrigin(*MUNICH).to_local(*place)[0, :2], doubles(300.0, 0.008), atol=1e-3, rtol=0)
    grid = GeoOrigin(*MUNICH, north="grid")
    assert grid.utm_zone == 32
    # Convergence 2.5756 deg x sin(48.1372 deg) = 1.918 deg; 0.9996 (1 + (191.6 km / 6 384 km)^2 / 2) = 1.000050.
    turned = 300 * 1.00005 * doubles(math.cos(math.radians(1.918)), math.sin(math.radians(1.918)))
    torch.testing.assert_close(grid.to_local(*place)[0, :2], turned, atol=0.02, rtol=0)
    torch.testing.assert_close(grid.to_local(*place)[0, :2], doubles(299.85, 10.05), atol=0.01, rtol=0)


@pytest.mark.parametrize("north", ["true", "grid"])
@pytest.mark.parametrize("place", [MUNICH, (-33.9, 151.2), (60.4, 5.3), (0.0, -179.99)])
def test_there_and_back_again(north: str, place: tuple[float, float]) -> None:
    needs_pyproj()
    origin = GeoOrigin(*place, height_m=500.0, north=north).moved((-20.0, 7.0))
    local = doubles(0.0, 0.0, 3.0, 800.0, -1200.0, 0.0, -3.0, 9.5, -2.0).view(3, 3)
    latitude, longitude, height = origin.to_geodetic(local)
    torch.testing.assert_close(origin.to_local(latitude, longitude, height), local, atol=1e-6, rtol=0)
    # x = y = 0 lies 20 m west and 7 m north of the origin.
    assert float(longitude[0]) < place[1]
    assert float(latitude[0]) > place[0]
    torch.testing.assert_close(origin.to_geodetic(local[:, :2])[0], latitude, atol=1e-8, rtol=0)


def test_true_north_keeps_distances_and_up() -> None:
    needs_pyproj()
    origin = GeoOrigin(*MUNICH, height_m=520.0)
    local = origin.to_local(doubles(MUNICH[0]), doubles(MUNICH[1]), doubles(545.0))
    torch.testing.assert_close(local, doubles(0.0, 0.0, 25.0).view(1, 3), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("place", "zone"),
    [((48.0, 11.9), 32), ((48.0, 12.1), 33), ((60.4, 5.3), 32), ((78.2, 15.6), 33), ((0.0, 180.0), 60)],
)
def test_utm_zones(place: tuple[float, float], zone: int) -> None:
    assert GeoOrigin(*place, north="grid").utm_zone == zone


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((91.0, 0.0), "latitude=91.0 must be at most 90"),
        ((0.0, math.nan), "longitude=nan must be a finite number"),
        ((0.0, 0.0, 0.0, "magnetic"), "north='magnetic' is not one of true, grid"),
        ((85.0, 0.0, 0.0, "grid"), r"UTM covers \[-80, 84\] degrees; use north=true"),
    ],
)
def test_origins_that_cannot_be_are_refused(values: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GeoOrigin(*values)


def test_places_off_the_earth_are_refused() -> None:
    with pytest.raises(ValueError, match=r"latitudes must lie in \[-90, 90\]"):
        GeoOrigin(*MUNICH).to_local(doubles(148.0), doubles(11.0))
    with pytest.raises(ValueError, match=r"longitudes in \[-180, 180\]"):
        GeoOrigin(*MUNICH).to_local(doubles(48.0), doubles(math.nan))


def test_without_pyproj_the_message_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyproj", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install .*\[geo\]"):
        GeoOrigin(*MUNICH).to_local(doubles(48.0), doubles(11.0))
