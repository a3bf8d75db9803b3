"""What ``valid`` and covariances of answers from surveys are worth: left-out places, strange measurements, games."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from cfpos import Fingerprint, make_env, make_policy
from cfpos.baselines.neighbour_errors import ErrorModel, Neighbourhood, nearest_spacing_m, probes, spread_m2
from cfpos_envs.measurements.base import PositionEstimate, Reason

USERS = 1000
PLACES = np.stack(np.meshgrid(np.arange(2.5, 100, 5), np.arange(2.5, 100, 5)), -1).reshape(-1, 2)
NUM_APS, LIMIT_DBM, NOISE_DB = 30, -98.0, 2.0


def censored(points: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Whole dBm of 30 APs in 100 m x 100 m, NaN below the detection limit."""
    aps = np.random.default_rng(0).uniform(0, 100, (NUM_APS, 2))
    rss = -40.0 - 35.0 * np.log10(np.linalg.norm(points[:, None] - aps, axis=2) + 1.0)
    rss = (rss + draw.normal(0, NOISE_DB, rss.shape)).round()
    return np.where(rss > LIMIT_DBM, rss, math.nan)


def surveyed(**options: Any) -> Fingerprint:
    return Fingerprint.from_survey(PLACES, censored(PLACES, np.random.default_rng(1)), **options)


def squared_by_covariance(estimate: PositionEstimate, truth: np.ndarray) -> torch.Tensor:
    away = estimate.position.double() - torch.as_tensor(truth, dtype=torch.float64)
    assert estimate.covariance is not None
    return (away * torch.linalg.solve(estimate.covariance.double(), away.unsqueeze(-1)).squeeze(-1)).sum(dim=-1)


def wrong(estimate: PositionEstimate, truth: np.ndarray) -> torch.Tensor:
    """Off by more than five standard deviations."""
    away = estimate.position.double() - torch.as_tensor(truth, dtype=torch.float64)
    assert estimate.covariance is not None
    variance = estimate.covariance.double().diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    return away.square().sum(dim=-1) > 25 * variance


def test_the_model_by_hand() -> None:
    # Strangeness 0, 1/1000, ..., 1: median .5, 95 % at .95, tail to 1e-4: .5 + .45 log(5000) / log(10).
    strangeness = torch.linspace(0, 1, 1001, dtype=torch.float64)
    spread = torch.diag(torch.tensor([4.0, 0.0], dtype=torch.float64)).expand(1001, 2, 2)
    model = ErrorModel.of(Neighbourhood(spread, strangeness), torch.zeros(1001, 2), torch.full((3,), 6.0))
    assert model is not None
    assert model.floor_m2 == pytest.approx(3.0)
    assert model.usual == pytest.approx(0.9)
    assert model.most == pytest.approx(0.5 + 0.45 * math.log(5000) / math.log(10))
    asked = Neighbourhood(spread[:2], torch.tensor([0.3, 1.8], dtype=torch.float64))
    # Half of the spread as it is, half of it even: diag(2 + 1, 0 + 1) + 3; twice as strange as usual: four times.
    by_hand = ErrorModel(3.0, 0.5, 0.9, 1.0).covariance_m2(asked)
    np.testing.assert_allclose(by_hand, [np.diag([3.0, 2.0]), np.diag([12.0, 8.0])])
    assert ErrorModel(3.0, 0.5, 0.9, 1.0).strange(asked).tolist() == [False, True]


def test_gaussian_errors_give_their_covariance_back() -> None:
    draw = torch.Generator().manual_seed(0)
    error = 3.0 * torch.randn(4000, 2, generator=draw, dtype=torch.float64)
    known = Neighbourhood(torch.eye(2, dtype=torch.float64).expand(4000, 2, 2), torch.zeros(4000))
    model = ErrorModel.of(known, error, torch.zeros(1))
    assert model is not None
    # Quantiles of 4000 draws: 2.5 % off in standard deviation.
    assert float(model.covariance_m2(known)[0, 0, 0]) == pytest.approx(9.0, rel=0.1)
    assert ErrorModel.of(known.select(slice(7)), error[:7], torch.zeros(1)) is None


def test_spread_and_spacing_by_hand() -> None:
    offsets = torch.tensor([[[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0], [9.0, 9.0]]])
    weights = torch.tensor([[0.5, 0.5, 0.0, 0.0, 0.0]])
    # Weighted: diag(1, 0); of the four nearest: diag(.5, 2); their mean.
    np.testing.assert_allclose(spread_m2(offsets, weights)[0], [[0.75, 0.0], [0.0, 1.0]])
    places = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 99.0]])
    assert nearest_spacing_m(places).tolist() == pytest.approx([5.0, 5.0, math.hypot(3, 95)])
    assert nearest_spacing_m(places, 100.0, True).tolist() == pytest.approx([1.0, 5.0, 1.0])
    assert probes(5).tolist() == [0, 1, 2, 3, 4]
    assert len(probes(5000).unique()) == 1024


@pytest.mark.parametrize(
    "options",
    [{}, {"matching": "nn"}, {"feature": "powed", "distance": "sorensen"}],
    ids=["wknn", "nn", "powed"],
)
def test_right_answers_stay_valid_and_their_errors_are_as_stated(options: dict[str, Any]) -> None:
    draw = np.random.default_rng(2)
    users = draw.uniform(0.0, 100.0, (USERS, 2))
    estimate = surveyed(**options).locate(censored(users, draw))
    off = wrong(estimate, users)
    assert int((estimate.valid & off).sum()) <= 2
    assert float(estimate.valid[~off].double().mean()) >= 0.99
    squared = squared_by_covariance(estimate, users)
    # 2 ln 2 and 2 ln 10: half and nine tenths of a Gaussian. A place left out has a hole around it, so that users
    # between the places do a little better.
    assert 0.5 < float((squared < 1.386).double().mean()) < 0.72
    assert 0.88 < float((squared < 4.605).double().mean()) < 0.98


def test_measurements_that_are_like_nothing_surveyed_are_not_believed() -> None:
    draw = np.random.default_rng(3)
    estimator = surveyed()
    users = draw.uniform(0.0, 100.0, (USERS, 2))
    shuffled = censored(users, draw)[:, draw.permutation(NUM_APS)]
    around = draw.uniform(-40.0, 140.0, (20 * USERS, 2))
    away = np.maximum(-around, around - 100.0).max(axis=1)
    far = around[(away > 20.0) & (away < 40.0)][:USERS]
    heard = censored(far, draw)
    some = np.isfinite(heard).any(axis=1)
    for rss, truth, share in ((shuffled, users, 0.05), (heard[some], far[some], 0.03)):
        estimate = estimator.locate(rss)
        assert float((estimate.valid & wrong(estimate, truth)).double().mean()) < share
        assert float(estimate.valid.double().mean()) < 3 * share
        reasons = set(estimate.reason.tolist()) if estimate.reason is not None else set()
        assert reasons == {Reason.VALID, Reason.UNFAMILIAR}


def test_repeated_scans_of_a_place_do_not_vouch_for_each_other() -> None:
    scans = np.concatenate([censored(PLACES, np.random.default_rng(seed)) for seed in (1, 2)])
    twice = np.concatenate([PLACES, PLACES])
    kept = Fingerprint.from_survey(twice, scans, repeated="keep")._own
    once = surveyed()._own
    assert kept is not None
    assert once is not None
    for survey in (kept, once):
        model = survey.errors()
        assert model is not None
        # A twin at the same place would make errors of nearly nothing.
        assert 0.4 < model.factor < 2.0
        assert model.floor_m2 == pytest.approx(25 / 12)


def test_too_few_places_teach_nothing() -> None:
    estimate = Fingerprint.from_survey(PLACES[:8], censored(PLACES[:8], np.random.default_rng(0))).locate(
        censored(PLACES[:1], np.random.default_rng(1))
    )
    assert estimate.covariance is None
    assert estimate.valid.tolist() == [True]


def test_users_whom_nobody_heard_may_be_anywhere_in_the_survey() -> None:
    estimate = surveyed().locate(np.full((1, NUM_APS), math.nan))
    assert estimate.covariance is not None
    # 20 x 20 places, 5 m apart: 25 (20^2 - 1) / 12 along each axis.
    np.testing.assert_allclose(estimate.covariance[0], np.eye(2) * 25 * 399 / 12, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"database": "surveyed"}, {"feature": "rss-db"}])
def test_games_know_their_errors_by_simulated_users(options: dict[str, Any]) -> None:
    env = make_env("dcp-v0", num_envs=6, num_ues=100, seed=1, kernel="torch")
    env.reset(seed=1)
    estimate = make_policy("fingerprint", env, **{"spacing": 5.0, **options}).locate(env.measurements)
    side = env.measurements.radio.side_m
    away = estimate.position - env.truth()["true_position"]
    truth = (estimate.position - (away - side * torch.round(away / side))).numpy()
    assert float(estimate.valid.double().mean()) >= 0.99
    assert not bool(wrong(estimate, truth).any())
    squared = squared_by_covariance(estimate, truth)
    assert float((squared < 1.386).double().mean()) == pytest.approx(0.5, abs=0.15)
    assert float((squared < 4.605).double().mean()) == pytest.approx(0.9, abs=0.08)


def test_the_centroid_knows_how_coarse_it_is() -> None:
    env = make_env("dcp-v0", num_envs=10, num_ues=60, seed=1, kernel="torch")
    env.reset(seed=1)
    estimate = make_policy("centroid", env).locate(env.measurements)
    side = env.measurements.radio.side_m
    away = estimate.position - env.truth()["true_position"]
    truth = (estimate.position - (away - side * torch.round(away / side))).numpy()
    assert not bool(wrong(estimate, truth).any())
    squared = squared_by_covariance(estimate, truth)
    assert float((squared < 1.386).double().mean()) == pytest.approx(0.5, abs=0.12)
    assert float((squared < 4.605).double().mean()) == pytest.approx(0.9, abs=0.08)
    # Three metres from an AP or thirty: the errors differ, and so do the ellipses.
    deviation = estimate.covariance.diagonal(dim1=-2, dim2=-1).sum(dim=-1).sqrt()
    assert float(deviation.max()) > 2 * float(deviation.min())
