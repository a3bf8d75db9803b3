"""Moved users: where all mirrors are flat, the moved paths are the ones that the new place really has."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cfpos_envs.channels.tracing.moves import move_errors
from cfpos_envs.channels.tracing.synthesis import StoredPaths, moved_paths, unit_vector
from tests.channels.tracing.mirrors import BS_M, MirrorTracer, image_paths, small_recipe

CARRIER_HZ = 3.5e9
C_M_S = 299_792_458.0


def stored_at(user_m: np.ndarray) -> StoredPaths:
    """[L, P] closed-form paths in double precision."""
    links = [image_paths(bs, user_m) for bs in BS_M]
    tensors = {
        entry.name: torch.from_numpy(np.stack([link[entry.name] for link in links]))
        for entry in dataclasses.fields(StoredPaths)
    }
    return StoredPaths(**tensors)


@settings(max_examples=40, deadline=None)
@given(
    user=st.tuples(st.floats(-100, 100), st.floats(-100, 100), st.floats(1, 15)),
    move=st.tuples(*[st.floats(-1, 1)] * 3),
)
def test_moving_is_tracing_again(user: tuple[float, ...], move: tuple[float, ...]) -> None:
    here, there = np.array(user), np.array(user) + np.array(move)
    moved = moved_paths(stored_at(here), torch.tensor(move, dtype=torch.float64).expand(len(BS_M), 3), CARRIER_HZ)
    traced = stored_at(there)
    torch.testing.assert_close(moved.delay_s, traced.delay_s, rtol=1e-9, atol=0)
    expected = unit_vector(traced.bs_zenith_rad, traced.bs_azimuth_rad)
    torch.testing.assert_close(moved.direction, expected, rtol=0, atol=1e-6)
    phase = -2 * math.pi * ((traced.delay_s * CARRIER_HZ) % 1)
    gain = traced.amplitude * torch.polar(torch.ones_like(phase), phase)
    torch.testing.assert_close(moved.gain, gain, rtol=1e-5, atol=0)


def test_standing_still_changes_nothing() -> None:
    stored = stored_at(np.array([3.0, -7.0, 2.0]))
    still = moved_paths(stored, torch.zeros(len(BS_M), 3, dtype=torch.float64), CARRIER_HZ)
    torch.testing.assert_close(still.gain.abs(), stored.amplitude.abs())
    torch.testing.assert_close(still.delay_s, stored.delay_s)
    torch.testing.assert_close(still.direction, unit_vector(stored.bs_zenith_rad, stored.bs_azimuth_rad))


def test_a_step_towards_the_source_of_one_wavelength_is_one_turn() -> None:
    wavelength = C_M_S / CARRIER_HZ
    stored = stored_at(np.array([0.0, 0.0, 1.5]))
    towards = unit_vector(stored.ue_zenith_rad, stored.ue_azimuth_rad)[0, 0]
    step = (wavelength * towards).expand(len(BS_M), 3)
    before, after = (moved_paths(stored, d, CARRIER_HZ) for d in (torch.zeros_like(step), step))
    los = (0, 0)
    assert float((after.gain[los] / before.gain[los]).angle()) == pytest.approx(0.0, abs=1e-5)
    half = moved_paths(stored, step / 2, CARRIER_HZ)
    assert float((half.gain[los] / before.gain[los]).abs().log()) == pytest.approx(0.0, abs=1e-2)
    assert abs(float((half.gain[los] / before.gain[los]).angle())) == pytest.approx(math.pi, abs=1e-5)


def test_entries_without_a_path_stay_silent() -> None:
    stored = stored_at(np.array([0.0, 0.0, 1.5]))
    silent = dataclasses.replace(stored, amplitude=torch.zeros_like(stored.amplitude))
    moved = moved_paths(silent, torch.ones(len(BS_M), 3, dtype=torch.float64) / 2, CARRIER_HZ)
    assert not moved.gain.abs().any()
    assert not moved.delay_s.any()
    assert torch.isfinite(moved.direction).all()


def test_errors_of_moves_are_measured_against_tracing_again() -> None:
    recipe = small_recipe(height_m=(2.0, 15.0))
    near, far = move_errors(recipe, MirrorTracer(recipe), (0.1, 1.0), batches=6)
    # All mirrors are flat here; what is left is single precision of some thousand wavelengths.
    assert near["distance_m"] == 0.1
    assert max(near["median"], far["median"], far["p90"]) < 1e-3
    assert far["paths_changed"] == 0
    # Of 48 users over 300 m some may step over the border of the shadow, 1 m wide.
    assert far["links_changed"] <= 0.1
