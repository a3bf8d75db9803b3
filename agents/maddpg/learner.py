"""The two ways of improving the actors: MADDPG's learned critics, and ascent of the environment's own objective."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..memory import keep_freed_memory
from .compiled import CompiledUpdates, KernelSettings, Networks
from .config import MaddpgConfig
from .critics import Critic, make_critic
from .losses import actor_loss, bellman_targets, critic_loss, model_loss
from .networks import Actor, GameShape
from .optimisation import Trained
from .replay import Batch

# A pre-tanh output beyond this puts the action within 1 % of its limit.
_SATURATED = 2.65


def saturation(pre_tanh: Tensor) -> Tensor:
    """The fraction of actions within 1 % of their limits."""
    return (pre_tanh.detach().abs() > _SATURATED).to(pre_tanh).mean()


class CriticLearner:
    """MADDPG: deterministic policy gradients through learned critics (Lowe et al. 2017, eqs. 5 and 6).

    The losses are those of ``agents.maddpg.losses``; twin critics, target smoothing and delayed policy updates as in
    TD3. Without discounting there is nothing to bootstrap, and no target network exists.

    Args:
        config: settings.
        shape: the game as the updates see it (``GameShape.rows`` if single pairs are sampled).
        generator: initial weights and target smoothing.
        dtype: of all parameters.

    Attributes:
        kernel: the compiled kernel on this learner's networks.
        compiled: whether it does the updates that it can do.
    """

    def __init__(
        self,
        config: MaddpgConfig,
        shape: GameShape,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.config, self.shape, self.generator = config, shape, generator
        self.compiled = True
        keep_freed_memory()
        critics = 2 if config.twin_critics else 1
        self.nets = nn.ModuleDict({"actor": Actor(shape, config.share, config.actor_hidden, generator, dtype)})
        self.nets["critics"] = nn.ModuleList(
            make_critic(config.critic, shape, config.share, config.critic_hidden, generator, dtype)
            for _ in range(critics)
        )
        if config.gamma > 0:
            self.nets["target_actor"] = Actor(shape, config.share, config.actor_hidden, generator, dtype)
            self.nets["target_critics"] = nn.ModuleList(
                make_critic(config.critic, shape, config.share, config.critic_hidden, generator, dtype)
                for _ in range(critics)
            )
        self.nets.to(config.device)
        self._critics: list[Critic] = _members(self.nets["critics"])
        self._separate = config.share == "separate"
        bootstraps = config.gamma > 0
        networks = Networks(
            self.actor,
            self._critics,
            self.nets["target_actor"] if bootstraps else None,  # type: ignore[arg-type]
            _members(self.nets["target_critics"]) if bootstraps else [],
        )
        self.kernel = CompiledUpdates(networks)
        rates = {"actor": config.lr_actor, "critics": config.lr_critic}
        self._trained = {}
        for name, rate in rates.items():
            target = self.nets[f"target_{name}"] if config.gamma > 0 else None
            self._trained[name] = Trained(self.nets[name], rate, config.grad_clip, target)
            self._trained[name].soft_update(1.0)
        self.optimisers = {name: trained.optimiser for name, trained in self._trained.items()}
        self.updates = 0

    @property
    def actor(self) -> Actor:
        """The policies."""
        actor = self.nets["actor"]
        assert isinstance(actor, Actor)
        return actor

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One critic update and, every ``policy_delay`` times, one policy and target update.

        Nothing in here asks for a number on the host.

        Returns:
            Scalars for the log.
        """
        self.updates += 1
        compiled = self.compiled and self.kernel.serves(batch)
        scalars = self._update_critics_compiled(batch) if compiled else self._update_critics(batch)
        if self.updates % self.config.policy_delay == 0:
            scalars |= self._update_actor_compiled(batch) if compiled else self._update_actor(batch)
            for trained in self._trained.values():
                trained.soft_update(self.config.tau)
        return scalars

    def _update_critics(self, batch: Batch) -> dict[str, Tensor]:
        targets = self.targets(batch)
        values = torch.stack([critic(batch.observations, batch.actions) for critic in self._critics])
        loss = critic_loss(values, targets, self._separate, batch.acted)
        norm = self._trained["critics"].descend(loss)
        return {"loss/critic": loss.detach(), "gradient/critic": norm, "value/mean": values[0].detach().mean()}

    def _update_actor(self, batch: Batch) -> dict[str, Tensor]:
        pre_tanh = self.actor.pre_tanh(batch.observations)
        with _constant(self._critics[0]) as critic:
            values = critic.own_values(batch.observations, batch.actions, torch.tanh(pre_tanh))
        loss = actor_loss(values, pre_tanh, self.config.saturation_penalty, self._separate, batch.acted)
        norm = self._trained["actor"].descend(loss)
        return {"loss/actor": loss.detach(), "gradient/actor": norm, "policy/saturation": saturation(pre_tanh)}

    @torch.no_grad()
    def targets(self, batch: Batch) -> Float[Tensor, "N n"]:
        """The values that the critics shall have."""
        if self.config.gamma == 0:
            return batch.rewards
        following = batch.next_observations
        if following is None:
            raise ValueError("gamma > 0 needs next observations in the replay memory; build it with keep_next=True.")
        actions = self.nets["target_actor"](following)
        if self.config.target_smoothing > 0:
            actions = (actions + self._smoothing(actions.permute(1, 2, 0)).permute(2, 0, 1)).clamp(-1.0, 1.0)
        values = torch.stack([critic(following, actions) for critic in _members(self.nets["target_critics"])])
        return bellman_targets(batch.rewards, batch.terminated, values, self.config.gamma)

    def state_dict(self) -> dict[str, Any]:
        """Networks, optimisers, counters and the state of the random numbers."""
        return {
            "nets": self.nets.state_dict(),
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
            "updates": self.updates,
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict``."""
        self.nets.load_state_dict(state["nets"])
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        self.updates = int(state["updates"])
        self.generator.set_state(state["generator"])

    def _update_critics_compiled(self, batch: Batch) -> dict[str, Tensor]:
        """``_update_critics`` by the compiled kernel."""
        settings, noise = self._kernel_settings(batch), None
        if self.config.target_smoothing > 0 and self.config.gamma > 0:
            noise = self._smoothing(batch.actions.permute(1, 2, 0))
        squares, values = self.kernel.critics(batch, settings, noise)
        norm = self._trained["critics"].step()
        scalars = {"loss/critic": squares.sum() * settings.weight, "gradient/critic": norm}
        return {**scalars, "value/mean": values[0] / batch.rewards.numel()}

    def _update_actor_compiled(self, batch: Batch) -> dict[str, Tensor]:
        """``_update_actor`` by the compiled kernel."""
        settings = self._kernel_settings(batch)
        outputs, values, saturated = self.kernel.actor(batch, settings).unbind()
        loss = (settings.penalty * outputs - values) * settings.weight
        norm = self._trained["actor"].step()
        return {"loss/actor": loss, "gradient/actor": norm, "policy/saturation": saturated / batch.actions.numel()}

    def _kernel_settings(self, batch: Batch) -> KernelSettings:
        samples, agents, actions = batch.actions.shape
        weight = 1.0 / (samples if self._separate else samples * agents)
        return KernelSettings(self.config.gamma, weight, self.config.saturation_penalty / actions, _SATURATED)

    def _smoothing(self, actions: Float[Tensor, "n act N"]) -> Float[Tensor, "n act N"]:
        noise = torch.randn(actions.shape, generator=self.generator).to(actions) * self.config.target_smoothing
        limit = self.config.target_smoothing_clip
        return noise.clamp(-limit, limit)


class ModelLearner:
    """Analytic critic: the central unit knows its fusion and its score, so the return of a round is a known function.

    One Adam step on -mean(objective) per round of the batch, backpropagated through ``scenario.step``; the state is
    cut between rounds (no discounting), and no exploration is needed.

    Args:
        config: settings.
        shape: the game.
        generator: initial weights.
        dtype: of the parameters.
    """

    def __init__(
        self,
        config: MaddpgConfig,
        shape: GameShape,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.config, self.shape, self.generator = config, shape, generator
        keep_freed_memory()
        self.nets = nn.ModuleDict({"actor": Actor(shape, config.share, config.actor_hidden, generator, dtype)})
        self.nets.to(config.device)
        self._trained = Trained(self.nets["actor"], config.lr_actor, config.grad_clip, target=None)
        self.optimisers = {"actor": self._trained.optimiser}
        self.updates = 0

    @property
    def actor(self) -> Actor:
        """The policies."""
        actor = self.nets["actor"]
        assert isinstance(actor, Actor)
        return actor

    def play(self, scenario: Any, state: Any, observations: Float[Tensor, "B n obs"]) -> tuple[Any, dict[str, Tensor]]:
        """One round with the present actor and one gradient step on its outcome.

        Args:
            scenario: with ``differentiable`` true.
            state: its present state.
            observations: (normalised) observations of that state.

        Returns:
            The transition with its state cut from the graph, and scalars for the log.
        """
        self.updates += 1
        pre_tanh = self.actor.pre_tanh(observations)
        transition = scenario.step(state, torch.tanh(pre_tanh))
        objective = transition.metrics["objective"]
        loss = model_loss(objective, pre_tanh, self.config.saturation_penalty)
        norm = self._trained.descend(loss)
        transition.state = transition.state.detach()
        scalars = {
            "loss/actor": loss.detach(),
            "gradient/actor": norm,
            "policy/saturation": saturation(pre_tanh),
            "value/objective": objective.detach().mean(),
        }
        return transition, scalars

    def state_dict(self) -> dict[str, Any]:
        """Network, optimiser and counter."""
        return {
            "nets": self.nets.state_dict(),
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict``."""
        self.nets.load_state_dict(state["nets"])
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        self.updates = int(state["updates"])


def set_learning_rates(learner: CriticLearner | ModelLearner, factor: float) -> None:
    """Set every optimiser to its configured rate times ``factor``."""
    rates = {"actor": learner.config.lr_actor, "critics": learner.config.lr_critic}
    for name, optimiser in learner.optimisers.items():
        for group in optimiser.param_groups:
            group["lr"] = rates[name] * factor


@contextmanager
def _constant(critic: Critic) -> Iterator[Critic]:
    """The critic without gradients of its own parameters, which an actor's step does not need."""
    critic.requires_grad_(False)
    try:
        yield critic
    finally:
        critic.requires_grad_(True)


def _members(modules: nn.Module) -> list[Any]:
    return list(modules.children())
