"""Games of other people whose agents leave one by one; infos that libraries can make room for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import make_agent
from agents.adapters import PettingZooVectorEnv
from agents.maddpg.losses import actor_loss, critic_loss
from agents.maddpg.replay import Replay
from cfpos_envs import make_env
from tests.agents.probes import OwnLimits, UnequalZoo
from tests.agents.test_learning import QUICK, value

LEARNING: dict[str, Any] = {
    **QUICK,
    "num_envs": 1,
    "warmup_steps": 32,
    "batch_size": 16,
    "updates_per_step": 1,
    "lr_critic": 0.02,
    "tau": 0.2,
    "gamma": 0.5,
}


def rounds(game: OwnLimits, most: int = 9) -> list[Any]:
    env, steps = PettingZooVectorEnv(game), []
    env.reset()
    while len(steps) < most:
        steps.append(env.step(torch.zeros(1, 2, 1)))
        if bool(steps[-1].terminated | steps[-1].truncated):
            break
    return steps


def flags(steps: list[Any], name: str) -> list[list[bool]]:
    return [step.metrics[name][0].tolist() for step in steps]


@pytest.mark.parametrize("stays", [False, True])
def test_an_agent_cut_off_by_its_own_limit_has_a_value_beyond_it(stays: bool) -> None:
    steps = rounds(OwnLimits((1, 3), stays=stays))
    assert len(steps) == 3
    assert flags(steps, "agent_valid") == [[True, True], [False, True], [False, True]]
    assert flags(steps[:1], "agent_terminated") == [[False, False]]
    assert [bool(step.truncated) for step in steps] == [False, False, True]


def test_a_game_that_keeps_agents_which_are_done_ends_all_the_same() -> None:
    assert len(rounds(OwnLimits((2, 2), stays=True))) == 2
    ended = rounds(OwnLimits((2, 4), stays=True, terminates=True))
    assert len(ended) == 4
    assert (bool(ended[-1].terminated), bool(ended[-1].truncated)) == (True, False)


def test_nothing_is_learned_from_an_end_that_nobody_saw() -> None:
    assert flags(rounds(OwnLimits((1, 2), forgets=True)), "agent_valid") == [[False, True], [False, False]]
    # What is terminated needs no observation: nothing follows.
    assert flags(rounds(OwnLimits((1, 2), forgets=True, terminates=True)), "agent_valid")[0] == [True, True]


@pytest.mark.parametrize(
    ("critic", "share", "terminates"),
    [("own", "shared", False), ("concatenated", "separate", False), ("own", "separate", True)],
)
def test_a_critic_learns_what_every_agent_earns_while_it_acts(critic: str, share: str, terminates: bool) -> None:
    agent = make_agent("maddpg", OwnLimits(terminates=terminates), critic=critic, share=share, **LEARNING)
    agent.train(180, progress=False)
    with torch.no_grad():
        first, second = value(agent, torch.zeros(64, 2, 1), torch.rand(64, 2, 1) * 2 - 1).mean(0).tolist()
    if terminates:
        # One round is worth 1, the mean over three of 1.75, 1.5 and 1 lies between.
        assert first == pytest.approx(1.0, abs=0.1)
        assert 1.2 < second < 1.9
    else:
        assert (first, second) == (pytest.approx(2.0, abs=0.1), pytest.approx(2.0, abs=0.1))


def test_rewards_are_scaled_by_those_who_acted() -> None:
    agent = make_agent("maddpg", OwnLimits(), **{**LEARNING, "reward_normalisation": True})
    rollout = agent.rollout()
    for step in range(3):
        rollout.play(step, 0.0)
    batch = rollout.replay.sample(64)
    assert batch.acted is not None
    assert set(batch.rewards[batch.acted].tolist()) == {1.0}
    assert set(batch.acted.sum(1).tolist()) == {1, 2}


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=6), st.booleans(), st.integers(0, 99))
def test_rounds_without_an_action_are_no_loss(acts: list[tuple[bool, bool]], separate: bool, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    acted = torch.tensor(acts)
    values = torch.randn(2, *acted.shape, generator=draw).requires_grad_()
    pre_tanh = torch.randn(*acted.shape, 3, generator=draw).requires_grad_()
    targets = torch.randn(acted.shape, generator=draw)
    losses = [
        critic_loss(values, targets, separate, acted),
        actor_loss(values[0], pre_tanh, 0.1, separate, acted),
    ]
    squares, outputs = (values - targets).square(), 0.1 * pre_tanh.square().mean(-1) - values[0]
    parts = [acted[:, agent] for agent in range(2)] if separate else [acted]
    for loss, terms in zip(losses, (squares.sum(0), outputs), strict=True):
        each = [terms[:, agent] for agent in range(2)] if separate else [terms]
        wanted = sum(term[part].mean() for term, part in zip(each, parts, strict=True) if part.any())
        assert loss.item() == pytest.approx(
            wanted.item() if isinstance(wanted, torch.Tensor) else wanted, rel=1e-5, abs=1e-6
        )
    gradients = torch.autograd.grad(sum(losses), [values, pre_tanh])
    assert not gradients[0][:, ~acted].any()
    assert not gradients[1][~acted].any()


def test_everybody_acting_is_the_loss_of_old() -> None:
    values, targets = torch.randn(2, 8, 3), torch.randn(8, 3)
    for separate in (False, True):
        all_act = critic_loss(values, targets, separate, torch.ones(8, 3, dtype=torch.bool))
        assert float(all_act) == pytest.approx(float(critic_loss(values, targets, separate)), rel=1e-6)


def test_who_acted_is_remembered_split_and_restored() -> None:
    def memory() -> Replay:
        return Replay(8, 2, 1, 1, keep_next=True, generator=torch.Generator(), keep_acted=True)

    def add(replay: Replay, acted: list[list[bool]]) -> None:
        count, mask = len(acted), torch.tensor(acted)
        vectors, numbers = mask.to(torch.float32)[..., None], torch.zeros(count, 2)
        replay.add(vectors, vectors, numbers, mask, vectors, acted=mask)

    replay, restored = memory(), memory()
    add(replay, [[True, True]] * 3)
    # Where all act the compiled kernel can do the updates.
    assert replay.sample(4).acted is None
    add(replay, [[True, False]] * 3)
    restored.load_state_dict(replay.state_dict())
    for each in (replay, restored):
        for part in each.sample(32).split(10):
            assert part.acted is not None
            assert torch.equal(part.acted, part.observations[..., 0] > 0)
            assert torch.equal(part.acted, part.terminated)


def test_a_policy_still_trains_where_agents_have_other_spaces() -> None:
    agent = make_agent("maddpg", UnequalZoo(), **{**LEARNING, "critic": "permutation-invariant"})
    assert agent.train(48, progress=False) == {"steps": 48.0}


def test_a_library_that_cannot_leave_out_rounds_refuses_a_limit_of_one_agent() -> None:
    settings = {"evaluations": 0, "warmup_steps": 4, "batch_size": 4, "num_envs": 1}
    with pytest.raises(ValueError, match=r"first of own_limits_v0 is cut off while others play on.* train with maddpg"):
        make_agent("sb3-td3", OwnLimits((2, 4)), **settings).train(40, progress=False)
    for game in (OwnLimits((3, 3)), OwnLimits((1, 3), terminates=True)):
        assert make_agent("sb3-td3", game, **settings).train(8, progress=False)["steps"] >= 8


@pytest.mark.parametrize("env_id", ["dcp-rss-v0", "toa-v0"])
def test_infos_are_the_same_at_reset_and_at_every_step(env_id: str) -> None:
    env = make_env(env_id, seed=0)
    _, begun = env.reset(seed=0)
    taken: dict[str, Any] = begun
    while env.agents:
        *_, taken = env.step({agent: np.zeros(env.action_size, np.float32) for agent in env.agents})
        for agent, info in taken.items():
            assert {key: (type(value), np.shape(value)) for key, value in info.items()} == {
                key: (type(value), np.shape(value)) for key, value in begun[agent].items()
            }
    assert np.isnan(begun["ap_0" if "ap_0" in begun else next(iter(begun))]["score"])
