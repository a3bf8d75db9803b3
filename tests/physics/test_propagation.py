import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cfpos_envs.physics.propagation import distance_from_gain, path_gain_db, sample_maps, shadowing_maps


def test_path_gain_at_ten_and_a_hundred_metres() -> None:
    gain = path_gain_db(torch.tensor([1.0, 10.0, 100.0]), -30.5, 36.7)
    torch.testing.assert_close(gain, torch.tensor([-30.5, -67.2, -103.9]))


@given(st.floats(0.5, 500.0))
@settings(max_examples=30, deadline=None)
def test_distance_inverts_path_gain(distance: float) -> None:
    gain = path_gain_db(torch.tensor(distance, dtype=torch.float64), -30.5, 36.7)
    assert float(distance_from_gain(gain, -30.5, 36.7)) == pytest.approx(distance, rel=1e-9)


@pytest.fixture(scope="module")
def torus_maps() -> torch.Tensor:
    return shadowing_maps(torch.Generator().manual_seed(3), 150, 100.0, True, 1.0, 4.0, 9.0)


def correlation(maps: torch.Tensor, rows: int, columns: int) -> float:
    """Of all pairs of points that lie (rows, columns) apart on the torus."""
    return float((maps * torch.roll(maps, (rows, columns), (1, 2))).mean() / maps.square().mean())


def test_shadowing_has_its_standard_deviation(torus_maps: torch.Tensor) -> None:
    # About 150 * (100 / 9)^2 / 6 independent values: one standard deviation of the estimate is near 1.3 %.
    assert float(torus_maps.std()) == pytest.approx(4.0, rel=0.05)
    assert float(torus_maps.mean()) == pytest.approx(0.0, abs=0.3)


@pytest.mark.parametrize(("rows", "columns"), [(9, 0), (0, 9), (0, -9)])
def test_shadowing_correlation_is_one_half_at_nine_metres(torus_maps: torch.Tensor, rows: int, columns: int) -> None:
    assert correlation(torus_maps, rows, columns) == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("lag", [1, 3, 5, 18, 27])
def test_shadowing_correlation_decays_as_a_power_of_two(torus_maps: torch.Tensor, lag: int) -> None:
    assert correlation(torus_maps, lag, 0) == pytest.approx(2.0 ** (-lag / 9.0), abs=0.05)


def test_shadowing_is_isotropic(torus_maps: torch.Tensor) -> None:
    assert correlation(torus_maps, 3, 4) == pytest.approx(2.0 ** (-5.0 / 9.0), abs=0.05)


def test_maps_of_different_aps_are_independent(torus_maps: torch.Tensor) -> None:
    assert float((torus_maps[:-1] * torus_maps[1:]).mean()) / 16.0 == pytest.approx(0.0, abs=0.06)


def test_torus_maps_join_at_the_border_and_others_do_not(torus_maps: torch.Tensor) -> None:
    joined = float((torus_maps[:, 0] * torus_maps[:, -1]).mean()) / 16.0
    assert joined == pytest.approx(2.0 ** (-1.0 / 9.0), abs=0.1)
    cut = shadowing_maps(torch.Generator().manual_seed(4), 300, 50.0, False, 1.0, 4.0, 5.0)
    assert cut.shape == (300, 51, 51)
    assert float((cut[:, 0] * cut[:, -1]).mean()) / 16.0 == pytest.approx(0.0, abs=0.1)
    assert float((cut[:, :-5] * cut[:, 5:]).mean() / cut.square().mean()) == pytest.approx(0.5, abs=0.05)
    assert float(cut.std()) == pytest.approx(4.0, rel=0.05)


def test_standard_deviation_holds_on_a_torus_as_small_as_the_correlation() -> None:
    # There the wrapped correlation is not positive definite; clamping alone would add 2.4 % of variance.
    maps = shadowing_maps(torch.Generator().manual_seed(10), 40_000, 10.0, True, 1.0, 4.0, 4.5)
    assert float(maps.square().mean()) == pytest.approx(16.0, rel=0.012)


def test_no_shadowing_is_flat_and_the_generator_decides_the_rest() -> None:
    flat = shadowing_maps(torch.Generator().manual_seed(5), 2, 20.0, True, 1.0, 0.0, 9.0)
    assert torch.equal(flat, torch.zeros(2, 20, 20))
    first, second, third = (
        shadowing_maps(torch.Generator().manual_seed(seed), 2, 20.0, True, 1.0, 4.0, 9.0) for seed in (6, 6, 7)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


@pytest.mark.parametrize("wrap", [True, False])
def test_sampling_is_exact_at_grid_points_and_linear_between(wrap: bool) -> None:
    maps = shadowing_maps(torch.Generator().manual_seed(8), 3, 20.0, wrap, 2.0, 4.0, 5.0)
    i, j = torch.meshgrid(torch.arange(10), torch.arange(10), indexing="ij")
    points = torch.stack((i, j), dim=-1).reshape(-1, 2).float() * 2.0
    torch.testing.assert_close(sample_maps(maps, points, 20.0, wrap), maps[:, :10, :10].flatten(1))
    values = sample_maps(maps, torch.tensor([[6.5, 4.0], [6.0, 5.5], [7.0, 5.0]]), 20.0, wrap)
    torch.testing.assert_close(values[:, 0], 0.75 * maps[:, 3, 2] + 0.25 * maps[:, 4, 2])
    torch.testing.assert_close(values[:, 1], 0.25 * maps[:, 3, 2] + 0.75 * maps[:, 3, 3])
    torch.testing.assert_close(values[:, 2], maps[:, 3:5, 2:4].mean(dim=(1, 2)))


def test_sampling_goes_round_the_torus_and_stops_at_a_border() -> None:
    maps = torch.arange(16.0).reshape(1, 4, 4)
    torch.testing.assert_close(sample_maps(maps, torch.tensor([[3.5, 0.0]]), 4.0, True), torch.tensor([[6.0]]))
    around = sample_maps(maps, torch.tensor([[1.25, 2.5], [5.25, -1.5], [1.25, 6.5]]), 4.0, True)
    torch.testing.assert_close(around, around[:, :1].expand(1, 3))
    edge = sample_maps(maps, torch.tensor([[3.0, 3.0], [9.0, 9.0], [-2.0, 0.0]]), 3.0, False)
    assert edge.tolist() == [[15.0, 15.0, 0.0]]


@given(st.lists(st.integers(1, 3), max_size=2), st.integers(1, 3), st.integers(1, 4), st.booleans())
@settings(max_examples=25, deadline=None)
def test_sampling_takes_any_leading_shape(lead: list, m: int, k: int, wrap: bool) -> None:
    generator = torch.Generator().manual_seed(m)
    maps = torch.randn(*lead, m, 6, 6, generator=generator)
    points = torch.rand(*lead, k, 2, generator=generator) * 5.0
    values = sample_maps(maps, points, 5.0, wrap)
    assert values.shape == (*lead, m, k)
    assert float(values.abs().max()) <= float(maps.abs().max()) + 1e-6
    first = sample_maps(maps.reshape(-1, m, 6, 6)[0], points.reshape(-1, k, 2)[0], 5.0, wrap)
    torch.testing.assert_close(values.reshape(-1, m, k)[0], first)


def test_sampled_maps_carry_gradients_to_the_points() -> None:
    maps = shadowing_maps(torch.Generator().manual_seed(9), 2, 20.0, True, 2.0, 4.0, 5.0).double()
    points = torch.tensor([[3.3, 7.1], [19.4, 0.7]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: sample_maps(maps, p, 20.0, True), (points,))


def test_units_agree_with_logarithms() -> None:
    gain = path_gain_db(torch.tensor(20.0), 0.0, 20.0)
    assert float(gain) == pytest.approx(-20.0 * math.log10(20.0), rel=1e-6)
