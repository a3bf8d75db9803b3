"""Compiled searches and steps against torch's own operations, and what happens where there is no compiler."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from baselines.least_squares import scaled_inverse
from baselines.registry import make_policy
from baselines.ris import assignment, departure, directions, harmonics, kernels, position, refine
from baselines.ris.kernels import climbed, climbed_axes, sighted, stepped
from cfpos_envs.native import build
from cfpos_envs.physics.ris.information import path_blocks
from cfpos_envs.physics.ris.modes import steering, synthesise
from cfpos_envs.scenarios.ris.config import RisConfig
from cfpos_envs.scenarios.ris.world import draw_phases, draw_scene, measurements
from cfpos_envs.streams import Streams
from tests.baselines.ris import test_channel, test_position

pytestmark = pytest.mark.skipif(kernels._kernels() is None, reason="no C++ compiler")


def without() -> None:
    """What there is without a compiler; for ``setattr(kernels, "_kernels", without)``."""


def normal(seed: int, *size: int, dtype: torch.dtype = torch.complex128) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def hermitian_lags(seed: int, rows: int, n: int) -> Tensor:
    """Polynomials of random covariances, whose values are positive."""
    root = normal(seed, rows, n, n)
    return harmonics.diagonal_sums(root @ root.mH)


@pytest.mark.parametrize("slope", [math.pi, -0.07])
def test_climbs_are_those_of_torch(slope: float) -> None:
    seen = hermitian_lags(0, 40, 9)
    # Around a local maximum on a grid, as everywhere.
    grid = harmonics.circle(slope, 144, seen)
    values = harmonics.on_grid(seen, slope, grid)
    where, _ = harmonics.local_maxima(values, 2)
    low, high = grid[where] - grid[1], grid[where] + grid[1]
    found = climbed(seen, None, slope, (low, high), 6)
    expected = harmonics.climb(lambda x: harmonics.evaluate(seen, slope, x)[1:], low, high)
    assert found is not None
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11 / abs(slope))


def test_climbs_of_ratios_are_those_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, left = hermitian_lags(0, 40, 9), hermitian_lags(1, 40, 9)
    grid = torch.linspace(-1.0, 1.0, 145, dtype=torch.float64)
    ratio = harmonics.on_grid(seen, math.pi, grid) / harmonics.on_grid(left, math.pi, grid)
    start = grid[ratio.argmax(dim=-1)]
    found = departure.climb_ratio(seen, left, math.pi, 1e-3, start, 2.0 / 144)
    monkeypatch.setattr(kernels, "_kernels", without)
    expected = departure.climb_ratio(seen, left, math.pi, 1e-3, start, 2.0 / 144)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)


def test_a_floor_takes_the_denominator_out() -> None:
    seen, left = hermitian_lags(2, 7, 5), hermitian_lags(3, 7, 5)
    bracket = (torch.full((7, 1), -0.1, dtype=torch.float64), torch.full((7, 1), 0.1, dtype=torch.float64))
    floored, plain = climbed(seen, left, math.pi, bracket, 8, floor=1e9), climbed(seen, None, math.pi, bracket, 8)
    assert floored is not None
    assert plain is not None
    torch.testing.assert_close(floored, plain, rtol=0, atol=1e-9)


def test_two_dimensional_climbs_are_those_of_torch() -> None:
    slopes = (math.pi, -math.pi)
    vectors = steering((5, 4, 1, 1, 1), (*slopes, 1.0, 1.0, 1.0), torch.rand(30, 2, 5, dtype=torch.float64) - 0.5)
    focused = vectors[0].unsqueeze(-1) * vectors[1].unsqueeze(-2) + 0.1 * normal(4, 30, 2, 5, 4)
    start = torch.rand(30, 2, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64) * 0.2
    given = start.clone()
    found = climbed_axes(focused, slopes, start, (0.05, 0.06), (2, harmonics.NEWTON_STEPS))
    expected = assignment.climb_by_tables(focused, slopes, start, (0.05, 0.06))
    assert found is not None
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    assert torch.equal(start, given)


@pytest.mark.parametrize("steps", [1, 5])
def test_directions_and_their_error_maps_are_those_of_torch(steps: int) -> None:
    count = 20
    channels = test_position.channels(count, seed=3)
    quality = position.channel_quality(test_position.SYSTEM, channels)
    block = path_blocks(quality.covariance)[0][..., :4, :4]
    mapping = normal(6, count, 4, 3, dtype=torch.float64)
    cosines = channels.parameters[..., 0, :4]
    weight = scaled_inverse(block)
    found, expected = (
        sighted(cosines, mapping, weight, steps),
        directions.sight_by_tables(cosines, mapping, weight, steps),
    )
    assert found is not None
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("present", [(True, True, True), (True, False, True), (False, True, True)])
def test_searches_are_those_of_torch(present: tuple[bool, ...]) -> None:
    channels = test_position.channels(12, seed=1, present=present)
    fixes = position.path_fixes(
        test_position.links(12), channels, position.channel_quality(test_position.SYSTEM, channels)
    )
    found, expected = position.search(fixes, 60.0), position.search_by_tables(fixes, 60.0)
    # The costs of neighbouring biases differ by rounding alone at the end of the search.
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(found[1], expected[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_steps_on_the_likelihood_are_those_of_torch(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    received, _ = test_channel.blocks(6, 10.0)
    system = test_channel.SYSTEM
    start = test_channel.PATHS.expand(6, 3, 5) + 1e-3 * normal(7, 6, 3, 5, dtype=torch.float64)
    present = torch.tensor([[True] * 3, [True, False, True], [False, True, True]] * 2)
    found = refine.refine(received, system.sizes, system.slopes, start, present, steps)
    monkeypatch.setattr(kernels, "_kernels", without)
    expected = refine.refine(received, system.sizes, system.slopes, start, present, steps)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


def test_what_is_singular_does_not_move() -> None:
    # Two equal paths: their information is singular, their gains are not determined.
    system, twice = test_channel.SYSTEM, test_channel.PATHS[[0, 0]].unsqueeze(0)
    gains = torch.ones(1, 2, dtype=torch.complex128)
    received = synthesise(steering(system.sizes, system.slopes, twice), gains)
    present = torch.ones(1, 2, dtype=torch.bool)
    parameters, _ = refine.refine(received, system.sizes, system.slopes, twice, present, 1)
    cell = torch.tensor([math.pi / abs(w) / n for n, w in zip(system.sizes, system.slopes)])
    assert bool(torch.isfinite(parameters).all())
    assert bool(((parameters - twice).abs() <= cell + 1e-12).all())


def test_everything_is_the_same_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    config, streams = RisConfig(preset="small"), Streams(5)
    scene = draw_scene(config, streams, 3)
    measured = measurements(config, scene, draw_phases(config, streams, 3))
    policy = make_policy("ris-wls")
    here = policy.locate(measured)
    monkeypatch.setattr(kernels, "_kernels", without)
    there = policy.locate(measured)
    assert torch.equal(here.valid, there.valid)
    # Matched filters are in single precision there.
    torch.testing.assert_close(here.position, there.position, rtol=0, atol=1e-5)
    torch.testing.assert_close(here.covariance, there.covariance, rtol=1e-3, atol=1e-12)


def test_wrong_shapes_do_not_reach_the_kernel() -> None:
    # Sizes of the axes that do not make the block's: types cannot see that.
    focused = torch.zeros(1, 1, 4, 4, dtype=torch.complex128)
    parameters, present = torch.zeros(1, 1, 5, dtype=torch.float64), torch.ones(1, 1, dtype=torch.bool)
    with pytest.raises(ValueError, match="focused is complex128"):
        stepped(focused, None, (2, 2, 2, 3, 4), (1.0,) * 5, parameters, present)


def test_a_kernel_that_cannot_be_built_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = build.KernelUnavailableError("no compiler")
    monkeypatch.setattr(build, "_found", lambda sources: missing)
    assert kernels._kernels() is None
    assert not kernels.serves(torch.zeros(1))
