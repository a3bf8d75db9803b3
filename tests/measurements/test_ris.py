import dataclasses
import math
from typing import Any

import pytest
import torch

from cfpos_envs.measurements.ris import RisMeasurements, RisSystem, SisoMeasurements

SYSTEM = RisSystem(28e9, 100e6, 8, (2, 3), (3, 2), (4, 4), 6, 1.0)
BATCH, UES, STATIONS, SURFACES = 2, 2, 1, 2


def measured(**changes: Any) -> RisMeasurements:
    places = torch.arange(BATCH * SURFACES * 3, dtype=torch.float64).view(BATCH, SURFACES, 3)
    fields: dict[str, Any] = {
        "system": SYSTEM,
        "bs_positions_m": torch.full((BATCH, STATIONS, 3), -5.0, dtype=torch.float64),
        "ris_positions_m": places,
        "rotation": torch.eye(3, dtype=torch.float64).expand(BATCH, UES, 3, 3),
        "phases": torch.ones(BATCH, SURFACES, 16, dtype=torch.complex128),
        "received": torch.zeros(BATCH, UES, STATIONS, *SYSTEM.sizes, dtype=torch.complex64),
        "link_offset_m": torch.zeros(BATCH, UES - 1, 3, dtype=torch.float64),
        "link_covariance_m2": torch.eye(3, dtype=torch.float64).expand(BATCH, UES - 1, 3, 3),
        "site_ids": torch.arange(BATCH),
        "siso": SisoMeasurements(torch.ones(BATCH, 3, 16) + 0j, torch.zeros(BATCH, UES, STATIONS, 3, 2, 8) + 0j),
    }
    return RisMeasurements(**{**fields, **changes})


def test_constants_of_the_system() -> None:
    assert SYSTEM.sizes == (3, 2, 2, 3, 8)
    assert (SYSTEM.num_ue_antennas, SYSTEM.num_bs_antennas, SYSTEM.num_ris_elements) == (6, 6, 16)
    assert SYSTEM.wavelength_m == pytest.approx(0.0107069, rel=1e-5)
    assert SYSTEM.window_m == pytest.approx(23.983, rel=1e-4)
    # One turn of the phase per window and subcarrier.
    assert SYSTEM.slopes[4] * SYSTEM.window_m == pytest.approx(-2 * math.pi)


def test_some_episodes_only() -> None:
    chosen = measured().select(torch.tensor([1]))
    assert chosen.site_ids.tolist() == [1]
    assert chosen.received.shape == (1, UES, STATIONS, *SYSTEM.sizes)
    assert chosen.siso is not None
    assert chosen.siso.received.shape[0] == 1
    assert measured(siso=None).select(slice(0, 1)).siso is None


def test_missing_samples_are_no_error() -> None:
    broken = torch.full((BATCH, UES, STATIONS, *SYSTEM.sizes), math.nan, dtype=torch.complex64)
    assert bool(measured(received=broken).received.isnan().all())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"received": torch.zeros(2, 2, 1, 3, 2, 2, 8) + 0j}, "received has 7 axes; it must have 8"),
        ({"received": torch.zeros(2, 2, 1, 3, 3, 2, 3, 8) + 0j}, "received has shape"),
        ({"received": torch.zeros(2, 2, 2, *SYSTEM.sizes) + 0j}, "bs_positions_m has shape"),
        ({"ris_positions_m": torch.zeros(2, 3)}, "ris_positions_m has shape"),
        ({"phases": torch.ones(2, 2, 15) + 0j}, "phases has shape"),
        ({"phases": torch.ones(2, 1, 16) + 0j}, "phases has shape"),
        ({"phases": 0.9 * torch.ones(2, 2, 16) + 0j}, "phases must have modulus 1"),
        ({"phases": torch.full((2, 2, 16), math.nan) + 0j}, "phases must have modulus 1"),
        ({"rotation": torch.eye(3).expand(2, 1, 3, 3)}, "rotation has shape"),
        ({"rotation": torch.full((2, 2, 3, 3), math.nan)}, "rotation holds NaN"),
        ({"bs_positions_m": torch.full((2, 1, 3), math.inf)}, "bs_positions_m holds NaN or infinity"),
        ({"ris_positions_m": torch.zeros(2, 2, 3)}, "nearer than 0.05 m"),
        ({"ris_positions_m": torch.zeros(2, 0, 3), "phases": torch.ones(2, 0, 16) + 0j}, "one path alone"),
        ({"bs_positions_m": torch.tensor([[[0.0, 1.0, 2.0]]] * 2)}, "nearer than 0.05 m"),
        ({"link_offset_m": None}, "link_offset_m has shape None"),
        ({"link_covariance_m2": torch.eye(3).expand(2, 2, 3, 3)}, "link_covariance_m2 has shape"),
        ({"site_ids": torch.zeros(3)}, "site_ids has shape"),
    ],
)
def test_bad_measurements_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measured(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"carrier_hz": 0.0}, "carrier_hz=0.0 must be above 0"),
        ({"bandwidth_hz": math.inf}, "bandwidth_hz=inf must be a finite number"),
        ({"power_w": True}, "power_w=True must be a finite number"),
        ({"num_subcarriers": 1}, "num_subcarriers=1 determines no delay"),
        ({"num_subcarriers": True}, "num_subcarriers=True must be a whole number"),
        ({"bs_shape": (8, -1)}, "bs_shape="),
        ({"ue_shape": (0, 3)}, "ue_shape="),
        ({"ris_shape": (True, 4)}, "ris_shape="),
        ({"num_slots": 5}, "num_slots=5 cannot sound 6 base station antennas"),
    ],
)
def test_bad_constants_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SYSTEM, **changes)
