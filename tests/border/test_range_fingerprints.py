"""Fingerprints of measured distances, alone and beside powers; surveys judged on places that were held out."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from baselines import Fingerprint, make_policy
from baselines.dcp.held_out import held_out, parts_of
from cfpos_envs.files.surveys import SurveyTable, read_survey

APS = np.array([[0.0, 0], [20, 0], [0, 20], [20, 20]])
PLACES = np.array([[x, y] for x in range(0, 21, 2) for y in range(0, 21, 2)], float)
FENG = (
    "X,Y,AP1 RTT(mm),AP2 RTT(mm),AP1 RSS(dBm),AP2 RSS(dBm),LOS APs\n"
    "0,0,1000,9000,-50,-70,1 2\n"
    "0,0,1200,100000,-52,-200,1\n"
    "10,5,8000,2000,-72,-48,2\n"
)
MEASURED = Path(__file__).resolve().parents[3] / "shared" / "measured" / "ftm_feng"


def ranges(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, None] - APS, axis=2)


def powers(points: np.ndarray) -> np.ndarray:
    return -40 - 30 * np.log10(ranges(points) + 1)


def test_ranges_alone_find_the_nearest_place_by_the_sum_of_differences() -> None:
    estimator = Fingerprint.from_survey(PLACES, ranges=ranges(PLACES), matching="nn")
    assert estimator.options.feature == "range"
    assert estimator.options.metric == "manhattan"
    users = np.random.default_rng(0).uniform(0, 20, (50, 2))
    asked = ranges(users) + np.random.default_rng(1).normal(0, 0.3, (50, 4))
    # One link without line of sight: 6 m too long.
    asked[:, 2] += 6.0
    best = np.abs(asked[:, None] - ranges(PLACES)[None]).sum(axis=2).argmin(axis=1)
    np.testing.assert_array_equal(estimator.locate(None, ranges=asked).position.numpy(), PLACES[best])
    np.testing.assert_array_equal(estimator.locate({"ranges": asked}).position.numpy(), PLACES[best])


def test_powers_beside_ranges_count_as_many_metres_as_the_scale_says() -> None:
    places = np.array([[0.0, 0.0], [10.0, 0.0]])
    surveyed, rss = np.array([[4.0], [6.0]]), np.array([[-60.0], [-68.0]])

    def found(db_per_m: float) -> float:
        estimator = Fingerprint.from_survey(places, rss, ranges=surveyed, neighbours=2, db_per_m=db_per_m)
        assert estimator.options.feature == "rss-range"
        return float(estimator.locate([[-66.0]], ranges=[[4.5]]).position[0, 0])

    # Distances .5 + 6 / s and 1.5 + 2 / s; the mean with weights 1 / distance.
    for scale in (2.0, 4.0, 8.0):
        near, far = 0.5 + 6 / scale, 1.5 + 2 / scale
        assert found(scale) == pytest.approx(10.0 * (1 / far) / (1 / near + 1 / far))


def test_an_exchange_that_failed_says_nothing() -> None:
    surveyed = ranges(PLACES)
    surveyed[0, 3] = math.nan
    estimator = Fingerprint.from_survey(PLACES, powers(PLACES), ranges=surveyed, matching="nn")
    asked, heard = ranges(PLACES[60:61]), powers(PLACES[60:61])
    asked[0, 1] = heard[0, 1] = math.nan
    np.testing.assert_array_equal(estimator.locate(heard, ranges=asked).position[0].numpy(), PLACES[60])
    nothing = np.full((1, 4), math.nan)
    assert not bool(estimator.locate(nothing, ranges=nothing).valid[0])


def test_a_file_of_grid_steps_and_millimetres(tmp_path: Path) -> None:
    path = tmp_path / "database_train.csv"
    path.write_text(FENG)
    table = read_survey(path, "ftm-feng")
    assert table.ap_names == ("AP1", "AP2")
    np.testing.assert_allclose(table.positions_m, [[0, 0], [0, 0], [6, 3]])
    np.testing.assert_allclose(table.range_m, [[1, 9], [1.2, math.nan], [8, 2]])
    np.testing.assert_allclose(table.rss_dbm, [[-50, -70], [-52, math.nan], [-72, -48]])
    estimator = Fingerprint.from_csv(path, layout="ftm-feng", neighbours=1)
    assert estimator._own is not None
    # The mean of those exchanges that worked: a failed one is not a far one.
    np.testing.assert_allclose(
        estimator._own.database.rss_dbm, [[-51 / 8, -70 / 8, -1.1, -9], [-72 / 8, -48 / 8, -8, -2]]
    )
    (tmp_path / "own.csv").write_text("x_m,y_m,range_door,range_wall\n0,0,100,900\n6,3,800,\n")
    own = read_survey(tmp_path / "own.csv", range_unit="cm")
    np.testing.assert_allclose(own.range_m, [[1, 9], [8, math.nan]])
    assert np.isnan(own.rss_dbm).all()
    assert Fingerprint.from_csv(tmp_path / "own.csv", range_unit="cm", neighbours=1).options.feature == "range"


def test_what_cannot_be_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ranges have a median of 1.\d+e\+04 m; give metres, or say range_unit='mm'"):
        Fingerprint.from_survey(PLACES, ranges=1000 * ranges(PLACES))
    with pytest.raises(ValueError, match="neither rss nor ranges are given"):
        Fingerprint.from_survey(PLACES)
    with pytest.raises(ValueError, match=r"ranges has shape \(121, 3\); it must be \[121, 4\]"):
        Fingerprint.from_survey(PLACES, powers(PLACES), ranges=ranges(PLACES)[:, :3])
    with pytest.raises(
        ValueError, match="feature 'range' compares ranges but the survey has none; add columns range_<ap>"
    ):
        Fingerprint.from_survey(PLACES, powers(PLACES), feature="range")
    with pytest.raises(
        ValueError, match="feature 'rss-db' compares powers but the survey has none; use feature='range'"
    ):
        Fingerprint.from_survey(PLACES, ranges=ranges(PLACES), feature="rss-db")
    with pytest.raises(ValueError, match="this estimator compares ranges; give ranges"):
        Fingerprint.from_survey(PLACES, powers(PLACES), ranges=ranges(PLACES)).locate(powers(PLACES))
    with pytest.raises(ValueError, match="fusion='median' takes one reading per AP"):
        make_policy("fingerprint", feature="rss-range", fusion="median")
    with pytest.raises(ValueError, match="range_unit='yd' is not one of m, cm, mm"):
        make_policy("fingerprint", range_unit="yd")


def table_of(devices: tuple[str, ...] | None) -> SurveyTable:
    """Two scans of every place; the second of another device, 10 dB weaker."""
    places = np.repeat(PLACES, 2, axis=0)
    rss = powers(places) - 10.0 * (np.arange(len(places)) % 2)[:, None]
    floors = tuple("low" if x < 10 else "high" for x in places[:, 0])
    rows = tuple(f"row {row}" for row in range(len(places)))
    return SurveyTable("made", rows, ("a", "b", "c", "d"), rss, places, floors=floors, devices=devices)


def test_no_scan_is_located_from_its_own_place_or_device() -> None:
    estimate = held_out(table_of(None), folds=5, matching="nn")
    truth = np.repeat(PLACES, 2, axis=0)
    errors = np.linalg.norm(estimate.position.numpy() - truth, axis=1)
    assert bool(estimate.valid.all())
    # The nearest other place is 2 m away, and none is its own.
    assert errors.min() >= 2.0 - 1e-9
    assert np.median(errors) <= 4.0
    floors = estimate.floors
    assert floors is not None
    assert np.mean([one == other for one, other in zip(floors, table_of(None).floors or ())]) > 0.8
    named = held_out(table_of(("old", "new") * len(PLACES)), folds=5, matching="nn")
    # Now the 10 dB between the devices count, too.
    apart = np.linalg.norm(named.position.numpy() - truth, axis=1)
    assert apart.mean() > 1.1 * errors.mean()


def test_parts_keep_equal_rows_together_and_are_drawn_by_the_seed() -> None:
    values = np.repeat(np.arange(30)[:, None], 3, axis=0)
    part = parts_of(values, 5, np.random.default_rng(0))
    assert part is not None
    assert (part.reshape(30, 3) == part.reshape(30, 3)[:, :1]).all()
    assert np.bincount(part).tolist() == [18] * 5
    assert parts_of(values[:6], 3, np.random.default_rng(0)) is None
    with pytest.raises(ValueError, match="made has fewer than 200 places; hold out fewer parts"):
        held_out(table_of(None), folds=200)
    with pytest.raises(ValueError, match="folds"):
        held_out(table_of(None), folds=1)


@pytest.mark.skipif(not MEASURED.is_dir(), reason="the measured sets do not lie beside the checkout")
@pytest.mark.parametrize("room", ["lecture_theatre", "office", "corridor"])
def test_range_fingerprints_of_the_rooms(room: str) -> None:
    names = [MEASURED / f"database_{room}_{part}.csv" for part in ("train", "test")]
    scans = read_survey(names[1], "ftm-feng")
    found = Fingerprint.from_csv(names[0], layout="ftm-feng").score(scans)
    # Two scans of the office are like nothing surveyed.
    assert found.answered >= 0.998
    assert found.median_m <= 0.7
    assert found.p90_m <= 1.4
