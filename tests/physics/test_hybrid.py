"""Range, direction and power of a link: predictions, gradients by finite differences, information as elsewhere."""

from __future__ import annotations

import math

import pytest
import torch

from cfpos_envs.physics.hybrid import direction_variance, fisher, predict
from cfpos_envs.physics.toa.maps import timing_drop_fisher
from cfpos_envs.physics.toa.model import TimingModel

MODEL = TimingModel("toa", 100.0, 64, 240e3, -30.0, 20.0, 0.1, 1e-12, 4, 0.5, 1e-9, 0.0, 0.0)
STEP_M = 1e-5


def drop(seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Positions, directions and heights of five APs and three points, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    aps = 100 * torch.rand(5, 2, generator=generator, dtype=torch.float64)
    angle = 6 * torch.rand(5, generator=generator, dtype=torch.float64)
    height = 10 * torch.rand(5, generator=generator, dtype=torch.float64)
    return aps, angle, height, 100 * torch.rand(3, 2, generator=generator, dtype=torch.float64)


def test_one_link_by_hand() -> None:
    # 30 m east and 40 m up: 50 m away; the array's axis points north-east; 100 mW are 20 dBm, less 30 and 20 log10(50).
    one = torch.tensor([[0.0, 0.0]], dtype=torch.float64)
    values, _ = predict(MODEL, one, torch.tensor([math.pi / 4]).double(), torch.tensor([40.0]).double(),
                        torch.tensor([[30.0, 0.0]]).double())  # fmt: skip
    assert values[0, 0].tolist() == pytest.approx([50.0, math.sqrt(0.5), 20.0 - 30.0 - 20 * math.log10(50.0)])


def test_gradients_are_finite_differences() -> None:
    *site, points = drop()
    _, gradients = predict(MODEL, *site, points)
    for axis in range(2):
        move = torch.zeros(2, dtype=torch.float64)
        move[axis] = STEP_M
        difference = (predict(MODEL, *site, points + move)[0] - predict(MODEL, *site, points - move)[0]) / (2 * STEP_M)
        torch.testing.assert_close(gradients[..., axis], difference, atol=1e-7, rtol=1e-6)


def test_information_is_the_curvature_of_the_likelihood() -> None:
    *site, points = drop(1)
    values, gradients = predict(MODEL, *site, points)
    variance = torch.tensor([0.04, 1e-4, 16.0], dtype=torch.float64).expand_as(values)

    def loss(point: torch.Tensor) -> torch.Tensor:
        predicted, _ = predict(MODEL, *site, point.unsqueeze(0))
        return ((values[:, :1] - predicted).square() / (2 * variance[:, :1])).sum()

    curvature = torch.autograd.functional.hessian(loss, points[0])
    found = fisher(gradients, variance, torch.ones_like(values, dtype=torch.bool))[0]
    torch.testing.assert_close(found, curvature, rtol=1e-9, atol=1e-9)


def test_information_is_that_of_the_bounds_of_the_time_based_networks() -> None:
    aps, angle, height, points = drop(2)
    _, gradients = predict(MODEL, aps, angle, height, points)
    slant = torch.cat((points.unsqueeze(0) - aps.unsqueeze(1), height[:, None, None].expand(-1, 3, 1)), dim=-1).norm(
        dim=-1
    )
    snr = MODEL.snr_linear(slant)
    shadowing = torch.full_like(snr, 4.0**2)
    variance = torch.stack((MODEL.range_variance_m2(snr), direction_variance(MODEL, snr), shadowing), dim=-1)
    found = fisher(gradients, variance, torch.ones_like(variance, dtype=torch.bool))
    wanted = timing_drop_fisher(MODEL, aps, height, points, ap_orientation_rad=angle, shadowing_std_db=4.0)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_one_antenna_knows_no_direction_and_what_is_missing_counts_nothing() -> None:
    single = TimingModel("toa", 100.0, 64, 240e3, -30.0, 20.0, 0.1, 1e-12, 1, 0.5, 1e-9, 0.0, 0.0)
    assert direction_variance(single, torch.tensor([1e3])).tolist() == [math.inf]
    _, gradients = predict(MODEL, *drop(3))
    nothing = fisher(gradients, torch.ones(5, 3, 3), torch.zeros(5, 3, 3, dtype=torch.bool))
    assert bool((nothing == 0).all())
