"""MADDPG solves games whose optimum is known; each test names the defect that would make it fail."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from agents import make_agent
from agents.maddpg.agent import Maddpg
from agents.maddpg.learner import CriticLearner
from tests.agents import probes
from tests.agents.probes import probe_env

QUICK: dict[str, Any] = {
    "actor_hidden": (24,),
    "critic_hidden": (24, 24),
    "batch_size": 64,
    "buffer_size": 4096,
    "warmup_steps": 320,
    "updates_per_step": 2,
    "lr_actor": 5e-3,
    "lr_critic": 1e-2,
    "tau": 0.05,
    "noise_start": 0.5,
    "noise_end": 0.2,
    "evaluations": 0,
}


def trained(env: Any, steps: int, **overrides: Any) -> Maddpg:
    agent = make_agent("maddpg", env, **{**QUICK, **overrides})
    agent.train(steps, progress=False)
    return agent


def value(agent: Maddpg, observations: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    learner = agent.learner
    assert isinstance(learner, CriticLearner)
    with torch.no_grad():
        return learner.nets["critics"][0](observations, actions)  # type: ignore[index]


def fresh(agent: Maddpg, count: int = 256) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(99)
    observations = 2 * torch.rand(count, agent.shape.agents, agent.shape.observation_size, generator=draw) - 1
    actions = 2 * torch.rand(count, agent.shape.agents, agent.shape.action_size, generator=draw) - 1
    return observations, actions


CRITICS = ["concatenated", "permutation-invariant", "own"]


@pytest.mark.parametrize("critic", CRITICS)
def test_a_constant_reward_is_worth_itself(critic: str) -> None:
    agent = trained(probe_env(probes.Constant), 4000, critic=critic, gamma=0.9)
    assert (value(agent, *fresh(agent)) - 1).abs().mean() < 0.05


@pytest.mark.parametrize("critic", CRITICS)
def test_each_critic_reads_its_own_agents_observation(critic: str) -> None:
    agent = trained(probe_env(probes.Seen), 6000, critic=critic)
    observations, actions = fresh(agent)
    assert (value(agent, observations, actions) - observations[..., 0]).abs().mean() < 0.1


@pytest.mark.parametrize(
    ("critic", "share"),
    [
        ("concatenated", "separate"),
        ("concatenated", "shared"),
        ("permutation-invariant", "separate"),
        ("own", "shared"),
    ],
)
def test_actors_find_the_action_that_the_observation_calls_for(critic: str, share: str) -> None:
    agent = trained(probe_env(probes.Follow, num_agents=3), 8000, critic=critic, share=share, gamma=0.0)
    observations, _ = fresh(agent)
    missed = (agent.act_batch(observations)[..., 0] - 0.5 * observations[..., 0]).abs().mean()
    assert missed < 0.08  # an actor that does nothing misses by 0.25


def test_td3_switches_ou_noise_and_normalisation_still_find_the_optimum() -> None:
    switches = {"twin_critics": True, "target_smoothing": 0.1, "policy_delay": 2, "observation_normalisation": True}
    agent = trained(probe_env(probes.Follow), 9000, noise="ou", gamma=0.5, **switches)
    observations, _ = fresh(agent)
    assert (agent.act_batch(observations)[..., 0] - 0.5 * observations[..., 0]).abs().mean() < 0.1


def test_separate_actors_take_separate_roles_and_a_shared_one_cannot() -> None:
    observations = torch.zeros(1, 4, 2)
    apart = trained(probe_env(probes.Roles, num_agents=4), 8000, gamma=0.0).act_batch(observations)[0, :, 0]
    assert torch.allclose(apart, torch.tensor([0.5, -0.5, 0.5, -0.5]), atol=0.1)
    alike = trained(probe_env(probes.Roles, num_agents=4), 1600, share="shared").act_batch(observations)[0, :, 0]
    assert float(alike.max() - alike.min()) < 1e-6


def test_a_joint_critic_predicts_what_depends_on_the_other_agent() -> None:
    settings = {"gamma": 0.0, "lr_actor": 1e-9, "warmup_steps": 0, "noise_start": 1.0, "noise_end": 1.0}
    errors = {}
    for kind in CRITICS:
        agent = trained(probe_env(probes.Product), 8000, critic=kind, share="shared", **settings)
        observations, actions = fresh(agent)
        product = actions[..., 0].prod(-1, keepdim=True)
        errors[kind] = float((value(agent, observations, actions) - product).square().mean())
    # The product of two uniform actions has variance 1/9: no better is possible without the other's action.
    assert errors["concatenated"] < 0.03
    assert errors["permutation-invariant"] < 0.03
    assert errors["own"] > 0.08


def test_the_value_of_a_late_reward_is_discounted_once_per_round() -> None:
    agent = trained(probe_env(probes.Clock, rounds=3), 12000, gamma=0.8)
    _, actions = fresh(agent)
    for time, worth in enumerate((0.64, 0.8, 1.0)):
        observations = torch.full((256, 2, 2), time / 3)
        assert abs(float(value(agent, observations, actions).mean()) - worth) < 0.06


@pytest.mark.parametrize(("terminates", "worth"), [(False, 1 / (1 - 0.8)), (True, 1 / (1 - 0.8 / 2))])
def test_a_time_limit_is_bootstrapped_through_and_a_termination_is_not(terminates: bool, worth: float) -> None:
    agent = trained(probe_env(probes.Steady, rounds=2, terminates=terminates), 12000, gamma=0.8)
    _, actions = fresh(agent)
    seen = float(value(agent, torch.zeros(256, 2, 2), actions).mean())
    # Cut off by the clock: Q = 1 + 0.8 Q. Terminating: half of the (equal looking) transitions end, Q = 1 + 0.8 Q / 2.
    assert abs(seen - worth) < 0.25


@pytest.mark.parametrize("critic", ["own", "model", "concatenated"])
def test_one_small_network_serves_every_pair_of_agent_and_entity(critic: str) -> None:
    env = probe_env(probes.Follow, num_agents=3, num_ues=4)
    batch = 512 if critic == "own" else 64
    agent = trained(env, 8000, critic=critic, batch_size=batch, warmup_steps=0)
    assert agent.config.share == "entity"
    assert sum(p.numel() for p in agent.learner.actor.parameters()) == 2 * 24 + 24 + 24 + 1
    observations, _ = fresh(agent)
    wanted = 0.5 * observations.unflatten(-1, (4, 2))[..., 0]
    assert (agent.act_batch(observations) - wanted).abs().mean() < 0.1


def test_reward_normalisation_makes_the_scale_of_rewards_irrelevant() -> None:
    class Loud(probes.Follow):
        def pay(self, state: probes.ProbeState, actions: torch.Tensor) -> torch.Tensor:
            return 1e4 * super().pay(state, actions)

    settings: dict[str, Any] = {"gamma": 0.0, "reward_normalisation": True, "reward_clip": 5.0}
    quiet = trained(probe_env(probes.Follow), 4000, **settings)
    loud = trained(probe_env(Loud), 4000, **settings)
    observations, _ = fresh(quiet)
    assert torch.allclose(quiet.act_batch(observations), loud.act_batch(observations), atol=1e-2)


def test_a_third_party_game_with_unequal_spaces_and_early_ends_is_learned() -> None:
    agent = trained(probes.UnequalZoo(), 1800, gamma=0.5, update_every=2, updates_per_step=1, batch_size=64)
    observations = {"long": np_row(0.3, 0.3), "short": np_row(0.3)}
    actions = agent.act(observations)
    assert abs(actions["long"][0] - 3.0) < 0.3
    assert abs(actions["long"][1]) < 0.3
    assert abs(actions["short"][0] + 2.5) < 0.2


def np_row(*values: float) -> Any:
    return torch.tensor(values, dtype=torch.float32).numpy()
