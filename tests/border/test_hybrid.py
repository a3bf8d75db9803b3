"""People's ranges, directions and powers in any mixture: casts, missing entries, validity."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from cfpos.baselines import make_policy
from cfpos_envs.measurements.base import PositionEstimate, Reason
from cfpos_envs.measurements.hybrid import HybridMeasurements

APS = np.array([[1, 1], [39, 1], [1, 39], [39, 39]]) + np.array([455000, 5411000])
AXES = np.radians([45.0, 135.0, -45.0, -135.0])
USERS = np.array([[12.3, 27.1], [30.0, 5.0], [20.0, 21.0]]) + np.array([455000, 5411000])
POWER = {"power_std_db": 4.0, "power_at_1m_dbm": -30.0, "path_loss_slope_db": 20.0}


def exact(users: np.ndarray = USERS) -> dict[str, np.ndarray]:
    away = users[:, None] - APS
    distance = np.linalg.norm(away, axis=-1)
    cosine = (away * np.column_stack((np.cos(AXES), np.sin(AXES)))).sum(-1) / distance
    return {"range_m": distance, "angle_rad": np.arccos(cosine), "power_dbm": -30.0 - 20.0 * np.log10(distance)}


def located(tables: dict[str, Any], kinds: str, **options: Any) -> tuple[HybridMeasurements, PositionEstimate]:
    given: dict[str, Any] = {}
    if "r" in kinds:
        given |= {"range_m": tables["range_m"], "range_std_m": 0.1}
    if "a" in kinds:
        given |= {"angle_rad": tables["angle_rad"], "angle_std_rad": 0.01, "ap_orientation_rad": AXES}
    if "p" in kinds:
        given |= {"power_dbm": tables["power_dbm"], **POWER}
    measured = HybridMeasurements.from_arrays(APS, **given, **options)
    return measured, make_policy("hybrid-gn").locate(measured)


@pytest.mark.parametrize("kinds", ["r", "ra", "rap"])
def test_any_mixture_in_utm(kinds: str) -> None:
    measured, found = located(exact(), kinds)
    assert found.valid.all()
    assert found.position.dtype == torch.float64
    assert float((found.position[0] - torch.tensor(USERS)).abs().max()) < 1e-4
    assert (measured.valid.sum(dim=(0, 1, 2)) > 0).tolist() == ["r" in kinds, "a" in kinds, "p" in kinds]


def test_one_missing_entry_costs_one_measurement() -> None:
    tables = exact()
    tables["range_m"][1, 2] = np.nan
    angles = np.ma.MaskedArray(tables["angle_rad"], mask=np.zeros((3, 4), dtype=bool))
    angles[0, 3] = np.ma.masked
    measured, found = located({**tables, "angle_rad": angles}, "ra")
    assert int(measured.valid.sum()) == 2 * 12 - 2
    assert found.valid.all()
    assert float((found.position[0] - torch.tensor(USERS)).abs().max()) < 1e-4


def test_whole_number_ranges_give_positions_with_decimals() -> None:
    _, found = located({"range_m": exact()["range_m"].round().astype(int)}, "r")
    error = (found.position[0] - torch.tensor(USERS)).norm(dim=-1)
    assert float(error.max()) < 0.7
    assert found.covariance is not None
    assert float(found.covariance[0].diagonal(dim1=-2, dim2=-1).sqrt().min()) > 0.05


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "nothing was measured; give at least one of range_m, angle_rad, power_dbm"),
        ({"range_m": exact()["range_m"]}, "range_std_m is missing"),
        ({"range_m": exact()["range_m"].T, "range_std_m": 0.1}, r"it must be \[users, 4 APs\]; it looks transposed"),
        ({"range_m": -exact()["range_m"], "range_std_m": 0.1}, "12 zero or negative"),
        ({"angle_rad": exact()["angle_rad"], "angle_std_rad": 0.1}, "ap_orientation_rad is missing"),
        (
            {"angle_rad": np.degrees(exact()["angle_rad"]), "angle_std_rad": 0.1, "ap_orientation_rad": 0.0},
            r"outside \[0, pi\]",
        ),
        ({"power_dbm": exact()["power_dbm"], "power_std_db": 4.0}, "power_at_1m_dbm and path_loss_slope_db are needed"),
        (
            {"range_m": exact()["range_m"], "range_std_m": 0.1, "power_dbm": exact()["power_dbm"][:2], **POWER},
            r"power_dbm has shape \(2, 4\); it must be \[3 users, 4 APs\]",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        HybridMeasurements.from_arrays(APS, **arrays)
    assert "\n" not in str(caught.value)


def test_a_thousand_users_are_valid_and_spoilt_ranges_are_noticed() -> None:
    rng = np.random.default_rng(2)
    users = rng.uniform(0, 40, (1000, 2)) + APS[0] - 1
    tables = exact(users)
    noisy = {
        "range_m": tables["range_m"] + 0.1 * rng.standard_normal((1000, 4)),
        "angle_rad": np.clip(tables["angle_rad"] + 0.01 * rng.standard_normal((1000, 4)), 0.0, math.pi),
    }
    _, found = located(noisy, "ra", on_bad="drop")
    error = (found.position[0] - torch.tensor(users)).norm(dim=-1)
    assert found.covariance is not None
    std = found.covariance[0].diagonal(dim1=-2, dim2=-1).sum(dim=-1).sqrt()
    assert not (found.valid[0] & (error > 5 * std)).any()
    assert float(found.valid.double().mean()) >= 0.99
    noisy["range_m"][:, 1] += 6.0
    _, spoilt = located(noisy, "ra", on_bad="drop")
    assert spoilt.reason is not None
    assert float((spoilt.reason == int(Reason.LARGE_RESIDUALS)).double().mean()) > 0.99
    _, few = located({"range_m": np.where(np.arange(4) < 1, tables["range_m"], np.nan)[:5]}, "r")
    assert few.reason is not None
    assert (few.reason == int(Reason.TOO_FEW_LINKS)).all()


@pytest.mark.parametrize("swapped", [True, False])
def test_a_robust_fit_notices_that_a_group_contradicts_its_noise(swapped: bool) -> None:
    rng = np.random.default_rng(2)
    aps = np.vstack((APS - APS[0], [[20, 2], [2, 20], [38, 22], [21, 37]])) + 1.0
    users = rng.uniform(0, 40, (1000, 2))
    ranges = np.linalg.norm(users[:, None] - aps, axis=-1) + 0.1 * rng.standard_normal((1000, 8))
    if swapped:  # with four access points; of eight the two are left out
        aps, ranges = aps[[1, 0, 2, 3]], ranges[:, :4]
    told = HybridMeasurements.from_arrays(
        aps, range_m=ranges, range_std_m=0.1 if swapped else 0.01, area_m=[[0, 0], [40, 40]], on_bad="drop"
    )
    found = make_policy("hybrid-gn", threshold=1.345).locate(told)
    assert found.reason is not None
    assert not found.valid.any()
    assert float((found.reason == int(Reason.LARGE_RESIDUALS)).double().mean()) > 0.9


def test_a_robust_fit_knows_how_far_long_ranges_pull_it() -> None:
    rng = np.random.default_rng(2)
    aps = np.vstack((APS - APS[0], [[20, 2], [2, 20], [38, 22], [21, 37]])) + 1.0
    users = rng.uniform(0, 40, (1000, 2))
    ranges = np.linalg.norm(users[:, None] - aps, axis=-1) + 0.1 * rng.standard_normal((1000, 8))
    ranges += (rng.random(ranges.shape) < 0.3) * rng.exponential(5.0, ranges.shape)
    told = HybridMeasurements.from_arrays(aps, range_m=ranges, range_std_m=0.1, on_bad="drop")
    found = make_policy("hybrid-gn", threshold=1.345).locate(told)
    error = (found.position[0] - torch.tensor(users)).norm(dim=-1)
    assert found.covariance is not None
    std = found.covariance[0].diagonal(dim1=-2, dim2=-1).sum(dim=-1).sqrt()
    # A twentieth of the valid answers without the pull.
    assert int((found.valid[0] & (error > 5 * std)).sum()) <= 2
    assert float(found.valid.double().mean()) > 0.7
