"""MADDPG's losses by hand, and what they refuse."""

from __future__ import annotations

import jaxtyping
import pytest
import torch

from agents.maddpg.losses import actor_loss, bellman_targets, critic_loss, model_loss


def test_bellman_targets_by_hand() -> None:
    rewards, terminated = torch.tensor([[1.0, 2.0]]), torch.tensor([[True, False]])
    one = torch.tensor([[10.0, 10.0]])
    assert bellman_targets(rewards, terminated, one[None], 0.5).tolist() == [[1.0, 7.0]]
    twins = torch.stack([one, one - 4.0])
    assert bellman_targets(rewards, terminated, twins, 0.5).tolist() == [[1.0, 5.0]]


@pytest.mark.parametrize(("separate", "expected"), [(True, 7.0), (False, 3.5)])
def test_the_critic_loss_by_hand(separate: bool, expected: float) -> None:
    # Two twins, two samples, two agents: squared errors 1 + 0 + 4 + 0 and 0 + 9 + 0 + 0.
    targets = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    errors = torch.tensor([[[1.0, 0.0], [2.0, 0.0]], [[0.0, 3.0], [0.0, 0.0]]])
    values = (targets + errors).requires_grad_()
    loss = critic_loss(values, targets.requires_grad_(), separate)
    assert loss.item() == expected
    loss.backward()
    assert targets.grad is None  # targets are constants
    assert values.grad is not None
    assert torch.equal(values.grad, 2.0 * errors / (2 if separate else 4))


@pytest.mark.parametrize(("separate", "expected"), [(True, -3.0), (False, -1.5)])
def test_the_actor_loss_by_hand(separate: bool, expected: float) -> None:
    values, pre_tanh = torch.tensor([[1.0, 2.5]]), torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    loss = actor_loss(values, pre_tanh, 1.0, separate)
    assert loss.item() == expected


def test_the_model_loss_by_hand() -> None:
    assert model_loss(torch.tensor([1.0, 3.0]), 2.0 * torch.ones(2, 1, 1), 0.5).item() == 0.0


def test_shapes_that_do_not_fit_are_refused() -> None:
    two, three = torch.zeros(4, 2), torch.zeros(4, 3)
    # The suite checks annotations too, which comes first.
    refused = (AssertionError, jaxtyping.TypeCheckError)
    with pytest.raises(refused):
        critic_loss(two[None], three, True)
    with pytest.raises(refused):
        critic_loss(two, two, True)
    with pytest.raises(refused):
        actor_loss(two, torch.zeros(4, 3, 1), 0.0, True)
