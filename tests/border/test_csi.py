"""CSI of other people's tools: types, gaps, orders, signs; a wrong convention costs tens of metres."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from baselines.ecc.knn import CsiKnn, KnnOptions
from baselines.ecc.music import Music3d
from cfpos_envs.measurements.base import Reason
from cfpos_envs.measurements.ecc import CsiMeasurements
from cfpos_envs.physics.ecc.conventions import ANTENNA_ORDERS, antenna_permutation, subcarrier_permutation
from cfpos_envs.physics.ecc.csi import element_response, to_array_frame
from tests.baselines.ecc.synthetic import C_M_S, FACING_RAD, PLACES_M, SYSTEM, draw_places, measure

AREA_M = (SYSTEM.area_min_m, SYSTEM.area_max_m)
RADIO: dict[str, Any] = {
    "carrier_hz": 3.5e9,
    "subcarrier_spacing_hz": 720e3,
    "array_shape": (2, 4),
    "area_m": AREA_M,
}
SIONNA = [1, 3, 5, 7, 0, 2, 4, 6]
"""Numbers that a 2 x 4 panel numbered down its columns, top first, gives to our antennas."""


def taken(csi: Any, places: Any = PLACES_M, **changes: Any) -> CsiMeasurements:
    return CsiMeasurements.from_arrays(csi, places, FACING_RAD, **{**RADIO, **changes})


def errors_m(measurements: CsiMeasurements, users_m: Tensor) -> Tensor:
    return (Music3d().locate(measurements).position[:, 0] - users_m).norm(dim=-1)


@pytest.fixture(scope="module")
def users_m() -> Tensor:
    return draw_places(40, seed=1)


@pytest.fixture(scope="module")
def csi(users_m: Tensor) -> np.ndarray:
    """[K, L, T, A, N] in our own conventions."""
    return measure(users_m).csi[:, 0].numpy()


@pytest.mark.parametrize(
    "other",
    [
        lambda c: c.astype(np.complex128),
        lambda c: np.ma.masked_array(c, np.zeros(c.shape, bool)),
        lambda c: c.tolist(),
        torch.from_numpy,
        lambda c: torch.from_numpy(c).conj().resolve_conj().conj(),
        lambda c: np.asfortranarray(c)[:, :, :, ::-1][:, :, :, ::-1],
    ],
    ids=["complex128", "masked", "lists", "tensor", "conjugated view", "strides"],
)
def test_arrays_of_any_type_are_the_same_measurements(csi: np.ndarray, other: Any) -> None:
    expected, found = taken(csi), taken(other(csi), places=PLACES_M.double().numpy())
    assert found.csi.dtype == torch.complex64
    assert not found.csi.is_conj()
    assert torch.equal(found.csi, expected.csi)
    assert torch.equal(found.bs_positions_m, expected.bs_positions_m)
    assert found.csi.shape == (40, 1, 3, 3, 8, 8)
    assert found.system.array_shape == (2, 4)


def test_double_precision_gives_what_single_precision_gives(users_m: Tensor) -> None:
    plain = measure(users_m)
    wide = dataclasses.replace(
        plain,
        csi=plain.csi.to(torch.complex128),
        bs_positions_m=plain.bs_positions_m.double(),
        bs_orientation_rad=plain.bs_orientation_rad.double(),
    )
    expected, found = Music3d().locate(plain), Music3d().locate(wide)
    assert found.position.dtype == torch.float32
    assert torch.equal(found.position, expected.position)
    assert errors_m(wide, users_m).median() < 0.02


def test_a_conjugated_view_is_taken_by_both_constructors(users_m: Tensor) -> None:
    plain = measure(users_m)
    view = plain.csi.conj()
    assert view.is_conj()
    found = CsiMeasurements.from_csi(SYSTEM, PLACES_M, FACING_RAD, view)
    assert torch.equal(found.csi, view.resolve_conj())
    assert torch.equal(taken(view[:, 0], phase="conjugated").csi, plain.csi)


def test_northings_of_utm_lose_nothing(csi: np.ndarray, users_m: Tensor) -> None:
    origin = np.array([691_000.25, 5_411_000.5, 0.0])
    there = PLACES_M.double().numpy() + origin
    found = taken(csi, places=there, area_m=np.array(AREA_M) + origin)
    assert max(map(abs, found.origin_m)) > 1e5
    answer = Music3d().locate(found)
    assert answer.position.dtype == torch.float64
    near = Music3d().locate(taken(csi)).position[:, 0].double().numpy()
    np.testing.assert_allclose(answer.position[:, 0].numpy() - origin, near, atol=2e-4)


@pytest.mark.parametrize("hole", ["nan", "zero", "masked"])
def test_a_missing_link_costs_that_link_alone(csi: np.ndarray, users_m: Tensor, hole: str) -> None:
    values = np.ma.masked_array(csi.copy(), np.zeros(csi.shape, bool))
    if hole == "masked":
        values[4, 1, 2, 5, 3] = np.ma.masked
    else:
        values[4, 1] = np.nan if hole == "nan" else 0.0
    found = taken(values)
    expected = torch.ones(40, 3, dtype=torch.bool)
    expected[4, 1] = False
    assert torch.equal(found.valid[:, 0], expected)
    assert not found.csi[4, 0, 1].abs().any()
    answer = Music3d().locate(found)
    assert answer.valid.all()
    # Two stations still see it; everybody else has lost nothing.
    assert (answer.position[4, 0] - users_m[4]).norm() < 1.0
    whole = Music3d().locate(taken(csi)).position
    others = torch.arange(40) != 4
    assert torch.equal(answer.position[others], whole[others])


def test_one_link_is_too_few_for_a_direction_to_end_anywhere(csi: np.ndarray) -> None:
    told = np.ones((40, 3), bool)
    told[3, 1:] = False
    told[5] = False
    answer = Music3d().locate(taken(csi, valid=told))
    assert (~answer.valid[:, 0]).nonzero().flatten().tolist() == [3, 5]
    assert answer.reason is not None
    assert answer.reason[[3, 5], 0].tolist() == [Reason.TOO_FEW_LINKS] * 2
    assert answer.reason[answer.valid].eq(0).all()


@pytest.mark.parametrize(
    ("order", "number"),
    # The antenna in the upper right corner of a panel of 2 rows and 4 columns.
    [("rows", 7), ("deepmimo", 7), ("rows-from-top", 3), ("columns", 7), ("quadriga", 7), ("sionna", 6)],
)
def test_every_order_knows_the_upper_right_antenna(order: str, number: int) -> None:
    assert antenna_permutation(order, (2, 4))[7] == number


def test_sionna_numbers_down_the_columns() -> None:
    assert list(antenna_permutation("sionna", (2, 4))) == SIONNA
    assert antenna_permutation("columns", (2, 4)) == (0, 2, 4, 6, 1, 3, 5, 7)


@given(st.sampled_from(ANTENNA_ORDERS), st.integers(1, 5), st.integers(1, 5))
def test_every_order_is_a_permutation(order: str, rows: int, columns: int) -> None:
    found = antenna_permutation(order, (rows, columns))
    assert sorted(found) == list(range(rows * columns))
    assert antenna_permutation(found, (rows, columns)) == found


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_subcarriers_in_the_order_of_a_dft(count: int) -> None:
    numbers = np.fft.fftfreq(count, 1 / count)
    assert (np.diff(numbers[list(subcarrier_permutation("fft", count))]) > 0).all()


def test_a_panel_in_another_order_is_tens_of_metres_off_unless_it_is_said(csi: np.ndarray, users_m: Tensor) -> None:
    theirs = np.empty_like(csi)
    theirs[..., SIONNA, :] = csi
    assert errors_m(taken(theirs), users_m).median() > 10
    for order in ("sionna", SIONNA):
        found = taken(theirs, antenna_order=order)
        assert torch.equal(found.csi, taken(csi).csi)
        assert errors_m(found, users_m).median() < 0.02


def test_the_other_sign_of_the_phase_is_tens_of_metres_off_unless_it_is_said(csi: np.ndarray, users_m: Tensor) -> None:
    assert errors_m(taken(csi.conj()), users_m).median() > 10
    for name in ("exp(+j2pi f tau)", "conjugated"):
        found = taken(csi.conj(), phase=name)
        assert torch.equal(found.csi, taken(csi).csi)
        assert errors_m(found, users_m).median() < 0.02


def test_frequencies_are_read_in_their_own_order(csi: np.ndarray) -> None:
    ascending = 3.5e9 + 720e3 * (np.arange(8) - 3.5)
    turned = np.fft.ifftshift(csi, axes=-1)
    found = taken(
        turned,
        frequencies_hz=np.fft.ifftshift(ascending),
        carrier_hz=None,
        subcarrier_spacing_hz=None,
        subcarrier_order="fft",
    )
    assert found.system.carrier_hz == pytest.approx(3.5e9, rel=1e-12)
    assert found.system.subcarrier_spacing_hz == pytest.approx(720e3)
    assert torch.equal(found.csi, taken(csi).csi)


def test_slots_are_optional(csi: np.ndarray) -> None:
    found = taken(csi[:, :, 0])
    assert found.system.num_slots == 1
    assert torch.equal(found.csi, taken(csi[:, :, :1]).csi)


def circle(count: int, radius_m: float, plane: tuple[int, int]) -> np.ndarray:
    angle = 2 * np.pi * np.arange(count) / count
    places = np.zeros((count, 3))
    places[:, plane[0]], places[:, plane[1]] = radius_m * np.cos(angle), radius_m * np.sin(angle)
    return places


@pytest.mark.parametrize(
    "elements",
    [
        circle(8, 0.06, (1, 2)),
        circle(8, 0.06, (0, 1)),
        np.concatenate((circle(7, 0.06, (0, 1)), [[0.0, 0.0, 0.03]])),
    ],
    ids=["upright ring", "level ring", "in space"],
)
def test_arrays_that_are_not_rows_times_columns_find_directions(elements: np.ndarray, users_m: Tensor) -> None:
    away = users_m[:, None] - PLACES_M
    length = away.norm(dim=-1, keepdim=True)
    local = to_array_frame((away / length)[:, :, None], FACING_RAD).squeeze(-2)
    wavelength = C_M_S / 3.5e9
    steering = element_response(local, torch.tensor(elements, dtype=torch.float32) / wavelength)
    tones = torch.polar(torch.ones(8), -2 * torch.pi * 720e3 * torch.arange(8) * length / C_M_S)
    csi = (steering.unsqueeze(-1) * tones.unsqueeze(-2)).numpy()
    found = taken(csi, array_shape=None, element_positions_m=elements)
    assert found.system.num_antennas == 8
    assert errors_m(found, users_m).max() < 0.3
    reordered = taken(csi[..., ::-1, :], array_shape=None, element_positions_m=elements[::-1].copy())
    torch.testing.assert_close(errors_m(reordered, users_m), errors_m(found, users_m), atol=0.05, rtol=0)


def test_the_grid_of_elements_is_that_of_rows_and_columns() -> None:
    local = torch.nn.functional.normalize(torch.tensor([[0.8, 0.3, -0.2]]), dim=-1)
    elements = element_response(local, SYSTEM.elements_wavelengths)
    torch.testing.assert_close(elements, SYSTEM.response(local))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"csi": np.zeros((2, 3, 8, 8))}, "csi is float64 .* must be complex"),
        ({"csi": np.zeros((2, 8, 8), complex)}, r"csi has shape \(2, 8, 8\); it must be \[snapshots, base stations"),
        ({"csi": np.ones((3, 2, 8, 8), complex)}, "2 base stations, but there are 3; the axes are snapshots"),
        ({"array_shape": (2, 2)}, "8 antennas, but the array has 2 x 2"),
        ({"antenna_order": "sionnna"}, "did you mean sionna"),
        ({"antenna_order": [0, 1, 2, 3, 4, 5, 6, 6]}, "no permutation of 0 ... 7"),
        ({"phase": "exp(-j 2 pi f tau)"}, "did you mean exp"),
        ({"subcarrier_order": "ftt"}, "did you mean fft"),
        ({"bs_positions_m": np.zeros((3, 2))}, r"bs_positions_m has shape \(3, 2\); it must be \(3, 3\)"),
        ({"bs_positions_m": np.full((3, 3), np.nan)}, r"bs_positions_m\[0, 0\] is nan"),
        ({"bs_orientation_rad": [45.0, 135.0, -90.0]}, "135.* degrees: give radians"),
        ({"frequencies_hz": 3.5e9 + np.arange(7.0)}, r"frequencies_hz has shape \(7,\)"),
        ({"frequencies_hz": 3.5e9 - np.arange(8.0)}, "frequencies_hz does not ascend"),
        ({"frequencies_hz": 3.5e9 + np.arange(8.0) ** 2}, "must be evenly spaced"),
        ({"frequencies_hz": np.arange(8.0) - 3.5}, "offsets from the carrier"),
        ({"carrier_hz": None}, "the frequencies are not known"),
        ({"valid": np.ones((3, 3), bool)}, r"valid has shape \(3, 3\)"),
        ({"element_positions_m": np.zeros((4, 3))}, r"element_positions_m has shape \(4, 3\)"),
        ({"on_bad": "keep"}, "on_bad"),
    ],
)
def test_what_cannot_be_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    given = {
        "csi": np.ones((2, 3, 8, 8), complex),
        "bs_positions_m": PLACES_M,
        "bs_orientation_rad": FACING_RAD,
        **RADIO,
        **changes,
    }
    with pytest.raises(ValueError, match=message) as caught:
        CsiMeasurements.from_arrays(**given)
    assert "\n" not in str(caught.value)


def test_nobody_is_located_where_nobody_was_measured(csi: np.ndarray, users_m: Tensor) -> None:
    knn: Any = CsiKnn(None, KnnOptions(neighbours=2))
    known = taken(csi)
    knn.survey(known.csi[:, 0], known.valid[:, 0], users_m, known.system)
    for policy in (Music3d(), knn):
        found = policy.locate(taken(csi[:0], system=known.system))
        assert found.position.shape == (0, 1, 3)
        assert found.valid.shape == (0, 1)
    assert taken(csi[:0], valid=np.ones((0, len(PLACES_M)), bool)).csi.shape[0] == 0


def test_infinity_is_refused_or_dropped_and_counted() -> None:
    values = np.ones((2, 3, 8, 8), complex)
    values[1, 2, 0, 0] = np.inf
    with pytest.raises(ValueError, match=r"csi\[1, 2\] \(snapshot, base station\) holds infinity, on 1 links"):
        taken(values)
    with pytest.warns(UserWarning, match="1 links hold infinity"):
        found = taken(values, on_bad="drop")
    assert found.valid[:, 0].tolist() == [[True, True, True], [True, True, False]]


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("carrier_hz", 28e9),
        ("subcarrier_spacing_hz", 240e3),
        ("array_shape", (4, 2)),
        ("spacing_wavelengths", 1.0),
        ("element_positions_m", np.arange(24.0).reshape(8, 3) / 100),
    ],
)
def test_measurements_of_another_network_are_refused(name: str, other: object) -> None:
    rng = np.random.default_rng(0)
    csi = rng.normal(size=(3, 2, 8, 6)) + 1j * rng.normal(size=(3, 2, 8, 6))
    stations, yaws = [[0.0, 0, 10], [50, 0, 10]], [0.5, 2.5]
    radio = {"carrier_hz": 3.5e9, "subcarrier_spacing_hz": 60e3, "array_shape": (2, 4), "spacing_wavelengths": 0.5}
    system = CsiMeasurements.from_arrays(csi, stations, yaws, **radio).system
    assert CsiMeasurements.from_arrays(csi, stations, yaws, system=system).system is system
    assert CsiMeasurements.from_arrays(csi, stations, yaws, system=system, **radio).system is system
    with pytest.raises(ValueError, match=r"the network was trained with"):
        CsiMeasurements.from_arrays(csi, stations, yaws, system=system, **{**radio, name: other})


def test_an_area_of_another_shape_is_named() -> None:
    csi = np.ones((1, 2, 4, 6), dtype=complex)
    radio = {"carrier_hz": 3.5e9, "subcarrier_spacing_hz": 60e3}
    with pytest.raises(ValueError, match="area_m"):
        CsiMeasurements.from_arrays(csi, [[0.0, 0, 10], [50, 0, 10]], [0, 0], area_m=[[0, 0], [40, 40]], **radio)


@pytest.mark.parametrize("row", [(1, 8), (8, 1)])
def test_a_row_of_antennas_determines_no_place_in_space(row: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    csi = rng.normal(size=(3, 3, 8, 6)) + 1j * rng.normal(size=(3, 3, 8, 6))
    radio = {"carrier_hz": 3.5e9, "subcarrier_spacing_hz": 60e3, "array_shape": row}
    places = [[0.0, 0, 5], [50, 0, 5], [25, 40, 5]]
    answer = Music3d().locate(CsiMeasurements.from_arrays(csi, places, [0.5, 2.5, -1.5], **radio))
    assert answer.reason is not None
    assert (answer.reason == int(Reason.POOR_GEOMETRY)).all()
    assert not answer.valid.any()
