"""``cfpos locate`` and the calls from arrays to positions."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cfpos import Positions, locate_csi, locate_ranges, locate_rss, locate_tdoa, make_agent, make_env
from cfpos_envs.files.epochs import read_epochs
from cfpos_envs.files.sites import load_site
from cfpos_envs.importers.arrays import read_csi
from scripts import locate
from tests.border.range_tables import APS, NAMES, RANGES, USERS, wide, written

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "docs" / "data" / "examples"
NEEDS_PYPROJ = pytest.mark.skipif(
    importlib.util.find_spec("pyproj") is None, reason="pyproj, the extra geo, is missing"
)

# Arrays ---------------------------------------------------------------------------------------------------------------

FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "float64": lambda values: values,
    "float32": lambda values: values.astype(np.float32),
    "tensor": torch.from_numpy,
    "half": lambda values: torch.from_numpy(values).half(),
    "list": lambda values: values.tolist(),
    "masked": lambda values: np.ma.masked_array(np.where(values < 10, 1e4, values), values < 10),
}


@pytest.mark.parametrize("form", FORMS)
def test_ranges_of_any_type_give_positions(form: str) -> None:
    estimate = locate_ranges(APS, FORMS[form](RANGES), 0.3, policy="toa-wls")
    assert estimate.position.dtype == torch.float64
    assert bool(estimate.valid.all())
    np.testing.assert_allclose(np.asarray(estimate.position), USERS, atol=0.05 if form == "half" else 1e-4)


def test_whole_numbers_give_no_whole_metres() -> None:
    # The least-squares point of the rounded ranges 13, 33, 35, 24, 7 from (12, 9): scipy.optimize.least_squares.
    estimate = locate_ranges(APS, RANGES[:1].round().astype(int), 0.3, policy="toa-wls")
    assert np.linalg.norm(np.asarray(estimate.position[0]) - USERS[0]) < 0.7
    assert not torch.equal(estimate.position, estimate.position.round())


def test_coordinates_of_a_map_lose_nothing() -> None:
    origin = np.array([455_000.25, 5_411_000.125])
    estimate = locate_ranges(APS + origin, RANGES, 0.3, policy="toa-wls")
    np.testing.assert_allclose(np.asarray(estimate.position) - origin, USERS, atol=1e-4)
    table = Positions.from_estimate(estimate, truth_m=USERS + origin)
    assert table.error_m is not None
    assert table.error_m.max() < 1e-4


def test_heights_are_taken_off() -> None:
    tall = np.concatenate((APS, [[6.0], [6.0], [7.5], [6.0], [4.0]]), axis=1)
    slant = np.sqrt(RANGES**2 + (tall[:, 2] - 1.5) ** 2)
    estimate = locate_ranges(tall, slant, 0.3, user_height_m=1.5, policy="toa-wls")
    np.testing.assert_allclose(np.asarray(estimate.position), USERS, atol=1e-4)


def test_differences_and_arrival_times_are_one() -> None:
    offset = np.array([[100.0], [-35.0], [2e4]])
    differences = RANGES - RANGES[:, 2:3]
    for values, reference in ((RANGES + offset, None), (differences, 2)):
        estimate = locate_tdoa(APS, values, 0.3, reference=reference)
        assert bool(estimate.valid.all())
        np.testing.assert_allclose(np.asarray(estimate.position), USERS, atol=1e-3)


def test_a_policy_that_reads_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match=r"policy 'music' does not read ranges; choose one of .*toa-em"):
        locate_ranges(APS, RANGES, 0.3, policy="music")
    with pytest.raises(ValueError, match=r"policy 'rtt-wls' does not read time differences; choose one of .*tdoa-wls"):
        locate_tdoa(APS, RANGES, 0.3, policy="rtt-wls")
    assert bool(locate_ranges(APS, RANGES, 0.3, policy="rtt-wls").valid.all())


@pytest.mark.parametrize("policy", ["toa-em", "toa-huber", "toa-wls", "rtt-wls"])
def test_a_user_with_two_links_takes_no_other_with_it(policy: str) -> None:
    lost = np.where(np.arange(5) < 2, RANGES[2], np.nan)
    estimate = locate_ranges(APS, np.stack((RANGES[0], lost, RANGES[1])), 0.3, policy=policy)
    assert estimate.valid.tolist() == [True, False, True]
    np.testing.assert_allclose(np.asarray(estimate.position)[[0, 2]], USERS[:2], atol=0.1)


def test_nobody_is_located_where_nobody_was_measured() -> None:
    nobody = np.zeros((0, len(APS)))
    for estimate in (locate_rss(APS, nobody), locate_ranges(APS, nobody, 0.3), locate_tdoa(APS, nobody, 0.3)):
        assert estimate.position.shape == (0, 2)
        assert estimate.valid.shape == (0,)


def test_a_reference_may_be_of_any_integer_type() -> None:
    differences = RANGES - RANGES[:, 2:3]
    for reference in (2, np.int64(2), torch.tensor(2)):
        estimate = locate_tdoa(APS, differences, 0.3, reference=reference)
        np.testing.assert_allclose(np.asarray(estimate.position), USERS, atol=1e-3)
    for wrong in (True, 5, -1, np.int64(7)):
        with pytest.raises(ValueError, match="must be the row of one of the 5 APs"):
            locate_tdoa(APS, differences, 0.3, reference=wrong)


def test_an_area_that_crosses_itself_is_refused_whoever_says_it() -> None:
    bow_tie = [[0, 0], [40, 0], [0, 30], [30, 20]]
    for find, values in ((locate_ranges, RANGES), (locate_tdoa, RANGES)):
        with pytest.raises(ValueError, match="area_m crosses itself: the edge from corner 2 meets that from corner 4"):
            find(APS, values, 0.3, area_m=bow_tie)
    with pytest.raises(ValueError, match="area_m crosses itself"):
        locate_rss(APS, -40 - RANGES, area_m=bow_tie)


# The command ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def hall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the example files."""
    for name in ("hall.yaml", "hall.csv", "ranges.csv"):
        shutil.copy(EXAMPLES / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_example_file_is_what_its_first_lines_say() -> None:
    site = load_site(EXAMPLES / "hall.yaml")
    found = read_epochs(EXAMPLES / "ranges.csv", site.ap_names)
    assert found.truth_m is not None
    assert site.ap_height_m is not None
    flat = ((found.truth_m[:, None] - site.ap_positions_m.numpy()) ** 2).sum(-1)
    slant = np.sqrt(flat + (site.ap_height_m.numpy() - 1.5) ** 2)
    rng = np.random.default_rng(7)
    made = slant + rng.normal(0, 0.15, slant.shape)
    made += (rng.random(slant.shape) < 0.15) * rng.exponential(4.0, slant.shape)
    made[rng.random(slant.shape) < 0.1] = np.nan
    made[12, 2:] = np.nan
    np.testing.assert_allclose(found.links["range"], made, atol=0.0051)


def test_the_command_writes_positions_and_a_map_and_says_how_good_they_are(
    hall: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--site", "hall.yaml", "--measurements", "ranges.csv", "--sigma", "0.15", "--picture", "new/map.png"]
    locate.main([*words, "--policy", "toa-em", "--out", "new/positions.csv"])
    said = capsys.readouterr().out
    table = Positions.read(hall / "new" / "positions.csv")
    assert table.error_m is not None
    assert len(table) == 20
    assert table.user.tolist() == ["cart"] * 20
    np.testing.assert_array_equal(table.time_s, np.arange(20.0))
    assert not table.valid[12]
    assert table.valid.sum() >= 15
    assert np.median(table.error_m[table.valid]) < 0.3
    assert f"{table.valid.sum()} of 20 positions valid" in said
    rmse, median = np.sqrt(np.mean(table.error_m[table.valid] ** 2)), np.median(table.error_m[table.valid])
    answered = f"of {table.valid.sum()} valid answers, answered {table.valid.sum()} of 20"
    assert f"position error: RMSE {rmse:.3f} m, median {median:.3f} m, p95 " in said
    assert answered in said
    assert "note: users are taken to be 1.5 m high (--user-height)" in said
    assert (hall / "new" / "map.png").read_bytes().startswith(b"\x89PNG")
    # The policy that ranges have by default is this one; the CSV site says the same as the YAML one but for the area.
    locate.main([*words[:6], "--out", "b.csv"])
    assert Positions.read("b.csv").position_m.tolist() == table.position_m.tolist()


def test_stds_come_from_the_file_and_sigma_fills_in(hall: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = load_site("hall.yaml")
    assert site.ap_height_m is not None
    place = np.array([25.0, 12.0])
    slant = np.sqrt(((site.ap_positions_m.numpy() - place) ** 2).sum(-1) + (site.ap_height_m.numpy() - 1.0) ** 2)
    stds = (0, 0.1, 0.1, 0.1, 0.1, 0.1)
    rows = [f"1,{name},{distance:.4f},{std}" for name, distance, std in zip(site.ap_names, slant, stds)]
    written(hall, "\n".join(["epoch,ap,range_m,std_m", *rows]), "long.csv")
    words = ["--site", "hall.yaml", "--measurements", "long.csv", "--user-height", "1", "--policy", "toa-wls"]
    covariances = []
    for sigma in ("0.1", "5"):
        locate.main([*words, "--sigma", sigma])
        assert "1 links without a standard deviation have that of --sigma" in capsys.readouterr().out
        table = Positions.read("positions.csv")
        np.testing.assert_allclose(table.position_m[0], place, atol=0.01)
        assert table.covariance_m2 is not None
        covariances.append(np.trace(table.covariance_m2[0]))
    assert covariances[1] > 1.05 * covariances[0]


def test_maps_coordinates_come_back_as_they_went_in(hall: Path) -> None:
    origin = np.array([455_000.0, 5_411_000.0])
    lines = [f"{name},{x:.1f},{y:.1f}" for name, (x, y) in zip(NAMES, APS + origin)]
    written(hall, "\n".join(["name,x_m,y_m", *lines]), "utm.csv")
    written(hall, wide(RANGES, [4, 2, 0, 1, 3]), "r.csv")
    locate.main(
        ["--site", "utm.csv", "--measurements", "r.csv", "--sigma", ".1", "--out", "p.npz", "--picture", "p.png"]
    )
    np.testing.assert_allclose(Positions.read("p.npz").position_m - origin, USERS, atol=1e-4)


@NEEDS_PYPROJ
def test_geojson_points_lie_where_utm_says(hall: Path) -> None:
    from pyproj import Transformer

    locate.main(["--site", "hall.yaml", "--measurements", "ranges.csv", "--sigma", "0.15", "--out", "p.geojson"])
    content = json.loads(Path("p.geojson").read_text())
    table = Positions.read("p.geojson")
    assert table.geo_origin is not None
    # hall.yaml: north: grid, so that x and y are differences of UTM coordinates in zone 32.
    to_utm = Transformer.from_crs("EPSG:4326", "EPSG:32632", always_xy=True)
    east, north = to_utm.transform(11.5756, 48.1372)
    for feature, place in zip(content["features"], table.position_m):
        x, y = to_utm.transform(*feature["geometry"]["coordinates"])
        np.testing.assert_allclose([x - east, y - north], place, atol=1e-3)


HALL = ["--site", "hall.yaml", "--measurements", "ranges.csv"]
REFUSALS = [
    ([], "--measurements"),
    (HALL[2:], "need the places of the access points: --site"),
    (HALL, "how accurate is a range? Say it by --sigma"),
    ([*HALL[:3], "nowhere.csv", "--sigma", "1"], "nowhere.csv"),
    ([*HALL, "--sigma", "1", "--out", "a.xls"], "a.xls must end in one of .csv, "),
    ([*HALL, "--sigma", "1", "--picture", "a.gif"], "must end in .png"),
    ([*HALL, "--sigma", "-1"], "sigma=-1.0 must be above 0"),
    ([*HALL, "--sigma", "1", "--policy", "toa-hubr"], "did you mean toa-huber"),
    ([*HALL, "--sigma", "1", "--policy", "music"], "the file has range"),
    ([*HALL, "--sigma", "1", "--known", "nlos_mean=2"], "did you mean nlos_mean_m"),
    ([*HALL, "--sigma", "1", "--known", "area_m=2"], "area_m is unknown"),
    ([*HALL, "--sigma", "1", "--option", "round=2"], "did you mean rounds"),
    ([*HALL, "--unit", "inch"], "unit='inch' is not one of"),
    ([*HALL, "--columns", "a"], "must look like --columns FILE_NAME"),
    ([*HALL, "--columns", "rang=x"], "no column 'rang' to rename"),
    ([*HALL, "--window", "0"], "window=0.0 must be above 0"),
]


@pytest.mark.parametrize(("words", "said"), REFUSALS, ids=[" ".join(words[4:]) for words, _ in REFUSALS])
def test_wrong_words_are_refused_in_one_line(
    hall: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path.name for path in hall.iterdir())
    with pytest.raises(SystemExit) as ended:
        locate.main(words)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert ended.value.code == 2
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    assert said in lines[0]
    assert sorted(path.name for path in hall.iterdir()) == before


def test_the_commands_of_the_page_work(hall: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "data" / "index.md").read_text(encoding="utf-8")
    commands = [
        shlex.split(line)[2:]
        for block in re.findall(r"^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
        for line in block.replace("\\\n", " ").splitlines()
        if line.startswith("cfpos locate")
    ]
    assert commands
    written(hall, SURVEY, "wifi.csv")
    written(hall, SCANS, "scans.csv")
    written(hall, "epoch,rss_gate,rss_dock,rss_crane,rss_press\n1,-80,-72,-70,-66\n", "powers.csv")
    for words in commands:
        if words[-1].endswith(".geojson") and importlib.util.find_spec("pyproj") is None:
            continue
        locate.main(words)
        assert "positions valid" in capsys.readouterr().out


SURVEY = "x_m,y_m,floor,rss_b,rss_a\n0,0,G,-70,-50\n8,0,G,-50,-70\n8,6,1,-60,100\n0,6,1,100,-60\n"
SCANS = "id,time_s,x_m,y_m,floor,rss_a,rss_b\nann,1,1,1,G,-52,-69\nbob,2,7,5,1,100,-59\n"


@pytest.mark.parametrize("policy", ["fingerprint", "gpr"])
def test_access_points_that_one_file_alone_names_are_said(
    hall: Path, policy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{x},{y},{-40 - x},{-50 - y},{-60 + x}" for x in range(4) for y in range(4)]
    (hall / "known.csv").write_text("\n".join(["x_m,y_m,rss_a,rss_b,rss_c", *rows]), encoding="utf-8")
    for header, said in (
        (
            "rss_a,rss_b,rss_C",
            ["the scans' access points are not in the survey, and not compared: C", "scans, and"],
        ),
        ("rss_a,rss_b,rss_c", []),
    ):
        (hall / "scans.csv").write_text(f"{header}\n-41,-51,-59\n", encoding="utf-8")
        locate.main(["--survey", "known.csv", "--measurements", "scans.csv", "--policy", policy, "--out", "o.csv"])
        printed = capsys.readouterr().out
        assert all(words in printed for words in said)
        assert ("not compared" in printed) == bool(said)


def test_a_survey_and_scans_give_places_and_floors(hall: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(hall, SURVEY, "wifi.csv")
    written(hall, SCANS, "scans.csv")
    words = ["--survey", "wifi.csv", "--measurements", "scans.csv", "--missing", "100", "--option", "neighbours=1"]
    locate.main([*words, "--picture", "p.png"])
    said = capsys.readouterr().out
    table = Positions.read("positions.csv")
    assert table.floor is not None
    assert table.position_m.tolist() == [[0.0, 0.0], [8.0, 6.0]]
    assert table.floor.tolist() == ["G", "1"]
    assert table.user.tolist() == ["ann", "bob"]
    np.testing.assert_allclose(table.error_m, [np.sqrt(2), np.sqrt(2)])
    assert "2 of 2 positions valid (100.0 %) by fingerprint" in said
    assert "floor 100.0%" in said
    # Columns of the scans may have other names than those of the survey.
    written(hall, SCANS.replace("rss_a", "AA").replace("rss_b", "BB"), "scans.csv")
    locate.main([*words, "--columns", "AA=rss_a", "BB=rss_b"])
    assert Positions.read("positions.csv").position_m.tolist() == table.position_m.tolist()
    # They say where they were taken as ranges do.
    written(hall, SCANS.replace("x_m", "truth_x_m").replace("y_m", "truth_y_m"), "scans.csv")
    locate.main(words)
    np.testing.assert_allclose(Positions.read("positions.csv").error_m, table.error_m)
    with pytest.raises(SystemExit):
        locate.main(["--measurements", "scans.csv", "--policy", "fingerprint"])
    assert "--survey FILE" in capsys.readouterr().err


def test_powers_give_positions_by_their_law(hall: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rss = -38 - 27 * np.log10(RANGES)
    for values in (rss, torch.from_numpy(rss).float(), np.ma.masked_array(rss, RANGES > 35)):
        estimate = locate_rss(APS, values, rss_at_1m_dbm=-38.0, path_loss_slope_db=27.0)
        assert bool(estimate.valid.all())
        np.testing.assert_allclose(np.asarray(estimate.position), USERS, atol=0.05)
    lines = [f"{name},{x},{y}" for name, (x, y) in zip(NAMES, APS)]
    written(hall, "\n".join(["name,x_m,y_m", *lines]), "site.csv")
    written(hall, wide(rss, [1, 0, 4, 3, 2], "rss"), "powers.csv")
    words = ["--site", "site.csv", "--measurements", "powers.csv"]
    locate.main([*words, "--known", "rss_at_1m_dbm=-38", "path_loss_slope_db=27", "--out", "p.npz"])
    assert "assumed: shadowing_std_db=4" in capsys.readouterr().out
    np.testing.assert_allclose(Positions.read("p.npz").position_m, USERS, atol=0.05)
    locate.main([*words, "--out", "q.npz"])
    assert "assumed: rss_at_1m_dbm=-40, path_loss_slope_db=30, shadowing_std_db=4" in capsys.readouterr().out
    assert not np.allclose(Positions.read("q.npz").position_m, USERS, atol=0.5)


def test_csi_gives_positions_by_music_and_by_a_run(hall: Path, capsys: pytest.CaptureFixture[str]) -> None:
    yaw = np.deg2rad([45.0, 135.0])
    about: dict[str, Any] = {"carrier_hz": 3.5e9, "subcarrier_spacing_hz": 240e3, "array_shape": (2, 4)}
    stations = np.array([[0.0, 0.0, 2.0], [30.0, 0.0, 2.0]])
    csi = np.ones((3, 2, 8, 16), dtype=np.complex128)
    estimate = locate_csi(csi, stations, yaw, **about)
    assert estimate.position.shape == (3, 3)
    np.testing.assert_allclose(np.asarray(estimate.position), [[15.0, 15.0, 2.0]] * 3, atol=0.02)
    np.savez("own.npz", csi=csi, bs_positions_m=stations, bs_orientation_rad=yaw, time_s=np.arange(3.0), **about)
    locate.main(["--measurements", "own.npz", "--picture", "p.png"])
    assert "3 of 3 positions valid (100.0 %) by music" in capsys.readouterr().out
    table = Positions.read("positions.csv")
    np.testing.assert_allclose(table.position_m, np.asarray(estimate.position), atol=1e-6)
    assert table.time_s is not None
    # A training run stands for the network that it was trained in, and for its settings.
    env = make_env("ecc-csi-v0", num_envs=1, seed=0, antenna_order="rows")
    agent = make_agent("ecc-fast", env, bits=4, fusion_hidden=64)
    (hall / "run").mkdir()
    agent.save(hall / "run" / "best.pt")
    written(hall / "run", "env:\n  id: ecc-csi-v0\n  antenna_order: rows\n", "config.yaml")
    sample = ROOT / "cfpos_envs" / "scenarios" / "ecc" / "data" / "own-csi-sample.npz"
    locate.main(["--measurements", str(sample), "--policy", "run", "--out", "q.npz"])
    expected = agent.locate(read_csi(sample).measurements(env.scenario.system)).position[:, 0]
    np.testing.assert_allclose(Positions.read("q.npz").position_m, expected.numpy(), atol=1e-4)
    about["array_shape"] = (1, 8)
    np.savez("lines.npz", csi=csi, bs_positions_m=stations, bs_orientation_rad=yaw, **about)
    for words, said in (
        (["own.npz", "--policy", "run"], "own.npz"),  # another network
        (["lines.npz"], "lines.npz: its arrays are lines of antennas"),
        (["own.npz", "--policy", "csi-knn"], "is no training run; CSI is located by music"),
        (["own.npz", "--known", "order=rows"], "order is unknown for CSI"),
    ):
        with pytest.raises(SystemExit):
            locate.main(["--measurements", *words])
        assert said in capsys.readouterr().err


def test_links_one_by_one_and_heights_that_nobody_knows(hall: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = "abcde"
    anchors = np.column_stack((APS, np.full(len(APS), 6.0)))
    site = ["name,x_m,y_m,height_m", *(f"{name},{x},{y},{z}" for name, (x, y, z) in zip(names, anchors))]
    (hall / "tall.csv").write_text("\n".join(site), encoding="utf-8")
    lines = ["time_s,user,ap,range_m,truth_x_m,truth_y_m"]
    for turn in range(20):
        for number, anchor in enumerate(anchors):
            time = turn * 0.1 + number * 0.01
            place = np.array([10 + time, 9.0, 1.5])
            distance = np.linalg.norm(place - anchor)
            lines.append(f"{time},tag,{names[number]},{distance},{place[0]},{place[1]}")
    (hall / "links.csv").write_text("\n".join(lines), encoding="utf-8")
    command = ["--site", "tall.csv", "--sigma", "0.1", "--out", "found.csv", "--measurements"]
    locate.main([*command, "links.csv", "--filter", "1"])
    found = Positions.read("found.csv")
    # A position per link; the first fix is made of the first turn.
    assert len(found) == 100
    assert found.valid[5:].all()
    assert found.error_m is not None
    assert found.error_m[30:].max() < 0.05
    wide_lines = ["range_a,range_b,range_c,range_d,range_e,truth_x_m,truth_y_m,truth_z_m"]
    for place in ([12.0, 9.0, 1.0], [20.0, 15.0, 2.0]):
        wide_lines.append(",".join(f"{d:.5f}" for d in (*np.linalg.norm(anchors - place, axis=1), *place)))
    (hall / "wide.csv").write_text("\n".join(wide_lines), encoding="utf-8")
    locate.main([*command, "wide.csv", "--height", "below"])
    assert "explains the ranges best at a height of 10.50 m" in capsys.readouterr().out
    found = Positions.read("found.csv")
    np.testing.assert_allclose(found.position_m, [[12.0, 9.0, 1.0], [20.0, 15.0, 2.0]], atol=1e-3)
    assert found.valid.all()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--filter", "1", "--window", "1"], "leave --window out"),
        (["--filter", "0"], "--filter"),
        (["--filter", "1"], "needs one line per link with the columns ap and time_s"),
        (["--height", "below"], "needs heights of the APs"),
        (["--height", "below", "--user-height", "1"], "is known; leave --height below out"),
        (["--height", "below", "--policy", "toa-em"], "answers in the plane"),
    ],
)
def test_filters_and_heights_refuse_in_one_line(
    words: list[str], told: str, hall: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (hall / "flat.csv").write_text("name,x_m,y_m\na,0,0\nb,9,0\nc,0,9\n", encoding="utf-8")
    (hall / "own.csv").write_text("range_a,range_b,range_c\n5,6,7\n", encoding="utf-8")
    with pytest.raises(SystemExit):
        locate.main(["--site", "flat.csv", "--measurements", "own.csv", "--sigma", "0.1", *words])
    message = capsys.readouterr().err
    assert told in message
    assert message.count("\n") == 1
