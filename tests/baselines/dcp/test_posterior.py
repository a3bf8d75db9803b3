"""``rss-mmse``: against a fine sum of the posterior, better than least squares, honest about what it leaves open."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from baselines import make_policy
from cfpos_envs.measurements.base import PositionEstimate
from cfpos_envs.measurements.dcp import RadioMeasurements

APS = np.array([[0.0, 0.0], [20.0, 0.0], [20.0, 16.0], [0.0, 16.0], [10.0, 9.0]])
AREA = [(0.0, 0.0), (20.0, 0.0), (20.0, 16.0), (0.0, 16.0)]
LEVELS, SLOPE_DB, SIGMA_DB = np.array([-40.0, -43.0, -38.0, -41.0, -45.0]), 20.0, 5.0


def law(points: np.ndarray) -> np.ndarray:
    return LEVELS - SLOPE_DB * np.log10(np.linalg.norm(points[:, None] - APS, axis=2))


def measured(rss: np.ndarray, aps: np.ndarray = APS, sigma_db: float = SIGMA_DB, **known: object) -> RadioMeasurements:
    shift = aps[0] - APS[0]
    return RadioMeasurements.from_arrays(
        aps,
        rss,
        rss_at_1m_dbm=LEVELS,
        path_loss_slope_db=SLOPE_DB,
        shadowing_std_db=sigma_db,
        **{"area_m": [tuple(np.array(corner) + shift) for corner in AREA], **known},
    )


def draw(users: int, seed: int, sigma_db: float = SIGMA_DB) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    places = rng.uniform([0, 0], [20, 16], (users, 2))
    return places, law(places) + rng.normal(0, sigma_db, (users, len(APS)))


def answers(rss: np.ndarray, **known: object) -> PositionEstimate:
    return make_policy("rss-mmse").locate(measured(rss, **known))


def test_moments_are_those_of_a_fine_sum_over_the_area() -> None:
    _, rss = draw(20, 0)
    found = answers(rss)
    x, y = np.meshgrid(np.arange(0.05, 20, 0.1), np.arange(0.05, 16, 0.1), indexing="ij")
    fine = np.stack((x, y), axis=-1).reshape(-1, 2)
    logs = -((rss[:, None] - law(fine)[None]) ** 2).sum(axis=2) / (2 * SIGMA_DB**2)
    weight = np.exp(logs - logs.max(axis=1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)
    mean = weight @ fine
    away = fine[None] - mean[:, None]
    covariance = np.einsum("up,upi,upj->uij", weight, away, away)
    assert np.abs(found.position[0].numpy() - mean).max() < 0.5
    assert np.median(np.abs(found.position[0].numpy() - mean)) < 0.1
    assert found.covariance is not None
    ratio = np.trace(found.covariance[0].numpy(), axis1=1, axis2=2) / np.trace(covariance, axis1=1, axis2=2)
    assert ratio.min() > 0.7
    assert ratio.max() < 1.4


def test_the_mean_of_the_posterior_has_the_least_error_and_says_how_large_it_is() -> None:
    places, rss = draw(600, 1)
    found = answers(rss)
    error = found.position[0].numpy() - places

    def rmse(policy: str) -> float:
        position = make_policy(policy).locate(measured(rss)).position[0].numpy()
        return float(np.sqrt(((position - places) ** 2).sum(axis=1).mean()))

    own = float(np.sqrt((error**2).sum(axis=1).mean()))
    assert own < 0.95 * rmse("rss-gn")
    assert own < 0.95 * rmse("centroid")
    assert found.covariance is not None
    told = float(np.sqrt(np.trace(found.covariance[0].numpy(), axis1=1, axis2=2).mean()))
    # 600 users: the mean square is known to some 6 %, its root to 3 %.
    assert own == pytest.approx(told, rel=0.12)
    # The others are as good as anywhere in the room.
    assert 0.85 < found.valid.double().mean() < 0.95


def test_little_noise_is_followed_to_centimetres_and_northings_are_kept() -> None:
    places, rss = draw(40, 2, 0.05)
    utm = np.array([455_000.0, 5_411_000.0])
    found = make_policy("rss-mmse").locate(measured(rss, APS + utm, 0.1))
    error = np.linalg.norm(found.position[0].double().numpy() - utm - places, axis=1)
    assert np.median(error) < 0.05
    assert error.max() < 0.3


def test_one_link_leaves_the_area_open_and_none_is_not_valid() -> None:
    rss = np.full((2, 5), math.nan)
    rss[0, 4] = LEVELS[4] - SLOPE_DB * math.log10(5.0)
    found = answers(rss)
    assert torch.isfinite(found.position).all()
    assert found.valid[0].tolist()[1] is False
    assert found.covariance is not None
    # Anywhere around the access point in the middle: its ring of 5 m and what 5 dB leave open.
    np.testing.assert_allclose(found.position[0, 0].numpy(), [10.0, 8.5], atol=1.0)
    assert float(found.covariance[0, 0].diagonal().sqrt().min()) > 3.0
