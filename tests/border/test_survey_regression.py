"""Gaussian-process regression over an own survey: left-out error, covariance, and whether it says that it fails."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch

from baselines import Fingerprint, make_policy
from baselines.dcp.gpr import FittedProcess
from baselines.dcp.survey_regression import left_out_error_of_neighbours_m

APS = np.array([[0.0, 0], [20, 0], [0, 20], [20, 20]])
PLACES = np.array([[x, y] for x in range(0, 21, 4) for y in range(0, 21, 4)], float)


def ranges(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, None] - APS, axis=2)


def test_left_out_error_is_that_of_fits_without_each_reference() -> None:
    places, features = torch.tensor(PLACES[:12]), torch.tensor(ranges(PLACES[:12]))
    process = FittedProcess("rss-db", 1.0, False, 12)
    process.fit(places, features, torch.ones(12, 4, 1))
    regression = process._by_aps[process._all]
    kernel, inputs = regression.process.kernel_, regression.process.X_train_
    mean = PLACES[:12].mean(axis=0)
    missed = []
    for row in range(12):
        others = np.arange(12) != row
        weights = np.linalg.solve(kernel(inputs[others]) + 1e-10 * np.eye(11), PLACES[:12][others] - mean)
        signal = kernel(inputs[row : row + 1], inputs[others])
        missed.append(PLACES[row] - mean - (signal @ weights)[0])
    assert process.left_out_error_m() == pytest.approx(np.sqrt(np.square(missed).sum(axis=1).mean()), rel=1e-4)


def test_left_out_error_of_neighbours_by_hand() -> None:
    features, places = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0]])
    # Nearest others: 1 m, 1 m and 2 m away; all others: (1/1 + 3/3) / (4/3), (0/1 + 3/2) / (3/2), (0/3 + 1/2) / (5/6).
    assert left_out_error_of_neighbours_m(features, places, 1) == pytest.approx(math.sqrt(6 / 3))
    assert left_out_error_of_neighbours_m(features, places, 4) == pytest.approx(
        math.sqrt((1.5**2 + 0.0 + (3 - 0.6) ** 2) / 3)
    )


def test_a_smooth_survey_is_interpolated_and_the_covariance_says_how_well() -> None:
    rng = np.random.default_rng(0)
    surveyed = ranges(PLACES) + rng.normal(0, 0.2, (len(PLACES), 4))
    users = rng.uniform(2, 18, (200, 2))
    asked = ranges(users) + rng.normal(0, 0.2, (200, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        process = Fingerprint.from_survey(PLACES, ranges=surveyed, matching="gpr")
    found, nearest = process.locate(None, ranges=asked), Fingerprint.from_survey(PLACES, ranges=surveyed)
    error = found.position.numpy() - users
    near = np.linalg.norm(nearest.locate(None, ranges=asked).position.numpy() - users, axis=1)
    assert np.linalg.norm(error, axis=1).mean() < 0.6 * near.mean()
    assert found.covariance is not None
    squared = np.einsum("qi,qij,qj->q", error, np.linalg.inv(found.covariance.numpy()), error)
    # Of 200 users 95 % at chi squared 5.99 with two degrees of freedom; three standard deviations of that count.
    assert 0.90 <= (squared < 5.99).mean() <= 1.0
    asked[:, 1] = math.nan
    fewer = process.locate(None, ranges=asked)
    assert bool(fewer.valid.all())
    assert np.linalg.norm(fewer.position.numpy() - users, axis=1).mean() < 2.0


def test_a_corridor_is_known_along_and_not_across() -> None:
    places = np.array([[x, y] for x in np.arange(0.0, 30.0, 1.0) for y in (0.0, 1.0)])
    rng = np.random.default_rng(1)
    along = np.abs(places[:, :1] - np.array([[0.0, 30.0]])) + rng.normal(0, 0.3, (60, 2))
    estimator = Fingerprint.from_survey(places, ranges=along, matching="gpr")
    covariance = estimator.locate(None, ranges=along).covariance
    assert covariance is not None
    assert float(covariance[:, 0, 0].sqrt().median()) < 0.4
    assert 0.35 < float(covariance[:, 1, 1].sqrt().median()) < 0.8
    assert float(covariance[:, 0, 1].abs().max()) == 0.0


def test_a_survey_that_it_does_not_fit_is_told() -> None:
    rng = np.random.default_rng(2)
    noise = -rng.uniform(40, 90, (36, 4))
    with pytest.warns(UserWarning, match=r"gpr does not fit this survey: .*, (their 4 nearest|the middle of all) "):
        Fingerprint.from_survey(PLACES, noise, matching="gpr")


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(ValueError, match="matching='gpr' regresses powers and ranges of all APs at once"):
        make_policy("fingerprint", feature="joint-db", matching="gpr")
    with pytest.raises(ValueError, match="restarts=-1 must be at least 0"):
        make_policy("gpr", restarts=-1)
    with pytest.raises(ValueError, match="matching='gpr' takes 4000 references, the survey has 4001"):
        Fingerprint.from_survey(np.random.default_rng(0).random((4001, 2)), np.full((4001, 1), -50.0), matching="gpr")
