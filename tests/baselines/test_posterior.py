"""Moments over cells of an area: closed forms of a Gaussian, of nothing at all, of two places, of half a place."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from baselines.posterior import Cells, LogLikelihood, posterior_moments

LOW, HIGH = torch.tensor([-3.0, 5.0]).double(), torch.tensor([17.0, 13.0]).double()
L_SHAPE = ((0.0, 0.0), (20.0, 0.0), (20.0, 6.0), (8.0, 6.0), (8.0, 12.0), (0.0, 12.0))


def rectangle(count: int = 30) -> Cells:
    return Cells.over(LOW, HIGH, count, None)


def gaussian(mean: Tensor, std: Tensor) -> LogLikelihood:
    """Log densities at the middles of cells, widened by them."""

    def logs(points_m: Tensor, sides_m: Tensor) -> Tensor:
        variance = std.square() + sides_m[:, None].square() / 12
        return -0.5 * ((points_m - mean[:, None]).square() / variance + variance.log()).sum(dim=-1)

    return logs


@pytest.mark.parametrize("std", [0.003, 0.05, 0.8])
def test_a_gaussian_inside_keeps_its_moments(std: float) -> None:
    mean = torch.tensor([[3.21, 9.03], [8.0, 8.5]]).double()
    stds = std * torch.tensor([1.0, 1.6]).double()
    found = posterior_moments(gaussian(mean, stds), rectangle(), torch.full((2,), std).double())
    assert float((found.mean_m - mean).abs().max()) < 0.02 * std
    torch.testing.assert_close(
        found.covariance_m2, torch.diag(stds.square()).expand(2, 2, 2), rtol=0.08, atol=0.02 * std**2
    )


def test_nothing_known_is_the_uniform_distribution() -> None:
    found = posterior_moments(lambda points, _: torch.zeros_like(points[..., 0]), rectangle(), torch.full((1,), 0.1))
    torch.testing.assert_close(found.mean_m[0], (LOW + HIGH) / 2)
    torch.testing.assert_close(found.covariance_m2[0], torch.diag((HIGH - LOW).square() / 12))


def test_half_a_gaussian_at_a_wall() -> None:
    std = 0.3
    mean = torch.tensor([[-3.0, 9.0]]).double()
    found = posterior_moments(gaussian(mean, torch.tensor([std, std]).double()), rectangle(), torch.tensor([std]))
    # The half-normal distribution: mean s sqrt(2 / pi), variance s^2 (1 - 2 / pi).
    assert float(found.mean_m[0, 0]) == pytest.approx(-3 + std * math.sqrt(2 / math.pi), abs=0.01 * std)
    assert float(found.covariance_m2[0, 0, 0]) == pytest.approx(std**2 * (1 - 2 / math.pi), rel=0.08)


def test_two_places_have_their_middle_and_their_distance() -> None:
    def logs(points_m: Tensor, sides_m: Tensor) -> Tensor:
        std = torch.tensor([0.02, 0.02])
        both = [gaussian(torch.tensor([[x, 9.0]]).double(), std)(points_m, sides_m) for x in (1.3, 9.3)]
        return torch.logaddexp(*both)

    found = posterior_moments(logs, rectangle(), torch.tensor([0.02]).double())
    torch.testing.assert_close(found.mean_m[0], torch.tensor([5.3, 9.0]).double(), atol=0.01, rtol=0.0)
    assert float(found.covariance_m2[0, 0, 0]) == pytest.approx(16.0, rel=0.01)
    assert float(found.covariance_m2[0, 1, 1]) == pytest.approx(0.02**2, rel=0.1)


def test_a_polygon_of_nothing_known_has_its_centroid() -> None:
    corners = torch.tensor(L_SHAPE).double()
    cells = Cells.over(corners.amin(dim=0), corners.amax(dim=0), 40, L_SHAPE)
    found = posterior_moments(lambda points, _: torch.zeros_like(points[..., 0]), cells, torch.full((1,), torch.inf))
    # 20 x 6 at (10, 3) and 8 x 6 at (4, 9).
    centroid = [(120 * 10 + 48 * 4) / 168, (120 * 3 + 48 * 9) / 168]
    torch.testing.assert_close(found.mean_m[0], torch.tensor(centroid).double(), atol=0.05, rtol=0.0)
