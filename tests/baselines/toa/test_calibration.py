"""Calibration of ranges: offsets found with and without labels, what they are worth, and what is refused."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from baselines import make_policy
from baselines.toa.calibration.joint import Problem, Shared, _rows, fit
from baselines.toa.calibration.ranges import calibrate, calibrate_ranges
from baselines.toa.links import range_links
from baselines.toa.robust import HuberLoss
from cfpos import locate_ranges
from cfpos_envs.measurements.calibration import RangeCalibration
from cfpos_envs.measurements.toa import TimingMeasurements

APS = np.array([[0.0, 0.0], [20.0, 0.0], [20.0, 15.0], [0.0, 15.0], [9.0, 16.0], [11.0, -1.0]])
OFFSETS = np.array([0.9, 1.2, 0.7, 1.1, 1.4, 1.0])
GAUSSIAN = HuberLoss(1e6)
MEASURED = Path(__file__).resolve().parents[4] / "shared" / "measured"


def users(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform([1.0, 1.0], [19.0, 14.0], (count, 2))


def distances(places: np.ndarray) -> np.ndarray:
    return np.linalg.norm(places[:, None] - APS, axis=2)


def problem(ranges: np.ndarray, free: Shared, std: float, family: str = "toa") -> Problem:
    links = range_links(TimingMeasurements.from_arrays(APS, ranges, std, family=family))
    count = len(free.device_m)
    device = torch.arange(len(ranges)) % count
    return Problem(links, device, Shared.uniform(len(APS), count, 0.0, 1.0, 0.0, 0.0), free)


def free_offsets(devices: int = 1) -> Shared:
    return Shared.uniform(len(APS), devices, math.inf, 0.0, 0.0, 0.0)


# The joint fit --------------------------------------------------------------------------------------------------------


def test_offsets_of_exact_ranges_are_found_to_the_micrometre() -> None:
    places = users(60)
    found = calibrate_ranges(APS, distances(places) + OFFSETS, 0.1)
    assert found.pays, found.reason
    np.testing.assert_allclose(found.offset_m.numpy(), OFFSETS, atol=1e-5)


@pytest.mark.parametrize("family", ["toa", "tdoa"])
def test_derivatives_are_those_of_finite_differences(family: str) -> None:
    places = torch.tensor(users(4)) + 1.0  # the frame of the measurements begins at -1
    free = Shared.uniform(len(APS), 2, math.inf, math.inf, math.inf, math.inf)
    case = problem(distances(users(4)), free, 0.1, family)
    generator = torch.Generator().manual_seed(1)
    theta = case.start.flat() + 0.1 * torch.rand(4 * len(APS) + 2, generator=generator, dtype=torch.float64)
    own = torch.cat([places, torch.rand(4, case.own - 2, generator=generator, dtype=torch.float64)], dim=1)
    unit, residual, columns = _rows(case, theta, own)
    step = 1e-6
    for p in range(len(theta)):
        moved = theta.clone()
        moved[p] += step
        slope = (residual - _rows(case, moved, own)[1]) / step
        torch.testing.assert_close(slope, columns[..., p], atol=1e-5, rtol=0)
    for n in range(case.own):
        aside = own.clone()
        aside[:, n] += step
        slope = (residual - _rows(case, theta, aside)[1]) / step
        torch.testing.assert_close(slope, unit[..., n], atol=1e-5, rtol=0)


def test_offsets_reach_their_bound_and_do_not_beat_it() -> None:
    # NEES / M of 40 runs: chi-squared with 240 degrees of freedom over 240, 99.99 % within 0.68 and 1.40.
    places, rng, squares = users(50), np.random.default_rng(3), 0.0
    for _ in range(40):
        ranges = distances(places) + OFFSETS + 0.05 * rng.standard_normal((50, 6))
        case = problem(ranges, free_offsets(), 0.05)
        start = torch.tensor(places) + torch.tensor([0.0, 1.0])
        found = fit(case, start, torch.full((6,), 0.05, dtype=torch.float64), known_std=True, loss=GAUSSIAN)
        error = found.shared.offset_m - torch.tensor(OFFSETS)
        squares += float(error @ torch.linalg.solve(found.covariance[:6, :6], error))
    assert 0.68 < squares / 240 < 1.40


def test_spreads_are_those_of_the_errors() -> None:
    places, rng = users(800), np.random.default_rng(4)
    std = np.array([0.1, 0.1, 0.1, 0.2, 0.2, 0.2])
    found = calibrate_ranges(APS, distances(places) + OFFSETS + std * rng.standard_normal((800, 6)), 1.0)
    # Drawn towards that of all by a tenth; a quarter of a common spread of 0.16 would be 0.04 away.
    np.testing.assert_allclose(found.std_m.numpy(), std, atol=0.02)


def test_errors_that_last_make_offsets_less_certain() -> None:
    places, rng = users(400), np.random.default_rng(5)
    short = 0.1 * rng.standard_normal((400, 6))
    lasting = np.repeat(0.1 * rng.standard_normal((20, 6)), 20, axis=0)
    stated = [
        calibrate_ranges(APS, distances(places) + OFFSETS + error, 0.1).offset_std_m.mean()
        for error in (short, lasting)
    ]
    assert stated[1] > 2.5 * stated[0]


def test_devices_have_offsets_of_their_own() -> None:
    places, rng = users(300), np.random.default_rng(6)
    devices = ["watch", "phone", "tag"] * 100
    by_device = {"watch": 0.0, "phone": 0.6, "tag": -0.4}
    ranges = distances(places) + OFFSETS + np.array([by_device[name] for name in devices])[:, None]
    ranges += 0.02 * rng.standard_normal(ranges.shape)
    for method in ("self", "labelled"):
        found = calibrate_ranges(APS, ranges, 0.1, method=method, devices=devices, truth_m=places)
        assert found.device_offset_m == pytest.approx(by_device, abs=0.02)
        np.testing.assert_allclose(found.offset_m.numpy(), OFFSETS, atol=0.02)
    estimate = locate_ranges(APS, ranges, 0.1, policy="toa-wls", calibrate=found, devices=devices)
    assert np.linalg.norm(estimate.position.numpy() - places, axis=1).max() < 0.1


@pytest.mark.parametrize("method", ["self", "labelled"])
def test_scales_are_found(method: str) -> None:
    places, rng = users(400), np.random.default_rng(7)
    scale = np.array([1.0, 1.02, 0.98, 1.01, 1.0, 0.99])
    ranges = scale * distances(places) + OFFSETS + 0.01 * rng.standard_normal((400, 6))
    found = calibrate_ranges(APS, ranges, 0.1, method=method, truth_m=places, scale=True)
    np.testing.assert_allclose(found.scale.numpy(), scale, atol=2e-3)
    np.testing.assert_allclose(found.offset_m.numpy(), OFFSETS, atol=0.03)


def test_labels_with_long_ranges_among_them() -> None:
    places, rng = users(200), np.random.default_rng(8)
    ranges = distances(places) + OFFSETS + 0.05 * rng.standard_normal((200, 6))
    ranges[rng.random(ranges.shape) < 0.2] += 5.0
    labels = places.copy()
    labels[::7] = np.nan
    found = calibrate_ranges(APS, ranges, 0.1, method="labelled", truth_m=labels)
    np.testing.assert_allclose(found.offset_m.numpy(), OFFSETS, atol=0.05)
    assert found.epochs.tolist() == [int(np.isfinite(labels[:, 0]).sum())] * 6


# Whether it pays ------------------------------------------------------------------------------------------------------


def test_no_offsets_are_taken_from_ranges_without() -> None:
    places, rng = users(300), np.random.default_rng(9)
    found = calibrate_ranges(APS, distances(places) + 0.3 * rng.standard_normal((300, 6)), 1.0)
    assert not found.pays
    assert not found.offset_m.any()
    # The told metre is replaced all the same.
    np.testing.assert_allclose(found.std_m.numpy(), 0.3, rtol=0.1)


def test_stated_deviations_are_scaled_beside_long_ranges() -> None:
    places, rng = users(200), np.random.default_rng(12)
    long = rng.exponential(5.0, (200, 6)) * (rng.random((200, 6)) < 0.12)
    ranges = distances(places) + long + 0.15 * rng.standard_normal((200, 6))
    found = calibrate_ranges(APS, ranges, 0.15)
    assert not found.pays
    assert "stated deviations are taken" in found.reason
    assert found.std_factor is not None
    # The pull of a link in eight that is too long widens the residuals of the others.
    np.testing.assert_allclose(found.std_factor.numpy(), 1.25, atol=0.2)
    scaled, plain = (locate_ranges(APS, ranges, 0.15, policy="toa-em", calibrate=how) for how in ("self", "none"))
    errors = [np.linalg.norm(one.position.numpy() - places, axis=1) for one in (scaled, plain)]
    assert np.median(errors[0]) < 1.05 * np.median(errors[1])
    # Ten times too small they are no longer believed.
    assert (calibrate_ranges(APS, ranges, 0.015).std_m > 0.1).all()


def test_what_reflections_add_at_a_place_is_not_taken_for_offsets() -> None:
    places, rng = users(300), np.random.default_rng(10)
    places = places[np.lexsort((places[:, 1], places[:, 0] // 4))]
    waves = rng.uniform(-0.5, 0.5, (6, 2))
    error = 0.9 * np.sin(places @ waves.T + rng.uniform(0, 6.28, 6)) + 0.1 * rng.standard_normal((300, 6))
    found = calibrate_ranges(APS, distances(places) + error, 1.0)
    assert not found.pays, found.reason


def test_a_common_part_that_changes_from_block_to_block_is_no_offset() -> None:
    # All access points alike, so that only the blocks tell: +0.5 m +- 0.5 m / sqrt(10), an offset of three deviations.
    places, rng = users(300), np.random.default_rng(13)
    now_and_then = np.repeat(np.arange(10) % 2, 30)[:, None]
    ranges = distances(places) + now_and_then + 0.05 * rng.standard_normal((300, 6))
    found = calibrate_ranges(APS, ranges, 1.0)
    assert not found.pays
    assert "common part of the offsets is not known well enough" in found.reason
    assert calibrate_ranges(APS, ranges - now_and_then + 0.5, 1.0).pays


def test_what_positions_gain() -> None:
    places, rng = users(300), np.random.default_rng(11)
    ranges = distances(places) + OFFSETS + 0.1 * rng.standard_normal((300, 6))
    plain, better = (
        np.linalg.norm(
            locate_ranges(APS, ranges, 0.3, policy="toa-wls", calibrate=how).position.numpy() - places, axis=1
        )
        for how in ("none", "self")
    )
    assert np.sqrt((better**2).mean()) < 0.35 * np.sqrt((plain**2).mean())


def test_covariances_know_that_offsets_are_not_exact() -> None:
    # Two APs in each direction at right angles, offsets of variance v: positions have that of noise and v / 2 more.
    aps = np.array([[10.0, 0.0], [-10.0, 0.0], [0.0, 10.0], [0.0, -10.0]])
    exact = RangeCalibration(
        torch.zeros(4, dtype=torch.float64),
        torch.ones(4, dtype=torch.float64),
        torch.full((4,), 0.2, dtype=torch.float64),
        torch.zeros(4, 4, dtype=torch.float64),
        torch.full((4,), 9),
        "file",
        True,
        "",
    )
    unsure = dataclasses.replace(exact, offset_covariance_m2=0.01 * torch.eye(4, dtype=torch.float64))
    ranges = np.full((1, 4), 10.0)
    stated = [locate_ranges(aps, ranges, 1.0, policy="toa-wls", calibrate=how).covariance[0] for how in (exact, unsure)]
    torch.testing.assert_close(stated[0], 0.02 * torch.eye(2, dtype=torch.float64))
    torch.testing.assert_close(stated[1], 0.025 * torch.eye(2, dtype=torch.float64))
    common = dataclasses.replace(exact, offset_covariance_m2=torch.ones(4, 4, dtype=torch.float64))
    same = locate_ranges(aps, ranges, 1.0, policy="toa-wls", calibrate=common).covariance[0]
    torch.testing.assert_close(same, stated[0])


def test_the_report_names_aps_and_what_was_found() -> None:
    places = users(50)
    found = calibrate_ranges(APS, distances(places) + OFFSETS, 0.1, ap_names=("a", "b", "c", "d", "e", "gate"))
    lines = found.lines()
    assert "pays" in lines[0]
    assert lines[-1].startswith("  gate offset +1.00")
    assert "50 epochs" in lines[-1]


# What is refused ------------------------------------------------------------------------------------------------------


def heard_once(ap: int) -> np.ndarray:
    ranges = distances(users(10))
    ranges[1:, ap] = np.nan
    return ranges


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "one epoch": ({"range_m": distances(users(1))}, "needs at least 2 epochs for every AP"),
    "an AP heard once": ({"range_m": heard_once(2)}, "AP 2 has one epoch"),
    "millimetres": ({"range_m": 1000 * distances(users(10))}, "it looks like millimetres"),
    "no labels": ({"method": "labelled"}, "needs truth_m"),
    "labels of another length": ({"method": "labelled", "truth_m": users(7)}, r"with 10 epochs it must be \[10, 2\]"),
    "devices of another length": ({"devices": ["a"]}, "one for each of the 10 epochs"),
    "a device used once": ({"devices": ["a"] * 9 + ["b"]}, "device 'b' has one epoch"),
    "another word": ({"method": "auto"}, "self, labelled"),
    "differences": ({"family": "tdoa"}, "calibrate_anchors"),
}


ROOMY = users(200, 11)
REFUSED |= {
    "names of other APs": ({"ap_names": ["a"]}, "ap_names has 1 names; it must have one for each of 6 APs"),
    "APs in grid steps": (
        {"ap_positions_m": APS / 0.6, "range_m": distances(ROOMY) + OFFSETS},
        r"APs' places are multiplied by 0\.6 .*grid steps, give metres",
    ),
    "labels and APs in grid steps": (
        {
            "ap_positions_m": APS / 0.6,
            "range_m": distances(ROOMY) + OFFSETS,
            "method": "labelled",
            "truth_m": ROOMY / 0.6,
        },
        r"all places best .* multiplied by 0\.[67].*grid steps, give metres",
    ),
    "labels in another frame": (
        {"method": "labelled", "truth_m": users(10) + 455_000.0},
        "no range is above .* in the frame of the APs",
    ),
}


def test_large_offsets_are_no_other_unit() -> None:
    for method in ("self", "labelled"):
        found = calibrate_ranges(APS, distances(ROOMY) + OFFSETS + 25.0, 0.1, method=method, truth_m=ROOMY)
        np.testing.assert_allclose(found.offset_m.numpy(), OFFSETS + 25.0, atol=1e-4)


def test_one_epoch_many_times_is_one_epoch() -> None:
    # Six ranges, two coordinates and six offsets: positions anywhere fit, with offsets to match.
    found = calibrate_ranges(APS, np.repeat(distances(users(1)) + OFFSETS, 50, axis=0), 0.1)
    assert not found.pays
    assert "epochs that differ have 4 ranges more than their positions need, and 6 numbers" in found.reason
    # Two epochs of six ranges have eight more than four coordinates.
    assert "epochs that differ" not in calibrate_ranges(APS, distances(users(2)) + OFFSETS, 0.1).reason
    assert "epochs that differ have 8" in calibrate_ranges(APS, distances(users(2)) + OFFSETS, 0.1, scale=True).reason


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_line(case: str) -> None:
    given, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as caught:
        calibrate_ranges(**{"ap_positions_m": APS, "range_m": distances(users(10)), "std_m": 0.1, **given})
    assert "\n" not in str(caught.value)


def test_labels_and_devices_that_would_not_be_used_are_refused() -> None:
    ranges = np.full((10, 6), 5.0)
    with pytest.raises(ValueError, match="truth_m is for calibrate='labelled' alone; say that"):
        locate_ranges(APS, ranges, 0.1, truth_m=users(10))
    with pytest.raises(ValueError, match="devices have offsets only where ranges are calibrated"):
        locate_ranges(APS, ranges, 0.1, devices=["a"] * 10)


def test_a_calibration_of_other_aps_is_refused() -> None:
    found = calibrate_ranges(APS, distances(users(10)) + OFFSETS, 0.1)
    with pytest.raises(ValueError, match="6 APs, the measurements are of 5"):
        locate_ranges(APS[:5], distances(users(10))[:, :5], 0.1, calibrate=found)


# Measured -------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not MEASURED.is_dir(), reason="the measured sets are not beside the checkout")
@pytest.mark.parametrize("day", ["8_14", "8_20"])
def test_measured_uwb_within_a_decimetre_without_labels(day: str) -> None:
    anchors = np.genfromtxt(MEASURED / "uwb_lias" / f"anchors_{day}.csv", delimiter=",", skip_header=1)[:, :2]
    table = np.genfromtxt(MEASURED / "uwb_lias" / f"static_{day}.csv", delimiter=",", skip_header=1)[::4]
    measured = TimingMeasurements.from_arrays(anchors, table[:, 5:], 0.1)
    found = calibrate(measured)
    assert found.pays
    position = make_policy("toa-wls").locate(found.applied(measured)).position[0].numpy()
    assert np.sqrt(((position - table[:, 3:5]) ** 2).sum(axis=1).mean()) < 0.10
