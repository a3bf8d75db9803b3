"""The policies that MADDPG trains: acting, and their file format."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.checkpoints import State
from cfpos_envs.front_ends.vector import VectorEnv
from cfpos_envs.streams import derive_seed

from ..environments import as_vector_env
from ..memory import check_memory
from ..training import PlayingAgent
from .config import MaddpgConfig
from .exploration import Normaliser
from .learner import CriticLearner, ModelLearner
from .networks import GameShape


class MaddpgPolicies(PlayingAgent):
    """Deterministic policies for all agents of a game, used with each agent's observation alone.

    A shared actor also serves another number of agents, an entity actor another number of entities.

    Args:
        env: id, VectorEnv, ParallelEnv of ours, or any PettingZoo parallel environment with Box actions.
        config: settings.

    Attributes:
        name: ``maddpg``.
        decentralised: every action is made of one agent's own observation; only actions cross a fronthaul.
        env: the batched environment it trains on.
        config: settings.
        steps_trained: environment steps behind the present policies.

    Raises:
        ValueError: the settings ask for what the environment does not have.
    """

    name = "maddpg"
    decentralised = True
    config_class = MaddpgConfig
    remedy = "lower lr_actor and lr_critic or set grad_clip and reward_clip"
    config: MaddpgConfig

    def __init__(self, env: object, config: MaddpgConfig) -> None:
        self.config = config
        self.env = as_vector_env(env, config.num_envs, config.seed, config.device)
        check_memory(self.env, config, joint_rows=True)
        entities = 1 if self.env.entities is None else self.env.entities.count
        self.shape = GameShape(len(self.env.agents), self.env.observation_size, self.env.action_size, entities)
        if config.share == "entity" and self.env.entities is None:
            raise ValueError("share=entity needs an environment with entities; use share=separate or share=shared.")
        shape = self.shape.rows if config.samples_rows else self.shape
        generator = torch.Generator().manual_seed(derive_seed(config.seed, "weights"))
        self.learner: CriticLearner | ModelLearner
        if config.critic == "model":
            self.learner = ModelLearner(config, shape, generator)
        else:
            self.learner = CriticLearner(config, shape, generator)
        self.normaliser = self._make_normaliser() if config.observation_normalisation else None

    def check_trainable(self) -> None:
        """ValueError if the critic needs a differentiable environment and this one is not."""
        if self.config.critic == "model" and not self.env.differentiable:
            raise ValueError("critic=model needs a differentiable environment; use critic=own or critic=concatenated.")

    def act_batch(self, observations: Float[Tensor, "B n obs"]) -> Float[Tensor, "B n act"]:
        """Noise-free actions of all agents.

        Args:
            observations: [B, n, observation_size]. A shared actor takes any number of agents.
        """
        with torch.no_grad():
            return self.learner.actor(self.normalise(observations.to(self.config.device)))

    def act(self, observations: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Noise-free actions by agent name, from observations by agent name."""
        seen = dict(observations)
        if self.config.share == "separate" and isinstance(self.env, VectorEnv):
            # Every agent has its own actor, so all must be there and in their order.
            empty = np.zeros(self.shape.observation_size, dtype=np.float32)
            seen = {name: seen.get(name, empty) for name in self.env.agents}
        chosen = super().act(seen)
        return {name: action for name, action in chosen.items() if name in observations}

    def network_state(self) -> State:
        """A copy of the policies and of the sizes that they are for."""
        return {
            "shape": dataclasses.asdict(self.shape),
            "actor": copy.deepcopy(self.learner.actor.state_dict()),
            "normaliser": self.normaliser.state_dict() if self.normaliser else None,
        }

    def load_networks(self, state: State) -> None:
        """Take over policies from ``network_state``; ValueError if their sizes are others."""
        self._check_fits(state)
        self.learner.actor.load_state_dict(state["actor"])
        if self.normaliser is not None:
            self.normaliser.load_state_dict(state["normaliser"])

    def normalise(self, observations: Float[Tensor, "B n obs"]) -> Float[Tensor, "B n obs"]:
        """Observations as the networks see them."""
        return observations if self.normaliser is None else self.normaliser(observations)

    def _make_normaliser(self) -> Normaliser:
        shapes = {
            "separate": (self.shape.agents, self.shape.observation_size),
            "shared": (self.shape.observation_size,),
            "entity": (self.shape.rows.observation_size,),
        }
        return Normaliser(shapes[self.config.share], self.config.device)

    def _check_fits(self, state: State) -> None:
        share, trained = self.config.share, GameShape(**state["shape"])
        fits = {
            "separate": _sizes(trained) == _sizes(self.shape) and trained.agents == self.shape.agents,
            "shared": _sizes(trained) == _sizes(self.shape),
            "entity": _sizes(trained.rows) == _sizes(self.shape.rows),
        }
        if not fits[share]:
            raise ValueError(
                f"the checkpoint's {share} actor is for {_describe(trained)}, this environment has "
                f"{_describe(self.shape)}; make the environment with the training overrides."
            )


def _sizes(shape: GameShape) -> tuple[int, int]:
    return shape.observation_size, shape.action_size


def _describe(shape: GameShape) -> str:
    return (
        f"{shape.agents} agents x {shape.entities} entities with {shape.observation_size} observation "
        f"and {shape.action_size} action entries"
    )
