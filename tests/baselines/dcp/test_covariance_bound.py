"""The bound of sample covariances on played drops: beside which policies it stands, come near and not beaten."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from baselines import make_policy
from baselines.dcp.path_step import path_step
from cfpos_envs import make_env
from cfpos_envs.evaluation import evaluate_many, format_table
from cfpos_envs.scenarios.dcp.game import COVARIANCES
from cfpos_envs.streams import Streams

POWERS = "RSS and DFT powers"


@pytest.mark.parametrize("site", ["clean", "shadowed"])
def test_policies_stand_beside_the_bound_of_what_they_read(site: str) -> None:
    env = make_env("dcp-jar-v0", num_envs=1, seed=0, site=site, num_aps=16, num_ues=4)
    policies = [make_policy("joint-gn", env, links=links) for links in ("dft", "covariance")]
    powers, covariances = evaluate_many(env, policies, episodes=30, seed=7)
    assert (powers.bound_of, covariances.bound_of) == (POWERS, COVARIANCES)
    assert powers.bounds is not None
    assert covariances.bounds is not None
    assert (covariances.bounds < powers.bounds).all()
    # As often as in one of 10 000 such evaluations an efficient estimator's ratio is this far below one.
    chance = 3.7 / math.sqrt(2.0 * covariances.errors.size)
    assert covariances.efficiency is not None
    assert 1.0 - chance < covariances.efficiency < 1.7
    assert covariances.rmse < powers.rmse
    told = format_table([powers, covariances])
    assert f"bound of {POWERS} (RMSE): {powers.bound_rmse:.3f} m, beside joint-gn" in told
    assert f"bound of {COVARIANCES} (RMSE): {covariances.bound_rmse:.3f} m, beside joint-gn" in told
    assert f"x bound of {COVARIANCES} {covariances.bound_rmse:.3f} m" in covariances.summary()


def test_front_ends_say_what_they_read() -> None:
    env = make_env("dcp-jar-v0", num_envs=1, seed=0, num_aps=9, num_ues=2)
    reads = {
        ("joint-gn", "dft"): False,
        ("joint-gn", "likelihood"): True,
        ("joint-em", "dft"): False,
        ("joint-em", "covariance"): True,
        ("direct-search", "dft"): False,
        ("direct-search", "music"): True,
        ("music", None): True,
        ("music", "dft"): False,
    }
    for (name, links), wanted in reads.items():
        assert make_policy(name, env, links=links).reads_covariance is wanted
    assert not make_policy("rss-gn", env).reads_covariance
    scenario = env.scenario
    assert scenario.bound_of(make_policy("centroid", env)) == POWERS


def test_games_that_read_covariances_have_their_bound() -> None:
    both = {}
    for links in ("dft", "likelihood"):
        env = make_env("dcp-jar-v0", num_envs=1, seed=0, num_aps=9, num_ues=2, links=links)
        scenario, drop = env.scenario, env.scenario.reset(Streams(3, "test"), 4)
        both[links] = scenario.truth(drop)["peb_m"]
        assert scenario.bound_of(make_policy("untrained", env)) == (POWERS if links == "dft" else COVARIANCES)
        assert scenario.bound_of(make_policy("joint-gn", env, links="dft")) == POWERS
        torch.testing.assert_close(scenario.named_bound_m(drop, POWERS).to(both["dft"]), both["dft"])
    assert (both["likelihood"] < both["dft"]).all()


def test_without_a_table_paths_are_known_and_without_spread_there_is_no_bound() -> None:
    state = {}
    for spread in (10.0, 9.0, 0.0):
        scenario = make_env("dcp-jar-v0", num_envs=1, seed=0, num_aps=9, angular_spread_deg=spread).scenario
        drop = scenario.reset(Streams(3, "test"), 4)
        state[spread] = scenario.named_bound_m(drop, COVARIANCES)
    assert state[0.0] is None
    # 9 degrees tell more than 10, and more yet to somebody who knows all paths.
    assert 0.5 < float((state[9.0] / state[10.0]).square().mean().sqrt()) < 0.85


def test_a_step_by_the_law_of_the_links_takes_a_poor_fix_near_the_bound() -> None:
    scenario = make_env("dcp-jar-v0", num_envs=1, seed=0, site="clean", num_aps=16, num_ues=6).scenario
    drop = scenario.reset(Streams(5, "test"), 1)
    truth, bound = scenario.true_position(drop), scenario.covariance_bound_m(drop)
    turn = torch.arange(6) * 1.1
    poor = truth + 0.5 * torch.stack((torch.cos(turn), torch.sin(turn)), dim=-1)
    found = path_step(scenario.measurements(drop), poor, sweeps=30)
    error = torch.linalg.vector_norm(scenario.displacement_m(truth, found), dim=-1)
    assert float(error.square().mean().sqrt()) < 0.4
    scaled = (error / bound).square().mean()
    # Two chi-squared per user over 2: mean 1, deviation 1 / sqrt(6); steps from half a metre off leave some more.
    assert 1.0 - 3.7 / math.sqrt(6.0) < float(scaled) < 1.5 + 3.7 / math.sqrt(6.0)
    assert np.isfinite(float(scaled))
