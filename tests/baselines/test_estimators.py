"""Gauss-Newton, bearings, search, Gaussian processes: exact without noise, near the bound with it, and honest."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from baselines import make_policy
from baselines.dcp.descent import calibrated, wrong_side_variance
from baselines.dcp.front_end import rss_sampling_std_db
from baselines.dcp.radio_map import RadioMap, measured_profiles
from baselines.dcp.search import log_similarity
from baselines.dcp.spectra import beamscan_spectrum, covariance_bearings, music_spectrum
from cfpos_envs.measurements.base import PositionEstimate
from cfpos_envs.physics.arrays import angle_grid, ula_response
from cfpos_envs.physics.dcp.channel import draw_sample_covariance, rss_w
from cfpos_envs.physics.geometry import nearest_image
from cfpos_envs.physics.units import watts_to_dbm
from tests.baselines.dcp.synthetic import (
    Drop,
    bound_m,
    draw_drops,
    errors_m,
    noise_free_drop,
    radio_model,
    rmse_m,
    with_lost_links,
)

ONE_SHOT = ("joint-gn", "rss-gn", "music", "beamscan", "direct-search")


@pytest.fixture(scope="module")
def clean() -> Drop:
    return draw_drops(80, seed=1, num_sites=8)


@pytest.fixture(scope="module")
def shadowed() -> Drop:
    return draw_drops(80, seed=1, num_sites=8, shadowing_db=4.0)


def located(drop: Drop, name: str, **options: object) -> PositionEstimate:
    return make_policy(name, **options).locate(drop.measurements)


def mean_normalised_error(drop: Drop, estimate: PositionEstimate) -> float:
    """Mean of e^T C^-1 e / 2 without the largest one in a hundred: 1 for an honest covariance."""
    assert estimate.covariance is not None
    side = drop.measurements.radio.side_m
    error = nearest_image(estimate.position - drop.truth_m, side, drop.measurements.radio.wrap).unsqueeze(-1)
    squares = (error.mT @ torch.linalg.solve(estimate.covariance, error)).flatten().sort().values
    return float(squares[: len(squares) * 99 // 100].mean() / 2)


@pytest.mark.parametrize("name", ONE_SHOT)
def test_without_noise_the_true_point_is_found(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(6, 4, 2, generator=generator) * 100
    drop = noise_free_drop(points, seed=5)
    # A search in halving steps stops a centimetre off; a bearing next to an array's axis is coarse even without noise.
    limit = {"direct-search": 0.05, "music": 0.05, "beamscan": 0.05, "joint-gn": 0.02, "rss-gn": 0.002}[name]
    assert errors_m(drop, located(drop, name).position).max() < limit


@pytest.mark.parametrize(
    ("name", "unshadowed", "with_shadowing"),
    [
        ("joint-gn", 0.215, 0.42),
        ("rss-gn", 0.26, 2.93),
        ("rss-mmse", 0.26, 2.8),
        ("music", 0.40, 0.40),
        ("beamscan", 0.40, 0.40),
        ("direct-search", 0.24, 0.41),
    ],
)
def test_accuracy(clean: Drop, shadowed: Drop, name: str, unshadowed: float, with_shadowing: float) -> None:
    assert rmse_m(clean, located(clean, name).position) == pytest.approx(unshadowed, rel=0.15)
    assert rmse_m(shadowed, located(shadowed, name).position) == pytest.approx(with_shadowing, rel=0.15)


def test_joint_gauss_newton_comes_near_the_bound_and_not_below(clean: Drop, shadowed: Drop) -> None:
    for drop, highest in ((clean, 1.22), (shadowed, 1.35)):
        estimate = located(drop, "joint-gn")
        ratio = rmse_m(drop, estimate.position) / bound_m(drop)
        assert 0.95 < ratio < highest
        assert errors_m(drop, estimate.position).quantile(0.99) < 3 * rmse_m(drop, estimate.position)


def test_rss_gauss_newton_comes_near_its_bound(clean: Drop, shadowed: Drop) -> None:
    for drop in (clean, shadowed):
        ratio = rmse_m(drop, located(drop, "rss-gn").position) / bound_m(drop, use_aoa=False)
        assert 0.9 < ratio < 1.2


def test_triangulation_comes_near_the_bound_of_angles(clean: Drop) -> None:
    ratio = rmse_m(clean, located(clean, "music").position) / bound_m(clean, use_rss=False)
    assert 0.95 < ratio < 1.3


@pytest.mark.parametrize("name", ["joint-gn", "rss-gn", "rss-mmse", "music", "beamscan"])
def test_covariances_are_honest(clean: Drop, shadowed: Drop, name: str) -> None:
    for drop in (clean, shadowed):
        assert 0.7 < mean_normalised_error(drop, located(drop, name)) < 1.4


def test_known_maps_are_used() -> None:
    drop = draw_drops(20, seed=3, num_sites=4, shadowing_db=4.0, map_known=True)
    assert rmse_m(drop, located(drop, "joint-gn").position) < 1.4 * bound_m(drop)
    assert rmse_m(drop, located(drop, "direct-search").position) < 1.6 * bound_m(drop)


def test_music_bearings_serve_the_joint_estimator(shadowed: Drop) -> None:
    profile = rmse_m(shadowed, located(shadowed, "joint-gn").position)
    assert rmse_m(shadowed, located(shadowed, "joint-gn", links="music").position) < profile


def test_readings_of_the_whole_covariance_go_below_the_bound_of_powers(clean: Drop, shadowed: Drop) -> None:
    for links in ("likelihood", "covariance"):
        for drop, highest in ((clean, 1.02), (shadowed, 1.03)):
            estimate = located(drop, "joint-gn", links=links)
            assert 0.8 < rmse_m(drop, estimate.position) / bound_m(drop) < highest
            assert 0.7 < mean_normalised_error(drop, estimate) < 1.4


@pytest.mark.parametrize("name", ["music", "direct-search"])
def test_readings_of_the_whole_covariance_serve_other_estimators(shadowed: Drop, name: str) -> None:
    plain = rmse_m(shadowed, located(shadowed, name).position)
    assert rmse_m(shadowed, located(shadowed, name, links="covariance").position) < 0.97 * plain


def test_matrices_that_are_no_covariances_are_refused() -> None:
    drop = draw_drops(1, seed=2, num_aps=4, num_ues=1)
    assert drop.measurements.covariance is not None
    wrong = drop.measurements.covariance.clone()
    wrong[0, 1, 0, 0, 3] *= 2.0
    with pytest.raises(ValueError, match="covariance of 1 links is not Hermitian"):
        make_policy("joint-gn", links="likelihood").locate(dataclasses.replace(drop.measurements, covariance=wrong))


def miscalibrated(drop: Drop) -> Drop:
    """A third of the APs read 6 dB too much, and all arrays are turned by 5 degrees one way or the other."""
    measurements = drop.measurements
    bias = torch.zeros(36)
    bias[::3] = 6.0
    turn = torch.where(torch.arange(36) % 2 == 0, 1.0, -1.0) * math.radians(5.0)
    changed = dataclasses.replace(
        measurements,
        rss_dbm=measurements.rss_dbm + bias[:, None],
        ap_orientation_rad=measurements.ap_orientation_rad + turn,
    )
    return dataclasses.replace(drop, measurements=changed)


def test_self_calibration_pays_on_miscalibrated_sites_and_costs_on_clean_ones(clean: Drop) -> None:
    wrong = miscalibrated(draw_drops(20, seed=4, num_sites=4, num_ues=24))
    plain, own = (located(wrong, "joint-gn", self_calibrate=flag).position for flag in (False, True))
    assert rmse_m(wrong, own) < 0.8 * rmse_m(wrong, plain)
    tuned = rmse_m(clean, located(clean, "joint-gn", self_calibrate=True).position)
    assert rmse_m(clean, located(clean, "joint-gn").position) < tuned < 0.32


def test_sigma_is_told_or_taken_from_the_network(shadowed: Drop) -> None:
    told = located(shadowed, "joint-gn", sigma_db=4.0).position
    assert torch.equal(told, located(shadowed, "joint-gn").position)
    assert not torch.equal(told, located(shadowed, "joint-gn", sigma_db=0.0).position)


@pytest.mark.parametrize("name", ONE_SHOT)
def test_chunks_do_not_change_the_answer(clean: Drop, name: str) -> None:
    some = clean.measurements.select(slice(0, 40))
    policy = make_policy(name)
    together = policy.locate(some)
    pieces = [policy.locate(some.select(slice(i, i + 5))) for i in range(0, 40, 5)]
    torch.testing.assert_close(together.position, torch.cat([p.position for p in pieces]), atol=2e-3, rtol=0)
    if together.covariance is not None:
        covariances = torch.cat([p.covariance for p in pieces if p.covariance is not None])
        torch.testing.assert_close(together.covariance, covariances, atol=1e-3, rtol=1e-2)


@pytest.mark.parametrize("name", ONE_SHOT)
def test_a_shifted_torus_gives_shifted_answers(name: str) -> None:
    drop = draw_drops(8, seed=7, num_sites=2)
    # A multiple of the coarse grid, so that both searches look at the same points.
    shift = torch.tensor([35.0, 70.0])
    moved = dataclasses.replace(
        drop.measurements, ap_positions_m=torch.remainder(drop.measurements.ap_positions_m + shift, 100.0)
    )
    difference = make_policy(name).locate(moved).position - make_policy(name).locate(drop.measurements).position
    assert nearest_image(difference - shift, 100.0, True).abs().max() < 0.02


@pytest.mark.parametrize("name", [*ONE_SHOT, "centroid", "gpr"])
@pytest.mark.parametrize("value", [math.nan, -math.inf, math.inf])
def test_lost_links_are_left_out_and_silence_is_invalid(name: str, value: float) -> None:
    drop = draw_drops(3, seed=6, num_sites=1)
    lost = torch.zeros(3, 36, 6, dtype=torch.bool)
    lost[0, ::4, 1] = True
    lost[1, :, 2] = True
    lost[2] = True
    policy = make_policy(name, **({"spacing": 10.0} if name == "gpr" else {}))
    estimate = policy.locate(with_lost_links(drop.measurements, lost, value))
    assert torch.isfinite(estimate.position).all()
    assert ((estimate.position >= 0) & (estimate.position <= 100)).all()
    expected = torch.ones(3, 6, dtype=torch.bool)
    expected[1, 2] = False
    expected[2] = False
    assert torch.equal(estimate.valid, expected)
    if estimate.covariance is not None:
        assert torch.isfinite(estimate.covariance).all()
    if name in ONE_SHOT:
        assert errors_m(drop, estimate.position)[0, 1] < 1.5


def test_two_users_at_one_place_get_one_answer() -> None:
    drop = noise_free_drop(torch.tensor([[[30.0, 40.0], [30.0, 40.0]]]), seed=2)
    for name in ONE_SHOT:
        first, second = located(drop, name).position[0]
        torch.testing.assert_close(first, second)


def test_swapping_users_and_aps_swaps_nothing_else(clean: Drop) -> None:
    some = clean.measurements.select(slice(0, 4))
    generator = torch.Generator().manual_seed(1)
    aps, users = torch.randperm(36, generator=generator), torch.randperm(6, generator=generator)
    shuffled = dataclasses.replace(
        some,
        ap_positions_m=some.ap_positions_m[:, aps],
        ap_orientation_rad=some.ap_orientation_rad[:, aps],
        rss_dbm=some.rss_dbm[:, aps][:, :, users],
        angular_power=some.angular_power[:, aps][:, :, users],
        covariance=some.covariance[:, aps][:, :, users],
    )
    for name in ONE_SHOT:
        policy = make_policy(name)
        torch.testing.assert_close(
            policy.locate(shuffled).position, policy.locate(some).position[:, users], atol=5e-3, rtol=0
        )


def test_direct_search_ends_at_a_maximum(clean: Drop) -> None:
    some = clean.measurements.select(slice(0, 8))
    usable = torch.ones_like(some.rss_dbm, dtype=torch.bool)
    found = make_policy("direct-search").locate(some).position
    offsets = torch.tensor([[0.0, 0.0], [0.3, 0.0], [-0.3, 0.0], [0.0, 0.3], [0.0, -0.3], [2.0, 2.0], [-5.0, 1.0]])
    candidates = torch.remainder(found.unsqueeze(2) + offsets, 100.0)
    scores = log_similarity(RadioMap.of(some), some.rss_dbm, measured_profiles(some), candidates, usable)
    assert (scores.argmax(dim=-1) == 0).all()


def test_spectra_peak_at_a_plane_wave() -> None:
    angles = torch.linspace(0.4, 2.7, 24)
    waves = ula_response(angles, 8)
    covariance = waves.unsqueeze(-1) * waves.conj().unsqueeze(-2) + 0.01 * torch.eye(8)
    for method in ("music", "beamscan"):
        torch.testing.assert_close(
            covariance_bearings(covariance, radio_model(), method, 361), angles, atol=2e-3, rtol=0
        )
    steering = ula_response(angle_grid(181), 8)
    beams = beamscan_spectrum(covariance, steering)
    assert ((beams >= 0) & (beams <= 1)).all()
    # A lone wave leaves nothing in the noise subspace at its own angle.
    assert (music_spectrum(covariance, ula_response(angles, 8)).diagonal() > 10).all()


def test_beamscan_equals_the_quadratic_form() -> None:
    generator = torch.Generator().manual_seed(0)
    factor = torch.randn(3, 4, 4, dtype=torch.complex64, generator=generator)
    covariance = factor @ factor.mH
    steering = ula_response(angle_grid(7), 4)
    trace = torch.einsum("bii->b", covariance).real
    expected = torch.einsum("al,blm,am->ba", steering.conj(), covariance, steering).real / (4 * trace[:, None])
    torch.testing.assert_close(beamscan_spectrum(covariance, steering), expected)


def test_sampling_deviation_of_the_rss_agrees_with_draws() -> None:
    generator = torch.Generator().manual_seed(0)
    for eigenvalues in ([1.0, 1.0, 1.0, 1.0], [1.0, 0.1, 0.01, 0.01]):
        covariance = torch.diag(torch.tensor(eigenvalues)).to(torch.complex64)
        draws = draw_sample_covariance(generator, covariance.expand(4000, 4, 4), 100)
        measured = watts_to_dbm(rss_w(draws, 1.0, 1)).std()
        assert float(measured) == pytest.approx(float(rss_sampling_std_db(covariance, 100)), rel=0.05)


def test_calibration_by_hand() -> None:
    residual = torch.tensor([[[1.0, 2.0, 3.0, 40.0], [5.0, 5.0, 5.0, 5.0]]])
    usable = torch.tensor([[[True, True, True, False], [False, False, False, False]]])
    centred, scale = calibrated(residual, usable, 0.3)
    torch.testing.assert_close(centred, torch.tensor([[[-1.0, 0.0, 1.0, 38.0], [5.0, 5.0, 5.0, 5.0]]]))
    torch.testing.assert_close(scale[0, :, 0], torch.tensor([1.4826, 0.3]))


def test_the_wrong_side_matters_next_to_the_axis_only() -> None:
    distance = torch.tensor([[[1.0], [30.0]]])
    angle = torch.tensor([[[0.3], [1.2]]])
    near, far = wrong_side_variance(distance, angle, torch.tensor([[0.5]]))[0, :, 0]
    offset = math.sin(0.3)
    tail = 0.5 * math.erfc(offset / (0.5 * math.sqrt(2)))
    assert float(near) == pytest.approx(tail * (2 * offset) ** 2, rel=1e-4)
    assert float(far) < 1e-6


def test_gaussian_process_by_feature_and_area() -> None:
    for wrap in (True, False):
        drop = draw_drops(20, seed=2, num_aps=16, num_sites=1, radio=radio_model(num_antennas=4, wrap=wrap))
        rss, aoa, joint = (located(drop, "gpr", feature=name, spacing=7.0) for name in ("rss-db", "aoa", "joint"))
        assert rmse_m(drop, rss.position) < 1.6
        assert rmse_m(drop, aoa.position) < 8.0
        assert rmse_m(drop, joint.position) < 1.2 * rmse_m(drop, rss.position)
        assert 0.3 < mean_normalised_error(drop, rss) < 2.0


def test_gaussian_process_refuses_a_survey_beyond_its_means() -> None:
    drop = draw_drops(1, seed=2, num_aps=4, num_ues=1, num_sites=1)
    with pytest.raises(ValueError, match=r"spacing 0\.5 m makes 40000 references; gpr takes 4000"):
        located(drop, "gpr", spacing=0.5)


def test_centroid_of_symmetric_powers_is_the_middle_also_over_the_seam() -> None:
    drop = draw_drops(1, seed=0, num_aps=4, num_ues=1, num_sites=1)
    for centre in (50.0, 0.0):
        corners = torch.tensor([[[-10.0, -10.0], [10.0, -10.0], [-10.0, 10.0], [10.0, 10.0]]]) + centre
        level: Tensor = torch.full((1, 4, 1), -60.0)
        even = dataclasses.replace(drop.measurements, ap_positions_m=torch.remainder(corners, 100.0), rss_dbm=level)
        estimate = make_policy("centroid").locate(even)
        assert nearest_image(estimate.position - centre, 100.0, True).abs().max() < 1e-3
