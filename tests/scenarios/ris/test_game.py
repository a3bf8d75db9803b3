"""The localisation game: its reward by hand, its views of the received block, its moves, and that it can be learned."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from cfpos_envs import make_env, make_scenario
from cfpos_envs.physics.ris.modes import mode_slopes, steering, synthesise
from cfpos_envs.scenarios.ris import reward as rewards
from cfpos_envs.scenarios.ris.config import RisGameConfig
from cfpos_envs.scenarios.ris.game import RisScenario
from cfpos_envs.scenarios.ris.observe import lag_one
from cfpos_envs.scenarios.ris.state import pair_parameters
from cfpos_envs.streams import Streams

SIZES = (3, 4, 4, 3, 16)
SLOPES = mode_slopes(100e6, 16)
# Fading cannot be switched off; at 200 dB it is far below single precision.
QUIET = {"snr_db": 200.0, "kappa_bs_db": 200.0, "kappa_ris_db": 200.0}


def fresh(batch=4, **options):
    scenario = make_scenario("ris-v0", **options)
    return scenario, scenario.reset(Streams(3), batch)


def at_truth(state, shift=0.0, later=0.0):
    shift = torch.as_tensor(shift, dtype=torch.float32)
    position = state.true_position_m.to(torch.float32) + shift
    return state.replace(position_m=position, bias_m=state.true_bias_m.to(torch.float32) + later)


def observed_parts(scenario, state):
    names, sizes = zip(*((row.name, row.size) for row in scenario.observation_rows))
    return dict(zip(names, scenario.observe(state).split(list(sizes), -1)))


def idle(scenario, batch=4):
    return torch.zeros(batch, len(scenario.agents), scenario.action_size)


# Reward ------------------------------------------------------------------------------------------------------------


def one_path(delay_m=0.0, theta=0.1):
    return torch.tensor([[theta, -0.2, 0.3, 0.4, 20.0 + delay_m]])


def test_one_path_with_a_wrong_delay_is_explained_as_far_as_the_dirichlet_kernel_says():
    gain = torch.tensor([2.0 - 1.0j], dtype=torch.complex64)
    received = synthesise(steering(SIZES, SLOPES, one_path()), gain)
    for delay_m in (0.0, 0.7, 3.0):
        share = rewards.explained_share(SIZES, SLOPES, received, one_path(delay_m))
        half = SLOPES[4] * delay_m / 2
        kernel = 1.0 if delay_m == 0 else math.sin(16 * half) / (16 * math.sin(half))
        assert share.item() == pytest.approx(kernel**2, abs=1e-4)
        # The same one path counts alone and as the only one.
        alone = rewards.path_shares(SIZES, SLOPES, received, one_path(delay_m))
        assert alone.squeeze().item() == pytest.approx(kernel**2, abs=1e-4)


def test_two_orthogonal_paths_of_which_one_is_missed():
    # cosines 2 / n apart on an axis are orthogonal: 0 and 2 / 4 on the second.
    paths = torch.tensor([[0.0, 0.0, 0.0, 0.0, 10.0], [0.0, 0.5, 0.5, 0.0, 10.0]])
    gains = torch.tensor([2.0, 1.0j], dtype=torch.complex64)
    received = synthesise(steering(SIZES, SLOPES, paths), gains)
    assert rewards.explained_share(SIZES, SLOPES, received, paths).item() == pytest.approx(1.0, abs=1e-4)
    # The second is looked for half a period of its delay kernel away: 4 of 5 parts of the energy are left.
    missed = paths.clone()
    missed[1, 4] += 2 * math.pi / abs(SLOPES[4]) / 16
    assert rewards.explained_share(SIZES, SLOPES, received, missed).item() == pytest.approx(0.8, abs=1e-4)
    assert rewards.path_shares(SIZES, SLOPES, received, missed).tolist() == pytest.approx([1.0, 0.0], abs=1e-4)


def test_paths_that_coincide_are_fitted_as_one():
    twice = one_path().expand(2, 5).contiguous().requires_grad_()
    received = synthesise(steering(SIZES, SLOPES, one_path()), torch.tensor([1.0 + 0j], dtype=torch.complex64))
    share = rewards.explained_share(SIZES, SLOPES, received, twice)
    assert share.item() == pytest.approx(1.0, abs=1e-3)
    (slope,) = torch.autograd.grad(share, twice)
    assert torch.isfinite(slope).all()


@pytest.mark.parametrize("reward", ["explained", "paths"])
def test_without_noise_the_truth_explains_everything_and_nothing_else_does(reward):
    scenario, state = fresh(reward=reward, **QUIET)
    values = [
        scenario.step(at_truth(state, shift, later), idle(scenario)).reward
        for shift, later in (([0.0, 0.0, 0.0], 0.0), ([0.3, 0.0, 0.0], 0.0), ([0.0, 0.0, 0.0], 0.5))
    ]
    assert values[0].min().item() >= 0.999
    for other in values[1:]:
        assert (other < values[0] - 1e-3).all()
    assert all(((v >= 0) & (v <= 1)).all() for v in values)


def test_weak_paths_weigh_in_the_mean_over_paths_and_vanish_in_the_sum():
    """Away along the line of sight with the clock following: only the paths over surfaces notice."""
    lost = {}
    for reward in ("explained", "paths"):
        scenario, state = fresh(reward=reward, batch=8)
        far = state.true_position_m.to(torch.float32)
        outwards = far / far.norm(dim=-1, keepdim=True)
        right, moved = (
            scenario.step(at_truth(state, length * outwards, -length), idle(scenario, 8)).reward
            for length in (0.0, 1.0)
        )
        lost[reward] = (right - moved).mean().item()
    assert lost["paths"] > 5 * lost["explained"] > 0


def test_gain_is_the_increase_of_the_mean_over_paths():
    gain, state = fresh(reward="gain")
    paths, _ = fresh(reward="paths")
    actions = 0.3 * torch.ones(4, 2, 4)
    before = paths.step(state.replace(round=state.round), idle(paths)).reward
    taken = gain.step(state, actions)
    assert torch.allclose(taken.reward, paths.step(state, actions).reward - before, atol=1e-5)
    assert torch.equal(taken.metrics["score"], paths.step(state, actions).metrics["score"])


def test_error_reward_by_hand():
    scenario, state = fresh(reward="error")
    taken = scenario.step(at_truth(state, [0.0, 0.3, 0.4]), idle(scenario))
    assert taken.reward.flatten().tolist() == pytest.approx([-math.log(0.51)] * 8, abs=1e-3)


def test_objective_has_the_slope_of_the_reward():
    scenario, state = fresh(reward="paths", batch=2)
    state = at_truth(state, [0.2, -0.1, 0.1])
    actions = idle(scenario, 2).requires_grad_()
    objective = scenario.step(state, actions).metrics["objective"]
    (slope,) = torch.autograd.grad(objective.sum(), actions)
    step = 1e-2
    for entry in range(scenario.action_size):
        nudge = torch.zeros_like(slope)
        nudge[..., entry] = step
        up, down = (scenario.step(state, sign * nudge).reward for sign in (1, -1))
        assert torch.allclose(slope[..., entry], (up - down) / (2 * step), atol=5e-3, rtol=5e-2)


# Views -------------------------------------------------------------------------------------------------------------


def test_lag_one_correlation_of_a_tone():
    tone = torch.polar(torch.ones(5, 6), 0.7 * torch.arange(6.0).expand(5, 6)).unsqueeze(0)
    value = lag_one(tone, -1, 2)
    assert value.abs().item() == pytest.approx(1.0, abs=1e-5)
    assert value.angle().item() == pytest.approx(0.7, abs=1e-5)
    assert lag_one(torch.zeros(1, 3, 3, dtype=torch.complex64), -1, 2).abs().item() == 0.0


def test_offsets_are_those_between_truth_and_estimate():
    # One path is left if the others are blocked or far weaker: a strong line of sight.
    scenario, state = fresh(num_ris=1, exponent_los=2.0, **QUIET)
    config = scenario.config
    observed = observed_parts(scenario, at_truth(state))
    for name in ("across", "departure", "along"):
        line_of_sight = observed[name][..., : {"across": 3, "departure": 2, "along": 1}[name]]
        assert line_of_sight.abs().max().item() < 0.02
    along = observed_parts(scenario, at_truth(state, later=-2.0))["along"][..., 0] * config.reach_m
    assert along.flatten().tolist() == pytest.approx([2.0] * 8, abs=0.05)
    departure = observed_parts(scenario, at_truth(state, [0.0, 0.0, -0.4]))["departure"][..., 1] * config.reach_m
    # Across the line of sight 0.4 m down are 0.4 m times the part that the direction leaves.
    assert ((departure > 0.1) & (departure < 0.6)).all()


@pytest.mark.parametrize("observation", ["correlations", "spectra", "tensor"])
def test_views_have_the_size_they_say_and_stay_in_bounds(observation):
    small = {"bs_shape": [2, 2], "ue_shape": [2, 2], "num_subcarriers": 16, "num_slots": 4}
    scenario, state = fresh(observation=observation, bandwidth_hz=50e6, **small)
    seen = scenario.observe(state)
    assert seen.shape == (4, 2, scenario.observation_size)
    assert seen.abs().max() <= 1
    if observation == "tensor":
        samples = scenario.observe(state)[..., : 2 * 16 * 16]
        assert torch.equal(samples[0, 0, :2], torch.view_as_real(state.received)[0, 0].flatten()[:2] / 4)


def test_several_base_stations_have_a_clock_each():
    scenario, state = fresh(num_bs=2, batch=2)
    assert scenario.action_size == 5
    assert scenario.observe(state).shape == (2, 2, scenario.observation_size)
    moved = scenario.step(state, torch.tensor([0.0, 0.0, 0.0, 0.1, -0.1]).expand(2, 2, 5)).state
    change = moved.bias_m - state.bias_m
    assert torch.allclose(change, torch.tensor([0.5, -0.5]).expand(2, 2, 2), atol=1e-5)


# Moves -------------------------------------------------------------------------------------------------------------


def test_corrections_shrink_and_stay_in_the_area():
    scenario, state = fresh()
    lengths = []
    for _ in range(3):
        nxt = scenario.step(state, 0.5 * torch.ones(4, 2, 4)).state
        lengths.append((nxt.bias_m - state.bias_m).max().item())
        state = nxt
    assert lengths == pytest.approx([2.5, 1.0, 0.4], abs=1e-4)
    for _ in range(6):
        state = scenario.step(state.replace(round=0 * state.round), torch.ones(4, 2, 4)).state
    aim = scenario.config.aim_m.to(torch.float32)
    assert torch.allclose(state.position_m - aim, torch.full((4, 2, 3), 6.0), atol=1e-5)
    assert torch.allclose(state.bias_m, torch.tensor(scenario.config.clock_m[1]), atol=1e-4)


def test_absolute_actions_say_the_point_and_the_clock():
    scenario, state = fresh(action="absolute")
    said = scenario.step(state, scenario.encode_estimate(state, state.true_position_m)).state
    assert scenario.truth(said)["error_m"].max().item() < 1e-4
    assert scenario.truth(said)["clock_error_m"].max().item() < 0.1
    corner = scenario.step(state, -torch.ones(4, 2, 4)).state
    assert torch.allclose(corner.bias_m, torch.tensor(scenario.config.clock_m[0]), atol=1e-4)


def test_reported_positions_are_reached_and_bring_their_clock():
    scenario, state = fresh(**QUIET)
    target = state.true_position_m
    for _ in range(scenario.rounds):
        state = scenario.step(state, scenario.encode_estimate(state, target)).state
    truth = scenario.truth(state)
    assert truth["error_m"].max().item() < 1e-3
    assert truth["clock_error_m"].max().item() < 0.03


def test_bounds_and_flags_of_a_place_for_which_the_model_does_not_hold():
    scenario, state = fresh()
    truth = scenario.truth(state)
    assert truth["valid"].all()
    assert ((truth["peb_m"] > 0.005) & (truth["peb_m"] < 0.3)).all()
    assert torch.isfinite(truth["ceb_m"]).all()
    blocked, lost = fresh(los_blocked=1.0, num_ris=1)
    assert blocked.truth(lost)["peb_m"].tolist() == [[6.0, 6.0]] * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"area_m": 1.0}, "area_m=1 is too small for UEs up to 2.5 m"),
        ({"reward": "path"}, "did you mean paths"),
        ({"observation": "raw"}, "observation='raw' is not one of"),
        ({"action": "absolut"}, "did you mean absolute"),
        ({"zoom": 1.5}, "zoom=1.5 must be at most 1"),
        ({"rounds": 0}, "rounds=0 must be at least 1"),
    ],
)
def test_options_are_refused_in_one_line(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        make_env("ris-v0", **options)
    assert "\n" not in str(caught.value)


def test_measurements_are_the_samples_at_their_own_scale():
    scenario, state = fresh(batch=2)
    told = scenario.measurements(state)
    assert told.received.shape == state.received.shape
    assert told.received.abs().square().mean().sqrt().item() < 1e-4
    parameters = pair_parameters(state, state.true_position_m, state.true_bias_m)
    scaled = rewards.explained_share(told.system.sizes, told.system.slopes, state.received, parameters.float())
    assert (scaled > 0.7).all()


def test_games_whose_actions_mean_something_else_have_another_signature():
    def signature(**options):
        return make_scenario("ris-v0", **options).signature()

    assert signature() == signature(snr_db=20.0, rounds=4)
    assert signature()["ranges"]["reach_m"] == 5.0
    for options in ({"reach_m": 0.5}, {"zoom": 0.5}, {"area_m": 9.0}, {"bias_ns": 10.0}, {"action": "absolute"},
                    {"observation": "spectra"}, {"num_ris": 1}):  # fmt: skip
        assert signature(**options) != signature(), options


# Learning ----------------------------------------------------------------------------------------------------------


def test_the_game_can_be_learned_without_a_label():
    """Seventy steps of a small network on small arrays: from metres to less than half of them."""
    from agents import make_agent

    arrays = {"bs_shape": [4, 4], "ue_shape": [3, 3], "num_ris": 1, "num_slots": 16, "num_subcarriers": 16}
    scene = {"bandwidth_hz": 50e6, "phases": "svd", "num_ues": 1, "ue_box_m": 3.0, "bias_ns": 20.0}
    options = {**arrays, **scene, "rounds": 1, "reward": "explained"}
    env = make_env("ris-v0", num_envs=32, seed=0, **options)
    settings = {"critic": "model", "share": "shared", "lr_actor": 1e-2, "threads": 1, "evaluations": 0}
    agent = make_agent("maddpg", env, seed=0, **settings)
    before, after = (_median_error_m(agent, options, steps) for steps in (0, 2240))
    assert before > 2.0
    assert after < 0.5 * before


def _median_error_m(agent, options, steps):
    if steps:
        agent.train(total_steps=steps, log_dir=None, progress=False)
    env = make_env("ris-v0", num_envs=100, seed=5, split="test", **options)
    observations = env.reset()
    for _ in range(env.rounds):
        observations = env.step(agent.act_batch(observations)).observations
    return env.truth()["error_m"].median().item()


def test_config_is_one_dataclass_with_the_scene():
    config = RisGameConfig(preset="small", bias_ns=(0.0, 40.0), num_ues=2)
    assert config.clock_m == pytest.approx((-1.0, 1e-9 * 299792458 * 45.0 + 1.0))
    assert dataclasses.replace(config, rounds=3).rounds == 3
    assert RisScenario(config).agents == ("ue_0", "ue_1")
