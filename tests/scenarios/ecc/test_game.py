"""The edge-cloud game: observations, fusion, rewards, fronthaul, moving users, silent stations."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cfpos_envs import evaluate, make_env
from cfpos_envs.evaluation import evaluate_many
from cfpos_envs.measurements.base import PositionEstimate
from cfpos_envs.physics.ecc.csi import side_gain
from cfpos_envs.physics.ecc.features import csi_features
from cfpos_envs.scenarios.ecc.state import EccState
from cfpos_envs.tracking import track
from tests.conformance.checks import check_truth_is_hidden

ENV = "ecc-urban-small-v0"
FAST = {"num_slots": 2}


def batch(count: int = 6, seed: int = 0, **overrides: Any) -> Any:
    env = make_env(ENV, num_envs=count, seed=seed, **{**FAST, **overrides})
    env.reset()
    return env


class Oracle:
    """Answers the truth plus a constant; the tests tell it."""

    name = "oracle"
    fronthaul_bits = 384

    def __init__(self, env: Any = None, offset_m: float = 0.0) -> None:
        self.env, self.offset_m = env, offset_m

    def locate(self, measurements: Any) -> PositionEstimate:
        shape = (*measurements.csi.shape[:2], 3)
        centre = torch.tensor(measurements.system.centre_m).expand(shape)
        return PositionEstimate(centre + self.offset_m, None, torch.ones(shape[:2], dtype=torch.bool))


class Lost(Oracle):
    """Has never an answer."""

    name = "lost"

    def locate(self, measurements: Any) -> PositionEstimate:
        shape = (*measurements.csi.shape[:2], 3)
        return PositionEstimate(torch.full(shape, torch.nan), None, torch.zeros(shape[:2], dtype=torch.bool))


def test_observation_is_made_of_its_parts() -> None:
    env = batch(num_ues=2)
    scenario, taken = env.scenario, env.measurements
    seen = env.observe().unflatten(2, (2, -1))
    start, columns = 0, {}
    for part in scenario.observation_rows:
        columns[part.name] = seen[..., start : start + part.size]
        start += part.size
    assert start == scenario.entities.observation_size
    wanted = csi_features(taken.csi, "acf", (2, 4)).transpose(1, 2)
    torch.testing.assert_close(columns["acf"], wanted, atol=1e-5, rtol=1e-4)
    gains = taken.system.standardise_log_gain(side_gain(taken.csi), taken.valid) / 4
    torch.testing.assert_close(columns["log_gain"][..., 0], gains.clamp(-1, 1).transpose(1, 2), atol=1e-5, rtol=1e-4)
    assert (columns["consensus"] == 0).all()
    place = taken.system.normalise_position(taken.bs_positions_m[0])
    torch.testing.assert_close(columns["bs_position"][0, :, 1], place)
    assert (columns["progress"] == 0).all()
    env.step(torch.full((6, 6, 6), 0.25))
    later = env.observe().unflatten(2, (2, -1))
    assert (later[..., -1] == 0.5).all()


@pytest.mark.parametrize("features", ["stabilised", "amplitude", "cov"])
def test_other_features(features: str) -> None:
    env = batch(features=features)
    assert env.scenario.observation_rows[0].name == features
    assert features in env.describe()
    assert env.observe().abs().max() <= 1


def test_reports_are_averaged_and_clipped_to_the_area() -> None:
    env = batch(count=1)
    reports = torch.zeros(1, 6, 3)
    reports[0, 0] = torch.tensor([0.6, -0.3, 0.12])
    env.step(reports)
    torch.testing.assert_close(env.estimate[0, 0], torch.tensor([33.0, 28.5, 8.1]))  # centre + 30 m a / 6
    env = batch(count=1)
    env.step(torch.ones(1, 6, 3))
    torch.testing.assert_close(env.estimate[0, 0], torch.tensor([60.0, 60.0, 15.0]))


def test_confidence_weighs_the_reports() -> None:
    env = batch(count=1, fusion="confidence", confidence_scale=2.0)
    actions = torch.zeros(1, 6, 4)
    actions[0, 0] = torch.tensor([0.6, 0.0, 0.0, 1.0])
    env.step(actions)
    share = math.exp(2.0) / (math.exp(2.0) + 5)
    torch.testing.assert_close(env.estimate[0, 0, 0], torch.tensor(30.0 + 18.0 * share))


def test_silent_stations_neither_count_nor_show_anything() -> None:
    env = batch(count=40, lost_bs=2)
    taken = env.measurements
    assert (taken.valid.sum(dim=-1) == 4).all()
    assert not taken.csi[~taken.valid].abs().any()
    assert (~taken.valid).any(dim=1).sum(dim=0).min() > 5, "always the same stations are lost"
    seen = env.observe()
    silent = ~taken.valid[:, 0]
    assert not seen[silent][:, :336].any()
    assert (seen[silent][:, 336:338] == -1).all()
    actions = torch.zeros(40, 6, 3)
    actions[silent] = 1.0
    env.step(actions)
    torch.testing.assert_close(env.estimate[:, 0], torch.tensor([30.0, 30.0, 7.5]).expand(40, 3))


def test_with_no_station_at_all_everything_is_still_finite_and_said() -> None:
    env = batch(count=3)
    state = env.game_state
    env.game_state = state.replace(
        sequence_valid=torch.zeros_like(state.sequence_valid),
        sequence_csi=torch.zeros_like(state.sequence_csi),
        sequence_mean_csi=torch.zeros_like(state.sequence_mean_csi),
        sequence_features=torch.zeros_like(state.sequence_features),
        sequence_gain=torch.zeros_like(state.sequence_gain),
    )
    taken = env.step(torch.zeros(3, 6, 3))
    for value in (taken.observations, taken.rewards, taken.metrics["score"], env.state()):
        assert torch.isfinite(value).all()
    assert not env.truth()["valid"].any()


def test_the_error_reward_is_the_distance_over_the_half_side() -> None:
    env = batch(count=4)
    state = env.game_state
    truth = state.true_position_m[:, 0]
    exact = env.scenario.step(state, env.encode_estimate(truth))
    torch.testing.assert_close(exact.reward, torch.zeros(4, 6), atol=1e-5, rtol=0)
    nearby = env.scenario.step(state, env.encode_estimate(truth + torch.tensor([0.3, 0.0, 0.0])))
    inside = (truth[:, 0, 0] < 59.7).unsqueeze(1)
    torch.testing.assert_close(nearby.reward[inside[:, 0]], torch.full((4, 6), -0.01)[inside[:, 0]], atol=1e-4, rtol=0)


def test_consistency_sees_no_truth_and_prefers_it() -> None:
    env = batch(count=300, reward="consistency", num_slots=10)
    state = env.game_state
    truth = state.true_position_m[:, 0]
    score = env.scenario.step(state, env.encode_estimate(truth)).metrics["score"]
    assert ((score >= 0) & (score <= 1)).all()
    for shift in (6.0, 15.0):
        off = truth + shift * torch.nn.functional.normalize(
            torch.randn(truth.shape, generator=torch.Generator().manual_seed(1)), dim=-1
        )
        there = env.scenario.step(state, env.encode_estimate(off)).metrics["score"]
        assert score.mean() > there.mean() + 0.1
    scattered = env.encode_estimate(truth) + 0.3 * torch.randn(300, 6, 3, generator=torch.Generator().manual_seed(2))
    assert env.scenario.step(state, scattered).metrics["score"].mean() < score.mean() - 0.05


def test_a_label_free_reward_does_not_see_a_moved_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    from cfpos_envs import registry

    registry.register("ecc-consistency-v0", "cfpos_envs.scenarios.ecc.game:EccScenario", site="urban-small",
                      reward="consistency", num_slots=2)  # fmt: skip
    try:
        assert not make_env("ecc-consistency-v0").scenario.privileged_reward
        check_truth_is_hidden("ecc-consistency-v0")
    finally:
        registry._entries.pop("ecc-consistency-v0")


@pytest.mark.parametrize("reward", ["error", "consistency"])
def test_the_objective_has_the_slope_of_finite_differences(reward: str) -> None:
    env = batch(count=2, reward=reward)
    actions = 0.2 * torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0))
    actions.requires_grad_(True)

    def objective(values: Tensor) -> Tensor:
        return env.scenario.step(env.game_state, values).metrics["objective"].sum()

    (slope,) = torch.autograd.grad(objective(actions), actions)
    step = torch.zeros_like(actions)
    step[1, 2, 0] = 1e-2
    with torch.no_grad():
        numeric = (objective(actions + step) - objective(actions - step)) / 2e-2
    assert float(slope[1, 2, 0]) == pytest.approx(float(numeric), rel=0.05, abs=1e-3)


def test_fronthaul_is_counted_from_what_the_policy_says() -> None:
    env = make_env(ENV, num_ues=2)
    said, silent = evaluate_many(env, [Oracle(), Lost.__new__(Lost)], episodes=3)
    assert said.fronthaul_bits == 2 * 384
    quiet = type("Quiet", (Lost,), {"fronthaul_bits": None})()
    assert evaluate(env, quiet, episodes=1).fronthaul_bits == 2 * 122_880
    asked = type("Asked", (Lost,), {"fronthaul_bits": lambda self: 48})()
    assert evaluate(env, asked, episodes=1).fronthaul_bits == 2 * 48
    apart = type("Apart", (Lost,), {"fronthaul_bits": None, "decentralised": True})()
    assert evaluate(env, apart, episodes=1).fronthaul_bits == 2 * 2 * 3 * 32  # users, rounds, numbers
    assert silent.fronthaul_bits == said.fronthaul_bits


def test_a_policy_beyond_the_budget_is_refused_before_it_plays() -> None:
    env = make_env(ENV, fronthaul_bits_max=383.0, **FAST)
    with pytest.raises(ValueError, match=r"oracle sends 384 bits .* fronthaul_bits_max=383") as caught:
        evaluate(env, Oracle(), episodes=1)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="fronthaul_bits_max"):
        evaluate(env, type("Raw", (Lost,), {"fronthaul_bits": None})(), episodes=1)
    assert evaluate(env, Oracle(), episodes=1, fronthaul_bits_max=384.0).fronthaul_bits == 384


def sending(state: EccState, bits: float) -> EccState:
    return state.replace(fronthaul_bits_per_snapshot=torch.full_like(state.fronthaul_bits_per_snapshot, bits))


def test_infos_tell_what_has_crossed() -> None:
    env = make_env(ENV, **FAST)
    env.reset(seed=0)
    _, infos = env.reset_to(sending(env.vector.game_state, 384))
    assert infos["bs_0"]["fronthaul_bits"] == 0
    crossed = []
    while env.agents:
        *_, infos = env.step({agent: np.zeros(3, np.float32) for agent in env.agents})
        crossed.append(float(infos["bs_3"]["fronthaul_bits"]))
    assert crossed == [384, 384]  # static: one snapshot
    moving = make_env(ENV, mobility="waypoint", rounds=3, **FAST)
    moving.reset(seed=0)
    moving.reset_to(sending(moving.vector.game_state, 384))
    while moving.agents:
        *_, infos = moving.step({agent: np.zeros(3, np.float32) for agent in moving.agents})
    assert infos["bs_3"]["fronthaul_bits"] == 3 * 384


def test_without_an_answer_the_centre_of_the_area_counts() -> None:
    result = evaluate(ENV, Lost(), episodes=150, **FAST)
    assert result.valid_share == 0
    centre = evaluate(ENV, Oracle(), episodes=150, **FAST)
    assert result.rmse == pytest.approx(centre.rmse)
    # Uniform users would be sqrt(60^2 + 60^2 + 15^2) / sqrt(12) = 24.9 m off; buildings push them to the streets.
    assert 20 < result.rmse < 30


def test_a_moving_user_is_measured_anew_and_compared_where_it_was() -> None:
    env = batch(count=3, mobility="spiral", rounds=5)
    first = env.measurements.csi.clone()
    state = env.game_state
    assert state.true_position_m.shape == (3, 5, 1, 3)
    for round_number in range(5):
        env.step(env.encode_estimate(state.true_position_m[:, round_number]))
        assert env.truth()["error_m"].max() < 1e-3
        assert torch.equal(env.truth()["true_position"], state.true_position_m[:, round_number])
    assert not torch.equal(env.measurements.csi, first)
    static = batch(count=3, rounds=4)
    before = static.measurements.csi.clone()
    static.step(torch.zeros(3, 6, 3))
    assert torch.equal(static.measurements.csi, before)


def test_tracking_reports_every_point_and_draws_both_views() -> None:
    followed = track(ENV, Oracle(offset_m=1.0), rounds=6, episodes=2, **FAST)
    assert followed.error_m.shape == (2, 6, 1)
    centre = np.array([31.0, 31.0, 8.5])
    wanted = np.linalg.norm(followed.truth_m - centre, axis=-1)
    np.testing.assert_allclose(followed.error_m, wanted, rtol=1e-3)
    assert followed.mean_error_m == pytest.approx(wanted.mean(), rel=1e-3)
    above, aside = followed.figure().axes[:2]
    assert above.get_ylabel() == "y [m]"
    assert aside.get_ylabel() == "z [m]"
    assert len(above.patches) == len(aside.patches) == 9
    with pytest.raises(ValueError, match="no way to follow"):
        track(ENV, Oracle(), mobility="static")
    with pytest.raises(TypeError, match="choose one of the ecc ids"):
        track("toa-v0", Oracle(), mobility="waypoint")
    with pytest.raises(TypeError, match="neither locate nor act_batch"):
        track(ENV, object(), rounds=2, **FAST)


def test_the_truth_is_told_in_three_dimensions() -> None:
    env = make_env(ENV, num_ues=2, **FAST)
    _, infos = env.reset(seed=3)
    assert infos["bs_0"]["true_position"].shape == (2, 3)
    point = np.array([[10.0, 20.0, 3.0], [40.0, 50.0, 12.0]], np.float32)
    env.step(env.encode_estimate(point))
    np.testing.assert_allclose(env.vector.estimate[0].numpy(), point, atol=1e-4)


def test_games_whose_reports_mean_something_else_have_another_signature() -> None:
    def signature(**options: Any) -> dict[str, Any]:
        return make_env(ENV, **FAST, **options).scenario.signature()

    assert signature() == signature(num_ues=2, reward="consistency")
    for options in ({"features": "cov"}, {"fusion": "confidence"}, {"site": "urban"}, {"size_m": (50.0, 60.0, 15.0)}):
        assert signature(**options) != signature(), options


def test_maddpg_plays_and_learns_from_the_error() -> None:
    from agents import make_agent

    agent = make_agent("maddpg", make_env(ENV, num_envs=64, seed=1, features="cov", **FAST), critic="model", seed=1,
                       evaluations=1, validation_envs=16, test_envs=16)  # fmt: skip
    before = evaluate(ENV, agent, episodes=100, features="cov", **FAST)
    agent.train(total_steps=64 * 160, progress=False)
    after = evaluate(ENV, agent, episodes=100, features="cov", **FAST)
    assert after.fronthaul_bits == 2 * 3 * 32
    assert after.mean < 0.6 * before.mean  # 24 m without learning


def test_configs_of_another_scene_make_another_world() -> None:
    one, other = batch(), batch(scene_seed=1)
    assert not torch.equal(one.measurements.bs_positions_m, other.measurements.bs_positions_m)
    assert dataclasses.replace(one.config, scene_seed=1) == other.config
