"""Which policy of a run is kept, and which samples of the memory are learned from."""

import pytest
import torch

from agents import make_agent
from agents.assessment import is_as_good
from agents.maddpg.replay import Replay
from agents.maddpg.rollout import CriticRollout, scale_rewards
from tests.agents import probes


def test_a_score_within_one_standard_error_of_the_record_counts_as_good():
    record = torch.zeros(100)
    noise = torch.tensor([1.0, -1.0]).repeat(50)
    # standard error of the difference: 1 / 10
    assert is_as_good(noise - 0.09, record)
    assert not is_as_good(noise - 0.11, record)
    assert is_as_good(noise + 5.0, record)


def test_without_noise_any_loss_counts():
    assert is_as_good(torch.zeros(8), torch.zeros(8))
    assert not is_as_good(torch.full((8,), -1e-3), torch.zeros(8))


class _HalfDeaf(probes.Follow):
    """The second agent is out of the first entity's reach: its pair has no effect and is marked so."""

    def step(self, state, actions):
        transition = super().step(state, actions)
        valid = torch.ones(actions.shape, dtype=torch.bool)
        valid[:, 1, 0] = False
        transition.metrics["entity_valid"] = valid
        return transition


def _rollout(**settings):
    env = probes.probe_env(_HalfDeaf, num_envs=4, num_agents=2, num_ues=3, rounds=2)
    return CriticRollout(make_agent("maddpg", env, batch_size=8, **settings))


def test_every_pair_with_an_effect_is_learned_from_and_no_other():
    rollout = _rollout(warmup_steps=1000)
    begun = rollout.agent.env.reset()
    rollout.observations = begun
    rollout.play(0, 0.3)
    pairs = begun.reshape(4, 2, 3, 2)
    drawn = {tuple(row) for row in rollout.replay.sample(600).observations[:, 0].tolist()}
    kept = torch.ones(4, 2, 3, dtype=torch.bool)
    kept[:, 1, 0] = False
    assert drawn == {tuple(row) for row in pairs[kept].tolist()}
    assert len(drawn) == 4 * 5


def test_validity_survives_saving_and_new_transitions():
    memory, other = (Replay(6, 1, 1, 1, False, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    labels = torch.arange(4.0)[:, None]
    memory.add(labels[..., None], labels[..., None], labels, labels < 0, valid=torch.tensor([True, False, False, True]))
    other.load_state_dict(memory.state_dict())
    assert torch.equal(other.sample(50).rewards, memory.sample(50).rewards)
    blank = torch.zeros(1, 1, 1)
    other.add(blank, blank, torch.full((1, 1), 99.0), torch.zeros(1, 1, dtype=torch.bool))
    assert set(other.sample(400).rewards.flatten().tolist()) == {0.0, 3.0, 99.0}


def test_rewards_are_scaled_by_the_valid_ones_alone():
    rewards = torch.tensor([[2.0, 0.0], [-4.0, 0.0]])
    valid = torch.tensor([[True, False], [True, False]])
    assert scale_rewards(rewards, True, 0.0, valid)[:, 0].tolist() == pytest.approx([2 / 3, -4 / 3])
    assert scale_rewards(rewards, True, 1.0, valid)[:, 0].tolist() == pytest.approx([2 / 3, -1.0])
    assert scale_rewards(rewards, True, 0.0)[:, 0].tolist() == pytest.approx([2 / 1.5, -4 / 1.5])
