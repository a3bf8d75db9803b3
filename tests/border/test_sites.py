"""A person's own site: what YAML, CSV and GeoJSON say, and what games make of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cfpos_envs.scenarios.site_files import SiteFile, load_site

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
