"""People's powers and covariances in, positions out: casts, shapes, missing links, readings that cannot be."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cfpos.baselines import make_policy
from cfpos.baselines.dcp.spectra import covariance_bearings
from cfpos_envs.measurements import RadioMeasurements, Reason
from cfpos_envs.physics.arrays import ula_response
from cfpos_envs.physics.geometry import metres_outside
from tests.border.halls import APS, AXES, HEIGHT_M, USER, hall, hall_covariance

WITH_ANGLES = ("joint-gn", "music", "beamscan", "direct-search", "fingerprint", "gpr")
EVERY = (*WITH_ANGLES, "rss-gn", "centroid")
UTM = np.array([691_000.0, 5_335_000.0])
LAW = {"rss_at_1m_dbm": -14.0, "path_loss_slope_db": 30.0, "shadowing_std_db": 3.0, "height_diff_m": HEIGHT_M}


def policy(name: str) -> Any:
    """A sparse survey suffices here, and its regression is quick."""
    return make_policy(name, **({"spacing": 8.0, "tuning_points": 25} if name == "gpr" else {}))


def error_m(name: str, m: RadioMeasurements, where: Any = USER) -> float:
    found = policy(name).locate(m)
    assert found.valid.all(), Reason(int(found.reason[0, 0]))
    return float(np.linalg.norm(found.position[0, 0].numpy() - np.asarray(where)))


# name -> how far off the one user of the hall may be located
LIMITS = {"joint-gn": 1.0, "music": 0.3, "beamscan": 0.3, "direct-search": 1.2, "fingerprint": 1.3, "gpr": 3.0}
LIMITS |= {"rss-gn": 2.0, "centroid": 11.0}


@pytest.mark.parametrize("name", EVERY)
def test_double_precision_by_hand_is_as_good_as_single(name: str) -> None:
    m = hall()
    wide = {
        field: value.to(torch.complex128 if value.is_complex() else torch.float64)
        for field, value in m.__dict__.items()
        if isinstance(value, torch.Tensor) and field != "site_ids"
    }
    estimator = policy(name)
    single = estimator.locate(m)
    for changed in (
        wide,
        {"rss_dbm": wide["rss_dbm"]},
        {"covariance": m.covariance.conj().conj().to(torch.complex128)},
    ):
        double = estimator.locate(dataclasses.replace(m, **changed))
        assert double.position.dtype == torch.float32
        torch.testing.assert_close(double.position, single.position, rtol=0, atol=1e-4)
    assert error_m(name, m) < LIMITS[name]


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("value", [math.nan, 0.0, 100.0])
def test_a_reading_that_is_missing_or_cannot_be_costs_its_link(name: str, value: float) -> None:
    m = hall()
    m.rss_dbm[0, 1] = value
    assert error_m(name, m) < LIMITS[name] + 1.5 * (name in ("gpr", "rss-gn"))


@pytest.mark.parametrize("name", EVERY)
def test_a_silent_array_costs_its_link(name: str) -> None:
    m = hall()
    m.covariance[0, 1] = 0.0
    m.angular_power[0, 1] = 0.0
    assert error_m(name, m) < LIMITS[name] + 1.5 * (name in ("gpr", "rss-gn"))


@pytest.mark.parametrize("name", ["rss-gn", "joint-gn", "music", "beamscan"])
def test_a_damaged_covariance_alone_costs_its_link(name: str) -> None:
    m = hall()
    m.covariance[0, 1] = math.nan
    without = make_policy(name).locate(hall(keep=(0, 2, 3))).position
    torch.testing.assert_close(make_policy(name).locate(m).position, without, rtol=0, atol=2e-3)


@pytest.mark.parametrize("name", ["direct-search", "fingerprint", "gpr"])
def test_a_damaged_covariance_does_not_spoil_what_spectra_say(name: str) -> None:
    """``direct-search`` called every such user's right answer a contradiction."""
    m = hall()
    m.covariance[0, 1] = math.nan
    assert error_m(name, m) < LIMITS[name]


@pytest.mark.parametrize("method", ["music", "beamscan"])
@pytest.mark.parametrize("entry", [0.0, complex("nan"), complex("inf")])
def test_the_bearing_of_nothing_is_nan(method: str, entry: complex) -> None:
    steering = ula_response(torch.tensor(math.radians(70.0)), 4)
    good = torch.outer(steering, steering.conj())
    pair = torch.stack([good, torch.full((4, 4), entry, dtype=good.dtype)])
    for matrices in (pair, pair.to(torch.complex128)):
        found = torch.rad2deg(covariance_bearings(matrices, hall().radio, method, 361))
        assert float(found[0]) == pytest.approx(70.0, abs=0.01)
        assert torch.isnan(found[1])


@pytest.mark.parametrize("name", EVERY)
def test_aps_outside_the_square_are_refused_by_hand_and_moved_by_from_arrays(name: str) -> None:
    far = hall(origin_m=1000.0)
    with pytest.raises(ValueError, match=r"AP 0 of episode 0 stands at \(1001, 1001\) m.*\[0, 40\].*from_arrays"):
        make_policy(name).locate(far)
    rss = far.rss_dbm[0].T.numpy()
    own = RadioMeasurements.from_arrays(
        APS + UTM, rss, hall_covariance(), ap_orientation_rad=AXES, angular_spread_rad=math.radians(5.0), **LAW
    )
    found = policy(name).locate(own)
    assert found.position.dtype == torch.float64
    assert error_m(name, own, np.add(USER, UTM)) < LIMITS[name] + 0.5


def users_of(aps: np.ndarray, users: np.ndarray, sigma_db: float = 0.0) -> np.ndarray:
    """RSS in dBm by the default law of ``from_arrays``."""
    slant = np.linalg.norm(users[:, None] - aps, axis=-1)
    noise = np.random.default_rng(1).normal(0.0, 1.0, slant.shape)
    return -40.0 - 30.0 * np.log10(slant) + sigma_db * noise


SQUARE = np.array([[0, 0], [40, 0], [0, 40], [40, 40], [20, 18]])
WHERE = np.array([[12.0, 27.0], [30.0, 8.0], [7.5, 33.0]])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "int8"])
@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, np.ndarray.tolist], ids=["numpy", "tensor", "list"])
def test_received_powers_of_any_type_locate(dtype: str, kind: Any) -> None:
    rss = users_of(SQUARE, WHERE).round().astype(dtype)
    found = make_policy("rss-gn").locate(RadioMeasurements.from_arrays(kind(SQUARE + UTM), kind(rss)))
    assert found.valid.all()
    # Whole decibels: 0.3 dB of rounding is 2 % of the distances.
    assert float((found.position[0] - torch.tensor(WHERE + UTM)).norm(dim=-1).max()) < 1.0


def test_two_users_a_handbreadth_apart_far_from_the_origin_stay_two() -> None:
    pair = np.array([[12.0, 27.0], [12.0, 27.2]])
    own = RadioMeasurements.from_arrays(SQUARE + UTM, users_of(SQUARE, pair), shadowing_std_db=0.1)
    found = make_policy("rss-gn").locate(own).position[0]
    assert (found[1] - found[0]).tolist() == pytest.approx([0.0, 0.2], abs=1e-3)


def test_masks_nan_none_and_a_number_mark_what_was_not_heard() -> None:
    rss = users_of(SQUARE, WHERE)
    gone = np.zeros_like(rss, dtype=bool)
    gone[0, 1] = gone[2, 4] = True
    hundred = np.where(gone, 100.0, rss)
    forms = (
        {"rss_dbm": np.where(gone, np.nan, rss)},
        {"rss_dbm": np.ma.masked_equal(hundred, 100.0)},
        {"rss_dbm": np.where(gone, None, rss)},
        {"rss_dbm": hundred, "not_heard": 100},
    )
    for form in forms:
        own = RadioMeasurements.from_arrays(SQUARE, **form)
        assert own.dropped == 0
        assert torch.equal(torch.isnan(own.rss_dbm[0].T), torch.tensor(gone))
        found = make_policy("rss-gn").locate(own)
        assert found.degrees_of_freedom[0].tolist() == [2, 3, 2]
        assert float((found.position[0] - torch.tensor(WHERE)).norm(dim=-1).max()) < 0.05


def test_readings_that_cannot_be_are_refused_or_left_out_and_counted() -> None:
    rss = users_of(SQUARE, WHERE)
    rss[1, 2], rss[2, 0] = 0.0, math.inf
    with pytest.raises(ValueError, match=r"rss_dbm cannot be right: 1 infinite, 1 at or above 0 dBm.*user 1, AP 2"):
        RadioMeasurements.from_arrays(SQUARE, rss)
    with pytest.warns(UserWarning, match="left out 2 of 15 links"):
        own = RadioMeasurements.from_arrays(SQUARE, rss, on_bad="drop")
    assert own.dropped == 2
    assert float((make_policy("rss-gn").locate(own).position[0] - torch.tensor(WHERE)).norm(dim=-1).max()) < 0.05
    lifted = RadioMeasurements.from_arrays(SQUARE, users_of(SQUARE, WHERE) + 60.0, rss_at_1m_dbm=20.0, ceiling_dbm=30.0)
    assert make_policy("rss-gn").locate(lifted).valid.all()


def test_aps_with_their_own_level_at_one_metre() -> None:
    levels = np.array([-40.0, -30.0, -45.0, -40.0, -38.0])
    rss = users_of(SQUARE, WHERE) + levels + 40.0
    found = make_policy("rss-gn").locate(RadioMeasurements.from_arrays(SQUARE, rss, rss_at_1m_dbm=levels))
    assert float((found.position[0] - torch.tensor(WHERE)).norm(dim=-1).max()) < 0.05


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rss_dbm": None}, "nothing was measured"),
        ({"rss_dbm": np.zeros((5, 3)) - 60}, r"rss_dbm has shape \(5, 3\).*users, 5 APs.*transposed"),
        ({"rss_dbm": np.zeros((3, 4)) - 60}, r"rss_dbm has shape \(3, 4\).*5 APs"),
        ({"rss_dbm": [["loud"]]}, "rss_dbm must hold real numbers"),
        ({"ap_positions_m": SQUARE[0]}, "ap_positions_m has shape"),
        ({"ap_positions_m": SQUARE + np.nan}, "ap_positions_m has entries that are not finite"),
        ({"height_diff_m": [1.0, 2.0]}, r"height_diff_m has shape \(2,\)"),
        ({"rss_at_1m_dbm": [1.0, 2.0]}, r"rss_at_1m_dbm has shape \(2,\)"),
        ({"path_loss_slope_db": 0.0}, "path_loss_slope_db=0.0 must be above 0"),
        ({"shadowing_std_db": -1.0}, "shadowing_std_db=-1.0 must be at least 0"),
        ({"covariance": np.zeros((3, 4, 2, 2), complex)}, r"covariance has shape \(3, 4, 2, 2\).*users, 5 APs"),
        ({"covariance": np.ones((3, 5, 2, 2), complex)}, "ap_orientation_rad is missing"),
        ({"covariance": np.ones((2, 5, 2, 2)), "ap_orientation_rad": np.zeros(5)}, r"rss_dbm has shape .*2 users"),
        ({"covariance": -np.ones((3, 5, 2, 2)), "ap_orientation_rad": np.zeros(5)}, "15 with negative powers"),
        ({"covariance": [[[[1, 1], [0, 1]]] * 5] * 3, "ap_orientation_rad": np.zeros(5)}, "15 not Hermitian"),
        ({"covariance": np.ones((3, 5, 2, 2)), "ap_orientation_rad": np.full(5, 90.0)}, "radians, not degrees"),
        ({"on_bad": "ignore"}, "on_bad='ignore' is not one of refuse, drop"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changed: dict[str, Any], message: str) -> None:
    given_arrays = {"ap_positions_m": SQUARE, "rss_dbm": users_of(SQUARE, WHERE), **changed}
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        RadioMeasurements.from_arrays(**given_arrays)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", WITH_ANGLES)
def test_powers_alone_are_not_enough_for_angles(name: str) -> None:
    own = RadioMeasurements.from_arrays(SQUARE, users_of(SQUARE, WHERE))
    with pytest.raises(ValueError, match=rf"{name} needs a.*rss-gn"):
        make_policy(name).locate(own)
    for other in ("rss-gn", "centroid"):
        assert make_policy(other).locate(own).valid.all()


def test_a_covariance_in_watts_needs_no_rss() -> None:
    levels = users_of(SQUARE, WHERE)
    axes = np.arange(5) * 0.7
    away = WHERE[:, None] - SQUARE
    angle = torch.tensor(np.arctan2(away[..., 1], away[..., 0]) - axes)
    steering = ula_response(angle, 4)
    watts = torch.tensor(10 ** (levels / 10 - 3) / 4)
    matrices = watts[..., None, None] * steering[..., :, None] * steering.conj()[..., None, :]
    own = RadioMeasurements.from_arrays(
        SQUARE, None, matrices.mH.conj().mT, ap_orientation_rad=axes, angular_spread_rad=0.0
    )
    np.testing.assert_allclose(own.rss_dbm[0].T.numpy(), levels, atol=1e-4)
    for name in ("joint-gn", "music"):
        found = make_policy(name).locate(own)
        assert float((found.position[0] - torch.tensor(WHERE)).norm(dim=-1).max()) < 0.5


@settings(max_examples=12, deadline=None)
@given(hnp.arrays(np.float64, (3, 5), elements=st.one_of(st.floats(-140, 30), st.sampled_from([math.nan, math.inf]))))
def test_nothing_that_is_let_in_gives_an_answer_that_is_not_finite(rss: np.ndarray) -> None:
    try:
        own = RadioMeasurements.from_arrays(SQUARE, rss)
    except ValueError as error:
        assert "rss_dbm cannot be right" in str(error)  # noqa: PT017
        assert ((rss >= 0) & ~np.isnan(rss)).any()
        return
    assert not (rss >= 0).any()
    found = make_policy("rss-gn").locate(own)
    assert torch.isfinite(found.position).all()
    assert torch.isfinite(found.covariance).all()
    assert torch.equal(found.reason == 0, found.valid)
    few = torch.tensor((~np.isnan(rss)).sum(axis=1) < 2)
    assert (found.reason[0][few] == Reason.TOO_FEW_LINKS).all()


def test_the_distance_outside_a_polygon() -> None:
    corner = [(0.0, 0.0), (4.0, 0.0), (4.0, 4.0), (2.0, 4.0), (2.0, 2.0), (0.0, 2.0)]
    points = torch.tensor([[1.0, 1.0], [1.0, 3.0], [3.0, 3.5], [5.0, 1.0], [-3.0, -4.0], [3.0, 2.0]])
    for corners in (corner, corner[::-1]):
        assert metres_outside(points, torch.tensor(corners)).tolist() == pytest.approx([0.0, 1.0, 0.0, 1.0, 5.0, 0.0])
