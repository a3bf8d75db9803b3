"""Nearest snapshots: who asks with a reference gets its place; distances are those of the definition."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from baselines import make_policy
from baselines.ecc.knn import CsiKnn, KnnOptions, fingerprints, nearest_mean
from baselines.ecc.surveys import held_apart_m
from cfpos_envs.measurements.base import Reason
from cfpos_envs.physics.ecc.csi import side_gain
from cfpos_envs.physics.ecc.features import angle_delay_amplitude
from tests.baselines.ecc.synthetic import SYSTEM, draw_places, measure


def surveyed(places: torch.Tensor, **options: float) -> CsiKnn:
    policy = CsiKnn(None, KnnOptions(**{"references": 4096, **options}))  # type: ignore[arg-type]
    received = measure(places, seed=5)
    policy.survey(received.csi[:, 0], received.valid[:, 0], places, SYSTEM)
    return policy


def test_a_reference_is_found_again() -> None:
    places = draw_places(200, seed=0)
    policy = surveyed(places, neighbours=1)
    # Other slots' phases, the same place: angle-delay amplitudes do not change with phases.
    found = policy.locate(measure(places[:30], seed=9))
    torch.testing.assert_close(found.position[:, 0], places[:30], atol=1e-3, rtol=0)


def test_more_references_are_better() -> None:
    asked = draw_places(150, seed=1)
    errors = [
        (surveyed(draw_places(count, seed=2)).locate(measure(asked)).position[:, 0] - asked).norm(dim=-1).mean()
        for count in (50, 1500)
    ]
    assert errors[1] < 0.6 * errors[0]


def test_squared_distance_is_that_of_amplitudes_and_gains() -> None:
    received = measure(draw_places(2, seed=3))
    csi, valid = received.csi[:, 0], received.valid[:, 0]
    prints = fingerprints(csi, valid, SYSTEM, 0.3)
    amplitude = angle_delay_amplitude(csi, SYSTEM.array_shape)
    gain = SYSTEM.standardise_log_gain(side_gain(csi), valid)
    expected = (amplitude[0] - amplitude[1]).square().sum() + 0.3 * (gain[0] - gain[1]).square().sum()
    torch.testing.assert_close((prints[0] - prints[1]).square().sum(), expected)


def test_the_mean_is_weighted_with_inverse_distances() -> None:
    known, places = torch.tensor([[0.0], [3.0], [50.0]]), torch.tensor([[0.0, 0, 0], [4.0, 0, 0], [9.0, 9, 9]])
    # Distances 1 and 2 weigh 2/3 and 1/3.
    found = nearest_mean(torch.tensor([[1.0]]), known, places, 2)
    torch.testing.assert_close(found, torch.tensor([[4.0 / 3, 0.0, 0.0]]))


def test_learns_from_the_training_split_by_itself() -> None:
    env_id = "ecc-raytraced-v0"
    policy = make_policy("csi-knn", env_id, references=300, neighbours=1)
    source = policy.env.scenario.world.source
    policy.env.reset()
    policy.locate(policy.env.measurements)  # type: ignore[attr-defined]
    places = policy._places_m  # type: ignore[attr-defined]
    assert len(places) == 300
    apart = (places[:, None] - source.users("train").position_m).norm(dim=-1)
    assert apart.amin(dim=1).max() == 0
    assert policy.fronthaul_bits == 32 * (8 * 24 + 1) + 1  # type: ignore[attr-defined]


def test_nothing_to_learn_from_is_said() -> None:
    with pytest.raises(ValueError, match=r"csi-knn has learned nothing yet; .*make_policy\('csi-knn', env\)"):
        CsiKnn().locate(measure(draw_places(1, seed=0)))


@pytest.mark.parametrize("options", [{"references": 0}, {"neighbours": 5, "references": 4}, {"gain_weight": 0.0}])
def test_options_out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        KnnOptions(**options)


def test_covariances_are_those_of_the_references_own_errors() -> None:
    places = draw_places(1200, seed=4)
    policy, users = surveyed(places), draw_places(400, seed=6)
    received = measure(users, seed=8)
    found = policy.locate(received)
    assert found.covariance is not None
    away = found.position[:, 0].double() - users
    covariance = found.covariance[:, 0].double()
    squared = (away * torch.linalg.solve(covariance, away.unsqueeze(-1)).squeeze(-1)).sum(dim=-1)
    # Half and nine tenths of three Gaussian coordinates.
    assert float((squared < 2.366).double().mean()) == pytest.approx(0.5, abs=0.12)
    assert float((squared < 6.251).double().mean()) == pytest.approx(0.9, abs=0.08)
    assert float(found.valid.double().mean()) >= 0.99
    conjugated = dataclasses.replace(received, csi=received.csi.conj())
    spoilt = policy.locate(conjugated)
    assert float(spoilt.valid.double().mean()) < 0.5
    assert spoilt.reason is not None
    assert set(spoilt.reason.unique().tolist()) <= {Reason.VALID, Reason.UNFAMILIAR}


def test_references_that_are_near_do_not_vouch_for_each_other() -> None:
    # Two snapshots of every place, 1 cm apart.
    places = draw_places(300, seed=4).repeat(2, 1) + torch.tensor([0.0, 0.0, 0.01]) * torch.arange(600)[:, None].ge(300)
    policy, received = surveyed(places), measure(places, seed=5)
    near = policy._errors
    policy.survey(received.csi[:, 0], received.valid[:, 0], places, SYSTEM, apart_m=0.1)
    apart = policy._errors
    assert near is not None
    assert apart is not None
    # A twin is hardly strange at all.
    assert apart.usual > 3 * near.usual


def test_users_of_a_file_are_a_block_away_from_its_references() -> None:
    policy = make_policy("csi-knn", "ecc-csi-v0")
    # The sample reaches over 61.5 m; a twelfth of it.
    assert held_apart_m(policy.env) == pytest.approx(61.831 / 12, abs=0.05)
    assert held_apart_m(None) == 0.0
