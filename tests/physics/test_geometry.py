import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cfpos_envs.physics import geometry
from tests.physics.reference import wrap_angle

coordinate = st.floats(-250.0, 350.0, allow_nan=False, width=32)
point = st.tuples(coordinate, coordinate)
leading = st.lists(st.integers(1, 3), max_size=3).map(tuple)


def torus_distance(a: torch.Tensor, b: torch.Tensor, side_m: float = 100.0) -> float:
    return float(torch.linalg.vector_norm(geometry.displacement(a[None], b[None], side_m, True)))


@settings(max_examples=60, deadline=None)
@given(point, point, point)
def test_torus_distance_is_a_metric(first: tuple, second: tuple, third: tuple) -> None:
    a, b, c = (torch.tensor(p, dtype=torch.float64) for p in (first, second, third))
    assert torus_distance(a, b) == pytest.approx(torus_distance(b, a), abs=1e-9)
    assert torus_distance(a, c) <= torus_distance(a, b) + torus_distance(b, c) + 1e-9
    assert torus_distance(a, a) == 0.0
    assert torus_distance(a, b) <= math.hypot(50.0, 50.0) + 1e-9


@settings(max_examples=60, deadline=None)
@given(point, point, st.integers(-3, 3), st.integers(-3, 3))
def test_torus_distance_does_not_change_by_whole_turns(first: tuple, second: tuple, i: int, j: int) -> None:
    a, b = torch.tensor(first, dtype=torch.float64), torch.tensor(second, dtype=torch.float64)
    moved = b + 100.0 * torch.tensor([i, j], dtype=torch.float64)
    assert torus_distance(a, moved) == pytest.approx(torus_distance(a, b), abs=1e-9)


def test_nearest_image_takes_the_short_way_and_keeps_the_sign() -> None:
    delta = torch.tensor([90.0, -90.0, 30.0, -49.0])
    assert geometry.nearest_image(delta, 100.0, True).tolist() == [-10.0, 10.0, 30.0, -49.0]
    assert geometry.nearest_image(delta, 100.0, False) is delta


@given(leading, st.integers(1, 4), st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_displacement_keeps_any_leading_shape_and_points_from_origin_to_point(lead: tuple, m: int, k: int) -> None:
    generator = torch.Generator().manual_seed(m)
    origins, points = (100 * torch.rand(*lead, n, 2, generator=generator) for n in (m, k))
    vectors = geometry.displacement(origins, points, 100.0, False)
    assert vectors.shape == (*lead, m, k, 2)
    torch.testing.assert_close(vectors[..., 0, :, :], points - origins[..., :1, :])


@given(leading, st.floats(0.1, 90.0), st.floats(-3.1, 3.1))
@settings(max_examples=30, deadline=None)
def test_polar_and_cartesian_are_inverse(lead: tuple, distance: float, azimuth: float) -> None:
    vector = geometry.cartesian(
        torch.full(lead, distance, dtype=torch.float64), torch.full(lead, azimuth, dtype=torch.float64)
    )
    length, angle = geometry.polar(vector)
    assert vector.shape == (*lead, 2)
    assert torch.allclose(length, torch.full_like(length, distance))
    assert torch.allclose(angle, torch.full_like(angle, azimuth))


def test_azimuth_runs_counter_clockwise_from_x() -> None:
    _, azimuth = geometry.polar(torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [0.0, -1.0]]))
    torch.testing.assert_close(azimuth, torch.tensor([0.0, math.pi / 2, math.pi, -math.pi / 2]))
    assert geometry.rotate_quarter(torch.tensor([1.0, 0.0])).tolist() == [0.0, 1.0]
    torch.testing.assert_close(geometry.unit_vectors(torch.tensor(math.pi / 2)), torch.tensor([0.0, 1.0]))


@given(st.floats(-50.0, 50.0))
@settings(max_examples=60, deadline=None)
def test_wrapped_angle_is_the_same_direction_in_half_open_range(angle: float) -> None:
    wrapped = float(wrap_angle(torch.tensor(angle, dtype=torch.float64)))
    assert -math.pi <= wrapped < math.pi
    assert math.cos(wrapped) == pytest.approx(math.cos(angle), abs=1e-9)
    assert math.sin(wrapped) == pytest.approx(math.sin(angle), abs=1e-9)


def test_points_are_brought_into_the_area() -> None:
    outside = torch.tensor([[-10.0, 120.0], [30.0, 100.5]])
    torch.testing.assert_close(geometry.into_area(outside, 100.0, True), torch.tensor([[90.0, 20.0], [30.0, 0.5]]))
    torch.testing.assert_close(geometry.into_area(outside, 100.0, False), torch.tensor([[0.0, 100.0], [30.0, 100.0]]))


def test_slant_distance_of_a_three_four_five_triangle() -> None:
    assert float(geometry.distance_3d(torch.tensor(3.0), torch.tensor(4.0))) == 5.0


def test_grid_layout_is_a_lattice_of_cell_centres() -> None:
    layout = geometry.grid_layout(4, 100.0)
    assert sorted(map(tuple, layout.tolist())) == [(25.0, 25.0), (25.0, 75.0), (75.0, 25.0), (75.0, 75.0)]
    assert geometry.grid_layout(36, 100.0).unique(dim=0).shape == (36, 2)
    assert geometry.grid_layout(12, 60.0)[:, 0].unique().tolist() == [7.5, 22.5, 37.5, 52.5]
    with pytest.raises(ValueError, match="composite"):
        geometry.grid_layout(13, 100.0)
    with pytest.raises(ValueError, match="at least 1"):
        geometry.grid_layout(0, 100.0)


def test_uniform_layout_keeps_its_spacing_also_across_the_border() -> None:
    layout = geometry.uniform_layout(torch.Generator().manual_seed(1), 12, 100.0, True, 15.0)
    vectors = geometry.displacement(layout, layout, 100.0, True)
    gaps = torch.linalg.vector_norm(vectors, dim=-1) + 1e3 * torch.eye(12)
    assert float(gaps.min()) >= 15.0
    with pytest.raises(ValueError, match="min_spacing_m"):
        geometry.uniform_layout(torch.Generator().manual_seed(1), 40, 100.0, True, 40.0)


def test_uniform_layout_fills_the_square_evenly() -> None:
    generator = torch.Generator().manual_seed(2)
    points = geometry.uniform_layout(generator, 4000, 100.0, True)
    counts = torch.histc(points[:, 0], 10, 0.0, 100.0)
    # Binomial(4000, 0.1): 400 +- 19; five standard deviations.
    assert float((counts - 400).abs().max()) < 95
    again = geometry.uniform_layout(torch.Generator().manual_seed(2), 4000, 100.0, True)
    assert torch.equal(points, again)


def test_reference_lattice_covers_the_square() -> None:
    centres = geometry.lattice(100.0, 2.5)
    assert centres.shape == (1600, 2)
    assert centres[0].tolist() == [1.25, 1.25]
    border = geometry.lattice(200.0, 200.0 / 14, to_border=True)
    assert border.shape == (225, 2)
    assert (border.min().item(), border.max().item()) == (0.0, 200.0)
    for spacing in (0.0, -1.0, 101.0):
        with pytest.raises(ValueError, match="spacing"):
            geometry.lattice(100.0, spacing)
