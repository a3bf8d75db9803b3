"""Stated uncertainties beside errors: shares in regions by hand, rank correlation, tables, files, pictures."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from cfpos_envs.coverage import format_coverage, groups, judged, of_evaluation, row
from cfpos_envs.drawing.coverage import coverage_figure
from cfpos_envs.files.positions import Positions
from cfpos_envs.measurements.base import PositionEstimate
from cfpos_envs.measurements.regions import gaussian_radii
from cfpos_envs.results import EvaluationResult


def result(**changes: object) -> EvaluationResult:
    """Four users 1, 2, 3 and 4 m off along x; stated deviations of 1, 1, 2 and 4 m there, next to none elsewhere."""
    away = np.zeros((4, 1, 3))
    away[:, 0, 0] = (1, 2, 3, 4)
    covariance = np.zeros((4, 1, 3, 3)) + 1e-12 * np.eye(3)
    covariance[:, 0, 0, 0] = np.square((1, 1, 2, 4))
    base = EvaluationResult(
        "p", "e", {}, 0, np.linalg.norm(away, axis=-1), None, None, 1.0, None, 1.0, 1.0, 0.0,
        positions_m=away, covariance_m2=covariance, valid=np.ones((4, 1), dtype=bool), truth_m=np.zeros((4, 1, 3)),
        radii=np.tile((1.2, 1.6), (4, 1, 1)), in_sight=np.array([[0], [2], [2], [2]]),
    )  # fmt: skip
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def test_shares_in_regions_by_hand() -> None:
    known = of_evaluation(result())
    assert known is not None
    found, in_sight = known
    assert found.length.tolist() == pytest.approx([1.0, 2.0, 1.5, 1.0])
    assert found.inside.tolist() == [0.5, 0.75]
    # Ranks 1.5, 1.5, 3, 4 beside 1, 2, 3, 4: Pearson of these is sqrt(0.9).
    assert found.rank_correlation == pytest.approx(math.sqrt(0.9))
    parts = dict(groups(found, in_sight))
    assert list(parts) == ["all", "0 in sight", "2 in sight"]
    assert parts["2 in sight"].inside.tolist() == pytest.approx([1 / 3, 2 / 3])
    assert row(parts["2 in sight"])["mean_error_m"] == 3.0
    assert math.isnan(parts["0 in sight"].rank_correlation)


def test_without_radii_regions_are_those_of_a_gaussian() -> None:
    # chi^2 of two degrees of freedom: -2 log(1 - p).
    assert gaussian_radii(2).tolist() == pytest.approx([math.sqrt(2 * math.log(2)), math.sqrt(2 * math.log(10))])
    away = np.random.default_rng(0).normal(size=(4000, 2))
    for radii in (None, np.full((4000, 2), np.nan)):
        assert judged(away, np.tile(np.eye(2), (4000, 1, 1)), radii).inside == pytest.approx([0.5, 0.9], abs=0.03)


def test_answers_that_are_not_valid_do_not_count() -> None:
    known = of_evaluation(result(valid=np.array([[True], [False], [True], [True]])))
    assert known is not None
    assert known[0].inside.tolist() == pytest.approx([2 / 3, 1.0])
    assert of_evaluation(result(valid=np.zeros((4, 1), dtype=bool))) is None
    assert of_evaluation(result(covariance_m2=None)) is None
    assert of_evaluation(result(config={"wrap": True})) is None


def test_table_and_picture_say_it_by_stations_in_sight() -> None:
    lines = format_coverage([result()]).splitlines()
    assert lines[0].split() == "stated uncertainty users mean error stated in 50 % in 90 % rank corr.".split()  # noqa: SIM905
    assert lines[2].split() == ["p", "4", "2.500", "1.500", "50.0%", "75.0%", "0.95"]
    assert lines[4].split() == ["2", "in", "sight", "3", "3.000", "2.000", "33.3%", "66.7%", "1.00"]
    figure = coverage_figure([result(), result(policy="silent", covariance_m2=None)])
    assert figure is not None
    assert len(figure.axes) == 3
    plain = coverage_figure([result(in_sight=None)])
    assert plain is not None
    assert len(plain.axes) == 2
    assert format_coverage([result(covariance_m2=None)]) == ""
    assert coverage_figure([result(covariance_m2=None)]) is None


def test_files_keep_regions_and_sight_and_may_lack_them(tmp_path: Path) -> None:
    path = result().to_json(tmp_path / "new.json")
    again = EvaluationResult.from_json(path)
    assert again.radii is not None
    assert again.in_sight is not None
    assert again.radii.tolist() == result().radii.tolist()  # type: ignore[union-attr]
    assert again.in_sight.tolist() == [[0], [2], [2], [2]]
    content = json.loads(path.read_text())
    del content["radii"], content["in_sight"]
    path.write_text(json.dumps(content))
    older = EvaluationResult.from_json(path)
    assert older.radii is None
    assert older.in_sight is None


@pytest.mark.parametrize("ending", ["csv", "npz"])
def test_tables_of_positions_keep_radii(tmp_path: Path, ending: str) -> None:
    table = Positions.from_evaluation(result())
    again = Positions.read(table.write(tmp_path / f"positions.{ending}"))
    assert again.radii is not None
    assert again.radii.tolist() == [[1.2, 1.6]] * 4
    estimate = PositionEstimate(
        torch.zeros(2, 1, 3), None, torch.ones(2, 1, dtype=torch.bool), radii=torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]])
    )
    assert Positions.from_estimate(estimate).radius_90 is not None
    assert Positions.from_estimate(estimate).radius_90.tolist() == [2.0, 4.0]  # type: ignore[union-attr]
    # Beside a policy that states none, the column is empty there.
    joined = Positions.joined([table, Positions.from_evaluation(result(radii=None, policy="q"))])
    assert joined.radius_50 is not None
    assert np.isnan(joined.radius_50[4:]).all()
