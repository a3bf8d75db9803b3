"""The posterior mean over the area: as good as least squares on good links, honest where none has a line of sight."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from baselines.toa.area_mean import AreaMean, AreaMeanOptions, Law, refitted
from baselines.toa.links import range_links
from cfpos import locate_ranges
from cfpos_envs.measurements.base import Reason
from cfpos_envs.measurements.toa import TimingMeasurements

APS = np.array([[0.0, 0.0], [20.0, 0.0], [20.0, 12.0], [0.0, 12.0], [9.0, 13.0]])
AREA = [[-1.0, -1.0], [21.0, 14.0]]


def case(count: int, seed: int, std: float, nlos: float = 0.0, mean: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    users = rng.uniform([-1, -1], [21, 14], (count, 2))
    ranges = np.linalg.norm(users[:, None] - APS, axis=2) + std * rng.standard_normal((count, 5))
    ranges += np.where(rng.random(ranges.shape) < nlos, rng.exponential(mean, ranges.shape), 0.0)
    return users, np.maximum(ranges, 0.01)


def rmse(estimate: object, users: np.ndarray) -> float:
    return float(np.sqrt(((estimate.position.numpy() - users) ** 2).sum(axis=1).mean()))  # type: ignore[attr-defined]


def inside(estimate: object, users: np.ndarray, probability: float) -> float:
    off = estimate.position.numpy() - users  # type: ignore[attr-defined]
    squared = np.einsum("ki,ki->k", off, np.linalg.solve(estimate.covariance.numpy(), off[..., None])[..., 0])  # type: ignore[attr-defined]
    return float((squared <= -2 * np.log(1 - probability)).mean())


@pytest.mark.parametrize("std", [0.02, 0.3])
def test_good_links_give_the_least_squares_point(std: float) -> None:
    users, ranges = case(200, 0, std)
    found = locate_ranges(APS, ranges, std, policy=AreaMean(options=AreaMeanOptions(blunders=0.0)), area_m=AREA)
    assert rmse(found, users) < 1.1 * rmse(locate_ranges(APS, ranges, std, policy="toa-wls", area_m=AREA), users)
    # 90 % of 200: within 0.80 and 0.97 with 99.99 %.
    assert 0.80 < inside(found, users, 0.9) < 0.97
    assert bool(found.valid.all())


def test_without_any_line_of_sight_the_answer_is_honest() -> None:
    users, ranges = case(150, 1, 0.3, nlos=1.0)
    found = locate_ranges(APS, ranges, 0.3, policy=AreaMean(), area_m=AREA)
    plain = locate_ranges(APS, ranges, 0.3, policy="toa-wls", area_m=AREA)
    assert bool(found.valid.all())
    assert rmse(found, users) < 0.7 * rmse(plain, users)
    assert 0.78 < inside(found, users, 0.9) < 0.99
    assert 0.33 < inside(found, users, 0.5) < 0.67


def test_the_law_of_the_errors_is_found_in_the_epochs() -> None:
    _, ranges = case(200, 2, 0.4, nlos=0.3, mean=2.5)
    links = range_links(TimingMeasurements.from_arrays(APS, ranges, 0.2, area_m=AREA))
    low = torch.tensor([0.0, 0.0], dtype=torch.float64)  # the frame of the measurements begins at the area's corner
    axes = [low[axis] + torch.arange(0.25, extent, 0.5, dtype=torch.float64) for axis, extent in ((0, 22.0), (1, 15.0))]
    law = Law(0.5, 5.0, 1.0, 0.01, 50.0)
    for _ in range(10):
        law = refitted(law, links, torch.cartesian_prod(*axes))
    assert law.los_share == pytest.approx(0.7, abs=0.12)
    assert law.mean_m == pytest.approx(2.5, rel=0.3)
    assert law.factor == pytest.approx(2.0, rel=0.25)


def test_short_blunders_are_outvoted() -> None:
    users, ranges = case(100, 3, 0.1)
    far = np.linalg.norm(users - APS[2], axis=1) > 10
    ranges[far, 2] *= 0.4
    found = locate_ranges(APS, ranges, 0.1, policy=AreaMean(), area_m=AREA)
    assert np.median(np.linalg.norm(found.position.numpy() - users, axis=1)[far]) < 0.3


def test_a_user_without_links_is_anywhere_and_one_far_off_hurts_nobody() -> None:
    users, ranges = case(20, 4, 0.1)
    ranges[3] = np.nan
    ranges[4, 1:] = np.nan
    found = locate_ranges(APS, ranges, 0.1, policy=AreaMean(), area_m=AREA)
    assert found.reason is not None
    assert [Reason(int(code)) for code in found.reason[3:5]] == [Reason.TOO_FEW_LINKS] * 2
    assert int(found.valid.sum()) == 18
    np.testing.assert_allclose(found.position[3], [10.0, 6.5], atol=0.2)
    np.testing.assert_allclose(found.covariance[3].diagonal(), [22.0**2 / 12, 15.0**2 / 12], rtol=0.03)  # type: ignore[index]
    rest = [k for k in range(20) if k not in (3, 4)]
    assert np.median(np.linalg.norm(found.position.numpy() - users, axis=1)[rest]) < 0.2


def test_places_outside_a_polygon_are_excluded() -> None:
    # An L: the truth is in its upper arm, the ranges alone do not tell it from the missing corner.
    corners = [[0.0, 0.0], [20.0, 0.0], [20.0, 6.0], [8.0, 6.0], [8.0, 12.0], [0.0, 12.0]]
    aps = np.array([[1.0, 1.0], [10.0, 1.0], [19.0, 1.0]])
    found = locate_ranges(aps, np.linalg.norm(aps - [4.0, 10.0], axis=1)[None], 0.2, policy=AreaMean(), area_m=corners)
    np.testing.assert_allclose(found.position[0], [4.0, 10.0], atol=0.4)


PRIOR = AreaMeanOptions(rounds=0, blunders=0.0)
HALL = [[0.0, 0.0], [20.0, 12.0]]


def drawn(count: int, seed: int, std: float, los: float, aps: np.ndarray = APS) -> tuple[np.ndarray, np.ndarray]:
    """Users and ranges from the very law that is told: uniform places, mean excess 3 m."""
    rng = np.random.default_rng(seed)
    users = rng.uniform([0, 0], [20, 12], (count, 2))
    ranges = np.linalg.norm(users[:, None] - aps, axis=2)
    ranges += std * rng.standard_normal(ranges.shape)
    ranges += np.where(rng.random(ranges.shape) < los, 0.0, rng.exponential(3.0, ranges.shape))
    return users, ranges


def nees(estimate: object, users: np.ndarray) -> np.ndarray:
    off = estimate.position.numpy() - users  # type: ignore[attr-defined]
    return np.einsum("ki,ki->k", off, np.linalg.solve(estimate.covariance.numpy(), off[..., None])[..., 0])  # type: ignore[attr-defined]


def told(aps: np.ndarray, ranges: np.ndarray, std: float, los: float, **known: object) -> object:
    options = dataclasses.replace(PRIOR, los_share=los, nlos_mean_m=3.0, cells=24)
    return locate_ranges(aps, ranges, std, policy=AreaMean(options=options), on_bad="drop", area_m=HALL, **known)


def test_far_from_walls_it_is_weighted_least_squares() -> None:
    rng = np.random.default_rng(5)
    users = rng.uniform([6, 4], [14, 8], (40, 2))
    ranges = np.linalg.norm(users[:, None] - APS, axis=2) + 0.1 * rng.standard_normal((40, 5))
    found, plain = told(APS, ranges, 0.1, 0.98), locate_ranges(APS, ranges, 0.1, policy="toa-wls")
    std = plain.covariance.diagonal(dim1=1, dim2=2).sqrt()  # type: ignore[union-attr]
    # What the 2 % of NLOS that cannot be told to be none cost is a few percent more.
    ratio = found.covariance.diagonal(dim1=1, dim2=2).sqrt() / std  # type: ignore[attr-defined]
    good = nees(plain, users) < 9
    off = ((found.position - plain.position).abs() / std)[torch.from_numpy(good)]  # type: ignore[attr-defined]
    assert float(off.median()) < 0.05
    assert 0.98 < float(ratio.median()) < 1.05


def test_users_of_the_prior_lie_where_it_says() -> None:
    users, ranges = drawn(2000, 6, 0.6, 0.5)
    found = told(APS, np.where(ranges > 0, ranges, np.nan), 0.6, 0.5)
    place = found.position.numpy()  # type: ignore[attr-defined]
    to_wall = np.minimum(place, [20, 12] - place).min(axis=1)
    assert bool((to_wall >= 0).all())
    # E[e^T C^-1 e] = 2 whatever the shape of the posterior, and for whatever selection by the data; p < 1e-4.
    for squared in (nees(found, users), nees(found, users)[to_wall < 1.0]):
        assert len(squared) > 100
        assert squared.mean() == pytest.approx(2.0, abs=3.9 * squared.std() / math.sqrt(len(squared)))
    # Ellipses hold their share of a Gaussian only; nearly so of this.
    assert inside(found, users, 0.5) == pytest.approx(0.5, abs=0.12)
    assert inside(found, users, 0.9) == pytest.approx(0.9, abs=0.04)
    assert float(found.valid.double().mean()) >= 0.99  # type: ignore[attr-defined]


def test_millimetres_are_found_from_cells_of_a_metre() -> None:
    rng = np.random.default_rng(10)
    users = rng.uniform([1, 1], [19, 11], (30, 2))
    ranges = np.linalg.norm(users[:, None] - APS, axis=2) + 0.001 * rng.standard_normal((30, 5))
    found = told(APS, ranges, 0.001, 0.9)
    assert float(np.linalg.norm(found.position.numpy() - users, axis=1).max()) < 0.01  # type: ignore[attr-defined]
    assert int((nees(found, users) > 25).sum()) == 0
    assert float(found.covariance.diagonal(dim1=1, dim2=2).sqrt().max()) < 0.01  # type: ignore[attr-defined]


def test_access_points_in_a_line_with_the_area_on_one_side() -> None:
    line = np.array([[1.0, 0.0], [6.0, 0.0], [13.0, 0.0], [19.0, 0.0]])
    users, ranges = drawn(400, 7, 0.3, 0.98, line)
    found = told(line, np.where(ranges > 0, ranges, np.nan), 0.3, 0.98)
    assert float(found.valid.double().mean()) >= 0.99  # type: ignore[attr-defined]
    # exp(-12.5) of Gaussians, a few in a thousand at most of skewed ones.
    assert int((nees(found, users) > 25).sum()) <= 3


def test_mirror_images_within_the_area_give_their_middle() -> None:
    line = np.array([[1.0, 6.0], [6.0, 6.0], [13.0, 6.0], [19.0, 6.0]])
    ranges = np.linalg.norm(line - [8.0, 9.0], axis=1)[None]
    found = told(line, ranges, 0.1, 0.98)
    np.testing.assert_allclose(found.position[0], [8.0, 6.0], atol=0.2)  # type: ignore[attr-defined]
    assert float(found.covariance[0, 1, 1]) == pytest.approx(9.0, rel=0.1)  # type: ignore[attr-defined]


def test_normal_scores_of_errors_of_the_law_are_standard_normal() -> None:
    rng = np.random.default_rng(8)
    std = torch.tensor([0.2, 0.7]).double().repeat(20_000)
    error = std.numpy() * 1.5 * rng.standard_normal(40_000)
    error += np.where(rng.random(40_000) < 0.6, 0.0, rng.exponential(2.0, 40_000))
    scores = Law(0.6, 2.0, 1.5, 0.0, 50.0).normal_scores(torch.from_numpy(error), std)
    # Four standard errors of mean and variance.
    assert float(scores.mean()) == pytest.approx(0.0, abs=4 / math.sqrt(40_000))
    assert float(scores.var()) == pytest.approx(1.0, abs=4 * math.sqrt(2 / 40_000))


def test_ranges_much_too_short_are_no_law_and_not_valid() -> None:
    users, ranges = drawn(40, 9, 0.1, 0.98)
    ranges[:, 0] = np.maximum(ranges[:, 0] - 2.0, 0.01)
    found = told(APS, ranges, 0.1, 0.98)
    shortened = np.linalg.norm(users - APS[0], axis=1) > 3
    reasons = found.reason.numpy()[shortened]  # type: ignore[attr-defined]
    assert (reasons == int(Reason.LARGE_RESIDUALS)).mean() > 0.9


@pytest.mark.parametrize(
    "options",
    [{"cells": 4}, {"blunders": 0.9}, {"rounds": -1}, {"fitted_users": 0}, {"los_share": 1.5}, {"nlos_mean_m": 0.0}],
)
def test_options_that_cannot_be_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        AreaMeanOptions(**options)  # type: ignore[arg-type]
