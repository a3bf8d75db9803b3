"""``hybrid-gn``: on its bound, with an honest covariance, from whatever is measured."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from baselines import make_policy
from cfpos_envs import evaluate, make_env
from cfpos_envs.measurements.hybrid import HybridMeasurements

ENV = {"num_aps": 12, "site": "clear"}


def measured(episodes: int = 100) -> tuple[HybridMeasurements, torch.Tensor]:
    env = make_env("hybrid-v0", num_envs=episodes, seed=3, **ENV)
    env.reset()
    return env.measurements, env.truth()["true_position"]


def only(measurements: HybridMeasurements, *kinds: int) -> HybridMeasurements:
    kept = torch.zeros(3, dtype=torch.bool)
    kept[list(kinds)] = True
    return dataclasses.replace(measurements, valid=measurements.valid & kept)


def test_on_the_bound() -> None:
    env = make_env("hybrid-v0", **ENV)
    result = evaluate(env, make_policy("hybrid-gn", env), episodes=600, seed=7)
    assert result.errors.size >= 2000
    assert 0.95 <= result.efficiency <= 1.05


def test_errors_are_as_large_as_the_covariance_says() -> None:
    measurements, truth = measured(300)
    found = make_policy("hybrid-gn").locate(measurements)
    error = (found.position - truth).double().unsqueeze(-1)
    chi2 = (error.mT @ torch.linalg.inv(found.covariance.double()) @ error).flatten()
    # Mean 2 and variance 4 of chi squared with two degrees of freedom; 1200 users, who share the APs' clocks.
    assert float(chi2.mean()) == pytest.approx(2.0, abs=0.35)


@pytest.mark.parametrize(
    ("kinds", "worst_m"), [((0,), 1.0), ((1,), 2.0), ((0, 1), 0.6), ((2,), 60.0), ((0, 1, 2), 0.6)]
)
def test_whatever_is_missing_is_left_out(kinds: tuple[int, ...], worst_m: float) -> None:
    measurements, truth = measured()
    found = make_policy("hybrid-gn").locate(only(measurements, *kinds))
    error = (found.position - truth).norm(dim=-1)[found.valid]
    # Powers alone leave valleys that no covariance describes: these are not valid.
    assert bool(found.valid.float().mean() > (0.85 if kinds == (2,) else 0.95))
    assert float(error.quantile(0.95)) < worst_m


def test_more_measurements_are_better() -> None:
    measurements, truth = measured(200)
    rmse = [
        float((make_policy("hybrid-gn").locate(only(measurements, *kinds)).position - truth).square().sum(-1).median())
        for kinds in ((2,), (0,), (0, 1, 2))
    ]
    assert rmse == sorted(rmse, reverse=True)


def test_nothing_measured_is_invalid_and_finite() -> None:
    measurements, _ = measured(2)
    found = make_policy("hybrid-gn").locate(only(measurements))
    assert not bool(found.valid.any())
    assert bool(torch.isfinite(found.position).all())
    assert bool(torch.isfinite(found.covariance).all())


def test_long_ranges_harm_less_with_a_threshold() -> None:
    env = make_env("hybrid-v0", num_aps=12, site="street")
    plain, robust = (
        evaluate(env, make_policy("hybrid-gn", env, threshold=threshold), episodes=40)
        for threshold in (float("inf"), 1.5)
    )
    assert robust.median < 0.5 * plain.median


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"points": 1}, "points=1"), ({"starts": 0}, "starts=0"), ({"points": 2, "starts": 5}, "starts=5 is more than"),
     ({"threshold": 0.0}, "threshold=0.0 must be at least")],
)  # fmt: skip
def test_options_are_refused_in_one_line(options: dict[str, float], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        make_policy("hybrid-gn", **options)


def test_wrong_measurements_are_refused_by_name() -> None:
    measurements, _ = measured(1)
    wrong = dataclasses.replace(measurements, variance=-measurements.variance)
    with pytest.raises(ValueError, match="variance of a valid measurement is not positive"):
        make_policy("hybrid-gn").locate(wrong)


def test_no_episodes_have_no_answers() -> None:
    measurements, _ = measured(2)
    assert make_policy("hybrid-gn").locate(measurements.select(slice(0, 0))).position.shape == (0, 4, 2)
