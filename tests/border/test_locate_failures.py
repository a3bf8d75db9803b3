"""``cfpos locate`` where nothing can be located, or not what the user thinks: one sentence, and an exit code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cfpos import Positions, make_agent, make_env
from cfpos_envs.files.coordinates import GeoOrigin
from cfpos_envs.files.sites import load_site
from cfpos_envs.importers.arrays import read_csi
from cfpos_envs.scenarios.ecc.stored import sample_file, split_rows
from scripts import locate
from scripts.locating.common import spoken
from scripts.plots.sites import DrawnSiteConfig, make_site
from tests.border.range_tables import APS, NAMES, RANGES, USERS, wide, written


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one, with the site of ``range_tables``."""
    monkeypatch.chdir(tmp_path)
    written(tmp_path, site_text("name,x_m,y_m", APS), "site.csv")
    return tmp_path


def site_text(header: str, places: np.ndarray) -> str:
    return "\n".join([header, *(f"{name},{x:.9f},{y:.9f}" for name, (x, y) in zip(NAMES, places))])


def refused(words: list[str], capsys: pytest.CaptureFixture[str], code: int) -> str:
    """The one line of the error."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        locate.main(words)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert ended.value.code == code
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


# Nothing located ------------------------------------------------------------------------------------------------------


def test_no_valid_answer_is_a_failure_whose_table_says_why(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(folder, f"epoch,range_{NAMES[0]},range_{NAMES[1]}\n1,20,\n2,,24\n", "few.csv")
    words = ["--site", "site.csv", "--measurements", "few.csv", "--sigma", "1", "--picture", "few.svg"]
    said = refused(words, capsys, locate.NO_ANSWER)
    assert "none of 2 positions is valid: 2 too_few_links: " in said
    assert "at most 1 of 5 access points are measured at once, 2 at all; see --columns" in said
    assert "not valid (2)" in (folder / "few.svg").read_text()
    assert Positions.read("positions.csv").reason.tolist() == ["too_few_links"] * 2


def test_one_access_point_locates_nobody(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(folder, "name,x_m,y_m\na,0,0\n", "one.csv")
    written(folder, "epoch,range_a\n1,20\n2,21\n", "r.csv")
    said = refused(["--site", "one.csv", "--measurements", "r.csv", "--sigma", "1"], capsys, locate.NO_ANSWER)
    assert "at most 1 of 1 access points are measured at once" in said


@pytest.mark.parametrize(("blank", "words", "why"), [("", [], "NaN"), ("99", ["--missing", "99"], "--missing 99")])
@pytest.mark.parametrize("long", [False, True])
def test_a_file_without_a_measurement_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], blank: str, words: list[str], why: str, long: bool
) -> None:
    a, b = NAMES[:2]
    text = f"epoch,ap,range_m\n1,{a},{blank}\n1,{b},nan\n" if long else f"epoch,range_{a},range_{b}\n1,{blank},nan\n"
    written(folder, text, "empty.csv")
    said = refused(["--site", "site.csv", "--measurements", "empty.csv", "--sigma", "1", *words], capsys, 2)
    assert f"empty.csv has no measurement in {1 + long} lines: every range is " in said
    assert why in said
    assert "(--columns)" in said
    assert "(--missing)" in said
    assert not (folder / "positions.csv").exists()


def test_scans_without_a_reading_and_powers_above_the_ceiling_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(folder, "x_m,y_m,rss_a,rss_b\n0,0,-50,-70\n9,0,-70,-50\n", "wifi.csv")
    written(folder, "rss_a,rss_b\n100,\n", "scans.csv")
    words = ["--survey", "wifi.csv", "--measurements", "scans.csv", "--missing", "100"]
    assert "4 neighbours from 2 points; lower --option neighbours=" in refused(words, capsys, 2)
    said = refused([*words, "--option", "neighbours=1"], capsys, 2)
    assert "scans.csv has no reading in 1 scans" in said
    written(folder, f"epoch,rss_{NAMES[0]},rss_{NAMES[1]}\n7,-60,100\n", "p.csv")
    words = ["--site", "site.csv", "--measurements", "p.csv"]
    assert f"p.csv, line 2, column rss_{NAMES[1]}: 100 cannot be right" in (said := refused(words, capsys, 2))
    assert "say --missing 100" in said
    # Who knows of louder ones says so; two APs are too few.
    assert "poor_geometry" in refused([*words, "--known", "ceiling_dbm=101"], capsys, locate.NO_ANSWER)


@pytest.mark.parametrize("policy", ["toa-em", "tdoa-wls"])
def test_exchanged_latitudes_and_longitudes_are_found_by_the_measurements(
    folder: Path, capsys: pytest.CaptureFixture[str], policy: str
) -> None:
    pytest.importorskip("pyproj", reason="pyproj, the extra geo, is missing")
    latitude, longitude, _ = GeoOrigin(48.1372, 11.5756).to_geodetic(torch.from_numpy(APS))
    degrees = torch.stack((latitude, longitude), dim=1).numpy()
    written(folder, site_text("name,latitude,longitude", degrees), "right.csv")
    written(folder, site_text("name,latitude,longitude", degrees[:, ::-1]), "wrong.csv")
    written(folder, wide(RANGES, range(5)), "r.csv")
    words = ["--measurements", "r.csv", "--sigma", "0.1", "--policy", policy, "--site"]
    said = refused([*words, "wrong.csv"], capsys, locate.NO_ANSWER)
    assert "latitudes and longitudes look exchanged in wrong.csv: the other way round 3 of 3 answers are valid" in said
    exchange = ["--columns", "latitude=longitude", "longitude=latitude"]
    assert " ".join(exchange) in said
    locate.main([*words, "wrong.csv", *exchange])
    mended = Positions.read("positions.csv").position_m
    locate.main([*words, "right.csv"])
    np.testing.assert_allclose(mended, Positions.read("positions.csv").position_m, atol=1e-6)
    low = APS.min(axis=0)
    np.testing.assert_allclose(mended, USERS - low, atol=0.01)
    # Ranges that fit neither way say nothing about degrees.
    written(folder, wide(RANGES[:, ::-1], range(5)), "r.csv")
    assert "exchanged" not in refused([*words, "right.csv"], capsys, locate.NO_ANSWER)


# Words of the command -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["csv", "yaml", "geojson"])
def test_columns_reach_the_site(folder: Path, capsys: pytest.CaptureFixture[str], form: str) -> None:
    site = f"own.{form}"
    if form == "csv":
        rows = [f"{name},{x},{y},3.5,q" for name, (x, y) in zip(NAMES, APS)]
        text = "\n".join(["sensor,x_m,y_m,z_m,vendor", *rows])
    elif form == "yaml":
        rows = [f"{{sensor: {n}, x_m: {x}, y_m: {y}, z_m: 3.5, vendor: q}}" for n, (x, y) in zip(NAMES, APS)]
        text = "\n  - ".join(["aps:", *rows])
    else:
        pytest.importorskip("pyproj", reason="pyproj, the extra geo, is missing")
        latitude, longitude, _ = GeoOrigin(48.0, 11.0).to_geodetic(torch.from_numpy(APS))
        points = [
            f'{{"type": "Feature", "geometry": {{"type": "Point", "coordinates": [{lon}, {lat}]}}, '
            f'"properties": {{"sensor": "{name}", "z_m": 3.5, "vendor": "q"}}}}'
            for name, lat, lon in zip(NAMES, latitude.tolist(), longitude.tolist())
        ]
        origin = '"origin": {"latitude": 48.0, "longitude": 11.0}'
        text = f'{{"type": "FeatureCollection", {origin}, "features": [{", ".join(points)}]}}'
    written(folder, text, site)
    written(folder, wide(np.hypot(RANGES, 2.0), range(5)), "r.csv")
    words = ["--site", site, "--measurements", "r.csv", "--sigma", "0.1", "--policy", "toa-wls"]
    said = refused(words, capsys, 2)
    if form == "geojson":  # properties of others are passed over
        assert "rename the column by --columns" in said
    else:
        assert "unknown key 'sensor'" in said
        assert "--columns 'sensor=...'" in said
        assert "--columns 'sensor=' passes it over" in said
    locate.main([*words, "--columns", "sensor=name", "z_m=height_m", "vendor="])
    np.testing.assert_allclose(Positions.read("positions.csv").position_m, USERS, atol=1e-3)
    assert load_site(site, {"sensor": "name", "z_m": "height_m", "vendor": None}).ap_names == tuple(NAMES)
    said = refused([*words, "--columns", "sensr=name"], capsys, 2)
    assert f"no column 'sensr' to rename in r.csv or {site}; did you mean sensor" in said


def test_a_site_with_two_values_for_one_key_is_refused(folder: Path) -> None:
    written(folder, "aps:\n  - {id: a, tag: b, x_m: 0, y_m: 0}\n", "s.yaml")
    with pytest.raises(ValueError, match=r"AP 1.* two values for 'name' after renaming"):
        load_site("s.yaml", {"id": "name", "tag": "name"})


def test_messages_of_surveys_name_options_of_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    survey = "x_m,y_m,rss_a,rss_b,phone\n0,0,-50,100,x\n9,0,-70,-50,x\n"
    written(folder, survey, "wifi.csv")
    written(folder, "rss_a,rss_b\n-50,-60\n", "scans.csv")
    words = ["--survey", "wifi.csv", "--measurements", "scans.csv", "--option", "neighbours=1"]
    assert "--columns 'phone=' passes it over" in refused(words, capsys, 2)
    words += ["--columns", "phone="]
    said = refused(words, capsys, 2)
    assert "say --missing 100; --on-bad drop leaves such readings out" in said
    assert "=" not in said.replace("phone=", "")
    locate.main([*words, "--missing", "100"])
    assert "1 of 1 positions valid" in capsys.readouterr().out
    written(folder, "rss_c,rss_d\n-50,-60\n", "scans.csv")
    assert "--columns 'rss_c=...' gives it another name" in refused([*words, "--missing", "100"], capsys, 2)


@pytest.mark.parametrize(
    ("said", "here"),
    [
        ("columns= renames columns of tables", "--columns renames columns of tables"),
        ("two columns for 'rss_a' after renaming; map one of them to None", "pass one of them over by --columns NAME="),
        ("site.csv, line 3: x_m is missing; columns are named first", "site.csv, line 3: x_m is missing; columns are"),
    ],
)
def test_words_of_the_library_become_options(said: str, here: str) -> None:
    assert here in spoken(said)


def test_advice_about_powers_does_not_name_a_method_for_ranges(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(3)
    rss = -40 - 30 * np.log10(RANGES) + rng.normal(0, 12, RANGES.shape)
    written(folder, wide(rss, range(5), "rss"), "p.csv")
    words = ["--site", "site.csv", "--measurements", "p.csv", "--known", "shadowing_std_db=1"]
    said = refused(words, capsys, locate.NO_ANSWER)
    assert "large_residuals: " in said
    assert "toa-em" not in said
    assert "shadowing_std_db" in said
    written(folder, wide(rng.uniform(5, 60, RANGES.shape), range(5)), "r.csv")
    words = ["--site", "site.csv", "--measurements", "r.csv", "--sigma", "0.1", "--policy", "toa-wls"]
    assert "--policy toa-em leaves out links without line of sight" in refused(words, capsys, locate.NO_ANSWER)


def test_locate_and_plot_take_users_to_be_equally_high(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = "aps: [{x_m: 0, y_m: 0, height_m: 4}, {x_m: 9, y_m: 0, height_m: 4}, {x_m: 0, y_m: 9, height_m: 4}]\n"
    written(folder, places, "plain.yaml")
    written(folder, "ue_height_m: 1.1\n" + places, "low.yaml")
    written(folder, "epoch,range_ap0,range_ap1,range_ap2\n1,5,7,8\n", "r.csv")
    for site, above in (("plain.yaml", 2.5), ("low.yaml", 2.9)):
        assert make_site(DrawnSiteConfig(site=site)).height_diff_m.tolist() == pytest.approx([above] * 3)
        locate.main(["--site", site, "--measurements", "r.csv", "--sigma", "3"])
        assert f"users are taken to be {4 - above:g} m high" in capsys.readouterr().out
    assert make_site(DrawnSiteConfig(site="low.yaml", ue_height_m=1.0)).height_diff_m.tolist() == [3.0] * 3
    # Without heights both stay in the plane, unless the command says how high.
    assert make_site(DrawnSiteConfig(site="site.csv")).height_diff_m.tolist() == [0.0] * 5
    assert make_site(DrawnSiteConfig(site="site.csv", ap_height_m=2.0)).height_diff_m.tolist() == [2.0] * 5
    assert make_site(DrawnSiteConfig(aps=2)).height_diff_m.tolist() == [10.0] * 2


# A network's own places -----------------------------------------------------------------------------------------------


def test_places_that_a_network_was_trained_on_are_named_and_scored_apart(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env = make_env("ecc-csi-v0", num_envs=1, seed=0)
    agent = make_agent("ecc-fast", env, bits=4, fusion_hidden=64)
    (folder / "run").mkdir()
    agent.save(folder / "run" / "best.pt")
    written(folder / "run", "env:\n  id: ecc-csi-v0\n", "config.yaml")
    file = read_csi(sample_file(), labelled=True)
    test = split_rows(file, env.scenario.config)["test"]

    def said(measurements: str) -> tuple[str, str]:
        capsys.readouterr()
        locate.main(["--measurements", measurements, "--policy", "run", "--answers", "all"])
        return capsys.readouterr()

    out, err = said(str(sample_file()))
    trained, count = len(file) - len(test), len(file)
    assert f"warning: ecc-fast (run) was trained on {trained} of the {count} snapshots of" in err
    assert "score it by cfpos evaluate" in err
    errors = Positions.read("positions.csv").error_m
    assert errors is not None
    for what, rows in (("trained on", np.setdiff1d(np.arange(count), test)), ("set aside", test)):
        rmse = np.sqrt(np.mean(errors[rows] ** 2))
        assert f"position error at places {what}: RMSE {rmse:.3f} m" in out
        assert f"answered {len(rows)} of {len(rows)}" in out
    # Another file is known by its places.
    some = np.concatenate((test[:3], np.setdiff1d(np.arange(count), test)[:2]))
    file.select(some).write("some.npz")
    out, err = said("some.npz")
    assert "was trained on 2 of the 5 snapshots of some.npz" in err
    file.select(test).write("aside.npz")
    out, err = said("aside.npz")
    assert "warning" not in err
    assert "position error: RMSE" in out
