"""Least squares on ranges and their closed form: at the bound, exact without noise, honest where nothing is known."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from baselines import make_policy
from baselines.least_squares import inverse_2x2, levenberg_marquardt
from baselines.toa.links import as_independent_differences, determined, range_links
from baselines.toa.multilateration import linear_starts, solve_ranges
from cfpos_envs.physics.toa.bounds import unit_vectors_to
from tests.baselines.dcp.synthetic import draw_drops
from tests.baselines.toa.synthetic import GRID_16, SQUARE, TimingDrop, changed, located, points, ranges_drop
from tests.physics.toa.reference import difference_covariance, differencing_matrix, tdoa_difference_fisher

WLS = {"toa": "toa-wls", "tdoa": "tdoa-wls", "rtt": "rtt-wls"}
ALL = ("toa-wls", "tdoa-wls", "tdoa-chan", "toa-huber", "toa-em", "toa-nlos-drop", "toa-oracle")
USERS = points((50, 50), (20, 30), (75, 10))
NEAR_LINE = points((0, 50), (30, 52), (60, 48), (100, 51), (80, 49))
GEOMETRIES = {
    "square": (SQUARE, 0.0, USERS),
    "heights": (torch.cat((SQUARE, points((50, 20)))), [10.0, 3.0, 5.0, -4.0, 8.0], USERS),
    "near line": (NEAR_LINE, 3.0, points((50, 80), (20, 30), (75, 10))),
    "three": (points((0, 0), (100, 0), (50, 80)), 0.0, points((50, 40), (40, 30))),
}


@pytest.mark.parametrize("family", list(WLS))
@pytest.mark.parametrize("geometry", list(GEOMETRIES))
def test_line_of_sight_reaches_the_bound_and_not_less(geometry: str, family: str) -> None:
    aps, height, users = GEOMETRIES[geometry]
    std = torch.linspace(0.05, 0.15, len(aps), dtype=torch.float64)
    drop = ranges_drop(4000, 1, family=family, aps=aps, height_m=height, truth_m=users, std_m=std)
    estimate = located(drop, WLS[family])
    # The RMSE of 8000 or more fixes has a relative deviation of 1 / sqrt(8000) at most: 0.05 is 4.5 of them.
    assert 0.95 < drop.rmse_m(estimate) / drop.bound_m() < 1.05
    # Chi squared calls one of a thousand right answers too large; 12 000 users vary by 3e-4.
    assert estimate.valid.float().mean() > 0.998
    error = (estimate.position - drop.truth_m).unsqueeze(-1)
    squares = (error.mT @ torch.linalg.solve(estimate.covariance, error)).mean()
    assert float(squares / 2) == pytest.approx(1.0, abs=0.07)


@pytest.mark.parametrize("name", ["toa-wls", "tdoa-wls", "tdoa-chan", "toa-huber", "toa-em"])
def test_without_noise_the_position_is_exact(name: str) -> None:
    family = "tdoa" if name.startswith("tdoa") else "toa"
    heights = [10.0, 3.0, 5.0, -4.0, 8.0, 0.0]
    aps = torch.cat((SQUARE, points((50, 20), (30, 70))))
    drop = ranges_drop(300, 2, family=family, aps=aps, height_m=heights, noise=False, num_ues=2)
    estimate = located(drop, name)
    assert estimate.valid.all()
    # The EM's exponential excess pulls a little even where there is none.
    assert float(drop.errors_m(estimate).max()) < (0.1 if name == "toa-em" else 1e-6)


def generalised_least_squares(drop: TimingDrop, reference: int, independent: bool = False) -> Tensor:
    """Gauss-Newton on the M - 1 differences with their covariance as a matrix, from the truth: [B, K, 2]."""
    m = drop.measurements
    matrix = differencing_matrix(m.range_m.shape[1], reference)
    covariance = difference_covariance(m.variance_m2.transpose(1, 2), reference, independent)
    found = drop.truth_m.clone()
    for _ in range(30):
        unit, slant = unit_vectors_to(m.ap_positions_m, m.height_diff_m, found)
        slopes = torch.einsum("pm,bmkd->bkpd", matrix, unit)
        residual = torch.einsum("pm,bmk->bkp", matrix, m.range_m - slant).unsqueeze(-1)
        weighted = torch.linalg.solve(covariance, torch.cat((slopes, residual), dim=-1))
        normal, right = slopes.mT @ weighted[..., :2], slopes.mT @ weighted[..., 2:]
        found = found + torch.linalg.solve(normal, right).squeeze(-1)
    return found


def test_eliminating_the_offset_is_the_full_covariance_for_every_reference() -> None:
    aps = torch.cat((SQUARE, points((50, 20))))
    std = torch.tensor([0.1, 0.5, 0.2, 0.3, 0.05], dtype=torch.float64)
    drop = ranges_drop(200, 3, family="tdoa", aps=aps, height_m=6.0, std_m=std)
    links = range_links(drop.measurements)
    fit = solve_ranges(links)
    unit, _ = links.at(fit.position_m)
    for reference in range(5):
        torch.testing.assert_close(
            fit.position_m, generalised_least_squares(drop, reference), rtol=0, atol=1e-6, msg=f"reference {reference}"
        )
        fisher = tdoa_difference_fisher(unit, drop.measurements.variance_m2, reference)
        torch.testing.assert_close(fit.information, fisher, rtol=1e-8, atol=1e-9)


def test_independent_differences_are_the_shortcut_and_worse() -> None:
    std = torch.tensor([0.6, 0.1, 0.1, 0.1], dtype=torch.float64)
    drop = ranges_drop(3000, 4, family="tdoa", aps=SQUARE, truth_m=points((20, 60)), std_m=std)
    links = as_independent_differences(range_links(drop.measurements))
    fit = solve_ranges(links)
    torch.testing.assert_close(fit.position_m, generalised_least_squares(drop, 0, True), rtol=0, atol=1e-6)
    shortcut, full = located(drop, "tdoa-wls", independent=True), located(drop, "tdoa-wls")
    assert drop.rmse_m(shortcut) > 1.1 * drop.rmse_m(full)
    assert torch.equal(determined(links), determined(range_links(drop.measurements)))


def plain_gauss_newton(drop: TimingDrop, start: Tensor) -> Tensor:
    links, found = range_links(drop.measurements), start
    for _ in range(40):
        unit, residual = links.at(found)
        if links.unknown_offset:
            unit, residual = (part - part.mean(dim=1, keepdim=True) for part in (unit, residual))
        normal = torch.einsum("bmki,bmkj->bkij", unit, unit)
        step, failed = torch.linalg.solve_ex(normal, torch.einsum("bmki,bmk->bki", unit, residual))
        found = torch.where((failed > 0).unsqueeze(-1), math.nan, found + step)
    return found


@pytest.mark.parametrize(("family", "aps"), [("toa", NEAR_LINE), ("tdoa", SQUARE * 0.4 + points((5, 5)))])
def test_damped_steps_converge_where_plain_gauss_newton_runs_away(family: str, aps: Tensor) -> None:
    drop = ranges_drop(1500, 5, family=family, aps=aps, height_m=3.0, std_m=0.05)
    centre = torch.full_like(drop.truth_m, 50.3)
    plain = torch.linalg.vector_norm(plain_gauss_newton(drop, centre) - drop.truth_m, dim=-1)
    lost = ~(plain < 10.0)  # counts what is not a number, too
    estimate = located(drop, WLS[family])
    # Where the APs leave two good answers these are marked.
    found = drop.errors_m(estimate)[estimate.valid]
    assert float(lost.float().mean()) > 0.02
    assert float((found > 10.0).float().mean()) < 0.005
    assert float(estimate.valid.float().mean()) > 0.9
    # From the same start the damped descent never ends higher than it began and stays finite.
    links = range_links(drop.measurements)
    reached = levenberg_marquardt(links, centre)
    assert bool(torch.isfinite(reached.position_m).all())
    assert bool((reached.cost <= levenberg_marquardt(links, centre, steps=0).cost).all())


def test_linear_start_is_exact_without_noise_and_has_both_solutions_of_three_links() -> None:
    for family, aps in (("toa", SQUARE), ("tdoa", SQUARE), ("tdoa", SQUARE[:3])):
        drop = ranges_drop(50, 6, family=family, aps=aps, height_m=4.0, noise=False)
        starts = linear_starts(range_links(drop.measurements))
        error = torch.linalg.vector_norm(starts - drop.truth_m.unsqueeze(1), dim=-1).amin(dim=1)
        assert float(error.max()) < 1e-4


def test_chan_comes_near_the_bound_also_where_its_first_step_is_singular() -> None:
    aps = torch.cat((SQUARE, points((50, 20), (70, 60))))
    for layout, users in ((aps, None), (SQUARE, points((50, 50), (0, 40), (30, 50)))):
        drop = ranges_drop(3000, 7, family="tdoa", aps=layout, height_m=5.0, truth_m=users, std_m=0.1)
        assert 0.95 < drop.rmse_m(located(drop, "tdoa-chan")) / drop.bound_m() < 1.05
        exact = ranges_drop(20, 7, family="tdoa", aps=layout, height_m=5.0, truth_m=users, noise=False)
        assert float(exact.errors_m(located(exact, "tdoa-chan")).max()) < 1e-6


DEGENERATE = {
    "two APs": SQUARE[:2],
    "one place": SQUARE[:1].expand(5, 2),
    "two places": torch.cat((SQUARE[:2], SQUARE[:2])),
    "a line": torch.stack((torch.linspace(3, 97, 6), 0.3 * torch.linspace(3, 97, 6) + 20), dim=-1).double(),
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("layout", list(DEGENERATE))
def test_degenerate_sites_are_marked_and_finite(layout: str, name: str) -> None:
    family = "tdoa" if name.startswith("tdoa") else "toa"
    users = points((40, 60), (50, 35), (90, 5))
    for height in (0.0, 5.0):
        drop = ranges_drop(20, 8, family=family, aps=DEGENERATE[layout], height_m=height, truth_m=users)
        as_floats = changed(drop, range_m=drop.measurements.range_m.float())
        for like in (drop, as_floats):
            estimate = located(like, name)
            assert not estimate.valid.any()
            assert torch.isfinite(estimate.position).all()
            assert torch.isfinite(estimate.covariance).all()
            assert estimate.position.dtype == torch.float64


@pytest.mark.parametrize("name", ALL)
def test_blocked_and_broken_links_are_left_out(name: str) -> None:
    family = "tdoa" if name.startswith("tdoa") else "toa"
    drop = ranges_drop(6, 9, family=family, num_ues=2)
    valid = torch.ones(6, 16, 2, dtype=torch.bool)
    valid[0] = False
    valid[1, 2:] = False
    valid[2, ::3] = False
    noisy = torch.where(valid, drop.measurements.range_m, 1e4)
    noisy[3, 0] = math.nan
    noisy[3, 1] = math.inf
    variance = drop.measurements.variance_m2.clone()
    variance[0] = math.nan
    variance[4, :3] = math.inf
    broken = changed(drop, valid=valid, range_m=noisy, variance_m2=variance)
    estimate = located(broken, name)
    assert torch.isfinite(estimate.position).all()
    assert torch.isfinite(estimate.covariance).all()
    assert not estimate.valid[:2].any()
    assert estimate.valid[2:].all()
    assert float(drop.errors_m(estimate)[2:].max()) < 2.5


def test_a_user_on_top_of_an_ap_is_found() -> None:
    for height in (0.0, 3.0):
        for family in WLS:
            drop = ranges_drop(200, 10, family=family, height_m=height, truth_m=GRID_16[5:6], std_m=0.1)
            estimate = located(drop, WLS[family])
            assert estimate.valid.float().mean() > 0.98
            assert float(drop.errors_m(estimate).max()) < 0.6


def test_two_explanations_are_marked_and_one_outside_the_area_is_not_believed() -> None:
    # Circles around three APs that leave a line by a millimetre meet on both sides of it.
    aps = points((10, 50), (50, 50.05), (90, 50))
    drop = ranges_drop(500, 11, aps=aps, height_m=0.0, truth_m=points((40, 80)), std_m=0.1)
    assert float(located(drop, "toa-wls").valid.float().mean()) < 0.05
    # On the area's border the mirror image lies outside it.
    border = ranges_drop(500, 11, aps=points((10, 0), (50, 0.05), (90, 0)), height_m=0.0, truth_m=points((40, 30)))
    estimate = located(border, "toa-wls")
    assert estimate.valid.all()
    assert float(border.errors_m(estimate).max()) < 10.0


def test_bad_input_is_refused_in_one_line() -> None:
    drop = ranges_drop(2, 12)
    m = drop.measurements
    cases = [
        (changed(drop, variance_m2=torch.zeros_like(m.variance_m2)), "variance_m2.*positive"),
        (changed(drop, variance_m2=-m.variance_m2), "variance_m2.*positive"),
        (changed(drop, height_diff_m=m.height_diff_m * math.nan), "height_diff_m.*not finite"),
        (changed(drop, model={"family": "tdoa"}), "toa-wls takes toa measurements, got tdoa; use one of list_policies"),
    ]
    for wrong, message in cases:
        with pytest.raises((ValueError, TypeError), match=message) as caught:
            located(wrong, "toa-wls")
        assert "\n" not in str(caught.value)
    # Outside the tests nothing checks shapes when measurements are made.
    object.__setattr__(drop.measurements, "ap_positions_m", m.ap_positions_m[:, :8])
    with pytest.raises(ValueError, match=r"ap_positions_m has shape \(2, 8, 2\); with this range_m it must be"):
        located(drop, "toa-wls")
    with pytest.raises(TypeError, match=r"tdoa-chan needs TimingMeasurements.*RadioMeasurements.*toa-v0"):
        make_policy("tdoa-chan").locate(draw_drops(1, seed=0, num_aps=4).measurements)


def test_batches_do_not_mix_and_order_does_not_matter() -> None:
    drop = ranges_drop(12, 13, num_ues=2, nlos_share=0.2)
    shuffle = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    moved = {n: getattr(drop.measurements, n)[:, shuffle] for n in ("ap_positions_m", "range_m", "features", "is_los")}
    for name in ("toa-wls", "toa-huber", "toa-em", "toa-nlos-drop", "toa-oracle"):
        whole = located(drop, name)
        part = make_policy(name).locate(drop.measurements.select(slice(3, 7)))
        torch.testing.assert_close(whole.position[3:7], part.position, rtol=0, atol=1e-3)
        torch.testing.assert_close(located(changed(drop, **moved), name).position, whole.position, rtol=0, atol=1e-3)


@given(st.integers(1, 6), st.integers(1, 8), st.integers(0, 3), st.sampled_from(ALL), st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_any_shape_has_a_finite_answer(num_ues: int, num_aps: int, episodes: int, name: str, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    aps = torch.rand(num_aps, 2, generator=generator, dtype=torch.float64) * 100
    family = "tdoa" if name.startswith("tdoa") else "toa"
    drop = ranges_drop(episodes, seed, family=family, aps=aps, height_m=2.0, num_ues=num_ues, nlos_share=0.3)
    estimate = located(drop, name)
    assert estimate.position.shape == (episodes, num_ues, 2)
    assert torch.isfinite(estimate.position).all()
    assert torch.isfinite(estimate.covariance).all()
    assert (torch.linalg.eigvalsh(estimate.covariance) > 0).all()
    if num_aps < 3:
        assert not estimate.valid.any()


def test_inverse_of_small_matrices() -> None:
    factor = torch.randn(50, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix = factor @ factor.mT * 1e-9
    torch.testing.assert_close(inverse_2x2(matrix), torch.linalg.inv(matrix), rtol=1e-8, atol=0)
    assert torch.isinf(torch.diagonal(inverse_2x2(torch.ones(2, 2, dtype=torch.float64)))).all()
