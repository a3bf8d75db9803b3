"""Anchors whose positions and clocks are known roughly: the self-survey reaches its bound, and says what it knows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from baselines.toa.calibration.anchors import AnchorCalibration, calibrate_anchors

APS = np.array([[0.0, 0.0], [20.0, 0.0], [20.0, 15.0], [0.0, 15.0], [9.0, 16.0], [11.0, -1.0]])
GAUSSIAN = 1e6


def case(seed: int, epochs: int, family: str, shift_std: float, clock_std: float, std: float) -> dict[str, Any]:
    """One drawing of anchors, clocks, users and ranges from the priors."""
    rng = np.random.default_rng(seed)
    shift, clock = shift_std * rng.standard_normal((6, 2)), clock_std * rng.standard_normal(6)
    clock[0] *= family != "tdoa"
    users = rng.uniform([1.0, 1.0], [19.0, 14.0], (epochs, 2))
    ranges = np.linalg.norm(users[:, None] - (APS + shift), axis=2) + clock
    if family == "tdoa":
        ranges = ranges + 100 * rng.standard_normal((epochs, 1))
    ranges = ranges + std * rng.standard_normal(ranges.shape)
    away = np.linalg.norm((APS + shift)[:, None] - (APS + shift), axis=2)
    return {"shift": shift, "clock": clock, "ranges": ranges, "between": away, "rng": rng}


def error_of(found: AnchorCalibration, truth: dict[str, Any]) -> torch.Tensor:
    return (found.shift_m - torch.tensor(truth["shift"])).flatten()


@pytest.mark.parametrize(("family", "clock_std"), [("toa", 0.0), ("toa", 0.4), ("tdoa", 0.4)])
def test_positions_reach_their_bound_and_do_not_beat_it(family: str, clock_std: float) -> None:
    # Errors over the stated covariance, 25 drawings of 12 numbers: chi-squared / 300, 99.99 % within 0.71 and 1.36.
    squares = 0.0
    for seed in range(25):
        truth = case(seed, 40, family, 0.3, clock_std, 0.05)
        found = calibrate_anchors(
            APS,
            truth["ranges"],
            0.05,
            position_std_m=0.3,
            clock_std_m=clock_std,
            family=family,
            known_std=True,
            threshold=GAUSSIAN,
        )
        error = error_of(found, truth)
        squares += float(error @ torch.linalg.solve(found.covariance_m2, error))
    assert 0.71 < squares / 300 < 1.36


def test_clocks_reach_their_bound() -> None:
    errors = []
    for seed in range(20):
        truth = case(100 + seed, 40, "tdoa", 0.02, 3.0, 0.05)
        found = calibrate_anchors(
            APS,
            truth["ranges"],
            0.05,
            position_std_m=0.02,
            clock_std_m=3.0,
            family="tdoa",
            known_std=True,
            threshold=GAUSSIAN,
        )
        errors.append(((found.clock_m - torch.tensor(truth["clock"])) / found.clock_std_m)[1:])
        assert found.clock_m[0] == 0.0
    # 100 numbers of variance 1: within 0.53 and 1.65 with 99.99 %, a little more as those of one drawing are alike.
    assert 0.45 < float(torch.cat(errors).square().mean()) < 1.8


def test_huber_costs_little() -> None:
    truth = case(3, 400, "toa", 0.3, 0.0, 0.05)
    rough = [0.0, 0.0, 0.3, 0.3, 0.3, 0.3]  # the frame is known
    stated = [
        calibrate_anchors(
            APS, truth["ranges"], 0.05, position_std_m=rough, known_std=True, threshold=k
        ).covariance_m2.trace()
        for k in (GAUSSIAN, 1.345)
    ]
    # 1.05 with many links per epoch; the stated covariance of six is cautious.
    assert 1.0 < float(stated[1] / stated[0]) < 1.3


def test_distances_between_anchors_tell_their_shape() -> None:
    truth = case(4, 2, "toa", 0.3, 0.0, 0.05)
    between = truth["between"] + 0.01 * truth["rng"].standard_normal((6, 6))
    between[0, 1] = np.nan
    without, found = (
        calibrate_anchors(APS, truth["ranges"], 0.05, position_std_m=0.3, known_std=True, **extra)
        for extra in ({}, {"ap_range_m": between, "ap_range_std_m": 0.01})
    )
    inner = torch.pdist(found.position_m)
    torch.testing.assert_close(inner, torch.pdist(torch.tensor(APS + truth["shift"])), atol=0.03, rtol=0)
    # The whole turns and moves with the prior: two of three unknowns of the frame cost 0.3 / sqrt(6) each.
    assert 0.12 * 1.4 < float(found.position_std_m.mean()) < 0.9 * float(without.position_std_m.mean())


def test_a_known_anchor_does_not_move_and_spreads_are_fitted() -> None:
    truth = case(5, 300, "toa", 0.3, 0.0, 0.05)
    truth["ranges"][::9, 3] += 4.0
    exact = [0.0, 0.0, 0.3, 0.3, 0.3, 0.3]
    found = calibrate_anchors(
        APS + np.where(np.array(exact)[:, None] > 0, 0.0, truth["shift"]) + 455_000.0,
        truth["ranges"],
        1.0,
        position_std_m=exact,
        ap_names=list("abcdef"),
    )
    assert not found.shift_m[:2].any()
    error = error_of(found, truth).view(6, 2).abs().amax(dim=1)
    assert float(error[[2, 4, 5]].max()) < 0.05
    assert float(error[3]) < 0.25  # every ninth range is 4 m too long
    # Drawn a little towards that of the AP with long ranges.
    assert float(found.std_m[[0, 1, 2, 4, 5]].max()) < 0.15
    assert float(found.std_m[3]) > 0.25
    np.testing.assert_allclose(found.position_m[4:], (APS + truth["shift"] + 455_000.0)[4:], atol=0.05)
    assert found.lines()[2].startswith("c moved 0.")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "nothing rough": ({"position_std_m": 0.0}, "nothing to find"),
    "another number": ({"position_std_m": [0.1, 0.2]}, "one for each of 6 APs"),
    "one epoch": ({"range_m": np.full((1, 6), 9.0)}, "at least 2 of them"),
    "negative": ({"clock_std_m": -1.0}, "clock_std_m=-1.0 must be at least 0"),
    "zeros between": ({"ap_range_m": np.zeros((6, 6))}, "not positive"),
    "part of a table": ({"ap_range_m": np.ones((6, 5))}, "ap_range_m has shape"),
    "infinity between": ({"ap_range_m": np.full((6, 6), np.inf)}, "not positive and finite"),
    "millimetres between": ({"ap_range_m": np.full((6, 6), 15_000.0)}, "ap_range_m has a median of .* millimetres"),
    "no threshold": ({"threshold": 0.0}, "threshold=0.0 must be above 0"),
    "a name": ({"ap_names": ["a"]}, "ap_names has 1 names; it must have one for each of 6 APs"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_one_line(name: str) -> None:
    given, message = REFUSED[name]
    ranges = case(0, 5, "toa", 0.1, 0.0, 0.05)["ranges"]
    with pytest.raises(ValueError, match=message) as caught:
        calibrate_anchors(**{"ap_positions_m": APS, "range_m": ranges, "std_m": 0.1, "position_std_m": 0.3, **given})
    assert "\n" not in str(caught.value)


def test_clocks_of_which_nothing_is_known() -> None:
    measured = case(1, 300, "toa", 0.3, 2.0, 0.05)
    settings = {"std_m": 0.05, "position_std_m": 0.3, "known_std": True}
    vague = calibrate_anchors(APS, measured["ranges"], clock_std_m=1e4, **settings)
    free = calibrate_anchors(APS, measured["ranges"], clock_std_m=math.inf, **settings)
    np.testing.assert_allclose(free.clock_m.numpy(), vague.clock_m.numpy(), atol=1e-3)
    np.testing.assert_allclose(free.clock_std_m.numpy(), vague.clock_std_m.numpy(), rtol=1e-3)
