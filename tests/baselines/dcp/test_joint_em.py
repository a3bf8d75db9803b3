"""Summed-out faults: probabilities of states by hand, and what they are worth on sites that are not as stated."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from baselines import make_policy
from baselines.dcp.fault_laws import FaultLaws, Residuals, log_student, residuals_at
from baselines.dcp.joint_em import JointEm
from cfpos_envs import make_env
from cfpos_envs.physics.dcp.links import Links, link_geometry

EPISODES = 24
SOUND = FaultLaws(faulty_share=0.0, nlos_share=0.0, array_offset_deg=0.0)


def one_ap(points_m: Tensor) -> Links:
    zero = torch.zeros(1, 1)
    return link_geometry(torch.zeros(1, 1, 2), zero, zero + 10.0, points_m[None], 1e4, False)


def residuals(laws: FaultLaws, power_db: Tensor, turned_rad: Tensor) -> Residuals:
    """One AP at the origin, its array along x, users 20 m north of it: measured minus expected as given."""
    links = one_ap(torch.tensor([[0.0, 20.0]]).expand(len(power_db), 2))
    shape = (1, 1, len(power_db))
    bearing = (math.pi / 2 + turned_rad).view(shape)
    expected = torch.full(shape, -80.0)
    std = torch.full(shape, 0.05)
    usable = torch.ones(shape, dtype=torch.bool)
    return residuals_at(laws, links, expected + power_db.view(shape), expected, torch.ones(shape), bearing, std, usable)


def test_a_bias_that_all_users_see_is_found_out() -> None:
    laws = dataclasses.replace(FaultLaws(), nlos_share=0.0, array_offset_deg=0.0)
    users = 5
    share, _ = residuals(laws, torch.full((users,), 5.0), torch.zeros(users)).responsibilities()
    by_bias = share.sum(dim=(0, 2))[:, 0, 0]
    assert float(by_bias[1].min()) > 0.99
    torch.testing.assert_close(by_bias.sum(dim=0), torch.ones(users))
    alone, _ = residuals(laws, torch.tensor([5.0]), torch.zeros(1)).responsibilities()
    # One user alone may as well have met a tail: by Bayes' rule with the densities and shares of the laws.
    power, std = torch.tensor([5.0, 0.0, 10.0]), torch.tensor([0.05, 0.0, 0.0])
    std = torch.sqrt(torch.tensor(0.05) ** 2 + torch.tensor([0.0, 1.0, 1.0]) * math.radians(6.0) ** 2)
    log = torch.tensor([2 / 3, 1 / 6, 1 / 6]).log() + log_student(power, torch.ones(3), 50.0)
    log = log + log_student(torch.zeros(3), std, 4.0)
    torch.testing.assert_close(alone.sum(dim=(0, 2))[:, 0, 0, 0], torch.softmax(log, dim=0))


def test_a_turned_array_is_found_out_with_its_sign() -> None:
    laws = dataclasses.replace(SOUND, array_offset_deg=5.0)
    users = 8
    # The array is turned 5 degrees to the left, so everybody seems 5 degrees farther to the right.
    share, _ = residuals(laws, torch.zeros(users), torch.full((users,), -math.radians(5.0))).responsibilities()
    by_turn = share.sum(dim=(1, 2))[:, 0, 0, 0]
    assert int(by_turn.argmax()) == len(by_turn) - 1


def test_a_blocked_link_is_one_user_alone() -> None:
    laws = dataclasses.replace(SOUND, nlos_share=0.25)
    share, _ = residuals(laws, torch.tensor([0.0, -8.0]), torch.tensor([0.0, math.radians(30.0)])).responsibilities()
    by_condition = share.sum(dim=(0, 1))[:, 0, 0]
    assert float(by_condition[0, 0]) > 0.95
    assert float(by_condition[1, 1]) > 0.99


def test_links_that_do_not_count_have_no_weight_and_no_evidence() -> None:
    found = residuals(FaultLaws(), torch.tensor([0.0, 40.0]), torch.zeros(2))
    hidden = dataclasses.replace(found, usable=torch.tensor([[[True, False]]]))
    share, evidence = hidden.responsibilities()
    assert float(share[..., 0, 0, 1].abs().max()) == 0
    _, alone = residuals(FaultLaws(), torch.tensor([0.0]), torch.zeros(1)).responsibilities()
    torch.testing.assert_close(evidence, alone)


def located(site: str, name: str, **options: object) -> tuple[float, Tensor, Tensor]:
    env = make_env("dcp-jar-v0", num_envs=EPISODES, seed=3, split="test", site=site)
    env.reset(seed=3)
    answer = make_policy(name, env, **options).locate(env.measurements)
    truth = env.scenario.true_position(env.game_state)
    away = (answer.position - truth + 50.0).remainder(100.0) - 50.0
    assert answer.covariance is not None
    length = torch.einsum("bki,bkij,bkj->bk", away, torch.linalg.inv(answer.covariance), away)
    return float(away.square().sum(dim=-1).mean().sqrt()), length, answer.valid


@pytest.mark.parametrize(("site", "gain"), [("hard", 0.75), ("miscalibrated", 0.4)])
def test_sites_that_are_not_as_stated_gain(site: str, gain: float) -> None:
    plain, _, _ = located(site, "joint-gn")
    calibrated, _, _ = located(site, "joint-gn", self_calibrate=True)
    found, length, valid = located(site, "joint-em")
    assert found < gain * plain
    assert found < 0.85 * calibrated
    assert bool(valid.all())
    # Nine tenths of a Gaussian's errors lie within this length.
    assert 0.7 < float((length < 4.605).float().mean()) < 0.99


def test_bad_laws_are_one_line() -> None:
    with pytest.raises(ValueError, match="nlos_offset_max_deg=10 must be at least nlos_offset_min_deg=20"):
        JointEm.options_class(nlos_offset_max_deg=10.0)
