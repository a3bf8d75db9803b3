"""Stage 2: directions, position and clock, cooperation: against closed forms, differences and each other."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from baselines.least_squares import inverse_3x3
from baselines.ris import benchmarks, directions, siso
from baselines.ris.channel import ChannelEstimate
from baselines.ris.pairs import PairGeometry, average, fuse, in_chunks
from baselines.ris.position import SOLVERS, channel_quality, climb_likelihood, locate_pairs, path_fixes, reweighted
from cfpos_envs.measurements.ris import RisSystem
from cfpos_envs.physics.ris.geometry import euler_rotation, path_parameters, ris_cosines
from cfpos_envs.physics.ris.information import bounds, channel_covariance, fisher, without_clock
from cfpos_envs.physics.ris.modes import mode_vector
from cfpos_envs.physics.ris.phases import array_gain, random_profiles
from tests.physics.ris.linear_theory import ls_covariance, wls_covariance

SYSTEM = RisSystem(28e9, 200e6, 64, (8, 8), (6, 6), (20, 20), 64, 1.0)
UE = torch.tensor([10.0, 10.0, -10.0], dtype=torch.float64)
BS = torch.zeros(3, dtype=torch.float64)
RIS = torch.tensor([[5.0, 18.0, -3.0], [15.0, -4.0, 3.0]], dtype=torch.float64)
TURN = euler_rotation(*torch.deg2rad(torch.tensor([45.0, 0.0, -15.0], dtype=torch.float64)).unbind())
BIAS = 20e-9 * 299792458
GAINS = 10 ** (torch.tensor([-111.145, -117.910, -120.859], dtype=torch.float64) / 20)
NOISE = 1.39648e-12


def links(count: int) -> PairGeometry:
    return PairGeometry(BS.expand(count, 3), RIS.expand(count, 2, 3), TURN.expand(count, 3, 3))


def true_parameters(bias_m: float = BIAS) -> Tensor:
    return path_parameters(UE, torch.tensor(bias_m, dtype=torch.float64), BS, RIS, TURN)


def channels(count: int, seed: int | None = None, present: tuple[bool, ...] = (True, True, True)) -> ChannelEstimate:
    """Efficient estimates: the true parameters with errors of the bound's covariance (None: without)."""
    truth = true_parameters().expand(count, 3, 5).clone()
    if seed is not None:
        covariance = channel_covariance(fisher(SYSTEM.sizes, SYSTEM.slopes, truth[0], GAINS + 0j, NOISE), 11)
        free = [0, 1, 2, 3, 4, 5, 6, 9, 10, 11, 14]
        scale = covariance.diagonal().sqrt()
        root = torch.linalg.cholesky(covariance / torch.outer(scale, scale)) * scale.unsqueeze(-1)
        drawn = torch.randn(count, 11, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        flat = truth.flatten(-2)
        flat[:, free] += drawn @ root.mT
        truth = flat.unflatten(-1, (3, 5))
    here = torch.tensor(present).expand(count, 3)
    gains = (GAINS + 0j).expand(count, 3) * here
    noise = torch.full((count,), NOISE, dtype=torch.float64)
    valid = torch.ones(count, dtype=torch.bool)
    return ChannelEstimate(truth, gains, noise, here, gains.abs(), valid)


# --- directions -------------------------------------------------------------------------------------------------------


def test_directions_of_exact_cosines_are_those_of_the_paths() -> None:
    estimate = channels(2)
    fixes = path_fixes(links(2), estimate, channel_quality(SYSTEM, estimate))
    away = UE - torch.cat((BS[None], RIS))
    torch.testing.assert_close(fixes.direction[0], away / torch.linalg.vector_norm(away, dim=-1, keepdim=True))
    torch.testing.assert_close(fixes.pseudo_range_m[0], torch.linalg.vector_norm(away, dim=-1) + BIAS)
    torch.testing.assert_close(fixes.source_m[0], torch.cat((BS[None], RIS)))


@pytest.mark.parametrize("steps", [0, 5])
def test_error_maps_are_the_derivatives(steps: int) -> None:
    covariance = torch.diag(torch.tensor([1.0, 2.0, 0.3, 0.5], dtype=torch.float64)).unsqueeze(0)
    y = true_parameters()[None, 0, :4]
    turn, step = TURN.unsqueeze(0), 1e-5
    _, found = directions.line_of_sight_direction(y, covariance, turn, steps)
    for column in range(4):
        shift = step * torch.eye(4, dtype=torch.float64)[column]
        high, low = (
            directions.line_of_sight_direction(y + sign * shift, covariance, turn, steps)[0] for sign in (1, -1)
        )
        torch.testing.assert_close((high - low) / (2 * step), found[..., column], rtol=0, atol=1e-7)
    theta = true_parameters()[None, 1:, :2]
    _, found = directions.surface_direction(theta, turn)
    for column in range(2):
        shift = step * torch.eye(2, dtype=torch.float64)[column]
        high, low = (directions.surface_direction(theta + sign * shift, turn)[0] for sign in (1, -1))
        torch.testing.assert_close((high - low) / (2 * step), found[..., column], rtol=0, atol=1e-6)


def test_cosines_beyond_the_horizon_stay_directions() -> None:
    theta = torch.tensor([[[0.9, 0.9], [1.0, 0.0]]], dtype=torch.float64)
    u, slopes = directions.surface_direction(theta, TURN.unsqueeze(0))
    torch.testing.assert_close(torch.linalg.vector_norm(u, dim=-1), torch.ones(1, 2, dtype=torch.float64))
    assert torch.isfinite(slopes).all()


# --- position and clock -----------------------------------------------------------------------------------------------


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_small_inverses_agree_with_the_library(seed: int) -> None:
    a = torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    matrix = a @ a.mT + 0.1 * torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(inverse_3x3(matrix), torch.linalg.inv(matrix), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("present", [(True, True, True), (False, True, True), (True, False, True)])
def test_exact_parameters_give_the_exact_answer(solver: str, present: tuple[bool, ...]) -> None:
    found = locate_pairs(SYSTEM, links(2), channels(2, present=present), solver, 60.0)
    torch.testing.assert_close(found.position_m, UE.expand(2, 3), rtol=0, atol=1e-6)
    torch.testing.assert_close(found.bias_m, torch.full((2,), BIAS, dtype=torch.float64), rtol=0, atol=1e-6)
    assert found.valid.all()


def test_one_path_is_not_enough() -> None:
    found = locate_pairs(SYSTEM, links(1), channels(1, present=(True, False, False)), "search", 60.0)
    assert not found.valid.any()
    assert torch.isfinite(found.position_m).all()


def test_paths_that_no_clock_brings_together_are_no_fix() -> None:
    estimate = channels(1)
    estimate.parameters[0, 1, 4] += 80.0
    assert not locate_pairs(SYSTEM, links(1), estimate, "search", 60.0).valid.any()


@pytest.mark.parametrize("solver", SOLVERS)
def test_efficient_parameters_give_the_bound(solver: str) -> None:
    count = 2000
    estimate = channels(count, seed=4)
    everywhere = links(count)
    found = in_chunks(
        count, lambda rows: locate_pairs(SYSTEM, everywhere.select(rows), estimate.select(rows), solver, 60.0)
    )
    peb, ceb = bounds(found.information[0])
    # The published bound of this scene, from the estimator's own information.
    assert float(peb) == pytest.approx(3.096e-3, rel=0.01)
    assert float(ceb) == pytest.approx(2.090e-3, rel=0.01)
    # 2000 errors: the RMSE has a deviation of 1.1 % at most, that of the clock 1.6 %; more than four of them.
    error = torch.linalg.vector_norm(found.position_m - UE, dim=-1)
    assert float(error.square().mean().sqrt() / 3.0957e-3) == pytest.approx(1.0, abs=0.05)
    assert float((found.bias_m - BIAS).square().mean().sqrt() / 2.0904e-3) == pytest.approx(1.0, abs=0.07)


def test_three_solvers_agree_to_a_hundredth_of_the_error() -> None:
    estimate = channels(300, seed=5)
    found = {solver: locate_pairs(SYSTEM, links(300), estimate, solver, 60.0).position_m for solver in SOLVERS}
    for solver in ("linear", "exip"):
        off = torch.linalg.vector_norm(found[solver] - found["search"], dim=-1)
        assert float(off.square().mean().sqrt()) < 3.1e-5


def test_the_reference_is_the_minimum_of_its_cost() -> None:
    estimate = channels(3, seed=6)
    quality = channel_quality(SYSTEM, estimate)
    start, bias = UE.expand(3, 3) + 0.3, torch.full((3,), BIAS + 0.2, dtype=torch.float64)
    position, found = climb_likelihood(links(3), estimate, quality.information, start, bias)
    again, _ = climb_likelihood(links(3), estimate, quality.information, position, found)
    torch.testing.assert_close(again, position, rtol=0, atol=1e-9)


def test_biases_are_told_modulo_the_window() -> None:
    estimate = channels(1)
    estimate.parameters[..., 4] += SYSTEM.window_m
    found = locate_pairs(SYSTEM, links(1), estimate, "search", 60.0)
    assert float(found.bias_m) == pytest.approx(BIAS, abs=1e-6)
    torch.testing.assert_close(found.position_m[0], UE, rtol=0, atol=1e-6)


def test_constrained_directions_save_one_and_a_half_percent() -> None:
    covariance = channel_covariance(fisher(SYSTEM.sizes, SYSTEM.slopes, true_parameters(), GAINS + 0j, NOISE), 11)
    squares = {0: 0.0, 5: 0.0}
    for seed in range(40):
        estimate = channels(100, seed=seed)
        quality = channel_quality(SYSTEM, estimate)
        for steps in squares:
            position, _ = reweighted(path_fixes(links(100), estimate, quality, steps), 60.0)
            squares[steps] += float((position - UE).square().sum())
    error = {steps: math.sqrt(total) for steps, total in squares.items()}
    theory = [
        wls_covariance(covariance, UE, BS, RIS, TURN, constrained)[:3, :3].trace().sqrt()
        for constrained in (True, False)
    ]
    # Same errors in both, so that their quotient is known far better than either.
    assert error[0] / error[5] == pytest.approx(float(theory[1] / theory[0]), abs=0.01)
    assert error[0] / error[5] > 1.005


# --- benchmarks -------------------------------------------------------------------------------------------------------


def test_angles_alone_are_exact_without_noise_and_spread_as_linear_theory_says() -> None:
    exact = channels(1)
    start = benchmarks.nearest_to_lines(links(1), exact.parameters[..., :2], exact.present)
    torch.testing.assert_close(start[0], UE, rtol=0, atol=1e-9)
    count = 4000
    noisy = channels(count, seed=8)
    lines = benchmarks.nearest_to_lines(links(count), noisy.parameters[..., :2], noisy.present)
    found = benchmarks.fit_cosines(links(count), noisy.parameters[..., :2], noisy.present, lines)
    covariance = channel_quality(SYSTEM, noisy).covariance
    spread = benchmarks.cosine_fit_covariance(links(count), found, covariance, noisy.noise, noisy.present)[0]
    full = channel_covariance(fisher(SYSTEM.sizes, SYSTEM.slopes, true_parameters(), GAINS + 0j, NOISE), 11)
    torch.testing.assert_close(spread.trace(), ls_covariance(full, UE, BS, RIS, TURN).trace(), rtol=0.02, atol=0)
    error = torch.linalg.vector_norm(found - UE, dim=-1).square().mean().sqrt()
    assert float(error / 3.0957e-3) == pytest.approx(2.555, rel=0.06)


def test_a_trusted_clock_costs_its_error() -> None:
    estimate = channels(2)
    estimate.parameters[1, :, 4] -= BIAS
    fixes = path_fixes(links(2), estimate, channel_quality(SYSTEM, estimate))
    position, _ = benchmarks.along_strongest_path(estimate, fixes, SYSTEM.window_m)
    error = torch.linalg.vector_norm(position - UE, dim=-1)
    assert float(error[0]) == pytest.approx(BIAS, rel=1e-9)
    assert float(error[1]) < 1e-9


def siso_samples(bias_m: float) -> tuple[Tensor, Tensor]:
    """Noise-free samples of the first surface with 32 random pairs of profiles."""
    profiles = random_profiles(torch.Generator().manual_seed(2), 32, 400)
    delays = mode_vector(true_parameters(bias_m)[:2, 4], 64, SYSTEM.slopes[4])
    incoming, outgoing = ris_cosines(UE, BS, RIS[:1])
    over = 0.02 * array_gain(profiles, outgoing, incoming, (20, 20)).unsqueeze(-1) * delays[1]
    return profiles, torch.stack((delays[0] + 1j * over, delays[0] - 1j * over), dim=1)


@pytest.mark.parametrize("bias_m", [0.0, BIAS, -7.0, 40.0])
def test_single_antennas_are_exact_without_noise(bias_m: float) -> None:
    profiles, samples = siso_samples(bias_m)
    blocks = torch.stack((samples, samples * math.nan, samples * 0, samples))
    found = siso.locate_siso(links(4), profiles.expand(4, 32, 400), blocks, (20, 20), SYSTEM.slopes[4], SYSTEM.window_m)
    assert found.valid.tolist() == [True, False, False, True]
    for row in (0, 3):
        torch.testing.assert_close(found.position_m[row], UE, rtol=0, atol=1e-4)
        assert float(found.bias_m[row]) == pytest.approx(bias_m, abs=1e-4)


# --- cooperation ------------------------------------------------------------------------------------------------------


def pair_fixes(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Positions [1, 3, 2, 3] and information of three UEs at two base stations."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(1, 3, 2, 3, 3, generator=generator, dtype=torch.float64)
    return torch.randn(1, 3, 2, 3, generator=generator, dtype=torch.float64), root @ root.mT + torch.eye(
        3, dtype=torch.float64
    )


def test_fusing_is_the_weighted_least_squares_over_everything() -> None:
    position, information = pair_fixes()
    offset = torch.randn(1, 2, 3, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    spread = torch.tensor([0.04, 0.5], dtype=torch.float64)[None, :, None, None] * torch.eye(3, dtype=torch.float64)
    everything = torch.ones(1, 3, 2, dtype=torch.bool)
    found = fuse(position, information, everything, offset, spread)
    # The same as one stacked regression, rows whitened by the roots of the weights.
    rows, right = [], []
    for ue in range(3):
        for station in range(2):
            root = torch.linalg.cholesky(information[0, ue, station]).mT
            design = torch.zeros(3, 9, dtype=torch.float64)
            design[:, 3 * ue : 3 * ue + 3] = root
            rows.append(design)
            right.append(root @ position[0, ue, station])
    for ue in (1, 2):
        root = torch.linalg.inv(torch.linalg.cholesky(spread[0, ue - 1]))
        design = torch.zeros(3, 9, dtype=torch.float64)
        design[:, :3], design[:, 3 * ue : 3 * ue + 3] = root, -root
        rows.append(design)
        right.append(root @ offset[0, ue - 1])
    table = torch.cat(rows)
    expected = torch.linalg.lstsq(table, torch.cat(right).unsqueeze(-1)).solution.reshape(3, 3)
    torch.testing.assert_close(found.position_m[0], expected, rtol=1e-8, atol=1e-8)
    inverse = torch.linalg.inv(table.mT @ table)
    for ue in range(3):
        own = inverse[3 * ue : 3 * ue + 3, 3 * ue : 3 * ue + 3]
        torch.testing.assert_close(found.covariance_m2[0, ue], own, rtol=1e-8, atol=1e-8)


def test_invalid_pairs_do_not_count_and_links_carry_a_position_over() -> None:
    position, information = pair_fixes(1)
    valid = torch.tensor([[[True, False], [False, False], [True, True]]])
    position[0, 1] = math.nan
    alone = fuse(position, information, valid, None, None)
    assert alone.valid.tolist() == [[True, False, True]]
    torch.testing.assert_close(alone.position_m[0, 0], position[0, 0, 0])
    offset = torch.tensor([[[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]], dtype=torch.float64)
    exact = torch.zeros(1, 2, 3, 3, dtype=torch.float64)
    exact[:, 1] = 1e12 * torch.eye(3)
    tied = fuse(position, information, valid, offset, exact)
    assert tied.valid.all()
    torch.testing.assert_close(tied.position_m[0, 1], tied.position_m[0, 0] - offset[0, 0], rtol=0, atol=1e-5)
    nobody = fuse(position, information, torch.zeros_like(valid), offset, exact)
    assert not nobody.valid.any()


def test_average_by_hand() -> None:
    position = torch.tensor([[[[1.0, 0.0, 0.0], [3.0, 0.0, 0.0]], [[5.0, 0.0, 0.0], [9.0, 0.0, 0.0]]]]).double()
    covariance = torch.eye(3, dtype=torch.float64).expand(1, 2, 2, 3, 3)
    found = average(position, covariance, torch.tensor([[[True, True], [True, False]]]))
    assert found.position_m[0, :, 0].tolist() == [2.0, 5.0]
    assert found.covariance_m2[0, :, 0, 0].tolist() == [0.5, 1.0]


def test_a_pair_of_ues_gains_what_the_bound_says() -> None:
    found = locate_pairs(SYSTEM, links(1), channels(1), "search", 60.0)
    own = without_clock(found.information)[:, None, None].expand(1, 2, 1, 3, 3)
    link = 1e-6 * torch.eye(3, dtype=torch.float64).expand(1, 1, 3, 3)
    both = fuse(UE.expand(1, 2, 1, 3), own, torch.ones(1, 2, 1, dtype=torch.bool), torch.zeros(1, 1, 3).double(), link)
    alone = torch.linalg.inv(own[0, 0, 0]).trace()
    assert 0.5 < float(both.covariance_m2[0, 0].trace() / alone) < 0.8
