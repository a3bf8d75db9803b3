"""Channels over surfaces: missing links, users beyond the searched region, residuals that do not fit the noise."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from baselines import make_policy
from baselines.ris.pairs import RisEstimate
from cfpos_envs.measurements.base import Reason
from cfpos_envs.measurements.ris import RisMeasurements
from tests.baselines.ris.drops import RisDrop, ris_drop


def located(drop: RisDrop, name: str = "ris-wls", **options: Any) -> RisEstimate:
    found = make_policy(name, **options).locate(drop.measurements)  # type: ignore[attr-defined]
    assert isinstance(found, RisEstimate)
    return found


@pytest.fixture(scope="module")
def drop() -> RisDrop:
    return ris_drop(40, 1)


def test_near_users_are_valid_with_the_chi_squared_of_their_freedom(drop: RisDrop) -> None:
    found = located(drop)
    assert found.reason is not None
    assert found.chi_squared is not None
    assert found.degrees_of_freedom is not None
    assert found.covariance is not None
    std = found.covariance.diagonal(dim1=-2, dim2=-1).sum(dim=-1).sqrt()
    assert not (found.valid & (drop.error_m(found) > 5 * std)).any()
    assert float(found.valid.double().mean()) >= 0.97
    # 5 parameters of the line of sight and 3 of each surface's path, less position and bias.
    surfaces = drop.measurements.ris_positions_m.shape[1]
    assert (found.degrees_of_freedom == 5 + 3 * surfaces - 4).all()
    freedom = found.degrees_of_freedom.double()
    excess = (found.chi_squared - freedom).sum() / (2 * freedom.sum()).sqrt()
    assert abs(float(excess)) < 4.5


@pytest.mark.parametrize("farthest_m", [3.0, 8.0, 11.0])
def test_users_beyond_the_searched_region_are_outside(drop: RisDrop, farthest_m: float) -> None:
    m = drop.measurements
    sources = torch.cat((m.bs_positions_m, m.ris_positions_m), dim=1)
    farthest = torch.cdist(drop.scene.ue_m, sources.to(drop.scene.ue_m)).amax(dim=-1)
    beyond = farthest > farthest_m + 0.5
    assert bool(beyond.any())
    found = located(drop, farthest_m=farthest_m)
    assert found.reason is not None
    assert not (found.valid & beyond).any()
    assert (found.reason[beyond] == int(Reason.OUTSIDE)).all()


def test_a_missing_link_is_too_few_and_harms_nobody_else(drop: RisDrop) -> None:
    whole = located(drop)
    received = drop.measurements.received.clone()
    received[0] = math.nan
    received[1] = 0
    received[2, 0, 0, 0, 0, 0, 0, 0] = math.nan
    broken = dataclasses.replace(drop, measurements=dataclasses.replace(drop.measurements, received=received))
    found = located(broken)
    assert found.reason is not None
    assert (found.reason[:3] == int(Reason.TOO_FEW_LINKS)).all()
    assert bool(torch.isfinite(found.position).all())
    torch.testing.assert_close(found.position[3:], whole.position[3:], rtol=0, atol=1e-9)


def test_a_surface_that_is_not_where_it_is_said_to_be_shows_in_the_residuals(drop: RisDrop) -> None:
    moved = drop.measurements.ris_positions_m.clone()
    moved[:, 0] += torch.tensor([0.5, 0.0, 0.3])
    wrong = dataclasses.replace(drop, measurements=dataclasses.replace(drop.measurements, ris_positions_m=moved))
    found = located(wrong)
    assert found.reason is not None
    assert float((found.reason == int(Reason.LARGE_RESIDUALS)).double().mean()) > 0.95


def test_peoples_arrays_in_a_frame_far_away_give_the_same_places(drop: RisDrop) -> None:
    m, far = drop.measurements, np.array([455000.0, 5411000.0, 520.0])
    own = RisMeasurements.from_arrays(
        m.system,
        m.bs_positions_m[0].double().numpy() + far,
        (m.ris_positions_m[0].double() + torch.tensor(far)).tolist(),
        m.rotation[0].numpy(),
        m.phases[0].conj().conj(),
        m.received[0].numpy().astype(np.complex64),
    )
    one = dataclasses.replace(drop, measurements=m.select(slice(0, 1)))
    found = make_policy("ris-wls").locate(own)  # type: ignore[attr-defined]
    near = located(one)
    assert found.valid.all()
    assert found.position.dtype == torch.float64
    torch.testing.assert_close(found.position - torch.tensor(far), near.position, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("field", "change", "message"),
    [
        ("rotation", lambda r: r.clone() * 2.0, "rotation must hold right-handed rotations"),
        ("rotation", lambda r: r * r.new_tensor([1.0, 1.0, -1.0]), "rotation must hold right-handed rotations"),
        ("phases", lambda p: p * 0.5, "phases must have modulus 1"),
        ("bs_positions_m", lambda b: b * math.nan, "bs_positions_m holds NaN"),
    ],
)
def test_what_cannot_be_is_refused_by_name(drop: RisDrop, field: str, change: Any, message: str) -> None:
    m = drop.measurements
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(m, **{field: change(getattr(m, field))})
