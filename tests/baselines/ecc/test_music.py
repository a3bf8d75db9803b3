"""MUSIC at planar arrays and the intersection of lines: exact where the truth is known."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from baselines import make_policy
from baselines.ecc.music import Music3d, Music3dOptions, intersect, music_directions, spatial_covariance
from cfpos_envs.measurements.ecc import CsiMeasurements
from cfpos_envs.physics.ecc.csi import upa_response
from tests.baselines.ecc.synthetic import SYSTEM, draw_places, measure, silenced

SHAPE = (2, 4)
LOW, HIGH = torch.tensor([0.0, 0.0, 0.0]), torch.tensor([40.0, 40.0, 6.0])


def unit(y: float, z: float) -> torch.Tensor:
    return torch.tensor([math.sqrt(1 - y * y - z * z), y, z])


@settings(max_examples=30, deadline=None)
@given(radius=st.floats(0.0, 0.9), turn=st.floats(0.0, 2 * math.pi))
@example(radius=4.910665700359284e-44, turn=0.0)
def test_the_direction_of_one_wave_is_found(radius: float, turn: float) -> None:
    truth = unit(radius * math.cos(turn), radius * math.sin(turn))
    response = upa_response(truth, SHAPE)
    covariance = torch.outer(response, response.conj())
    found = music_directions(covariance, SHAPE, 0.5, 1, 32)
    # Four refinements end with steps of 1e-4 in direction cosines.
    assert (found[1:] - truth[1:]).abs().max() < 2e-3
    assert found[0] >= 0


def test_noise_does_not_move_the_direction() -> None:
    response = upa_response(unit(0.3, -0.2), SHAPE)
    clean = torch.outer(response, response.conj())
    noisy = clean + 5.0 * torch.eye(8)
    torch.testing.assert_close(
        music_directions(clean, SHAPE, 0.5, 1, 32), music_directions(noisy, SHAPE, 0.5, 1, 32), atol=1e-3, rtol=0
    )


def test_two_waves_need_two_sources() -> None:
    strong, weak = (upa_response(unit(y, 0.0), SHAPE) for y in (0.5, -0.5))
    # Two waves of different delays are incoherent over the subcarriers; these two are orthogonal at this array.
    covariance = torch.outer(strong, strong.conj()) + 0.25 * torch.outer(weak, weak.conj())
    one = music_directions(covariance, SHAPE, 0.5, 1, 32)
    assert float(one[1]) == pytest.approx(0.5, abs=2e-3)
    two = music_directions(covariance, SHAPE, 0.5, 2, 32)
    assert float(two[1]) == pytest.approx(0.5, abs=2e-2)


@settings(max_examples=40, deadline=None)
@given(
    first=st.tuples(st.floats(-0.7, 0.7), st.floats(-0.6, 0.6)),
    second=st.tuples(st.floats(-0.7, 0.7), st.floats(-0.6, 0.6)),
    share=st.floats(0.02, 0.6),
)
@example(first=(0.31, 0.12), second=(-0.35, -0.22), share=0.5)
@example(first=(-0.35, -0.22), second=(0.31, 0.12), share=0.5)
def test_of_two_paths_the_stronger_is_returned(
    first: tuple[float, float], second: tuple[float, float], share: float
) -> None:
    # Half a wavelength between 4 columns resolves cosines that are 2 / 4 apart.
    assume(abs(first[0] - second[0]) > 0.5)
    strong, weak = (upa_response(unit(y, z), SHAPE) for y, z in (first, second))
    covariance = torch.outer(strong, strong.conj()) + share * torch.outer(weak, weak.conj()) + 1e-4 * torch.eye(8)
    found = music_directions(covariance, SHAPE, 0.5, 2, 32)
    assert math.degrees(math.acos(min(1.0, float(found @ unit(*first))))) < 0.5


def test_the_stronger_path_is_returned_by_every_array_of_a_batch() -> None:
    pairs = [((0.5, 0.1), (-0.4, 0.0)), ((-0.4, 0.0), (0.5, 0.1)), ((0.0, 0.4), (0.6, -0.3))]
    paths = [[upa_response(unit(y, z), SHAPE) for y, z in pair] for pair in pairs]
    covariance = torch.stack(
        [torch.outer(a, a.conj()) + 0.4 * torch.outer(b, b.conj()) + 1e-3 * torch.eye(8) for a, b in paths]
    )
    found = music_directions(covariance, SHAPE, 0.5, 2, 32)
    torch.testing.assert_close(found, torch.stack([unit(*pair[0]) for pair in pairs]), atol=5e-3, rtol=0)


def test_users_in_sight_are_located_beside_a_reflection() -> None:
    users = draw_places(40, seed=1)
    found = Music3d(options=Music3dOptions(num_sources=2)).locate(measure(users, noise_variance=1e-12))
    assert (found.position[:, 0] - users).norm(dim=-1).median() < 0.5


def test_covariance_is_the_mean_over_slots_and_subcarriers() -> None:
    csi = torch.randn(3, 8, 5, 2, generator=torch.Generator().manual_seed(0))
    csi = torch.view_as_complex(csi)
    expected = sum(torch.outer(csi[t, :, n], csi[t, :, n].conj()) for t in range(3) for n in range(5)) / 15
    torch.testing.assert_close(spatial_covariance(csi), expected)


def lines(point: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(point - places, dim=-1)


PLACES = torch.tensor([[[0.0, 0.0, 9.0], [40.0, 0.0, 8.0], [20.0, 40.0, 7.0], [40.0, 40.0, 9.0]]])


@settings(max_examples=25, deadline=None)
@given(point=st.tuples(st.floats(2, 38), st.floats(2, 38), st.floats(0, 6)))
def test_lines_through_one_point_meet_there(point: tuple[float, float, float]) -> None:
    truth = torch.tensor([point])
    valid = torch.ones(1, 4, dtype=torch.bool)
    found = intersect(PLACES, [lines(truth[:, None], PLACES)], valid, LOW, HIGH, 10, 5.0)
    # The pull to the middle of the area is a millionth of the lines' own.
    assert (found - truth).norm() < 0.005


def test_a_reflection_does_not_drag_the_point_along() -> None:
    truth = torch.tensor([[12.0, 25.0, 1.5]])
    directions = lines(truth[:, None], PLACES)
    directions[0, 2] = torch.nn.functional.normalize(torch.tensor([1.0, -0.3, -0.1]), dim=0)
    valid = torch.ones(1, 4, dtype=torch.bool)
    found = intersect(PLACES, [directions], valid, LOW, HIGH, 10, 5.0)
    assert (found - truth).norm() < 1.0
    masked = valid.clone()
    masked[0, 2] = False
    assert (intersect(PLACES, [directions], masked, LOW, HIGH, 10, 5.0) - truth).norm() < 0.02


def test_front_and_back_are_told_apart_by_the_others() -> None:
    truth = torch.tensor([[12.0, 25.0, 1.5]])
    right = lines(truth[:, None], PLACES)
    wrong = right * torch.tensor([-1.0, 1.0, 1.0])
    valid = torch.ones(1, 4, dtype=torch.bool)
    for sides in ([right, wrong], [wrong, right]):
        assert (intersect(PLACES, sides, valid, LOW, HIGH, 10, 5.0) - truth).norm() < 0.1


def test_one_line_alone_leaves_the_middle() -> None:
    valid = torch.tensor([[True, False, False, False]])
    found = intersect(PLACES, [lines(torch.tensor([[5.0, 5.0, 0.0]]), PLACES)], valid, LOW, HIGH, 3, 5.0)
    assert torch.isfinite(found).all()
    assert ((found >= LOW) & (found <= HIGH)).all()


def test_users_in_sight_are_located() -> None:
    users = draw_places(40, seed=1)
    found = Music3d().locate(measure(users, noise_variance=1e-12))
    errors = (found.position[:, 0] - users).norm(dim=-1)
    assert found.valid.all()
    assert errors.median() < 0.2
    assert errors.max() < 2.0


def test_a_silent_array_is_done_without() -> None:
    users = draw_places(20, seed=2)
    lost = torch.zeros(1, 1, 3, dtype=torch.bool)
    lost[..., 0] = True
    found = Music3d().locate(silenced(measure(users), lost))
    assert found.valid.all()
    assert (found.position[:, 0] - users).norm(dim=-1).median() < 1.0


def test_nothing_heard_is_said_so() -> None:
    received = measure(draw_places(2, seed=3))
    silent = CsiMeasurements.from_csi(
        SYSTEM, received.bs_positions_m, received.bs_orientation_rad, torch.zeros_like(received.csi)
    )
    found = Music3d().locate(silent)
    assert not found.valid.any()
    torch.testing.assert_close(found.position[:, 0], torch.tensor([SYSTEM.centre_m]).expand(2, 3))


def test_the_name_means_the_class_that_the_environment_needs() -> None:
    assert type(make_policy("music", "ecc-raytraced-v0")) is Music3d
    assert type(make_policy("music", "dcp-aoa-v0")) is not Music3d
    with pytest.raises(ValueError, match=r"unknown option 'num_angles' of policy 'music'.*num_sources"):
        make_policy("music", "ecc-raytraced-v0", num_angles=9)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"num_sources": 0}, "num_sources=0"), ({"scale_deg": -1.0}, "scale_deg=-1.0"), ({"grid": 1}, "grid=1")],
)
def test_options_out_of_range_are_refused(options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make_policy("music", "ecc-raytraced-v0", **options)


def test_as_many_sources_as_antennas_leave_no_noise() -> None:
    policy = make_policy("music", "ecc-raytraced-v0", num_sources=8)
    with pytest.raises(ValueError, match="with 8 antennas it must be at most 7"):
        policy.locate(measure(draw_places(1, seed=0)))  # type: ignore[attr-defined]
