"""CSI as people bring it: what is refused by name and what is masked."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cfpos_envs.measurements.ecc import CsiMeasurements, CsiSystem
from cfpos_envs.physics.ecc.csi import complex_noise

SYSTEM = CsiSystem(
    carrier_hz=3.5e9,
    subcarrier_spacing_hz=720e3,
    num_subcarriers=24,
    num_slots=10,
    array_shape=(2, 4),
    spacing_wavelengths=0.5,
    num_bs=6,
    area_min_m=(0.0, 0.0, 0.0),
    area_max_m=(220.0, 300.0, 30.0),
    pilot_power_w=1e-3,
    noise_power_w=1e-15,
    log_gain_mean=(-3.0,) * 6,
    log_gain_std=(0.5,) * 6,
)


def csi(batch: int = 2, users: int = 1, stations: int = 6) -> Tensor:
    return complex_noise(torch.Generator().manual_seed(0), torch.Size((batch, users, stations, 10, 8, 24)), 1e-10)


def taken(values: Tensor, **changes: Any) -> CsiMeasurements:
    stations = values.shape[2] if values.dim() > 2 else 6
    place = torch.zeros(stations, 3)
    return CsiMeasurements.from_csi(SYSTEM, place, place, values, **changes)


def test_what_everybody_knows_by_hand() -> None:
    assert SYSTEM.num_antennas == 8
    assert SYSTEM.lossless_bits == 122_880  # 64 * 10 * 8 * 24
    assert SYSTEM.centre_m == (110.0, 150.0, 15.0)
    assert SYSTEM.scale_m == 150.0
    assert SYSTEM.wavelength_m == pytest.approx(0.08565, rel=1e-4)
    assert SYSTEM.cfr_noise_variance == pytest.approx(1e-12)
    corner = torch.tensor([220.0, 300.0, 0.0])
    torch.testing.assert_close(SYSTEM.normalise_position(corner), torch.tensor([110 / 150, 1.0, -0.1]))


@given(st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3))
def test_positions_there_and_back(shares: list[float]) -> None:
    point = torch.tensor(shares) * torch.tensor(SYSTEM.area_max_m)
    normalised = SYSTEM.normalise_position(point)
    assert normalised.abs().max() <= 1.0
    torch.testing.assert_close(SYSTEM.denormalise_position(normalised), point, atol=1e-4, rtol=0)


def test_standardised_gains() -> None:
    gain = torch.tensor([[1e-3, 1e-2, 1e-9, 0.0, 1e-3, 1e-3]])
    valid = torch.tensor([[True, True, True, True, False, True]])
    assert SYSTEM.standardise_log_gain(gain, valid)[0].tolist() == pytest.approx([0, 2, -4, -4, -4, 0], abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"carrier_hz": 0.0}, "carrier_hz=0.0 must be above 0"),
        ({"noise_power_w": float("nan")}, "noise_power_w=nan must be a finite number"),
        ({"num_slots": 0}, "num_slots=0 must be at least 1"),
        ({"array_shape": (2, 0)}, "array_shape"),
        ({"area_max_m": (0.0, 300.0, 30.0)}, "area_min_m"),
        ({"log_gain_mean": (0.0,)}, "log_gain_mean has 1 entries"),
        ({"log_gain_std": (0.0,) * 6}, "log_gain_std must be positive"),
    ],
)
def test_impossible_systems_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SYSTEM, **changes)


def test_a_wrong_number_of_stations_is_refused() -> None:
    for stations in (5, 7):
        with pytest.raises(ValueError, match=f"{stations} BSs, the system has 6") as caught:
            taken(csi(stations=stations))
        assert "\n" not in str(caught.value)


def test_wrong_shapes_and_types_are_refused() -> None:
    with pytest.raises(ValueError, match="must be complex"):
        taken(csi().real)
    with pytest.raises(ValueError, match=r"\[B, J, L, T, A, N\]"):
        taken(csi()[0])
    with pytest.raises(ValueError, match="slots, antennas, subcarriers"):
        taken(csi()[..., :12])
    with pytest.raises(ValueError, match="valid has shape"):
        taken(csi(), valid=torch.ones(2, 6, dtype=torch.bool))
    with pytest.raises(ValueError, match="site_ids has shape"):
        taken(csi(), site_ids=torch.zeros(3, dtype=torch.long))


def test_silence_and_nan_are_masked() -> None:
    values = csi()
    values[0, 0, 1] = 0.0
    values[0, 0, 2, 3, 4, 5] = complex("nan")
    values[1, 0, 4, 0, 0, 0] = complex("inf")
    told = torch.ones(2, 1, 6, dtype=torch.bool)
    told[1, 0, 0] = False
    found = taken(values, valid=told)
    assert found.valid[0, 0].tolist() == [True, False, False, True, True, True]
    assert found.valid[1, 0].tolist() == [False, True, True, True, False, True]
    assert torch.isfinite(torch.view_as_real(found.csi)).all()
    assert not found.csi[~found.valid].abs().any()
    assert torch.equal(found.csi[found.valid], values[found.valid])


def test_selected_episodes() -> None:
    found = taken(csi(batch=3))
    part = found.select(slice(1, 2))
    assert part.csi.shape[0] == part.site_ids.shape[0] == 1
    assert torch.equal(part.csi[0], found.csi[1])
