"""What every registered environment must satisfy. Other packages can register their scenario and run ``CHECKS`` on it.

Every check takes a registered id and raises ``AssertionError`` where the environment breaks a promise.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pickle
import random
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pettingzoo
import pytest
import torch
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test, render_test
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from torch import Tensor

from cfpos_envs import make_env, make_scenario, registry
from cfpos_envs.front_ends import SingleAgentEnv, SingleAgentVectorEnv
from cfpos_envs.streams import Streams
from tests.conformance.trajectories import digest, play, random_actions
from tests.conformance.vectors import play_alike

REPOSITORY = Path(__file__).parents[2]
TRUTH_FIELD = "true_position_m"
"""Name of the state's field that only ``Scenario.truth`` may read."""


def assert_same(first: list[dict], second: list[dict], leave_out: tuple[str, ...] = ()) -> None:
    assert len(first) == len(second)
    for index, (left, right) in enumerate(zip(first, second)):
        assert left.keys() == right.keys()
        for name in left.keys() - set(leave_out):
            assert torch.equal(left[name], right[name]), f"{name} differs in round {index}"


def check_pettingzoo_api(env_id: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel_api_test(make_env(env_id), num_cycles=20)
        api_test(pettingzoo.make("aec", f"cfpos/{env_id}"), num_cycles=20)


def check_pettingzoo_seed(env_id: str) -> None:
    parallel_seed_test(lambda: pettingzoo.make("parallel", f"cfpos/{env_id}"), num_cycles=20)


def few_agents(env_id: str) -> dict[str, int]:
    """Overrides for what draws a picture per agent and round: matplotlib's time, not the game's, grows with them."""
    names = {field.name for field in dataclasses.fields(make_scenario(env_id).config)}
    return {name: count for name, count in (("num_aps", 4), ("num_ues", 2)) if name in names}


def check_render(env_id: str) -> None:
    few = few_agents(env_id)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "no display for render_mode='human'")
        render_test(lambda **kwargs: pettingzoo.make("aec", f"cfpos/{env_id}", **few, **kwargs))
    env = make_env(env_id, render_mode="rgb_array", seed=0)
    env.reset()
    first = env.render()
    env.step({agent: env.action_space(agent).high for agent in env.agents})
    second = env.render()
    assert first.shape == second.shape
    assert not np.array_equal(first, second), "the picture does not follow the episode"


def check_gymnasium(env_id: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "no display for render_mode='human'")
        gymnasium_check_env(gymnasium.make(f"cfpos/{env_id}").unwrapped, skip_render_check=True)
        few = few_agents(env_id)
        gymnasium_check_env(gymnasium.make(f"cfpos/{env_id}", render_mode="rgb_array", **few).unwrapped)
        sb3_check_env(gymnasium.make(f"cfpos/{env_id}").unwrapped)


def check_single_view_is_the_joint_game(env_id: str) -> None:
    single = gymnasium.make(f"cfpos/{env_id}", joint_reward="sum").unwrapped
    parallel = make_env(env_id)
    joint, _ = single.reset(seed=3)
    observations, _ = parallel.reset(seed=3)
    np.testing.assert_array_equal(joint, np.concatenate(list(observations.values())))
    action = np.linspace(-1, 1, single.action_space.shape[0], dtype=np.float32)
    parts = dict(zip(parallel.agents, action.reshape(len(parallel.agents), -1)))
    _, reward, _, _, info = single.step(action)
    _, rewards, _, _, infos = parallel.step(parts)
    assert reward == pytest.approx(sum(rewards.values()))
    assert info["rmse_m"] == next(iter(infos.values()))["rmse_m"]


def check_another_process(env_id: str) -> None:
    """Same trajectory to the last bit elsewhere, where playing and drawing leave the global random states alone.

    The second half needs the other process too: run-time type checkers, as in this test suite, draw from ``random``.
    """
    package = registry._entries[env_id].scenario_class_path.split(".")[0]
    entries = {
        name: (entry.scenario_class_path, entry.config_defaults)
        for name, entry in registry._entries.items()
        if entry.scenario_class_path.split(".")[0] == package
    }
    found = json.loads(_elsewhere(json.dumps(entries)))[env_id]
    assert found == digest(env_id)


@functools.cache
def _elsewhere(entries: str) -> str:
    """The digests of a package's environments, or what went wrong, by one other process: starting it is slow."""
    code = """
import json, sys, traceback
from cfpos_envs import register
from tests.conformance.trajectories import quiet_digest

found, entries = {}, json.loads(sys.argv[1])
for name, (path, defaults) in entries.items():
    register(name, path, **defaults)
for name in entries:
    try:
        found[name] = quiet_digest(name)
    except Exception:
        found[name] = traceback.format_exc()
print(json.dumps(found))
"""
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])}
    environment["OMP_NUM_THREADS"] = str(torch.get_num_threads())
    child = subprocess.run(
        [sys.executable, "-c", code, entries], capture_output=True, text=True, env=environment, cwd=REPOSITORY
    )
    assert child.returncode == 0, child.stderr
    return child.stdout


def check_seeds(env_id: str) -> None:
    assert_same(play(env_id, seed=1), play(env_id, seed=1))
    one, other = play(env_id, seed=1)[0], play(env_id, seed=2)[0]
    assert not torch.equal(one["observations"], other["observations"])
    venv = make_env(env_id, num_envs=2, seed=4)
    first, second = venv.reset(), venv.reset()
    assert not torch.equal(first, second), "reset() without a seed repeats the episode"
    assert torch.equal(first, venv.reset(seed=4)), "the seed of make_env is not that of reset"


def check_truth_is_hidden(env_id: str) -> None:
    def move_truth(state: Any) -> Any:
        return state.replace(**{TRUTH_FIELD: getattr(state, TRUTH_FIELD) + 3.0})

    honest, moved = play(env_id, seed=6), play(env_id, seed=6, prepare=move_truth)
    # A game may say that its reward is privileged; what is observed, scored and estimated never is.
    told = ("rewards", "entity_rewards", "objective") if make_scenario(env_id).privileged_reward else ()
    assert_same(honest, moved, leave_out=("error_m", *told))
    assert not torch.equal(honest[-1]["error_m"], moved[-1]["error_m"]), "moving the truth left the errors unchanged"
    venv = make_env(env_id, num_envs=2, seed=6)
    venv.reset()
    before = tensors_of(venv.measurements)
    venv.game_state = move_truth(venv.game_state)
    after = tensors_of(venv.measurements)
    assert all(alike(before[name], after[name]) for name in before)


def alike(one: Tensor, other: Tensor) -> bool:
    """The same numbers, and nothing (NaN) in the same places."""
    return torch.equal(one.isnan(), other.isnan()) and torch.equal(one.nan_to_num(), other.nan_to_num())


def check_spaces(env_id: str) -> None:
    env = make_env(env_id, seed=0)
    assert env.possible_agents == list(env.scenario.agents)
    for agent in env.possible_agents:
        for space in (env.observation_space(agent), env.action_space(agent)):
            assert space.dtype == np.float32
            assert space.shape is not None
            assert len(space.shape) == 1
            assert np.isfinite(space.low).all()
            assert np.isfinite(space.high).all()
            assert (space.low == -1).all()
            assert (space.high == 1).all()
        assert env.observation_space(agent) is env.observation_space(agent)
        assert env.action_space(agent) is env.action_space(agent)
    assert env.state_space.shape == (env.scenario.state_size,)


def check_random_play_stays_in_bounds(env_id: str) -> None:
    for entry in play(env_id, seed=8, num_envs=8):
        for name in ("observations", "state"):
            assert entry[name].dtype == torch.float32
            assert entry[name].abs().max() <= 1, f"{name} leave [-1, 1]"
        for name, value in entry.items():
            assert torch.isfinite(value.double()).all(), f"{name} is not finite"
    env = make_env(env_id, seed=8)
    observations, _ = env.reset()
    while env.agents:
        assert all(env.observation_space(agent).contains(value) for agent, value in observations.items())
        assert env.state_space.contains(env.state())
        observations, *_ = env.step({agent: env.action_space(agent).high for agent in env.agents})


def check_all_agents_truncate_together(env_id: str) -> None:
    env = make_env(env_id, seed=0)
    _, infos = env.reset()
    idle = {agent: np.zeros(env.action_space(agent).shape, np.float32) for agent in env.agents}
    for index in range(env.scenario.rounds):
        assert env.agents == env.possible_agents
        _, rewards, terminated, truncated, infos = env.step(idle)
        last = index == env.scenario.rounds - 1
        assert set(rewards) == set(terminated) == set(truncated) == set(infos) == set(env.possible_agents)
        assert not any(terminated.values())
        assert all(flag == last for flag in truncated.values())
    assert env.agents == []
    assert {"true_position", "error_m", "rmse_m", "score"} <= infos[env.possible_agents[0]].keys()
    with pytest.raises(RuntimeError, match="reset"):
        env.step(idle)


def check_parallel_and_batched_agree(env_id: str) -> None:
    env, venv = make_env(env_id), make_env(env_id, num_envs=1)
    observations, begun = env.reset(seed=9)
    batch = venv.reset(seed=9)
    while env.agents:
        np.testing.assert_array_equal(np.stack(list(observations.values())), batch[0].numpy())
        np.testing.assert_array_equal(env.state(), venv.state()[0].numpy())
        joint = random_actions(venv, seed=1)
        observations, rewards, _, _, infos = env.step(dict(zip(env.agents, joint[0].numpy())))
        taken = venv.step(joint)
        batch = taken.observations
        assert list(rewards.values()) == taken.rewards[0].tolist()
        info = infos[env.possible_agents[0]]
        # Some libraries make room for infos at the reset.
        assert {key: np.shape(value) for key, value in info.items()} == {
            key: np.shape(value) for key, value in begun[env.possible_agents[0]].items()
        }
        np.testing.assert_array_equal(info["error_m"], venv.truth()["error_m"][0].numpy())
        assert info["score"] == taken.metrics["score"][0].item()


def check_episodes_of_a_batch_do_not_mix(env_id: str) -> None:
    venv = make_env(env_id, num_envs=5)
    venv.reset(seed=10)
    actions, whole = random_actions(venv, seed=2), venv.game_state
    full = venv.scenario.step(whole, actions)
    part = venv.scenario.step(whole.select(slice(1, 3)), actions[1:3])
    close = {"rtol": 1e-4, "atol": 1e-4}  # batched matrix products may sum in another order
    torch.testing.assert_close(full.reward[1:3], part.reward, **close)
    torch.testing.assert_close(
        venv.scenario.observe(full.state)[1:3], venv.scenario.observe(part.state), rtol=1e-3, atol=1e-3
    )
    torch.testing.assert_close(
        venv.scenario.estimate(full.state)[1:3], venv.scenario.estimate(part.state), rtol=1e-3, atol=1e-3
    )
    for name in full.metrics:
        torch.testing.assert_close(full.metrics[name][1:3], part.metrics[name], **close)


def check_some_episodes_begin_anew(env_id: str) -> None:
    """The others go on bit for bit, whatever is compiled."""
    plain, some = (make_env(env_id, num_envs=3, seed=19) for _ in range(2))
    plain.reset(), some.reset()
    keep, actions = torch.tensor([True, False, True]), random_actions(plain, seed=8)
    plain.step(actions), some.step(actions)
    after = some.reset(options={"reset_mask": ~keep})
    assert torch.equal(after[keep], plain.observe()[keep])
    assert not torch.equal(after[~keep], plain.observe()[~keep]), "nothing was reset"
    if plain.rounds == 1:
        return
    actions = random_actions(plain, seed=9)
    left, right = plain.step(actions), some.step(actions)
    for name, value in {**left._asdict(), **left.metrics}.items():
        other = {**right._asdict(), **right.metrics}[name]
        assert name == "metrics" or alike(value[keep].double(), other[keep].double()), f"{name} has changed"


def check_vector_view_is_as_gymnasiums_own(env_id: str) -> None:
    """Beside ``SyncVectorEnv``: numbers to rounding, infos with masks, final observations, seeds of single episodes."""
    names = {field.name for field in dataclasses.fields(make_scenario(env_id).config)}
    # Without numbers of its own only a batch of one episode can be given a seed as an episode.
    options = {**few_agents(env_id), **({"rng": "counter"} if "rng" in names else {})}
    seeds, mode = [7, 3] if "rng" in names else [7], AutoresetMode.SAME_STEP
    ours = SingleAgentVectorEnv(make_env(env_id, num_envs=len(seeds), autoreset_mode=mode, **options))
    theirs = SyncVectorEnv([lambda: SingleAgentEnv(make_env(env_id, **options))] * len(seeds), autoreset_mode=mode)
    rounds = ours.vector.rounds
    ends = play_alike(ours, theirs, seeds, rounds + 1)
    assert ends.sum(axis=0).tolist() == [1 + (rounds == 1)] * len(seeds)


def check_step_leaves_its_input_alone(env_id: str) -> None:
    venv = make_env(env_id, num_envs=2)
    venv.reset(seed=11)
    state = venv.game_state
    before = {name: None if value is None else value.clone() for name, value in state.state_dict().items()}
    venv.step(random_actions(venv, seed=3))
    for name, value in state.state_dict().items():
        assert value is None if before[name] is None else torch.equal(value, before[name]), f"step changed {name}"


def check_metrics(env_id: str) -> None:
    venv = make_env(env_id, num_envs=3)
    venv.reset(seed=12)
    taken = venv.step(random_actions(venv, seed=4))
    assert taken.rewards.shape == (3, len(venv.agents))
    assert taken.metrics["score"].shape == (3,)
    if venv.entities is not None:
        count = venv.entities.count
        assert venv.observation_size == count * venv.entities.observation_size
        assert venv.action_size == count * venv.entities.action_size
        shares = taken.metrics["entity_rewards"]
        assert shares.shape == (3, len(venv.agents), count)
        torch.testing.assert_close(shares.sum(-1), taken.rewards, rtol=1e-4, atol=1e-4)
    if venv.scenario.differentiable:
        actions = (0.1 * random_actions(venv, seed=5)).requires_grad_()
        objective = venv.scenario.step(venv.game_state.detach(), actions).metrics["objective"]
        (slope,) = torch.autograd.grad(objective.sum(), actions)
        assert torch.isfinite(slope).all()
        assert slope.abs().max() > 0


def check_reported_points_can_be_encoded(env_id: str) -> None:
    env = make_env(env_id, seed=13)
    env.reset()
    actions = env.encode_estimate(env.vector.estimate[0].numpy())
    assert set(actions) == set(env.possible_agents)
    assert all(env.action_space(agent).contains(value) for agent, value in actions.items())
    with pytest.raises(ValueError, match="finite"):
        env.encode_estimate(np.full(env.vector.estimate.shape[1:], np.nan))


def check_bad_actions_are_refused(env_id: str) -> None:
    env = make_env(env_id, seed=14)
    good = {agent: env.action_space(agent).low for agent in env.possible_agents}
    with pytest.raises(RuntimeError, match="reset"):
        env.step(good)
    env.reset()
    first = env.possible_agents[0]
    wrong: list[tuple[dict[str, np.ndarray], str]] = [
        ({**good, first: good[first][:-1]}, "shape"),
        ({**good, first: good[first] * np.nan}, "NaN"),
        ({agent: value for agent, value in good.items() if agent != first}, first),
        ({**good, "nobody": good[first]}, "nobody"),
    ]
    for actions, message in wrong:
        with pytest.raises(ValueError, match=message) as caught:
            env.step(actions)
        assert "\n" not in str(caught.value)
    env.step(good)


def check_unknown_overrides_are_refused(env_id: str) -> None:
    name = dataclasses.fields(make_scenario(env_id).config)[0].name
    with pytest.raises(ValueError, match=f"{name}x.*did you mean.*{name}.*Valid overrides"):
        make_env(env_id, **{name + "x": 1})


def check_pickling(env_id: str) -> None:
    env = make_env(env_id, seed=15)
    env.reset()
    copy = pickle.loads(pickle.dumps(env))  # noqa: S301  our own bytes
    actions = {agent: env.action_space(agent).high for agent in env.agents}
    for left, right in zip(env.step(actions)[:2], copy.step(actions)[:2]):
        assert left.keys() == right.keys()
        assert all(np.array_equal(left[agent], right[agent]) for agent in left)
    for left, right in zip(env.reset()[0].values(), copy.reset()[0].values()):
        np.testing.assert_array_equal(left, right)


def check_resume(env_id: str) -> None:
    venv = make_env(env_id, num_envs=2, seed=16)
    venv.reset()
    venv.step(random_actions(venv, seed=6))
    saved = pickle.loads(pickle.dumps(venv.state_dict()))  # noqa: S301  our own bytes
    other = make_env(env_id, num_envs=2, seed=99)
    other.load_state_dict(saved)
    actions = random_actions(venv, seed=7)
    left, right = venv.step(actions), other.step(actions)
    assert torch.equal(left.observations, right.observations)
    assert torch.equal(left.rewards, right.rewards)
    assert torch.equal(venv.reset(), other.reset())


def check_global_randomness_is_unused(env_id: str) -> None:
    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        torch.manual_seed(1), np.random.seed(1), random.seed(1)  # noqa: NPY002
        first = play(env_id, seed=18)
        torch.manual_seed(2), np.random.seed(2), random.seed(2)  # noqa: NPY002
        assert_same(first, play(env_id, seed=18))
    finally:
        torch.set_rng_state(torch_state), np.random.set_state(numpy_state), random.setstate(python_state)  # noqa: NPY002


def check_train_and_test_share_no_site(env_id: str) -> None:
    train, test = make_scenario(env_id, split="train"), make_scenario(env_id, split="test")
    if train.fixed_site:
        # The place is the same by intention: then no user may ever stand where one stood in training.
        stood = user_points(train, [train.reset(Streams(seed, "train"), 64) for seed in range(2)])
        assert len(stood) > 64, "training has hardly any drop"
        assert not stood & user_points(test, [test.reset(Streams(seed, "test"), 64) for seed in range(2)])
        return
    known: set[tuple[float, ...]] = set()
    for seed in range(2):
        known |= site_points(train, train.reset(Streams(seed, "train"), 16))
    assert len(known) > 3, "training has hardly any site"
    for seed in range(2):
        assert not known & site_points(test, test.reset(Streams(seed, "test"), 16))


def check_it_describes_itself(env_id: str) -> None:
    text = make_env(env_id).describe()
    assert all(word in text.lower() for word in ("[-1, 1]", " m"))


def tensors_of(measurements: Any) -> dict[str, Tensor]:
    if measurements is None:  # a game that measures nothing that locates users
        return {}
    return {name: value for name, value in vars(measurements).items() if isinstance(value, Tensor)}


def site_points(scenario: Any, state: Any) -> set[tuple[float, ...]]:
    """All access point positions of a batch; where the network always stands still, all places of its users."""
    for holder in (scenario.measurements(state), state):
        positions = getattr(holder, "ap_positions_m", None)
        if positions is not None:
            return {tuple(point) for point in positions.reshape(-1, 2).tolist()}
    return {tuple(point) for point in scenario.truth(state)["true_position"].flatten(0, 1).tolist()}


def user_points(scenario: Any, states: list[Any]) -> set[tuple[float, ...]]:
    """All true positions of some batches."""
    rows = [scenario.truth(state)["true_position"].flatten(0, 1).tolist() for state in states]
    return {tuple(point) for batch in rows for point in batch}


CHECKS: list[Callable[[str], None]] = [value for name, value in list(globals().items()) if name.startswith("check_")]
