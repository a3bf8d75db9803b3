"""Several drops of one site: what an episode is then, what is remembered, and sites whose faults drift."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from baselines import make_policy
from cfpos_envs import make_env
from cfpos_envs.evaluation import evaluate_many
from cfpos_envs.scenarios.dcp.config import DcpConfig
from cfpos_envs.scenarios.dcp.game import DcpScenario
from cfpos_envs.scenarios.dcp.memory import offsets, residuals, robust_offset
from cfpos_envs.scenarios.dcp.world import draw_site
from cfpos_envs.streams import Streams

SMALL: dict[str, Any] = {"num_aps": 9, "num_ues": 3, "num_antennas": 4, "num_sites": 2, "site": "hard"}
DROPS: dict[str, Any] = {**SMALL, "drops": 3, "rounds": 2, "action": "confidence-correction", "memory": "site"}


def some_actions(env: Any, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (env.num_envs, len(env.agents), env.action_size)
    return torch.rand(shape, generator=generator) * 2.0 - 1.0


def test_a_state_is_that_of_the_drop_that_was_played_until_the_next_round() -> None:
    env = make_env("dcp-jar-v0", num_envs=4, seed=3, **DROPS)
    env.reset()
    assert env.rounds == 6
    begun, longest = env.game_state, env.config.max_step_m
    for played in range(1, 7):
        env.step(some_actions(env, played))
        drop = (played - 1) // 2
        assert env.game_state.drop.tolist() == [drop] * 4
        assert torch.equal(env.truth()["true_position"], begun.true_position_m[:, drop])
        if played % 2:
            moved = env.scenario.displacement_m(begun.sequence_start_m[:, drop], env.estimate)
            assert float(moved.norm(dim=-1).max()) <= longest + 1e-4
            assert torch.equal(env.game_state.fused, begun.sequence_fused[:, drop])
    assert bool(env.over.all())
    assert len(torch.unique(begun.true_position_m.flatten(0, 2), dim=0)) == 4 * 3 * 3


@pytest.mark.parametrize("rng", ["stream", "counter"])
def test_the_first_drop_is_the_episode_of_one_drop(rng: str) -> None:
    one, several = (
        make_env("dcp-jar-v0", num_envs=2, seed=8, rng=rng, **{**DROPS, "drops": drops}) for drops in (1, 3)
    )
    # Sums over users that are not there yet are rounded elsewhere.
    torch.testing.assert_close(one.reset(), several.reset(), rtol=0, atol=1e-5)
    for played in range(2):
        actions = some_actions(one, played)
        assert torch.equal(one.step(actions).rewards, several.step(actions).rewards)
        assert torch.equal(one.truth()["error_m"], several.truth()["error_m"])
        assert torch.equal(one.truth()["peb_m"], several.truth()["peb_m"])


def test_without_memory_a_later_drop_is_played_as_if_it_were_alone() -> None:
    config = DcpConfig(**{**DROPS, "memory": "none"})
    game, alone = DcpScenario(config), DcpScenario(dataclasses.replace(config, drops=1))
    state = game.reset(Streams(5), 2)
    last = game.answered(state)
    single = dataclasses.replace(
        last,
        true_position_m=state.true_position_m[:, 2:],
        sequence_covariance=state.sequence_covariance[:, 2:],
        sequence_rss_dbm=state.sequence_rss_dbm[:, 2:],
        drop=None,
        sequence_start_m=None,
        sequence_fused=None,
        round=torch.zeros_like(state.round),
    )
    actions = torch.zeros(2, 9, game.action_size)
    for _ in range(4):
        state = game.step(state, actions).state
    for _ in range(2):
        assert torch.equal(game.observe(state), alone.observe(single))
        state, single = game.step(state, actions).state, alone.step(single, actions).state
        assert torch.equal(state.consensus_m, single.consensus_m)
    assert torch.equal(game.truth(state)["error_m"], alone.truth(single)["error_m"])


def test_episodes_at_different_rounds_play_side_by_side() -> None:
    options = {**DROPS, "rng": "counter", "kernel": "torch"}
    env = make_env("dcp-jar-v0", num_envs=2, seed=1, **options)
    twin = make_env("dcp-jar-v0", num_envs=2, seed=1, **options)
    for each in (env, twin):
        each.reset()
        each.step(some_actions(each))
    env.reset(options={"reset_mask": np.array([False, True])})
    for played in range(4):
        actions = some_actions(env, played)
        ours, theirs = env.step(actions), twin.step(actions)
        torch.testing.assert_close(ours.observations[0], theirs.observations[0])
        torch.testing.assert_close(ours.rewards[0], theirs.rewards[0])
    assert env.game_state.drop.tolist() == [2, 1]


def test_estimators_that_answer_once_are_asked_of_the_last_drop() -> None:
    # Whoever plays is there in the end too, so that both have the same users.
    options = {**DROPS, "episodes": 6}
    env = make_env("dcp-jar-v0", num_envs=1, **DROPS)
    policies = [make_policy(name, env) for name in ("joint-gn", "untrained")]
    located, played = evaluate_many("dcp-jar-v0", policies, **options)
    np.testing.assert_array_equal(located.truth_m, played.truth_m)
    np.testing.assert_array_equal(located.bounds, played.bounds)
    assert len(played.rmse_by_round) == 1 + 3 * 2
    assert located.rmse < 30.0


@pytest.mark.parametrize("memory", ["none", "drop", "site"])
def test_what_was_heard_before_is_seen_with_memory_of_the_site_alone(memory: str) -> None:
    seen = []
    for change_db in (0.0, 6.0):
        game = DcpScenario(DcpConfig(**{**DROPS, "memory": memory}))
        state = game.reset(Streams(2), 2)
        # The first drop alone is heard louder by one AP; users, start and measurements of the second stay.
        louder = state.sequence_rss_dbm.clone()
        louder[:, 0, 4] += change_db
        state = state.replace(sequence_rss_dbm=louder)
        for _ in range(2):
            state = game.step(state, torch.zeros(2, 9, game.action_size)).state
        seen.append(game.observe(state))
    differs = (seen[0] - seen[1]).abs().amax(dim=(0, 2)) > 1e-3
    assert bool(differs[4]) == (memory == "site")


def test_an_offset_of_known_size_is_found_within_its_stated_error() -> None:
    site = {"preset": "clean", "biased_share": 0.5, "bias_db": 4.0, "array_offset_deg": 6.0, "num_aps": 16}
    config = DcpConfig(site=site, num_ues=30, drops=2, rounds=1, memory="site", action="confidence-correction")
    game, streams = DcpScenario(config), Streams(11)
    state = game.reset(streams, 8)
    state = game.step(state.replace(consensus_m=state.true_position_m[:, 0]), torch.zeros(8, 16, 120)).state
    state = game._entered(game.with_estimate(state, state.true_position_m[:, 0]))
    state = game.with_estimate(state, state.true_position_m[:, 1])
    found = offsets(config, state)
    rss, bearing = found.rss, found.bearing
    pool = game._pool_for(streams)
    bias_db = pool.stack(state.site_ids, "rss_bias_db")[:, 1]
    turned_rad = pool.stack(state.site_ids, "orientation_error_rad")[:, 1]
    # 128 APs: five stated deviations have a chance of 6e-5 where errors are Gaussian; residuals have heavier tails and
    # the scale is a robust one, hence the factor of 1.5.
    assert float(((rss.mean[..., 0] - bias_db).abs() / rss.error[..., 0]).max()) < 7.5
    assert float((rss.mean[..., 0] - bias_db).abs().mean()) < 0.5
    # A bearing says where an array points with the opposite sign, and is folded about its axis.
    slope = (bearing.mean[..., 0] * turned_rad).sum() / turned_rad.square().sum()
    assert residuals(config, state).shape == (8, 16, 30, 4)
    assert abs(float(slope)) < 1.2


def test_robust_offsets_by_hand() -> None:
    values, std = torch.full((1, 1, 4), 2.5), torch.full((1, 1, 4), 0.5)
    same = robust_offset(values, std)
    assert (float(same.mean), float(same.error), float(same.spread)) == (2.5, 0.25, 0.0)
    # What has no weight does not count, wherever it lies.
    absent = torch.tensor([[[2.5, 2.5, 900.0, 2.5]]]), torch.tensor([[[0.5, 0.5, math.inf, 0.5]]])
    assert float(robust_offset(*absent).mean) == 2.5
    assert float(robust_offset(*absent).error) == pytest.approx(0.5 / math.sqrt(3.0))
    outlier = robust_offset(torch.tensor([[[0.0] * 9 + [100.0]]]), torch.ones(1, 1, 10))
    # Nine at 0 and one at 100: 100 w / (9 * 1.25 + w), w = 5 / (4 + 100^2).
    assert float(outlier.mean) == pytest.approx(4.44e-3, rel=0.01)
    # Two alike at +-1 about 0, Student weight 1: their spread is one deviation.
    assert float(robust_offset(torch.tensor([[[-1.0, 1.0, -1.0, 1.0]]]), torch.ones(1, 1, 4)).mean) <= 0.0


@settings(deadline=None)
@given(st.lists(st.floats(-50, 50), min_size=1, max_size=12), st.floats(-20, 20), st.randoms())
def test_offsets_follow_a_shift_and_no_order(values: list[float], shift: float, random: Any) -> None:
    shuffled = values.copy()
    random.shuffle(shuffled)
    std = torch.ones(1, 1, len(values), dtype=torch.float64)
    plain = robust_offset(torch.tensor([[values]], dtype=torch.float64), std)
    moved = robust_offset(torch.tensor([[shuffled]], dtype=torch.float64) + shift, std)
    torch.testing.assert_close(moved.mean, plain.mean + shift, rtol=0, atol=1e-9)
    assert min(values) - 1e-9 <= float(plain.mean) <= max(values) + 1e-9


def test_faults_of_a_drifting_site_wander_and_fade() -> None:
    config = DcpConfig(site="drifting", num_aps=36, drops=21)
    sites = [draw_site(config, Streams(0), index) for index in range(12)]
    steps = torch.stack([site.orientation_error_rad.diff(dim=0) for site in sites]).rad2deg()
    # 12 * 20 * 36 steps: the standard deviation of their standard deviation is 2 / sqrt(2 * 8640) = .015.
    assert float(steps.std()) == pytest.approx(2.0, abs=0.06)
    assert float(sites[0].orientation_error_rad[0].abs().max()) <= math.radians(5.0)
    bias = torch.stack([site.rss_bias_db for site in sites])
    assert float(bias.abs().max()) <= 5.0
    torch.testing.assert_close(bias[:, 0], bias[:, 10], rtol=0, atol=1e-4)
    # Half a period apart the shares add up to one.
    both = (bias[:, 0] + bias[:, 5]).abs()
    assert torch.equal(both > 2.5, bias.abs().amax(dim=1) > 0)
    torch.testing.assert_close(both[both > 2.5], torch.full_like(both[both > 2.5], 5.0), rtol=0, atol=1e-4)


def test_the_first_drop_of_a_drifting_site_does_not_depend_on_how_many_follow() -> None:
    one, many = (draw_site(DcpConfig(site="drifting", num_aps=36, drops=drops), Streams(3), 0) for drops in (1, 9))
    assert torch.equal(one.rss_bias_db[0], many.rss_bias_db[0])
    assert torch.equal(one.orientation_error_rad[0], many.orientation_error_rad[0])


def test_biases_of_harsh_sites_are_student_distributed() -> None:
    config = DcpConfig(site="harsh", num_aps=36)
    bias = torch.cat([draw_site(config, Streams(0), index).rss_bias_db[0] for index in range(60)])
    faulty = bias[bias != 0]
    assert len(faulty) == 60 * 18
    assert stats.kstest(faulty.numpy() / 6.0, stats.t(3).cdf).pvalue > 1e-4


def test_blocked_links_of_harsh_sites_lose_three_to_fifteen_decibels() -> None:
    # With and without blocked links of the same draws: the difference is the loss, on four links of ten.
    quiet = {"shadowing_db": 0.0, "nlos_offset_min_deg": 0.0, "nlos_offset_max_deg": 0.0, "num_paths": 400}
    heard = [
        make_env("dcp-jar-v0", num_envs=60, seed=4, rng="counter", site={"preset": "harsh", **quiet, **blocked})
        for blocked in ({}, {"nlos_share": 0.0})
    ]
    for env in heard:
        env.reset()
    lost = (heard[1].game_state.rss_dbm - heard[0].game_state.rss_dbm).flatten()
    lost = lost[lost > 0.01].numpy()
    count = 60 * 36 * 6
    assert abs(len(lost) - 0.4 * count) < 4.5 * math.sqrt(0.24 * count)
    # Noise adds a little to what is heard of the weakest.
    assert lost.max() < 15.05
    assert stats.kstest(lost, stats.uniform(3.0, 12.0).cdf).statistic < 0.03


REFUSED = {
    "users that move": ({"speed_m_s": 2.0}, r"drops=3 .*speed_m_s=0"),
    "gains": ({"action": "gain", "fusion": "mean", "reward": "shared"}, r"memory='site' .*memory='none'"),
    "another stage": ({"stage": "rss"}, r"memory='site' .*stage='joint'"),
    "no drop": ({"drops": 0}, r"drops.*1"),
    "another word": ({"memory": "always"}, r"memory.*none, drop, site"),
}


@pytest.mark.parametrize(("options", "said"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_go_together_is_refused_in_a_line(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        DcpConfig(**{**DROPS, **options})
    assert "\n" not in str(caught.value)


def test_a_saved_game_goes_on_and_one_from_before_there_were_drops_too() -> None:
    env, other = (make_env("dcp-jar-v0", num_envs=2, seed=seed, **DROPS) for seed in (1, 2))
    env.reset()
    for played in range(3):
        env.step(some_actions(env, played))
    other.load_state_dict(env.state_dict())
    for played in range(3):
        actions = some_actions(env, 10 + played)
        assert torch.equal(env.step(actions).observations, other.step(actions).observations)
    forgetful = make_env("dcp-jar-v0", num_envs=2, seed=1, **{**DROPS, "memory": "none"})
    with pytest.raises(ValueError, match="the saved state has past, this env has not; make the env with the same"):
        forgetful.load_state_dict(env.state_dict())
    plain, old = (make_env("dcp-jar-v0", num_envs=2, seed=seed, **SMALL) for seed in (1, 2))
    plain.reset()
    saved = plain.state_dict()
    saved["game"] = {name: value for name, value in saved["game"].items() if "drop" not in name and name != "past"}
    old.load_state_dict(saved)
    assert torch.equal(old.observe(), plain.observe())


def test_what_is_measured_and_encoded_is_of_the_drop_that_is_played_next() -> None:
    env = make_env("dcp-jar-v0", num_envs=2, seed=3, **{**DROPS, "num_antennas": 8})
    env.reset()
    begun = env.game_state
    for played in range(2):
        env.step(some_actions(env, played))
    assert torch.equal(env.measurements.rss_dbm, begun.sequence_rss_dbm[:, 1])
    # Weights can lead the estimate towards a point: nearer to it than neutral actions do, on the whole.
    target = begun.true_position_m[:, 1]
    errors = []
    for actions in (env.encode_estimate(target), torch.zeros(2, 9, env.action_size)):
        state = env.scenario.step(env.game_state, actions).state
        errors.append(float(env.scenario.truth(state)["error_m"].mean()))
    assert errors[0] < errors[1]


def test_the_start_of_stage_one_does_not_depend_on_memory() -> None:
    options = {**SMALL, "drops": 2, "rounds": 2, "action": "confidence-correction", "start": "stage-1"}
    plain, remembering = (make_env("dcp-jar-v0", num_envs=2, seed=4, memory=m, **options) for m in ("none", "site"))
    for env in (plain, remembering):
        env.reset()
    assert torch.equal(plain.game_state.sequence_start_m, remembering.game_state.sequence_start_m)
    assert bool(torch.isfinite(remembering.observe()).all())


def test_the_global_state_is_of_the_drop_that_the_next_actions_are_for() -> None:
    env = make_env("dcp-jar-v0", num_envs=2, seed=3, **DROPS)
    env.reset()
    for played in range(2):
        env.step(some_actions(env, played))
    start_m = env.game_state.sequence_start_m[:, 1]
    said = env.state()[:, -1 - 2 * 3 : -1]
    torch.testing.assert_close(said, (start_m / (0.5 * env.config.settings.side_m) - 1.0).flatten(1))


def test_a_description_says_how_long_an_episode_of_drops_is() -> None:
    said = make_env("dcp-jar-v0", **DROPS).describe()
    assert "3 drops of 2 rounds" in said
    assert "truncated after 6 rounds" in said
