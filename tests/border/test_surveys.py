"""Survey files as people have them: columns by name, marks, layouts, several scans, mistakes named with their line."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from baselines import Fingerprint, make_policy
from baselines.dcp.database import reference_points
from baselines.dcp.fingerprint_options import FingerprintOptions
from baselines.dcp.radio_map import RadioMap
from baselines.dcp.survey import simulate_survey
from cfpos_envs.files.coordinates import GeoOrigin
from cfpos_envs.files.ipin_logs import read_log
from cfpos_envs.files.sites import load_site
from cfpos_envs.files.surveys import ap_number, in_order, read_survey
from tests.baselines.dcp.synthetic import draw_drops, errors_m

PLAIN = "x_m,y_m,rss_a,rss_b\n0,0.5,-40,-70\n10,0.5,-70,-40\n5,0.5,-55.5,-55.5\n"
WHERE = np.array([[0, 0.5], [10, 0.5], [5, 0.5]])
FOUND = [[-40, -70], [-70, -40], [-55.5, -55.5]]


def written(folder: Path, text: str, name: str = "wifi.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("form", ["comma", "decimal comma", "units", "comments", "other order"])
def test_one_survey_in_many_spellings(tmp_path: Path, encoding: str, form: str) -> None:
    text = {
        "comma": PLAIN,
        "decimal comma": PLAIN.replace(",", ";").replace(".", ","),
        "units": PLAIN.replace("rss_b\n", "rss_b\nm,m,dBm,dBm\n"),
        "comments": "# by hand\n\n" + PLAIN,
        "other order": "rss_b,y_m,rss_a,x_m\n-70,0.5,-40,0\n-40,0.5,-70,10\n-55.5,0.5,-55.5,5\n",
    }[form]
    path = written(tmp_path, text, encoding=encoding)
    table = read_survey(path)
    np.testing.assert_array_equal(table.positions_m, WHERE)
    rss, looked_for = table.rows_with(("a", "b"))
    np.testing.assert_array_equal(rss, FOUND)
    assert looked_for.all()
    estimator = Fingerprint.from_csv(path, matching="nn")
    np.testing.assert_array_equal(estimator.locate(FOUND, ap_names=("a", "b")).position.numpy(), WHERE)


def test_numbered_columns_sorted_as_text_are_those_sorted_by_number(tmp_path: Path) -> None:
    drop = draw_drops(1, seed=0, num_aps=12, num_ues=4, num_sites=1)
    measured = drop.measurements
    survey = simulate_survey(RadioMap.of(measured).select(0), reference_points(100.0, 5.0, "cells"), 0)
    found = []
    for name, order in (("number.csv", range(12)), ("text.csv", sorted(range(12), key=str))):
        header = ",".join(["x_m", "y_m", *(f"rss_{ap}" for ap in order)])
        rows = [
            ",".join(f"{value:.4f}" for value in [*place, *(powers[ap] for ap in order)])
            for place, powers in zip(survey.positions_m.tolist(), survey.rss_dbm.tolist())
        ]
        path = written(tmp_path, "\n".join([header, *rows]), name)
        estimate = make_policy("fingerprint", survey=str(path), feature="rss-db").locate(measured)
        assert estimate.valid.all()
        found.append(estimate.position)
        # Plain arrays have no names: their columns are by number, whatever the file's order was.
        own = Fingerprint.from_csv(path)
        assert own.ap_names == tuple(str(ap) for ap in range(12))
        np.testing.assert_allclose(
            own.locate(measured.rss_dbm[0].T).position.numpy(), estimate.position[0].numpy(), atol=1e-4
        )
    assert torch.equal(found[0], found[1])
    assert errors_m(drop, found[1]).max() < 3.0


def test_a_survey_of_a_game_knows_its_aps_by_number_or_name_and_its_area(tmp_path: Path) -> None:
    measured = draw_drops(1, seed=0, num_aps=4, num_ues=2, num_sites=1).measurements

    def located(header: str, places: str = "1,1 9,1 1,9 9,9") -> torch.Tensor:
        rows = [f"{place},-50,-60,-70,-80" for place in places.split()]
        path = written(tmp_path, "\n".join([f"x_m,y_m,{header}", *rows]))
        return make_policy("fingerprint", survey=str(path), feature="rss-db").locate(measured).position

    assert located("rss_0,rss_1,rss_2,rss_3").shape == (1, 2, 2)
    with pytest.raises(ValueError, match="AP '4' is none of the game's, which are 0 to 3"):
        located("rss_1,rss_2,rss_3,rss_4")
    with pytest.raises(ValueError, match="AP 'door' is none of the game's"):
        located("rss_door,rss_1,rss_2,rss_3")
    with pytest.raises(ValueError, match=r"places reach from \(1\.0, 1\.0\) to \(900\.0, 9\.0\) m"):
        located("rss_0,rss_1,rss_2,rss_3", "1,1 900,1 1,9 9,9")


def test_a_survey_knows_the_aps_of_a_site_by_the_names_in_its_file(tmp_path: Path) -> None:
    site = written(
        tmp_path,
        "name,x_m,y_m,height_m\ndoor,455002,5411002,6\nwall,455038,5411002,6\ngate,455002,5411038,6\n",
        "hall.csv",
    )
    # All that the policy asks of a game is the file of its site; the measurements are those of a drop of three APs.
    game: Any = SimpleNamespace(scenario=SimpleNamespace(config=SimpleNamespace(site_file=load_site(site))))
    measured = draw_drops(1, seed=0, num_aps=3, num_ues=2, num_sites=1).measurements
    rss = measured.rss_dbm[0].T.tolist()
    # Two places whose readings are those of the two users, the columns in another order; in the file's coordinates.
    places = [(455010.0, 5411020.0), (455030.0, 5411005.0)]
    rows = [",".join(map(repr, [*place, gate, door, wall])) for place, (door, wall, gate) in zip(places, rss)]
    path = written(tmp_path, "\n".join(["x_m,y_m,rss_gate,rss_door,rss_wall", *rows]))
    options = FingerprintOptions(survey=str(path), feature="rss-db", matching="nn")
    estimate = Fingerprint(game, options).locate(measured)
    assert estimate.valid.all()
    origin = game.scenario.config.site_file.origin_m
    assert origin != (0.0, 0.0)
    np.testing.assert_allclose(estimate.position[0].double().numpy() + origin, places, atol=1e-4)


def test_names_are_in_the_order_of_their_numbers_or_as_they_come() -> None:
    assert in_order(["ap10", "ap2", "ap1", "ap2"]) == ("ap1", "ap2", "ap10")
    assert in_order(["WAP010", "WAP009"]) == ("WAP009", "WAP010")
    assert in_order(["north", "a1", "a0"]) == ("north", "a1", "a0")
    assert in_order(["b1", "a0"]) == ("b1", "a0")
    assert [ap_number(name) for name in ("7", "x012", "door")] == [7, 12, -1]


def test_columns_are_renamed_by_name_and_by_pattern(tmp_path: Path) -> None:
    path = written(tmp_path, "LONGITUDE,LAT,WAP002,WAP001,OS\n1,2,-60,100,a\n3,4,100,-61,b\n")
    columns = {"LONGITUDE": "x_m", "LAT": "y_m", "WAP*": "rss_*", "OS": None}
    table = read_survey(path, columns=columns, not_heard=[100])
    assert table.ap_names == ("001", "002")
    np.testing.assert_array_equal(table.rss_dbm, [[math.nan, -60], [-61, math.nan]])
    np.testing.assert_array_equal(table.positions_m, [[1, 2], [3, 4]])
    with pytest.raises(ValueError, match=r"wifi.csv has no column 'LATITUDE' to rename; did you mean LONGITUDE or LAT"):
        read_survey(path, columns={**columns, "LATITUDE": "y_m"})
    with pytest.raises(ValueError, match=r"wifi.csv: unknown column 'OS'.*columns=\{'OS': None\}"):
        read_survey(path, columns={"LONGITUDE": "x_m", "LAT": "y_m", "WAP*": "rss_*"})
    with pytest.raises(ValueError, match="two columns for 'x_m'"):
        read_survey(path, columns={**columns, "LAT": "x_m"})


def test_one_reading_per_row_and_rows_with_different_aps(tmp_path: Path) -> None:
    text = (
        "x_m,y_m,time_s,floor,ap,rss_dbm\n0,0,1,G,a,-40\n0,0,1,G,b,-50\n0,0,2,G,c,-60\n8,0,3,1,b,-44\n8,0,3,1,b,-41\n"
    )
    table = read_survey(written(tmp_path, text))
    assert table.ap_names == ("a", "b", "c")
    np.testing.assert_array_equal(
        table.rss_dbm, [[-40, -50, math.nan], [math.nan, math.nan, -60], [math.nan, -41, math.nan]]
    )
    np.testing.assert_array_equal(table.time_s, [1, 2, 3])
    assert table.floors == ("G", "G", "1")
    assert table.where == ("wifi.csv, line 2", "wifi.csv, line 4", "wifi.csv, line 5")


def test_several_files_are_one_survey_over_all_their_aps(tmp_path: Path) -> None:
    first = written(tmp_path, "x_m,y_m,floor,rss_a,rss_b\n0,0,1,-40,-50\n", "first.csv")
    second = written(tmp_path, "x_m,y_m,rss_c,rss_b,floor\n9,0,-42,-51,2\n", "second.csv")
    table = read_survey([first, second])
    assert table.ap_names == ("a", "b", "c")
    np.testing.assert_array_equal(table.rss_dbm, [[-40, -50, math.nan], [math.nan, -51, -42]])
    assert table.floors == ("1", "2")
    assert table.where == ("first.csv, line 2", "second.csv, line 2")
    assert Fingerprint.from_csv([first, second], matching="nn").locate([[math.nan, -51, -41]]).floors == ["2"]


def test_scans_are_matched_by_name_and_what_was_not_looked_for_is_not_compared(tmp_path: Path) -> None:
    estimator = Fingerprint.from_csv(written(tmp_path, PLAIN), matching="nn")
    scans = read_survey(written(tmp_path, "id,rss_b,rss_stranger\nme,-41,-30\n", "scans.csv"))
    assert scans.positions_m is None
    np.testing.assert_array_equal(estimator.locate(scans).position.numpy(), [[10, 0.5]])
    with pytest.raises(ValueError, match=r"scans.csv has no positions to compare with"):
        estimator.score(scans)
    strangers = read_survey(written(tmp_path, "rss_x,rss_y\n-41,-30\n", "scans.csv"))
    with pytest.raises(ValueError, match=r"scans.csv has no AP of the survey: it has x, ..., the survey a"):
        estimator.locate(strangers)


UJI = (
    "WAP001,WAP002,WAP003,LONGITUDE,LATITUDE,FLOOR,BUILDINGID,SPACEID,RELATIVEPOSITION,USERID,PHONEID,TIMESTAMP\n"
    "-50,100,-90,-7541.2643,4864920.7782,2,1,106,2,2,23,1371713733\n"
    "-54,-95,100,-7541.2643,4864920.7782,2,1,106,2,2,23,1371713734\n"
    "100,-60,0,-7536.6212,4864934.2252,0,1,106,2,2,23,1371713691\n"
)


def test_uji_layout_by_name(tmp_path: Path) -> None:
    path = written(tmp_path, UJI, "trainingData.csv")
    table = read_survey(path, "uji")
    assert table.ap_names == ("WAP001", "WAP002", "WAP003")
    assert (table.floors, table.buildings) == (("2", "2", "0"), ("1", "1", "1"))
    np.testing.assert_array_equal(table.positions_m[[0, 2]], [[-7541.2643, 4864920.7782], [-7536.6212, 4864934.2252]])
    np.testing.assert_array_equal(table.rss_dbm, [[-50, math.nan, -90], [-54, -95, math.nan], [math.nan, -60, 0]])
    # The files hold readings of 0 dBm, which no phone hears.
    with pytest.warns(UserWarning, match=r"left out 1 RSS of 0 dBm or more.*trainingData.csv, line 4, AP WAP003"):
        estimator = Fingerprint.from_csv(path, layout="uji", matching="nn")
    estimate = estimator.locate([[100, -62, 100], [-53, 100, 100]])
    np.testing.assert_array_equal(estimate.position.numpy(), table.positions_m[[2, 0]])
    assert (estimate.floors, estimate.buildings) == (["0", "2"], ["1", "1"])
    with pytest.raises(ValueError, match=r"0 dBm or more.*line 4.*not_heard=0"):
        Fingerprint.from_csv(path, layout="uji", on_bad="refuse")


LOG = (
    "% LogFile created by an app\n"
    "WIFI;0.500;9.0;early;00:0B:86:27:36:C1;-30\n"
    "POSI;1.000;0;40.00000000;-0.07000000;0;3\n"
    "ACCE;1.1;2.2;0.1;0.2;9.8;3\n"
    "WIFI;2.000;9.1;caf;e;00:0b:86:27:36:c1;2412;-71\n"
    "WIFI;2.000;9.2;;00:0b:86:27:36:c2;-60;\n"
    "WIFI;4.000;9.3;other;00:0b:86:27:36:c2;5200;-55\n"
    "POSI;5.000;1;40.00036000;-0.07000000;0;3\n"
    "WIFI;6.000;9.4;stairs;00:0b:86:27:36:c2;-50\n"
    "POSI;9.000;2;40.00036000;-0.07000000;1;3\n"
)


def test_ipin_log_both_forms_of_wifi_between_marks(tmp_path: Path) -> None:
    path = written(tmp_path, LOG, "log.txt")
    table = read_survey(path, "ipin")
    assert table.ap_names == ("00:0b:86:27:36:c1", "00:0b:86:27:36:c2")
    # Not the frequency; nothing before the first mark, nor on the stairs.
    np.testing.assert_array_equal(table.rss_dbm, [[-71, -60], [math.nan, -55]])
    # A quarter and three quarters of 0.00036 degrees of latitude: 111 035 m a degree at 40 degrees (Torge).
    np.testing.assert_allclose(table.positions_m, [[0, 9.993], [0, 29.979]], atol=2e-3)
    assert (table.floors, table.buildings) == (("0", "0"), ("3", "3"))
    assert table.geo_origin == GeoOrigin(40.0, -0.07)
    assert table.where == ("log.txt, line 5", "log.txt, line 7")
    again = read_survey([path, path], "ipin", geo_origin=GeoOrigin(40.0, -0.0701))
    # 0.0001 degrees of longitude: 85 394 m a degree.
    np.testing.assert_allclose(again.positions_m[2:, 0], 8.539, atol=2e-3)
    estimator = Fingerprint.from_csv(path, layout="ipin", matching="nn")
    assert estimator.geo_origin == table.geo_origin
    assert estimator.score(table).mean_m == 0.0
    with pytest.raises(ValueError, match="another origin than the survey"):
        estimator.score(read_survey(path, "ipin", geo_origin=GeoOrigin(40.0, -0.0701)))
    assert table.lists_all
    rss, looked_for = table.rows_with(("00:0b:86:27:36:c2", "absent"))
    assert looked_for.all()
    assert np.isnan(rss[:, 1]).all()
    without = read_survey(written(tmp_path, LOG.replace("POSI", "MARK"), "log.txt"), "ipin")
    assert without.positions_m is None
    assert len(without) == 4


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("POSI;5.000;1;", "POSI;5.000;", r"log.txt, line 8: POSI has 5 fields"),
        ("40.00036000;-0.07000000;0", "north;-0.07000000;0", r"log.txt, line 8: 'north' is not a number"),
        ("40.00036000;-0.07000000;0", "4864920;-7541;0", r"log.txt, line 8: .* is no latitude and longitude"),
        ("00:0b:86:27:36:c2;-60;", "00:0b;-60", r"log.txt, line 6: a WIFI line must be"),
        ("5200;-55", "5200;loud", r"log.txt, line 7: 'loud' is not a number"),
        ("WIFI", "BLE4", r"log.txt has no WIFI line"),
    ],
)
def test_mistakes_in_a_log_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_log(written(tmp_path, LOG.replace(old, new), "log.txt"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x_m,rss_a\n1,-50\n", r"wifi.csv lacks the column y_m"),
        ("rss_a\n-50\n", r"wifi.csv has no positions; a survey needs"),
        ("x_m,y_m,rss_a\n\n# moved\n1,2,-50\n3,,-40\n", r"positions have NaN.*wifi.csv, line 5"),
        ("x_m,y_m,rss_a\n1,2,-50\n\n3,4,100\n", r"wifi.csv, line 4, AP a.*say not_heard=100"),
        ("x_m,y_m,ap,rss_dbm\n1,2,a,-50\n3,4,a,loud\n", r"wifi.csv, line 3, column rss_dbm: 'loud'"),
        ("x_m,y_m,ap,rss_dbm,mac\n1,2,a,-50,b\n", r"wifi.csv: unknown column 'mac'"),
    ],
)
def test_mistakes_name_the_file_and_the_line_an_editor_shows(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Fingerprint.from_csv(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_no_file_and_other_layouts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no survey file given"):
        read_survey([])
    with pytest.raises(ValueError, match="layout='uij' is not one of plain, uji, ipin, ftm-feng; did you mean uji"):
        read_survey(written(tmp_path, PLAIN), "uij")
    with pytest.raises(ValueError, match="ipin log files have none"):
        read_survey(written(tmp_path, LOG), "ipin", {"a": "x_m"})
    with pytest.raises(ValueError, match="is neither UTF-8 nor UTF-16"):
        Fingerprint.from_csv(written(tmp_path, "x_m,y_m,rss_größe\n1,2,-50\n", encoding="latin-1"))
