"""Readers of measured sets: units, marks for missing, frames and splits, on small files; and what they refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cfpos.baselines import make_policy
from cfpos_envs.datasets import LAYOUTS, load_dataset, scenes
from cfpos_envs.datasets.base import distances_m
from cfpos_envs.datasets.scale import check_places
from cfpos_envs.datasets.table import load_table
from tests.datasets import small_sets


def test_every_layout_has_a_small_set() -> None:
    assert small_sets.WRITERS.keys() == LAYOUTS.keys()


@pytest.mark.parametrize("name", small_sets.WRITERS)
def test_a_place_or_walk_is_never_in_both_parts(name: str, tmp_path: Path) -> None:
    measured = load_dataset(name, small_sets.WRITERS[name](tmp_path))
    assert len(measured.train) > 0
    assert len(measured.test) > 0
    if name not in ("hanyang", "epic"):  # one drive in time; places of EPIC's parts have their own numbering
        assert not {*measured.train.group} & {*measured.test.group}
    assert measured.source.licence


def test_feng_is_metres_without_the_ap_that_is_never_heard(tmp_path: Path) -> None:
    room = load_dataset("feng", small_sets.feng(tmp_path))
    assert room.ap_names == ("AP2", "AP3", "AP4", "AP5")
    assert room.notes == ("AP1 is never heard and left out",)
    np.testing.assert_allclose(room.ap_positions_m, 0.6 * small_sets.GRID_APS)
    np.testing.assert_allclose(room.test.truth_m, [[1.2, 1.2], [4.2, 4.2]])
    assert room.train.range_m is not None
    assert room.train.rss_dbm is not None
    # From (1, 2) steps to (0, 0): sqrt(5) steps of 0.6 m, written as whole millimetres.
    assert room.train.range_m[0, 0] == pytest.approx(1.342)
    assert np.isnan(room.train.range_m[0, 1])
    assert np.isnan(room.train.rss_dbm[:, 3]).all()
    assert room.train.rss_dbm[2].tolist()[:3] == [-42, -43, -44]


def test_haiyao_epochs_are_lap_user_and_number(tmp_path: Path) -> None:
    hall = load_dataset("haiyao", small_sets.haiyao(tmp_path))
    assert hall.ap_names == ("2", "3", "10")
    np.testing.assert_array_equal(hall.ap_positions_m, [[9, 0], [0, 8], [0, 0]])
    assert (len(hall.train), len(hall.test)) == (6, 6)
    assert {*hall.train.group} == {"5"}
    assert hall.test.user.tolist() == ["1"] * 3 + ["2"] * 3
    np.testing.assert_array_equal(hall.test.truth_m[4], [3.0, 5.0])
    assert hall.test.range_m is not None
    assert np.isnan(hall.test.range_m[1, 1])
    assert np.isnan(hall.test.range_m).sum() == 1
    np.testing.assert_allclose(hall.test.range_m[0], 1 + distances_m(hall.ap_positions_m, hall.test.truth_m)[0])
    # Reported where there is a report, the usual one elsewhere.
    assert hall.std_m(hall.train, "reported")[0].tolist() == [0.5, 1.0, 0.5]
    assert hall.std_m(hall.train).tolist() == [[1.0] * 3] * 6


def test_lias_holds_one_pose_for_training_and_names_the_tags(tmp_path: Path) -> None:
    day = load_dataset("lias", small_sets.lias(tmp_path))
    assert {*day.train.group} == {"3"}
    assert {*day.test.group} == {"1", "2"}
    assert day.test.user.tolist() == ["0", "1", "0", "1"]
    found = make_policy("rtt-wls").locate(day.ranges(day.test))
    # Ranges are rounded to a centimetre.
    origin = torch.tensor(day.ranges(day.test).origin_m)
    np.testing.assert_allclose((found.position[0] + 0 * origin).numpy(), day.test.truth_m, atol=0.02)


def test_hanyang_turns_are_epochs_and_truth_is_interpolated(tmp_path: Path) -> None:
    drive = load_dataset("hanyang", small_sets.hanyang(tmp_path))
    assert drive.name == "hanyang/Drive_1"
    assert drive.ap_names == ("A3", "A5", "A12")
    ranges = np.concatenate((drive.train.range_m, drive.test.range_m))
    assert ranges.shape == (8, 3)
    assert np.argwhere(np.isnan(ranges)).tolist() == [[3, 1]]
    # Turn k is 97 + 100 k ms after the start, its mean 2 ms later; 2 m/s along x.
    places = np.concatenate((drive.train.truth_m, drive.test.truth_m))
    np.testing.assert_allclose(places[:, 0], 0.198 + 0.2 * np.arange(8), atol=1e-5)
    np.testing.assert_allclose(places[:, 1], 5.0)
    known = distances_m(drive.ap_positions_m, places, 1.0)
    np.testing.assert_allclose(ranges[[0, 7]], known[[0, 7]], atol=0.01)


def test_tetam_has_heights_and_holes(tmp_path: Path) -> None:
    floor = load_dataset("tetam", small_sets.tetam(tmp_path))
    assert floor.user_height_m == 1.5
    assert floor.train.rss_dbm is not None
    np.testing.assert_array_equal(floor.train.rss_dbm, [[-60, -70, -71], [-72, -61, -75]])
    np.testing.assert_array_equal(floor.test.rss_dbm, [[-63, np.nan, -72.5]])
    powers = floor.powers(floor.test)
    np.testing.assert_allclose(powers.height_diff_m.numpy(), [[0.8] * 3], rtol=1e-6)


@pytest.mark.parametrize("zipped", [True, False])
def test_uji_from_the_zip_or_the_files(zipped: bool, tmp_path: Path) -> None:
    scans = load_dataset("uji", small_sets.uji(tmp_path, zipped))
    # 100 is "not heard"; 0 dBm cannot be and is left to whoever fits.
    np.testing.assert_array_equal(scans.train.rss_dbm, [[-60, np.nan], [0, -71]])
    np.testing.assert_array_equal(scans.test.truth_m, [[-7515.9, 4864889.6]])
    assert scans.train.floors is not None
    assert scans.train.floors.tolist() == ["2", "0"]
    survey = scans.survey(scans.test)
    assert survey.buildings == ("0",)


def test_epic_tones_ascend_without_those_that_hold_no_channel(tmp_path: Path) -> None:
    csi = load_dataset("epic", small_sets.epic(tmp_path))
    assert csi.ap_names == ("a", "b")
    assert csi.train.csi is not None
    assert np.isnan(csi.train.csi[0, 0]).all()
    np.testing.assert_array_equal(csi.train.csi[0, 1].real, [*range(-26, 0), *range(1, 27)])
    np.testing.assert_array_equal(csi.train.csi[1, 0].imag, np.ones(52))
    measured = csi.snapshots(csi.train)
    assert measured.valid[:, 0].tolist() == [[False, True], [True, False]]


def test_places_average_what_is_there(tmp_path: Path) -> None:
    floor = load_dataset("tetam", small_sets.tetam(tmp_path))
    twice = floor.train.select(np.array([0, 1, 0]))
    assert twice.rss_dbm is not None
    twice.rss_dbm[2] = [-64, np.nan, -71]
    places, which = twice.places()
    np.testing.assert_array_equal(places.rss_dbm, [[-62, -70, -71], [-72, -61, -75]])
    assert which.tolist() == [0, 1, 0]


def test_epochs_are_those_of_locate(tmp_path: Path) -> None:
    hall = load_dataset("haiyao", small_sets.haiyao(tmp_path))
    epochs = hall.train.epochs()
    assert len(epochs) == 6
    assert sorted(epochs.links) == ["range", "rss", "std"]
    np.testing.assert_array_equal(epochs.truth_m, hall.train.truth_m)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"unit_mm": 1e6}, r"ranges have a median of .* look like millimetres"),
        ({"per_step_m": 0.25}, r"fit all places best when these are multiplied by 0\.4.*grid steps, give metres"),
    ],
)
def test_another_unit_is_one_line(settings: dict[str, float], message: str, tmp_path: Path) -> None:
    small_sets.feng(tmp_path, **settings)
    with pytest.raises(ValueError, match=message) as caught:
        load_dataset("feng", tmp_path)
    assert "\n" not in str(caught.value)


def test_access_points_in_grid_steps_are_one_line(tmp_path: Path) -> None:
    small_sets.lias(tmp_path)
    anchors = (tmp_path / "anchors_day.csv").read_text(encoding="utf-8").replace("3.0,", "5.0,")
    (tmp_path / "anchors_day.csv").write_text(anchors, encoding="utf-8")
    with pytest.raises(ValueError, match=r"fit the access points' places best .* multiplied by 0\.[56]"):
        load_dataset("lias", tmp_path)


def test_the_same_offset_everywhere_is_no_other_unit() -> None:
    aps, places = np.array([[0.0, 0.0], [9.0, 0.0], [0.0, 8.0]]), np.random.default_rng(0).uniform(1, 7, (30, 2))
    ranges = distances_m(aps, places)
    ranges[3, 1] = np.nan
    check_places("own", aps, places, ranges + 20.0)
    with pytest.raises(ValueError, match=r"own: the ranges fit all places best .* multiplied by 0\.[56]"):
        check_places("own", aps / 0.6, places / 0.6, ranges)
    with pytest.raises(
        ValueError, match=r"own: the ranges fit the access points' places best .* multiplied by 0\.[56]"
    ):
        check_places("own", aps / 0.6, places, ranges)


@pytest.mark.parametrize(("episodes", "training"), [([4, 4, 7, 7, 9, 9, 4, 7], [0, 1, 6]), ([4] * 8, [0, 1])])
def test_the_first_recording_of_an_own_table_trains(episodes: list[int], training: list[int], tmp_path: Path) -> None:
    small_sets.write(tmp_path / "hall.csv", ["name,x_m,y_m", "a,0,0", "b,10,0", "c,0,10"])
    rows = [
        f"{episode},{1 + k},3,{np.hypot(1 + k, 3)},{np.hypot(9 - k, 3)},{np.hypot(1 + k, 7)}"
        for k, episode in enumerate(episodes)
    ]
    small_sets.write(tmp_path / "own.csv", ["episode,truth_x_m,truth_y_m,range_a,range_b,range_c", *rows])
    own = load_table(tmp_path / "own.csv", tmp_path / "hall.csv")
    assert own.train.truth_m[:, 0].tolist() == [1.0 + k for k in training]
    assert own.test.truth_m[:, 0].tolist() == [1.0 + k for k in range(8) if k not in training]


def _without(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "file", "old", "new", "message"),
    [
        ("feng", "database_hall_train.csv", "AP3 RSS(dBm)", "AP3 RSS", r"lacks the column AP3 RSS\(dBm\)"),
        ("feng", "database_hall_train.csv", "RTT(mm)", "RTT", r"has no column 'APn RTT\(mm\)'"),
        ("feng", "hall_AP_position.txt", "0,10,0,10", "0,10,0", "has no lines 'AP X:' and 'AP Y:' of equal length"),
        ("haiyao", "dataset_Hall.csv", "RTT std", "std", "lacks the column RTT std"),
        ("haiyao", "dataset_Hall.csv", "10,2,0,0", "10,2,0,1", "AP 10 stands at"),
        ("haiyao", "dataset_Hall.csv", ",6,", ",5,", "one lap"),
        ("lias", "static_day.csv", "range_a2_m", "range_2", "lacks the column range_a2_m"),
        ("hanyang", "Drive_1/A5.csv", "field.stamp", "stamp", "lacks the column field.stamp"),
        ("hanyang", "Drive_1/trajectory.csv", "timestamp", "t", "lacks the column timestamp"),
        ("tetam", "tracks_1s.csv", "rss_s02", "rss_s2", "lacks columns rss_ of s02"),
        ("tetam", "sensors.csv", "z_m", "z", "lacks the column z_m"),
    ],
)
def test_what_is_missing_is_one_line(name: str, file: str, old: str, new: str, message: str, tmp_path: Path) -> None:
    small_sets.WRITERS[name](tmp_path)
    _without(tmp_path / file, old, new)
    with pytest.raises(ValueError, match=message) as caught:
        load_dataset(name, tmp_path)
    assert "\n" not in str(caught.value)


def test_epic_without_an_array_or_with_other_tones(tmp_path: Path) -> None:
    small_sets.epic(tmp_path)
    with np.load(tmp_path / "test.npz") as file:
        arrays = dict(file)
    np.savez(tmp_path / "test.npz", **{**arrays, "iq": arrays["iq"][:, :56]})
    with pytest.raises(ValueError, match=r"iq has shape \(1, 56, 2\); it must be \[n, 64, 2\]"):
        load_dataset("epic", tmp_path)
    del arrays["ap"]
    np.savez(tmp_path / "test.npz", **arrays)
    with pytest.raises(ValueError, match=r"test\.npz lacks the array ap"):
        load_dataset("epic", tmp_path)


def test_names_and_folders(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"set='fenk' is not one of .*did you mean feng"):
        load_dataset("fenk", tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load_dataset("feng", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no files of the layout 'feng'"):
        load_dataset("feng", tmp_path)
    small_sets.tetam(tmp_path)
    with pytest.raises(ValueError, match=r"no scene 'set2'.*did you mean set1"):
        load_dataset("tetam/set2", tmp_path)
    (tmp_path / "survey_b.csv").write_text("x_m,y_m\n1,2\n", encoding="utf-8")
    with pytest.raises(ValueError, match="holds 2 scenes; choose tetam/b, tetam/set1"):
        load_dataset("tetam", tmp_path)
    floor = load_dataset("tetam/set1", tmp_path)
    with pytest.raises(ValueError, match="has no ranges"):
        floor.ranges(floor.test)
    with pytest.raises(ValueError, match="has no CSI"):
        floor.snapshots(floor.test)


# Folder, scene, epochs in training and test, and the size of a range's error over all test links.
SETS = [
    ("ftm_feng", "feng/lecture_theatre", 5280, 1920, 0.77),
    ("ftm_feng", "feng/office", 4860, 1620, 0.70),
    ("ftm_feng", "feng/corridor", 5100, 1740, 1.40),
    ("ftm_haiyao", "haiyao/CarPark", 2083, 2119, 0.93),
    ("ftm_haiyao", "haiyao/Library_every3rd", 537, 1939, 1.64),
    ("uwb_lias", "lias/8_14", 1908, 7785, 0.18),
    ("uwb_lias", "lias/8_20", 2103, 2304, 0.11),
    ("uwb_hanyang", "hanyang/LOS/Trajectory_B/Case_4", 496, 1486, 0.11),
    ("uwb_hanyang", "hanyang/NLOS/Trajectory_B/Case_3", 430, 1289, 0.19),
]


@small_sets.with_sets
@pytest.mark.parametrize(("folder", "name", "train", "test", "error_m"), SETS)
def test_published_ranges_fit_their_places(folder: str, name: str, train: int, test: int, error_m: float) -> None:
    measured = load_dataset(name, small_sets.MEASURED / folder)
    assert (len(measured.train), len(measured.test)) == (train, test)
    assert measured.test.range_m is not None
    assert measured.ap_positions_m is not None
    off = measured.test.range_m - distances_m(measured.ap_positions_m, measured.test.truth_m, measured.user_height_m)
    # Computed here once; another frame, unit or order of access points would make it metres.
    assert np.nanmedian(np.abs(off)) == pytest.approx(error_m, abs=0.01)


@small_sets.with_sets
def test_published_powers_and_csi() -> None:
    floor = load_dataset("tetam", small_sets.MEASURED / "ble_tetam")
    assert (len(floor.train), len(floor.test), len(floor.ap_names)) == (81, 698, 12)
    csi = load_dataset("epic", small_sets.MEASURED / "csi_epic")
    assert csi.test.csi is not None
    assert csi.test.csi.shape == (984, 6, 52)
    # Every packet is heard by one access point, and no tone that is kept is silent.
    assert (np.isfinite(csi.test.csi).all(axis=2).sum(axis=1) == 1).all()
    size = np.abs(csi.test.csi[np.isfinite(csi.test.csi).all(axis=2)])
    typical = np.median(size / np.sqrt((size**2).mean(axis=1, keepdims=True)), axis=0)
    assert 0.3 < typical.min() < typical.max() < 3.0
    assert scenes("uji", small_sets.MEASURED / "uji") == ("all",)
