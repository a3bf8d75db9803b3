"""``cfpos locate --calibrate``: found, reported, kept with the site, read back and applied."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from cfpos import Positions
from cfpos_envs.files.calibrated_sites import write_calibrated_site
from cfpos_envs.files.sites import load_site
from scripts import locate

NAMES = ("gate", "dock", "crane", "press", "roof")
APS = np.array([[0.0, 0.0], [20.0, 0.0], [20.0, 15.0], [0.0, 15.0], [9.0, 16.0]])
OFFSETS = np.array([0.9, 1.2, 0.7, 1.1, 1.4])
CORNER = np.array([455_000.0, 5_411_000.0])


def hall(folder: Path, corner: np.ndarray = CORNER, **columns: list[Any]) -> Path:
    rows = [
        {"name": name, "x_m": float(x), "y_m": float(y), **{key: values[m] for key, values in columns.items()}}
        for m, (name, (x, y)) in enumerate(zip(NAMES, (APS + corner).tolist()))
    ]
    area = [(corner - 1).tolist(), (corner + [21.0, 17.0]).tolist()]
    path = folder / "hall.yaml"
    path.write_text(yaml.safe_dump({"name": "hall", "area": area, "aps": rows}))
    return path


def table(folder: Path, count: int = 120, devices: bool = False, seed: int = 0) -> tuple[Path, np.ndarray]:
    rng = np.random.default_rng(seed)
    places = rng.uniform([1.0, 1.0], [19.0, 14.0], (count, 2))
    ranges = np.linalg.norm(places[:, None] - APS, axis=2) + OFFSETS + 0.03 * rng.standard_normal((count, 5))
    users = ["phone" if k % 2 else "tag" for k in range(count)] if devices else ["me"] * count
    ranges += np.array([0.5 if user == "phone" else 0.0 for user in users])[:, None]
    lines = [",".join(["time_s", "user", "truth_x_m", "truth_y_m", *(f"range_{name}_m" for name in NAMES)])]
    for k, row in enumerate(ranges.tolist()):
        lines.append(",".join([str(k), users[k], *(repr(v) for v in (places[k] + CORNER).tolist()), *map(repr, row)]))
    path = folder / "ranges.csv"
    path.write_text("\n".join(lines) + "\n")
    return path, places + CORNER


def run(folder: Path, *words: str) -> Positions:
    out = folder / "positions.csv"
    locate.main(["--out", str(out), "--policy", "toa-wls", *words])
    return Positions.read(out)


def rmse(found: Positions) -> float:
    assert found.error_m is not None
    return float(np.sqrt((found.error_m**2).mean()))


@pytest.mark.parametrize("how", ["self", "labelled"])
def test_found_kept_read_back_and_applied(how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site, (ranges, _) = hall(tmp_path), table(tmp_path)
    given = ["--site", str(site), "--measurements", str(ranges)]
    assert rmse(run(tmp_path, *given, "--sigma", "1.5")) > 0.2
    kept = tmp_path / "calibrated.yaml"
    first = run(tmp_path, *given, "--calibrate", how, "--store-site", str(kept))
    assert rmse(first) < 0.05
    said = capsys.readouterr().out
    assert f"calibration ({how}) pays" in said
    assert "crane offset +0.7" in said
    # The stored site alone is enough, in the coordinates of the first one.
    again = run(tmp_path, "--site", str(kept), "--measurements", str(ranges))
    np.testing.assert_allclose(again.position_m, first.position_m, atol=1e-4)
    assert "corrected by the calibration that" in capsys.readouterr().out
    other = run(tmp_path, *given, "--calibrate", str(kept))
    np.testing.assert_allclose(other.position_m, first.position_m, atol=1e-4)
    without = run(tmp_path, "--site", str(kept), "--measurements", str(ranges), "--calibrate", "none", "--sigma", "1.5")
    assert rmse(without) > 0.2


def test_a_calibrated_file_may_list_the_access_points_in_another_order(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    site, (ranges, _) = hall(tmp_path), table(tmp_path)
    calibrated = hall(tmp_path / "other", range_offset_m=OFFSETS.tolist(), range_std_m=[0.03] * 5)
    content = yaml.safe_load(calibrated.read_text())
    calibrated.write_text(yaml.safe_dump({**content, "aps": content["aps"][::-1]}))
    found = run(tmp_path, "--site", str(site), "--measurements", str(ranges), "--calibrate", str(calibrated))
    assert rmse(found) < 0.05


def test_devices_are_kept_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site, (ranges, _) = hall(tmp_path), table(tmp_path, devices=True)
    kept = tmp_path / "calibrated.yaml"
    words = ["--site", str(site), "--measurements", str(ranges), "--calibrate", "self", "--per-device"]
    assert rmse(run(tmp_path, *words, "--store-site", str(kept))) < 0.05
    assert "device phone: offset +0.5" in capsys.readouterr().out
    assert yaml.safe_load(kept.read_text())["range_device_offsets_m"]["phone"] == pytest.approx(0.5, abs=0.02)
    assert rmse(run(tmp_path, "--site", str(kept), "--measurements", str(ranges))) < 0.05


def test_a_site_is_written_with_all_that_it_said(tmp_path: Path) -> None:
    columns = {"height_m": [3.0] * 5, "orientation_deg": [0.0, 90.0, 180.0, 270.0, 45.0]}
    calibration = {"range_offset_m": OFFSETS.tolist(), "range_std_m": [0.1] * 5, "range_scale": [1.01] * 5}
    site = load_site(hall(tmp_path, **columns, **calibration))
    assert site.calibration is not None
    again = load_site(write_calibrated_site(site, site.calibration, tmp_path / "again.yaml"))
    assert again.origin_m == site.origin_m
    for name in ("ap_positions_m", "ap_height_m", "orientation_rad"):
        torch.testing.assert_close(getattr(again, name), getattr(site, name))
    assert again.area is not None
    assert site.area is not None
    torch.testing.assert_close(again.area.corners, site.area.corners)
    assert again.calibration is not None
    torch.testing.assert_close(again.calibration.offset_m, torch.tensor(OFFSETS))
    torch.testing.assert_close(again.calibration.scale, torch.full((5,), 1.01, dtype=torch.float64))


def test_where_the_earth_is_stays(tmp_path: Path) -> None:
    pytest.importorskip("pyproj", reason="pyproj, the extra geo, is missing")
    path = hall(tmp_path, np.zeros(2), range_offset_m=[0.0] * 5, range_std_m=[0.1] * 5)
    path.write_text(path.read_text() + "origin: {latitude: 48.1, longitude: 11.5, height_m: 500.0}\n")
    site = load_site(path)
    assert site.calibration is not None
    assert (
        load_site(write_calibrated_site(site, site.calibration, tmp_path / "again.yml")).geo_origin == site.geo_origin
    )


REFUSED: dict[str, tuple[dict[str, list[Any]], list[str], str]] = {
    "another word": ({}, ["--calibrate", "auto"], "neither none, self, labelled nor a site file"),
    "a site without": ({}, ["--calibrate", "SITE"], "have no range_offset_m"),
    "an offset of some": (
        {"range_offset_m": [1.0, None, 1.0, 1.0, 1.0], "range_std_m": [0.1] * 5},
        [],
        r"AP 2 \(dock\): range_offset_m is missing",
    ),
    "no spread": ({"range_offset_m": [1.0] * 5}, [], "needs range_offset_m and range_std_m"),
    "a spread of zero": ({"range_offset_m": [1.0] * 5, "range_std_m": [0.0] * 5}, [], "range_std_m must be above 0"),
    "text": ({"range_offset_m": ["long"] * 5, "range_std_m": [0.1] * 5}, [], "range_offset_m must be a finite number"),
    "nothing to keep": ({}, ["--sigma", "1", "--store-site", "x.yaml"], "add one of them"),
    "kept as a table": ({}, ["--calibrate", "self", "--store-site", "x.csv"], "written as .yaml"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_line(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns, words, message = REFUSED[case]
    site, (ranges, _) = hall(tmp_path, **columns), table(tmp_path, 20)
    words = [str(site) if word == "SITE" else word for word in words]
    with pytest.raises(SystemExit):
        run(tmp_path, "--site", str(site), "--measurements", str(ranges), *words)
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    assert re.search(message, error), error


# Filters and fixes in space -------------------------------------------------------------------------------------------


def link_by_link(folder: Path, devices: bool = False, seed: int = 0) -> Path:
    """Users who stand still: every AP is asked in turn, ten times a second."""
    rng = np.random.default_rng(seed)
    lines = ["time_s,user,ap,range_m,truth_x_m,truth_y_m"]
    for user, extra in (("tag", 0.0), ("phone", 0.5 if devices else 0.0)):
        place = rng.uniform([4.0, 4.0], [16.0, 11.0])
        for k in range(200):
            far = np.linalg.norm(place - APS[k % 5]) + OFFSETS[k % 5] + extra + 0.03 * rng.standard_normal()
            lines.append(f"{0.1 * k},{user},{NAMES[k % 5]},{far},{place[0] + CORNER[0]},{place[1] + CORNER[1]}")
    lines.append(
        f"20.1,tag,gate,0.4,{place[0] + CORNER[0]},{place[1] + CORNER[1]}"
    )  # shorter than its offset: left out
    path = folder / "links.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("devices", [False, True])
def test_a_filter_takes_the_calibration_of_the_site(
    devices: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site, (ranges, _), kept = hall(tmp_path), table(tmp_path, devices=devices), tmp_path / "calibrated.yaml"
    words = ["--calibrate", "self", "--store-site", str(kept), *(["--per-device"] if devices else [])]
    run(tmp_path, "--site", str(site), "--measurements", str(ranges), *words)
    given = ["--measurements", str(link_by_link(tmp_path, devices)), "--filter", "0.1"]
    capsys.readouterr()
    for calibrated in (["--site", str(kept)], ["--site", str(site), "--calibrate", str(kept)]):
        found = run(tmp_path, *given, *calibrated)
        assert found.error_m is not None
        assert float(np.median(found.error_m[found.valid])) < 0.05
        assert "corrected by the calibration that" in capsys.readouterr().out
    plain = run(tmp_path, *given, "--site", str(kept), "--calibrate", "none", "--sigma", "1.5")
    assert plain.error_m is not None
    assert float(np.median(plain.error_m[plain.valid])) > 0.2


def test_a_fix_in_space_takes_the_calibration_of_the_site(tmp_path: Path) -> None:
    heights = [4.0, 5.0, 4.0, 6.0, 3.0]
    columns = {"height_m": heights, "range_offset_m": OFFSETS.tolist(), "range_std_m": [0.05] * 5}
    site = hall(tmp_path, **columns, range_offset_std_m=[0.12] * 5)
    places = np.random.default_rng(2).uniform([4.0, 4.0, 0.5], [16.0, 11.0, 1.5], (20, 3))
    far = np.linalg.norm(places[:, None] - np.column_stack((APS, heights)), axis=2) + OFFSETS
    path = tmp_path / "space.csv"
    head = ",".join(["user", *(f"range_{name}_m" for name in NAMES)])
    path.write_text("\n".join([head, *(f"u{k}," + ",".join(map(repr, row)) for k, row in enumerate(far.tolist()))]))
    out = tmp_path / "positions.csv"
    locate.main(
        ["--out", str(out), "--site", str(site), "--measurements", str(path), "--height", "below", "--sigma", "9"]
    )
    found = Positions.read(out)
    np.testing.assert_allclose(found.position_m, places + [*CORNER, 0.0], atol=1e-3)
    assert found.covariance_m2 is not None
    # That of the file, sqrt(0.05^2 + 0.12^2) = 0.13 m with its offsets, not the told 9 m; without the offsets 0.05 m.
    site = hall(tmp_path, **{**columns, "range_std_m": [0.13] * 5}, range_offset_std_m=[0.0] * 5)
    locate.main(
        ["--out", str(out), "--site", str(site), "--measurements", str(path), "--height", "below", "--sigma", "9"]
    )
    same = Positions.read(out)
    assert same.covariance_m2 is not None
    np.testing.assert_allclose(found.covariance_m2, same.covariance_m2, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("option", [["--filter", "1"], ["--height", "below"]])
def test_a_calibration_is_found_before_it_is_used(
    option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = hall(tmp_path, height_m=[4.0] * 5)
    ranges = link_by_link(tmp_path) if option[0] == "--filter" else table(tmp_path, 20)[0]
    words = ["--out", str(tmp_path / "p.csv"), "--site", str(site), "--measurements", str(ranges), *option]
    with pytest.raises(SystemExit):
        locate.main([*words, "--calibrate", "self"])
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    assert re.search(f"{option[0]} takes a calibration that is known: first --calibrate self --store-site", error)
