"""Which policy of a run is kept, and which samples of the memory are learned from."""

import pytest
import torch

from agents.assessment import is_as_good
from agents.replay import Replay
from agents.rollout import scale_rewards


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


def _memory(valid):
    memory = Replay(4, valid.shape[1], 1, 1, keep_next=False, generator=torch.Generator().manual_seed(0))
    count, units = valid.shape
    labels = torch.arange(count * units, dtype=torch.float32).reshape(count, units)
    blank = torch.zeros(count, units, 1)
    memory.add(blank, blank, labels, torch.zeros(count, units, dtype=torch.bool), blank, valid)
    return memory, labels


def test_units_without_effect_are_never_drawn_and_all_others_are():
    valid = torch.tensor([[True, False, True], [False, False, True]])
    memory, labels = _memory(valid)
    drawn = set(memory.sample_units(400).rewards.flatten().tolist())
    assert drawn == set(labels[valid].tolist())


def test_validity_survives_saving_and_new_transitions():
    memory, _ = _memory(torch.tensor([[True, False, True], [False, False, True]]))
    copy = Replay(4, 3, 1, 1, keep_next=False, generator=torch.Generator())
    copy.load_state_dict(memory.state_dict())
    assert torch.equal(copy.sample_units(50).rewards, memory.sample_units(50).rewards)
    blank = torch.zeros(1, 3, 1)
    copy.add(blank, blank, torch.full((1, 3), 99.0), torch.zeros(1, 3, dtype=torch.bool), blank)
    assert 99.0 in copy.sample_units(400).rewards


def test_rewards_are_scaled_by_the_valid_ones_alone():
    rewards = torch.tensor([[2.0, 0.0], [-4.0, 0.0]])
    valid = torch.tensor([[True, False], [True, False]])
    assert scale_rewards(rewards, True, 0.0, valid)[:, 0].tolist() == pytest.approx([2 / 3, -4 / 3])
    assert scale_rewards(rewards, True, 1.0, valid)[:, 0].tolist() == pytest.approx([2 / 3, -1.0])
    assert scale_rewards(rewards, True, 0.0)[:, 0].tolist() == pytest.approx([2 / 1.5, -4 / 1.5])
