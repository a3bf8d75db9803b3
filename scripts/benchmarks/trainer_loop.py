"""MADDPG as one writes it down: one network, one optimiser and one loss per agent, in loops.

What the batched update is checked against (``tests/agents/maddpg/test_batched_update.py``) and compared with.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from cfpos.agents.maddpg.learner import CriticLearner
from cfpos.agents.maddpg.networks import BatchedMlp
from cfpos.agents.maddpg.replay import Batch


def plain_net(batched: BatchedMlp, index: int) -> nn.Sequential:
    """Network ``index`` of the batch as ordinary layers."""
    layers: list[nn.Module] = []
    for weight, bias in batched.layers:
        linear = nn.Linear(weight.shape[2], weight.shape[1], dtype=weight.dtype)
        with torch.no_grad():
            linear.weight.copy_(weight[index])
            linear.bias.copy_(bias[index, :, 0])
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class LoopedMaddpg:
    """The update of ``CriticLearner`` for separate actors and critics ``concatenated`` or ``own``, from its weights.

    Args:
        learner: is only read.
    """

    def __init__(self, learner: CriticLearner) -> None:
        self.config, nets = learner.config, learner.nets
        self.agents = range(learner.shape.agents)
        self.actors = [plain_net(nets["actor"].net, i) for i in self.agents]  # type: ignore[arg-type]
        self.critics = [
            [plain_net(critic.net, i) for i in self.agents]  # type: ignore[arg-type]
            for critic in nets["critics"].children()
        ]
        self.target_actors, self.target_critics = copy.deepcopy(self.actors), copy.deepcopy(self.critics)
        self.actor_steps = [torch.optim.Adam(net.parameters(), lr=self.config.lr_actor) for net in self.actors]
        self.critic_steps = [
            [torch.optim.Adam(net.parameters(), lr=self.config.lr_critic) for net in twin] for twin in self.critics
        ]

    def update(self, batch: Batch) -> None:
        """One update of everything."""
        following = batch.next_observations
        assert following is not None
        next_actions = torch.stack([torch.tanh(net(following[:, i])) for i, net in enumerate(self.target_actors)], 1)
        for i in self.agents:
            with torch.no_grad():
                inputs = self._inputs(following, next_actions, i)
                value = torch.stack([twin[i](inputs)[:, 0] for twin in self.target_critics]).amin(0)
                target = batch.rewards[:, i] + self.config.gamma * value * (~batch.terminated[:, i])
            for twin, steps in zip(self.critics, self.critic_steps, strict=True):
                seen = twin[i](self._inputs(batch.observations, batch.actions, i))[:, 0]
                self._descend(((seen - target) ** 2).mean(), twin[i], steps[i])
        # Simultaneous gradients: every actor sees the actions of the memory, so the order does not matter.
        for i, net in enumerate(self.actors):
            raw = net(batch.observations[:, i])
            actions = batch.actions.clone()
            actions[:, i] = torch.tanh(raw)
            value = self.critics[0][i](self._inputs(batch.observations, actions, i))[:, 0]
            loss = (self.config.saturation_penalty * raw.square().mean(-1) - value).mean()
            self._descend(loss, net, self.actor_steps[i])
        pairs = list(zip(self.target_actors, self.actors, strict=True))
        for olds, news in zip(self.target_critics, self.critics, strict=True):
            pairs += list(zip(olds, news, strict=True))
        with torch.no_grad():
            for old, new in pairs:
                for slow, fast in zip(old.parameters(), new.parameters(), strict=True):
                    slow.lerp_(fast, self.config.tau)

    def _inputs(self, observations: Tensor, actions: Tensor, agent: int) -> Tensor:
        if self.config.critic == "own":
            return torch.cat([observations[:, agent], actions[:, agent]], 1)
        return torch.cat([observations.flatten(1), actions.flatten(1)], 1)

    def _descend(self, loss: Tensor, net: nn.Module, step: torch.optim.Optimizer) -> None:
        step.zero_grad()
        loss.backward()
        if self.config.grad_clip > 0:
            nn.utils.clip_grad_norm_(net.parameters(), self.config.grad_clip)
        step.step()
