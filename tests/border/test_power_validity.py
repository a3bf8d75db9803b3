"""What ``valid`` of positions from powers and angles is worth: mirror images, gaps, offsets, users outside, games."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from cfpos.baselines import make_policy
from cfpos.baselines.dcp.descent import LinkObservations, misfit
from cfpos.baselines.dcp.judging import mirrored
from cfpos.baselines.dcp.radio_map import RadioMap, measured_profiles
from cfpos_envs import make_env
from cfpos_envs.measurements import PositionEstimate, RadioMeasurements, Reason
from cfpos_envs.physics.arrays import angular_power, profile_peak, ula_response
from cfpos_envs.physics.dcp.bounds import peak_std_rad
from tests.baselines.dcp.synthetic import Drop, draw_drops, errors_m, noise_free_drop, radio_model
from tests.border.halls import hall

USERS = 1000
GRID = np.array([[x, y] for x in (0, 20, 40) for y in (0, 20, 40)], dtype=float)
WALL = np.array([[x, 0] for x in (0, 10, 20, 30, 40)], dtype=float)
NEARLY = WALL + np.array([[0, 0.02], [0, -0.02], [0, 0.01], [0, -0.02], [0, 0]])
HALL = [[0.0, 0.0], [40.0, 40.0]]


def drawn(aps: np.ndarray, sigma_db: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Users in the hall and their RSS by the default law with Gaussian errors."""
    draw = np.random.default_rng(seed)
    users = draw.uniform(2.0, 38.0, (USERS, 2))
    return users, powers(aps, users) + draw.normal(0.0, sigma_db, (USERS, len(aps)))


def powers(aps: np.ndarray, users: np.ndarray) -> np.ndarray:
    return -40.0 - 30.0 * np.log10(np.linalg.norm(users[:, None] - aps, axis=2))


def rss_fix(aps: np.ndarray, rss: np.ndarray, sigma_db: float, **options: Any) -> PositionEstimate:
    return make_policy("rss-gn").locate(RadioMeasurements.from_arrays(aps, rss, shadowing_std_db=sigma_db, **options))


def shares(estimate: PositionEstimate, users: np.ndarray) -> tuple[int, float, float]:
    """Valid answers that are off by more than five of their deviations; valid share of right answers and of all."""
    error = np.linalg.norm(estimate.position[0].numpy() - users, axis=1)
    std = estimate.covariance[0].diagonal(dim1=-2, dim2=-1).sum(dim=-1).sqrt().numpy()
    valid, right = estimate.valid[0].numpy(), error <= 5 * std
    return int((valid & ~right).sum()), float(valid[right].mean()), float(valid.mean())


@pytest.mark.parametrize(("sigma_db", "missing"), [(1.0, 0.0), (3.0, 0.0), (1.0, 0.3)])
def test_right_answers_stay_valid_and_no_wrong_one_is(sigma_db: float, missing: float) -> None:
    users, rss = drawn(GRID, sigma_db)
    rss[np.random.default_rng(1).random(rss.shape) < missing] = np.nan
    estimate = rss_fix(GRID, rss, sigma_db)
    wrong, right_valid, _ = shares(estimate, users)
    assert wrong == 0
    assert right_valid >= 0.99
    # The residuals are what the stated noise makes them.
    used = estimate.degrees_of_freedom[0] > 0
    ratio = (estimate.chi_squared / estimate.degrees_of_freedom)[0][used]
    assert float(ratio.median()) == pytest.approx(0.92, abs=0.12)  # that of 3 to 7 degrees of freedom


@pytest.mark.parametrize("aps", [WALL, NEARLY, WALL[[0, 4]]], ids=["line", "nearly a line", "two"])
def test_mirror_images_are_ambiguous_unless_the_area_excludes_one(aps: np.ndarray) -> None:
    users, rss = drawn(aps, 1.0)
    wrong, _, valid = shares(rss_fix(aps, rss, 1.0), users)
    assert wrong == 0
    assert valid < 0.1
    inside = rss_fix(aps, rss, 1.0, area_m=HALL)
    wrong, right_valid, _ = shares(inside, users)
    assert wrong == 0
    assert right_valid > (0.99 if len(aps) > 2 else 0.9)
    blocked = rss_fix(aps, rss[:100], 1.0).reason[0]
    assert (blocked == Reason.AMBIGUOUS).float().mean() > 0.85


def test_bearings_decide_between_mirror_images() -> None:
    both = [0, 1]
    m = hall(keep=both)
    assert m.ap_positions_m[0, :, 1].tolist() == [1.0, 1.0]
    # In the hall's square the image lies behind the wall; in one that reaches as far to the other side it does not.
    wide = dataclasses.replace(
        m, radio=dataclasses.replace(m.radio, side_m=80.0), ap_positions_m=m.ap_positions_m + 38.0
    )
    powers_only = make_policy("rss-gn").locate(wide)
    assert Reason(int(powers_only.reason[0, 0])) == Reason.AMBIGUOUS
    # Arrays along the line see both places under one angle.
    along = as_seen_along_the_line(dataclasses.replace(wide, ap_orientation_rad=torch.zeros(1, 2)))
    for name in ("joint-gn", "direct-search"):
        assert make_policy(name).locate(wide).valid.all()
        assert Reason(int(make_policy(name).locate(along).reason[0, 0])) == Reason.AMBIGUOUS


def as_seen_along_the_line(m: RadioMeasurements) -> RadioMeasurements:
    """The same user seen by arrays whose axes point along +x."""
    away = torch.tensor([50.0, 65.0]) - m.ap_positions_m[0]
    steering = ula_response(torch.atan2(away[:, 1], away[:, 0]), 4)
    covariance = steering.unsqueeze(-1) * steering.conj().unsqueeze(-2) + 1e-3 * torch.eye(4)
    return dataclasses.replace(
        m, covariance=covariance[None, :, None], angular_power=angular_power(covariance)[None, :, None]
    )


def test_users_outside_the_area_and_offsets_are_not_valid() -> None:
    draw = np.random.default_rng(3)
    users = draw.uniform(-30.0, 70.0, (3 * USERS, 2))
    users = users[((users < -8) | (users > 48)).any(axis=1)][:USERS]
    rss = powers(GRID, users) + draw.normal(0.0, 1.0, (len(users), 9))
    assert shares(rss_fix(GRID, rss, 1.0, area_m=HALL), users)[2] < 1e-3
    users, rss = drawn(GRID, 1.0)
    assert shares(rss_fix(GRID, rss - 12.0, 1.0, area_m=HALL), users)[2] < 1e-3
    rss[:, 4] -= 25.0
    found = rss_fix(GRID, rss, 1.0)
    assert (found.reason[0] == Reason.LARGE_RESIDUALS).float().mean() > 0.99


def test_an_exact_fit_far_outside_is_outside() -> None:
    # Five metres beyond the border: powers of 0.1 dB fit there and nowhere in the hall.
    found = rss_fix(GRID, powers(GRID, np.array([[45.0, 20.0]])), 2.0, area_m=[[0.0, 0.0], [30.0, 40.0]])
    assert Reason(int(found.reason[0, 0])) == Reason.OUTSIDE


def test_too_few_links_and_impossible_readings_have_their_reasons() -> None:
    rss = powers(GRID, np.array([[12.0, 27.0]] * 3))
    rss[0, 1:] = np.nan
    rss[1] = np.nan
    found = rss_fix(GRID, rss, 1.0)
    few = [Reason.TOO_FEW_LINKS, Reason.TOO_FEW_LINKS, Reason.VALID]
    assert [Reason(int(code)) for code in found.reason[0]] == few
    loud = hall()
    loud.rss_dbm[0, :3] = 100.0
    for name in ("rss-gn", "music", "direct-search"):
        reason = make_policy(name).locate(loud).reason
        assert Reason(int(reason[0, 0])) == Reason.BAD_INPUT


def test_a_mirror_image_by_hand_and_over_the_seam_of_a_torus() -> None:
    aps = torch.tensor([[[10.0, 10.0], [20.0, 20.0], [95.0, 2.0]]])
    usable = torch.tensor([[[True], [True], [False]]])
    points = torch.tensor([[[12.0, 20.0]]])
    assert mirrored(aps, usable, points, 100.0, False)[0, 0].tolist() == pytest.approx([20.0, 12.0], abs=1e-4)
    seam = torch.tensor([[[95.0, 50.0], [5.0, 50.0]]])
    found = mirrored(seam, torch.ones(1, 2, 1, dtype=torch.bool), torch.tensor([[[99.0, 57.0]]]), 100.0, True)
    assert found[0, 0].tolist() == pytest.approx([99.0, 43.0], abs=1e-4)


def test_a_regression_from_powers_knows_how_far_off_it_is() -> None:
    users, rss = drawn(GRID, 3.0)
    rss, users = rss[:150], users[:150]
    own = RadioMeasurements.from_arrays(GRID, rss, shadowing_std_db=3.0, area_m=HALL)
    estimate = make_policy("gpr", feature="rss-db", spacing=8.0, tuning_points=30).locate(own)
    wrong, right_valid, _ = shares(estimate, users)
    assert wrong == 0
    assert right_valid >= 0.99
    own = RadioMeasurements.from_arrays(GRID, rss + 20.0, shadowing_std_db=3.0, area_m=HALL)
    assert make_policy("gpr", feature="rss-db", spacing=8.0, tuning_points=30).locate(own).valid.float().mean() < 0.05


def test_games_with_unknown_shadowing_are_within_the_stated_noise() -> None:
    env = make_env("dcp-jar-v0", num_envs=30, seed=1, kernel="torch")
    env.reset(seed=1)
    for name in ("rss-gn", "joint-gn"):
        estimate = make_policy(name).locate(env.measurements)
        assert float(estimate.valid.float().mean()) >= 0.99
        ratio = float((estimate.chi_squared / estimate.degrees_of_freedom).mean())
        assert 0.7 < ratio < 1.1


@pytest.fixture(scope="module")
def four_antennas() -> Drop:
    """1 200 users, nine APs with arrays of four antennas, 2 dB of shadowing, 0.1 rad of local scattering."""
    radio = radio_model(num_antennas=4, spread_deg=5.73, wrap=False)
    return draw_drops(60, 5, num_aps=9, num_ues=20, shadowing_db=2.0, radio=radio)


@pytest.mark.parametrize("name", ["joint-gn", "direct-search"])
def test_bearings_of_few_antennas_are_taken_for_no_better_than_they_are(four_antennas: Drop, name: str) -> None:
    m = four_antennas.measurements
    estimate = make_policy(name).locate(m)
    error = errors_m(four_antennas, estimate.position)
    if estimate.covariance is not None:
        std = estimate.covariance.diagonal(dim1=-2, dim2=-1).sum(dim=-1).sqrt()
        assert not (estimate.valid & (error > 5 * std)).any()
    assert float(estimate.valid.float().mean()) >= 0.99
    # Arrays whose phase has the other sign are noticed.
    other = m.covariance.conj()
    wrong = make_policy(name).locate(dataclasses.replace(m, covariance=other, angular_power=angular_power(other)))
    assert not wrong.valid.any()
    assert (wrong.reason == Reason.LARGE_RESIDUALS).float().mean() > 0.75


def test_wide_scattering_around_few_antennas_is_no_reason_to_doubt() -> None:
    drop = draw_drops(50, 5, num_ues=20, radio=radio_model(num_antennas=4, wrap=False))
    assert float(make_policy("joint-gn").locate(drop.measurements).valid.float().mean()) >= 0.99


@pytest.mark.parametrize("antennas", [4, 8])
def test_the_peak_of_a_spectrum_spreads_as_told(antennas: int) -> None:
    drop = draw_drops(30, 5, num_ues=20, radio=radio_model(num_antennas=antennas, wrap=False))
    m = drop.measurements
    truth = RadioMap.of(m).links(drop.truth_m).folded_rad
    off = profile_peak(measured_profiles(m))[0] - truth
    told = peak_std_rad(m.radio)
    assert told.shape == (91,)
    for degrees in range(20, 161, 20):
        here = (torch.rad2deg(truth) - degrees).abs() < 2
        # First order only, and the peak is one of a table's rows refined: a fifth.
        assert float(off[here].square().mean().sqrt()) == pytest.approx(float(told[degrees // 2]), rel=0.2)


def test_both_ends_of_an_array_look_alike() -> None:
    drop = noise_free_drop(torch.tensor([[[80.0, 50.0]]]), 1, radio=radio_model(num_antennas=4, wrap=False))
    m = drop.measurements
    along = torch.atan2(50.0 - m.ap_positions_m[..., 1], 80.0 - m.ap_positions_m[..., 0])
    m = dataclasses.replace(m, ap_orientation_rad=along)
    usable = torch.ones_like(m.rss_dbm, dtype=torch.bool)
    spread, site = torch.full((1, 1), 0.1), RadioMap.of(m)
    for bearing, expected in ((0.02, 0.0), (math.pi - 0.02, 0.0), (1.0, 100.0)):
        seen = LinkObservations(
            usable, None, None, torch.full_like(m.rss_dbm, bearing), torch.full_like(m.rss_dbm, 0.05)
        )
        per_link = float(misfit(site, seen, drop.truth_m, spread).chi_squared) / usable.shape[1]
        assert (per_link < 0.5) if expected == 0.0 else (per_link > expected)


@pytest.mark.parametrize("name", ["joint-gn", "rss-gn"])
def test_a_group_notices_a_deviation_that_is_too_small(name: str) -> None:
    # With four access points a fourth of the users alone fit a tenth of the noise, 6 % of them far away.
    drop = draw_drops(4, 5, num_aps=4, num_ues=250, shadowing_db=2.0, radio=radio_model(wrap=False))
    told = dataclasses.replace(drop.measurements, shadowing_std_db=0.2)
    assert not make_policy(name).locate(told).valid.any()
    few = dataclasses.replace(
        told,
        rss_dbm=told.rss_dbm[..., :7],
        angular_power=None if told.angular_power is None else told.angular_power[:, :, :7],
        covariance=None if told.covariance is None else told.covariance[:, :, :7],
    )
    assert make_policy(name).locate(few).valid.any()


def test_a_slope_of_zero_leaves_a_regression_nothing_to_learn() -> None:
    m = hall()
    flat = dataclasses.replace(m, radio=dataclasses.replace(m.radio, path_loss_slope_db=0.0))
    with pytest.raises(ValueError, match=r"the received powers are the same everywhere.*path_loss_slope_db=0"):
        make_policy("gpr", feature="rss-db", spacing=8.0).locate(flat)


@pytest.mark.parametrize(("name", "options"), [("fingerprint", {"spacing": 5.0}), ("gpr", {"spacing": 12.5})])
def test_one_or_two_access_points_do_not_place_a_user_by_likeness(name: str, options: dict[str, Any]) -> None:
    env = make_env("dcp-jar-v0", num_envs=8, seed=3, split="test", site="clean", num_aps=16, num_sites=1, wrap=False)
    env.reset()
    measured, truth = env.measurements, env.truth()["true_position"]
    policy, right = make_policy(name, env, **options), {}
    for count in (1, 2, 16):
        heard = (torch.arange(16) < count)[None, :, None]
        found = policy.locate(dataclasses.replace(measured, rss_dbm=torch.where(heard, measured.rss_dbm, torch.nan)))
        error = torch.linalg.vector_norm(found.position - truth, dim=-1)
        std = found.covariance.diagonal(dim1=-2, dim2=-1).sum(dim=-1).sqrt()
        right[count] = found.valid.double().mean(), (found.valid & (error > 5 * std)).double().mean()
        if count == 1:
            assert (found.reason == int(Reason.TOO_FEW_LINKS)).all()
    assert right[1][0] == 0.0
    assert right[2][1] < 0.05
    assert right[16][0] > 0.9
