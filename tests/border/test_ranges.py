"""People's ranges in, positions out: casts, missing links, ranges that cannot be, coordinates far from zero."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cfpos.baselines import make_policy
from cfpos_envs.measurements.base import PositionEstimate
from cfpos_envs.measurements.toa import TimingMeasurements
from cfpos_envs.physics.toa.model import TimingModel

APS = np.array([[1, 1], [39, 1], [1, 39], [39, 39], [20, 2]])
USERS = np.array([[12.3, 27.1], [30.0, 5.0]])
UTM = np.array([455000.0, 5411000.0])
RANGES = np.linalg.norm(USERS[:, None] - APS, axis=-1)


def locate(name: str, *arrays: Any, **options: Any) -> PositionEstimate:
    family = name.split("-")[0]
    return make_policy(name).locate(TimingMeasurements.from_arrays(*arrays, family=family, **options))


@pytest.mark.parametrize("name", ["rtt-wls", "toa-em", "tdoa-chan", "tdoa-wls", "toa-huber", "toa-wls", "toa-mmse"])
def test_whole_number_ranges_give_positions_with_decimals(name: str) -> None:
    found = locate(name, APS, RANGES.round().astype(np.int32), 0.3)
    as_floats = locate(name, APS, RANGES.round(), 0.3)
    assert found.position.dtype == found.covariance.dtype == torch.float64
    torch.testing.assert_close(found.position, as_floats.position, rtol=0, atol=0)
    if not name.startswith("tdoa"):
        assert found.position[0, 0].tolist() == pytest.approx([12.29, 26.93], abs=0.2)
    assert float(found.covariance[0, 0].diagonal().sqrt().min()) > 0.1


@pytest.mark.parametrize("make", [np.asarray, torch.as_tensor, np.ndarray.tolist], ids=["numpy", "tensor", "list"])
@pytest.mark.parametrize("family", ["toa", "rtt", "tdoa"])
def test_any_kind_of_array_in_utm(make: Any, family: str) -> None:
    two = np.stack((USERS[0], USERS[0] + [0.2, 0.0])) + UTM
    ranges = np.linalg.norm(two[:, None] - (APS + UTM), axis=-1)
    found = locate(f"{family}-wls", make(APS + UTM), make(ranges), make(np.full(5, 0.1)))
    assert found.valid.all()
    assert float((found.position[0] - torch.tensor(two)).abs().max()) < 1e-6
    assert float((found.position[0, 1] - found.position[0, 0]).norm()) == pytest.approx(0.2, abs=1e-6)


def test_single_precision_ranges_by_hand_lose_no_northing() -> None:
    aps = torch.tensor(APS + UTM)[None]
    m = by_hand(aps, torch.tensor(RANGES.T[None]).float())
    found = make_policy("toa-wls").locate(m).position[0] - torch.tensor(UTM)
    assert float((found - torch.tensor(USERS)).abs().max()) < 1e-4
    with pytest.raises(ValueError, match=r"ap_positions_m in torch.float32 is rounded to 0.65 m .*from_arrays"):
        make_policy("toa-wls").locate(dataclasses.replace(m, ap_positions_m=aps.float()))


def by_hand(aps: torch.Tensor, ranges: torch.Tensor) -> TimingMeasurements:
    sizes = ranges.shape
    return TimingMeasurements(
        model=TimingModel.of_ranges("toa", 40.0, 5.0),
        ap_positions_m=aps,
        ap_orientation_rad=torch.zeros(sizes[:2]),
        height_diff_m=torch.zeros(sizes[:2]),
        range_m=ranges,
        variance_m2=torch.full(sizes, 0.09),
        snr_db=torch.full(sizes, 20.0),
        features=torch.ones(*sizes, 5),
        valid=torch.ones(sizes, dtype=torch.bool),
        is_los=None,
        cfr=None,
        site_ids=torch.zeros(1, dtype=torch.long),
    )


def missing_one(mark: str) -> Any:
    table = RANGES.copy()
    if mark == "mask":
        hidden = np.zeros_like(table, dtype=bool)
        hidden[1, 2] = True
        table[1, 2] = 1e4
        return np.ma.MaskedArray(table, hidden)
    if mark == "None":
        rows = table.tolist()
        rows[1][2] = None
        return rows
    table[1, 2] = np.nan
    return table


@pytest.mark.parametrize("mark", ["NaN", "mask", "None"])
@pytest.mark.parametrize("name", ["toa-wls", "rtt-wls", "tdoa-wls", "tdoa-chan", "toa-huber", "toa-em"])
def test_one_missing_range_costs_one_link_of_one_user(mark: str, name: str) -> None:
    whole, found = locate(name, APS, RANGES, 0.1), locate(name, APS, missing_one(mark), 0.1)
    assert found.valid.all()
    assert float((found.position[0] - torch.tensor(USERS)).norm(dim=-1).max()) < 0.05
    # The other user's answer is the same, this one's is less sure.
    torch.testing.assert_close(found.covariance[0, 0], whole.covariance[0, 0], rtol=1e-2, atol=0)
    assert float(found.covariance[0, 1].det()) > 1.02 * float(whole.covariance[0, 1].det())


@pytest.mark.parametrize("value", [0.0, -1.0, np.inf])
def test_failed_exchanges_are_refused_or_left_out_and_counted(value: float) -> None:
    table = RANGES.copy()
    table[1, 2] = value
    with pytest.raises(ValueError, match=r"range_m cannot be right: 1 .*user 1, AP 2 .*on_bad='drop'") as caught:
        TimingMeasurements.from_arrays(APS, table, 0.1)
    assert "\n" not in str(caught.value)
    with pytest.warns(UserWarning, match="range_m: left out 1 of 10 ranges"):
        kept = TimingMeasurements.from_arrays(APS, table, 0.1, on_bad="drop")
    assert kept.dropped == 1
    found = make_policy("toa-wls").locate(kept)
    assert found.valid.all()
    assert float((found.position[0] - torch.tensor(USERS)).norm(dim=-1).max()) < 1e-6


def test_differences_are_positive_where_the_access_point_is_farther_than_the_reference() -> None:
    differences = RANGES - RANGES[:, [2]]
    differences[:, 2] = np.nan  # its own column says nothing
    for name in ("tdoa-wls", "tdoa-chan"):
        found = locate(name, APS, differences, 0.1, reference=2)
        assert found.valid.all()
        assert float((found.position[0] - torch.tensor(USERS)).norm(dim=-1).max()) < 1e-6


def test_heights_may_be_given_in_three_ways() -> None:
    aps = np.column_stack((APS, [3.0, 3.0, 3.0, 4.0, 2.5]))
    slant = np.linalg.norm(np.column_stack((USERS, [1.2, 1.2]))[:, None] - aps, axis=-1)
    ways: list[tuple[Any, dict[str, Any]]] = [
        (aps, {"user_height_m": 1.2}),
        (APS, {"ap_height_m": aps[:, 2], "user_height_m": 1.2}),
        (APS, {"height_diff_m": aps[:, 2] - 1.2}),
    ]
    for places, heights in ways:
        found = locate("toa-wls", places, slant, 0.1, **heights)
        assert float((found.position[0] - torch.tensor(USERS)).norm(dim=-1).max()) < 1e-6


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ((APS, RANGES.T, 0.1), {}, r"range_m has shape \(5, 2\); it must be \[users, 5 APs\]; it looks transposed"),
        ((APS, RANGES[:, :4], 0.1), {}, r"range_m has shape \(2, 4\); it must be \[users, 5 APs\]"),
        ((APS[0], RANGES, 0.1), {}, r"ap_positions_m has shape \(2,\)|range_m has shape"),
        ((APS, RANGES, 0.0), {}, "std_m must be positive: a number"),
        ((APS, RANGES, np.full((2, 5), -1.0)), {}, "10 with a standard deviation that is not positive"),
        ((APS, RANGES, [0.1, 0.1]), {}, r"std_m has shape \(2,\); it must be \[5 APs\]"),
        ((APS, RANGES, 0.1), {"family": "dtoa"}, "unknown measurement family 'dtoa'; did you mean"),
        ((APS, RANGES, 0.1), {"reference": 1}, "reference=1 is for differences"),
        ((APS, RANGES, 0.1), {"reference": 5, "family": "tdoa"}, "must be the row of one of the 5 APs"),
        ((APS, RANGES, 0.1), {"on_bad": "skip"}, "on_bad='skip' is not one of refuse, drop"),
        ((APS, RANGES, 0.1), {"ap_height_m": 3.0}, "user_height_m is missing"),
        ((APS, RANGES, 0.1), {"area_m": [[0, 0], [0, 9]]}, "area_m has no extent"),
        ((APS * np.nan, RANGES, 0.1), {}, "ap_positions_m has entries that are not finite"),
        ((np.column_stack((APS, APS[:, 0])), RANGES, 0.1), {}, "user_height_m is missing"),
    ],
)
def test_what_cannot_be_is_refused_by_name(arrays: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        TimingMeasurements.from_arrays(*arrays, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong", [RANGES * 1j, torch.tensor(RANGES) * 1j, RANGES > 5, [["far"] * 5], [[1.0], [2.0, 3.0]]]
)
def test_what_holds_no_real_numbers_is_refused_by_name(wrong: Any) -> None:
    with pytest.raises(TypeError, match="range_m"):
        TimingMeasurements.from_arrays(APS, wrong, 0.1)


@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.float64, np.int16, np.int64]),
        st.tuples(st.integers(0, 4), st.just(5)),
        elements=st.integers(-3, 60),
    )
)
@settings(max_examples=25, deadline=None)
def test_whatever_is_dropped_the_rest_has_a_finite_answer(ranges: np.ndarray) -> None:
    bad = int((ranges <= 0).sum())
    if bad:
        with pytest.warns(UserWarning, match=f"left out {bad} of"):
            m = TimingMeasurements.from_arrays(APS, ranges, 0.5, on_bad="drop")
    else:
        m = TimingMeasurements.from_arrays(APS, ranges, 0.5, on_bad="drop")
    found = make_policy("toa-wls").locate(m)
    assert m.dropped == bad
    assert found.position.shape == (1, len(ranges), 2)
    assert bool(torch.isfinite(found.position).all() and torch.isfinite(found.covariance).all())


def test_features_are_asked_for_by_the_estimator_that_needs_them() -> None:
    with pytest.raises(ValueError, match="toa-nlos-drop needs the features of every link"):
        locate("toa-nlos-drop", APS, RANGES, 0.1)


@pytest.mark.parametrize("family", ["toa", "rtt"])
def test_millimetres_are_refused_in_a_sentence(family: str) -> None:
    aps = np.array([[0.0, 0], [40, 0], [0, 40], [40, 40]])
    ranges = np.array([[14_400.0, 29_500, 33_000, 20_000]])
    with pytest.raises(ValueError, match=r"median of 2.*e\+04 m, and the APs are only 56\.6 m apart.*millimetres"):
        TimingMeasurements.from_arrays(aps, ranges, 0.3, family=family)
    # A user ten kilometres from a mast is no mistake.
    TimingMeasurements.from_arrays(aps * 10, ranges, 0.3, family=family)


def test_answers_are_held_inside_a_stated_area() -> None:
    from cfpos import locate_ranges

    aps = np.array([[500.0, 0.0], [510.0, 0.0], [500.0, 10.0], [510.0, 10.0]])
    users = np.array([[504.0, 3.0], [508.0, 9.0]])
    ranges = np.linalg.norm(users[:, None] - aps[None], axis=2)
    area = [[501.0, 1.0], [507.0, 8.0]]
    free = locate_ranges(aps, ranges, 0.1, area_m=area)
    held = locate_ranges(aps, ranges, 0.1, area_m=area, hold_inside=True)
    np.testing.assert_allclose(free.position.numpy(), users, atol=1e-3)
    # The nearest point of the rectangle to (508, 9) is its corner.
    np.testing.assert_allclose(held.position.numpy(), [[504.0, 3.0], [507.0, 8.0]], atol=1e-3)
    assert held.valid.tolist() == free.valid.tolist() == [True, False]
    with pytest.raises(ValueError, match="hold_inside=True needs area_m"):
        locate_ranges(aps, ranges, 0.1, hold_inside=True)
