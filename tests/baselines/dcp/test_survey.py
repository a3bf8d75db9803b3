"""A person's own survey: positions found without any environment, mistakes named in one line."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from baselines import Fingerprint, make_policy
from baselines.dcp.survey import survey_from_csv
from tests.baselines.dcp.synthetic import draw_drops

POSITIONS = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0], [5.0, 5.0]])
ANCHORS = np.array([[0.0, 0.0], [10.0, 0.0], [3.0, 12.0]])
BEAMS = 4


def rss_at(points: np.ndarray) -> np.ndarray:
    distance = np.linalg.norm(points[:, None] - ANCHORS[None], axis=-1)
    return -40.0 - 30.0 * np.log10(distance + 1.0)


def aoa_at(points: np.ndarray) -> np.ndarray:
    vectors = points[:, None] - ANCHORS[None]
    angle = np.arctan2(vectors[..., 1], vectors[..., 0])
    return 1.1 + np.cos(angle[..., None] - np.arange(BEAMS) * math.pi / 2)


def write_csv(path: Path, header: str, rows: list[str]) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_every_surveyed_point_is_found_again() -> None:
    rss, aoa = rss_at(POSITIONS), aoa_at(POSITIONS)
    for estimator, arguments in (
        (Fingerprint.from_survey(POSITIONS, rss), ({"rss": rss},)),
        (Fingerprint.from_survey(POSITIONS, rss, aoa), ({"rss": rss, "aoa": aoa},)),
        (Fingerprint.from_survey(POSITIONS, rss, aoa, feature="aoa", matching="nn"), (rss, aoa)),
        (Fingerprint.from_survey(POSITIONS, rss, feature="rss-linear"), (rss,)),
    ):
        estimate = estimator.locate(*arguments)
        np.testing.assert_allclose(estimate.position.numpy(), POSITIONS, atol=1e-2)
        assert estimate.valid.all()


def test_weights_pull_towards_the_more_similar_point() -> None:
    # All five neighbours count, so that with even weights the answer would be the middle, (5, 5).
    near = np.array([[9.0, 9.0]])
    estimate = Fingerprint.from_survey(POSITIONS, rss_at(POSITIONS), neighbours=5).locate(rss_at(near)[0])
    assert estimate.position.shape == (1, 2)
    x, y = estimate.position[0].tolist()
    assert x > 6.5
    assert y > 6.5


def test_users_nobody_heard_are_invalid_and_finite() -> None:
    rss = rss_at(POSITIONS)
    rss[1, 0] = math.nan
    rss[2] = math.nan
    estimate = Fingerprint.from_survey(POSITIONS, rss_at(POSITIONS), matching="nn").locate(rss)
    assert estimate.valid.tolist() == [True, True, False, True, True]
    assert np.isfinite(estimate.position.numpy()).all()
    np.testing.assert_allclose(estimate.position[1].numpy(), POSITIONS[1])


def test_csv_with_and_without_spectra(tmp_path: Path) -> None:
    rss, aoa = rss_at(POSITIONS), aoa_at(POSITIONS)
    names = ["north_1", "south", "w"]
    header = ["x_m", "y_m", *(f"rss_{n}" for n in names), *(f"aoa_{n}_{b}" for n in names for b in range(BEAMS))]
    table = np.hstack([POSITIONS, rss, aoa.reshape(len(aoa), -1)])
    rows = [",".join(f"{value:.9g}" for value in row) for row in table]
    full = Fingerprint.from_csv(write_csv(tmp_path / "full.csv", ",".join(header), rows))
    assert full.options.feature == "joint-db"
    np.testing.assert_allclose(full.locate(rss, aoa=aoa).position.numpy(), POSITIONS, atol=1e-3)
    short = write_csv(tmp_path / "rss.csv", ",".join(header[:5]), [",".join(row.split(",")[:5]) for row in rows])
    only_rss = Fingerprint.from_csv(short)
    assert only_rss.options.feature == "rss-db"
    np.testing.assert_allclose(only_rss.locate(rss).position.numpy(), POSITIONS, atol=1e-3)
    assert survey_from_csv(short).angular_power is None


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("x_m,y_m,rss_a", ["1,2,-50", "3,4"], r"line 3: 2 columns, the header has 3"),
        ("x_m,y_m,rss_a", ["1,2,-50,7"], r"line 2: 4 columns"),
        ("x_m,rss_a", ["1,-50"], r"lacks the column y_m"),
        ("x_m,y_m", ["1,2"], r"no column rss_<ap>"),
        ("x_m,y_m,rss_a,power", ["1,2,-50,3"], r"unknown column 'power'.*None\} passes it over"),
        ("x_m,y_m,rss_a,rss_a", ["1,2,-50,3"], r"names the column 'rss_a' twice"),
        ("x_m,y_m,rss_a", ["1,2,nan"], r"no AP was heard anywhere"),
        ("x_m,y_m,rss_a", ["1,2,-50", "1,2,100"], r"100 \(bad.csv, line 3, AP a\).*say not_heard=100"),
        ("x_m,y_m,rss_a", ["1,2,-50", "1,,-50"], r"1 positions have NaN or infinite.*bad.csv, line 3"),
        ("x_m,y_m,rss_a", ["1,inf,-50"], r"1 positions have NaN or infinite"),
        ("x_m,y_m,rss_a", ["1,2,loud"], r"line 2, column rss_a: 'loud' is not a number"),
        ("x_m,y_m,rss_a", [], r"no data"),
        ("x_m,y_m,rss_a,rss_b,aoa_a_0,aoa_a_1,aoa_b_0", ["1,2,-50,-50,1,1,1"], r"aoa columns do not fit, see aoa_b_1"),
        ("x_m,y_m,rss_a,aoa_a_0,aoa_a_1", ["1,2,-50,-3,1"], r"must be linear power, not dB"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path: Path, header: str, rows: list[str], message: str) -> None:
    path = write_csv(tmp_path / "bad.csv", header, rows)
    with pytest.raises(ValueError, match=message) as caught:
        Fingerprint.from_csv(path)
    assert "bad.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": POSITIONS[:, :1]}, r"positions has shape \(5, 1\)"),
        ({"positions": np.empty((0, 2)), "rss": np.empty((0, 3))}, r"P >= 1"),
        ({"rss": rss_at(POSITIONS)[:4]}, r"rss has shape \(4, 3\); it must be \[5, M\]"),
        ({"aoa": aoa_at(POSITIONS)[:, :2]}, r"aoa has shape \(5, 2, 4\); it must be \[5, 3, L\]"),
        ({"aoa": np.zeros((5, 3, 4))}, r"all zero"),
        ({"rss": [[1.0, 2.0], [3.0]]}, r"rss is not a rectangular array"),
        ({"feature": "joint-db"}, r"feature 'joint-db' needs spectra"),
        ({"neighbours": 6}, r"6 neighbours from 5 points"),
        ({"neighbors": 3}, r"unknown option 'neighbors'.*did you mean neighbours"),
    ],
)
def test_mistakes_in_arrays_are_named(change: dict, message: str) -> None:
    arguments = {"positions": POSITIONS, "rss": rss_at(POSITIONS), **change}
    with pytest.raises(ValueError, match=message):
        Fingerprint.from_survey(**arguments)


def test_mistakes_in_queries_are_named() -> None:
    estimator = Fingerprint.from_survey(POSITIONS, rss_at(POSITIONS), aoa_at(POSITIONS))
    with pytest.raises(ValueError, match=r"it must be \[K, 3\]"):
        estimator.locate(np.zeros((2, 4)))
    with pytest.raises(ValueError, match="give aoa"):
        estimator.locate(rss_at(POSITIONS))
    with pytest.raises(ValueError, match=r"aoa has shape \(5, 3, 2\); it must be \(5, 3, 4\)"):
        estimator.locate(rss_at(POSITIONS), aoa=np.ones((5, 3, 2)))
    with pytest.raises(ValueError, match="it must have 'rss'"):
        estimator.locate({"power": rss_at(POSITIONS)})


def test_a_survey_of_other_aps_is_refused_in_an_environment(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "s.csv", "x_m,y_m,rss_a", [f"{i},1,{-50 - i}" for i in range(6)])
    policy = make_policy("fingerprint", survey=str(path), feature="rss-db")
    with pytest.raises(ValueError, match="AP 'a' is none of the game's, which are 0 to 8"):
        policy.locate(draw_drops(1, seed=0, num_aps=9, num_ues=1, num_sites=1).measurements)
