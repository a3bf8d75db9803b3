"""Some episodes of a batch begin anew, by a mask or by themselves, and from seeds of their own."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from agents.adapters import PettingZooVectorEnv
from agents.environments import as_vector_env
from cfpos_envs import make_env
from cfpos_envs.front_ends import VectorEnv
from tests.conformance.trajectories import random_actions
from tests.front_ends.ending_toy import ending_toy
from tests.front_ends.toy import register_toy

TOY = register_toy()
SMALL: dict[str, Any] = {"num_aps": 4, "num_ues": 2, "num_sites": 3}
GAMES = {
    "native, users that move": ("dcp-jar-v0", {**SMALL, "kernel": "native", "speed_m_s": 1.0}),
    "torch, chained": ("dcp-v0", {**SMALL, "kernel": "torch"}),
    "held-out links": ("tdoa-v0", SMALL),
}
MASK = np.array([False, True, True, False])


@pytest.mark.parametrize("rng", ["stream", "counter"])
@pytest.mark.parametrize("game", GAMES)
def test_the_others_play_on_bit_for_bit(game: str, rng: str) -> None:
    env_id, options = GAMES[game]
    plain, some = (make_env(env_id, num_envs=4, seed=3, rng=rng, **options) for _ in range(2))
    for env in (plain, some):
        env.reset()
        env.step(random_actions(env, seed=0))
    before = some.observe()
    after = some.reset(options={"reset_mask": torch.from_numpy(MASK)})
    assert torch.equal(after[~MASK], before[~MASK])
    assert not (after[MASK] == before[MASK]).flatten(1).all(dim=1).any()
    for index in range(1, plain.rounds):
        actions = random_actions(plain, seed=index)
        left, right = plain.step(actions), some.step(actions)
        for name, value in {**left._asdict(), **left.metrics, **plain.truth()}.items():
            other = {**right._asdict(), **right.metrics, **some.truth()}[name]
            if name != "metrics":
                assert torch.equal(value[~MASK], other[~MASK]), f"{name} differs in round {index}"
    assert some.over.tolist() == (~MASK).tolist()
    with pytest.raises(RuntimeError, match=r"2 of 4 episodes are over \(the first is 0\); call reset"):
        some.step(actions)
    some.reset(options={"reset_mask": some.over})
    some.step(actions)


def test_a_whole_mask_is_a_whole_reset() -> None:
    for rng in ("stream", "counter"):
        one, other = (ending_toy(3, rng=rng) for _ in range(2))
        assert torch.equal(one.reset(), other.reset(options={"reset_mask": np.ones(3, dtype=bool)}))
        assert torch.equal(one.reset(seed=5), other.reset(seed=5, options={"reset_mask": np.ones(3, dtype=bool)}))


def test_places_draw_what_they_would_without_the_others_resets() -> None:
    plain, busy = ending_toy(3), ending_toy(3)
    plain.reset(), busy.reset()
    for _ in range(2):
        busy.reset(options={"reset_mask": np.array([False, True, False])})
    for _ in range(2):
        assert torch.equal(plain.reset()[::2], busy.reset()[::2])
    # One seed with a mask begins what it would in a batch that is started by it.
    began = ending_toy(3).reset(seed=8)
    assert torch.equal(busy.reset(seed=8, options={"reset_mask": np.array([True, False, True])})[::2], began[::2])


@pytest.mark.parametrize(
    ("env_id", "options"),
    [("dcp-rss-v0", {**SMALL, "kernel": "torch"}), ("dcp-aoa-v0", SMALL), ("toa-v0", SMALL)],
)
def test_a_seed_of_its_own_is_an_episode_wherever_it_stands(env_id: str, options: dict[str, Any]) -> None:
    def played(num_envs: int, seeds: list[int], place: int) -> list[dict[str, Any]]:
        env = make_env(env_id, num_envs=num_envs, seed=sum(seeds), rng="counter", **options)
        env.reset(seed=seeds)
        first = env.game_state.select(slice(place, place + 1)).state_dict()
        env.reset(options={"reset_mask": np.arange(num_envs) == place})
        return [first, env.game_state.select(slice(place, place + 1)).state_dict()]

    alone, beside, elsewhere = played(1, [7], 0), played(3, [7, 2, 9], 0), played(3, [4, 2**63 - 1, 7], 2)
    for index, state in enumerate(alone):
        for other in (beside[index], elsewhere[index]):
            # Sites are labelled so that those of other seeds are others.
            differ = [name for name in state.keys() - {"site_ids"} if not _equal(state[name], other[name])]
            assert not differ, f"{differ} of episode {index} depend on the batch"
    assert not _equal(alone[0]["true_position_m"], alone[1]["true_position_m"])


def test_sites_of_different_seeds_have_different_labels() -> None:
    env = make_env("dcp-rss-v0", num_envs=4, seed=1, rng="counter", **{**SMALL, "num_sites": 1})
    env.reset(seed=[5, 6, 5, 1])
    labels, places = env.game_state.site_ids.tolist(), env.game_state.ap_positions_m
    assert labels[0] == labels[2] != labels[1]
    assert labels[3] == 0, "the batch's own seed keeps its labels"
    assert torch.equal(places[0], places[2])
    assert not torch.equal(places[0], places[1])


def test_none_goes_on_with_what_the_place_has() -> None:
    one, other = ending_toy(2), ending_toy(2)
    one.reset(seed=[1, 2]), other.reset(seed=[1, 2])
    mixed, went_on = one.reset(seed=[None, 3]), other.reset()
    assert torch.equal(mixed[0], went_on[0])
    assert torch.equal(mixed[1], ending_toy(1).reset(seed=[3])[0])


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, "SameStep"])
def test_saved_batches_go_on_in_the_middle(mode: AutoresetMode | str) -> None:
    env = ending_toy(4, autoreset_mode=mode)
    env.reset(seed=[3, 1, 4, 1])
    for index in range(3):
        env.step(random_actions(env, seed=index))
    assert env.over.any() == (mode == AutoresetMode.NEXT_STEP)
    saved = pickle.loads(pickle.dumps(env.state_dict()))  # noqa: S301  our own bytes
    other = ending_toy(4, autoreset_mode=mode, seed=99)
    other.load_state_dict(saved)
    copy = pickle.loads(pickle.dumps(env))  # noqa: S301  our own bytes
    for index in range(3, 8):
        actions = random_actions(env, seed=index)
        step = env.step(actions)
        for again in (other.step(actions), copy.step(actions)):
            assert torch.equal(step.observations, again.observations)
            assert torch.equal(step.rewards, again.rewards)


def test_state_saved_before_places_had_numbers_is_read() -> None:
    env, other = ending_toy(2), ending_toy(2, seed=5, autoreset_mode="NextStep")
    env.reset()
    saved = env.state_dict()
    old = {name: saved[name] for name in ("streams", "game")}
    other.load_state_dict({**old, "done": True})
    assert other.over.all()
    assert torch.equal(other.step(random_actions(env, seed=0)).observations, env.reset())


def test_final_observations_of_same_step_are_those_before_the_reset() -> None:
    plain, env = ending_toy(6), ending_toy(6, autoreset_mode="SameStep")
    plain.reset(seed=2), env.reset(seed=2)
    actions = random_actions(env, seed=0)
    left, right = plain.step(actions), env.step(actions)
    over = right.metrics["_final_obs"]
    assert 0 < over.sum() < 6
    assert torch.equal(right.metrics["final_obs"], left.observations)
    assert torch.equal(over, left.terminated)
    assert torch.equal(right.observations[~over], left.observations[~over])
    assert not (right.observations[over] == left.observations[over]).flatten(1).all(dim=1).any()
    assert env.final_state is not None
    assert torch.equal(env.final_state.consensus_m, plain.estimate)
    assert torch.equal(env.game_state.round, (~over).float())


def test_next_step_ignores_the_action_and_pays_nothing() -> None:
    env = ending_toy(6, autoreset_mode="NextStep")
    env.reset(seed=2)
    over = env.step(random_actions(env, seed=0)).terminated
    step = env.step(random_actions(env, seed=1))
    assert (step.rewards[over] == 0).all()
    assert not (step.terminated | step.truncated)[over].any()
    assert step.metrics["score"][over].isnan().all()
    assert not step.metrics["score"][~over].isnan().any()
    assert torch.equal(env.estimate[over], torch.full_like(env.estimate[over], 5.0))


def test_a_batch_that_began_together_may_be_played_to_its_end_unless_a_mode_is_asked_for() -> None:
    free, asked = ending_toy(6), ending_toy(6, autoreset_mode=AutoresetMode.DISABLED)
    assert free.metadata == asked.metadata == {"autoreset_mode": AutoresetMode.DISABLED}
    for env in (free, asked):
        env.reset(seed=2)
        env.step(random_actions(env, seed=0))
    assert free.over.tolist() == asked.over.tolist()
    free.step(random_actions(free, seed=1))
    with pytest.raises(RuntimeError, match="reset_mask"):
        asked.step(random_actions(asked, seed=1))


def test_who_resets_by_hand_refuses_what_resets_itself() -> None:
    for mode in ("NextStep", "SameStep"):
        with pytest.raises(ValueError, match=f"autoreset_mode={mode}.*make the env without it"):
            as_vector_env(make_env(TOY, num_envs=2, autoreset_mode=mode), 2, 0)
    env = make_env(TOY, num_envs=2, autoreset_mode="SameStep")
    assert env.sibling(3, seed=0).metadata == env.metadata
    assert isinstance(as_vector_env(make_env(TOY, num_envs=2), 2, 0), VectorEnv)


def test_one_episode_of_other_peoples_games_takes_masks_and_seeds_too() -> None:
    env = PettingZooVectorEnv(make_env(TOY), seed=1)
    first = env.reset(seed=4)
    assert torch.equal(first, env.reset(seed=[4], options={"reset_mask": np.array([True])}))
    assert env.metadata["autoreset_mode"] == AutoresetMode.DISABLED
    with pytest.raises(ValueError, match="nothing would begin"):
        env.reset(options={"reset_mask": np.array([False])})


def test_some_cannot_begin_before_there_are_any() -> None:
    with pytest.raises(RuntimeError, match="no episode yet"):
        ending_toy(2).reset(options={"reset_mask": np.array([True, False])})


def test_refused_resets_change_nothing() -> None:
    env, other = ending_toy(2), ending_toy(2)
    env.reset(), other.reset()
    for seed in ([1], [1, -1], [1, 2, 3]):
        with pytest.raises(ValueError, match="seed"):
            env.reset(seed=seed)
    assert torch.equal(env.reset(), other.reset())


def _equal(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return torch.equal(one, other) or bool(((one == other) | (one.isnan() & other.isnan())).all())
