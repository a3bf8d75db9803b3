"""PPO of RLlib as an agent: the same command line, checkpoints and evaluator as all others."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from jaxtyping import Float
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from torch import Tensor

from cfpos_envs import list_envs

from ..base import Agent
from ..environments import as_vector_env, check_signature, game_signature
from ..randomness import LentRandomness
from ..training import Trainer
from .rollout import RllibRollout, quiet_ray
from .settings import RllibPpoSettings


class RllibPpo(Agent):
    """One policy shared by all agents of a game, trained by RLlib with as many playing processes as one likes.

    Ray is started (or connected to) by ``train`` only; a trained policy acts without it.

    Args:
        env: id, VectorEnv or ParallelEnv of ours; RLlib's processes make environments of the same id and settings.
        config: settings.

    Attributes:
        module: the policy.
        randomness: the global random numbers that RLlib is lent.

    Raises:
        ValueError: the environment is not registered, so that other processes could not make it.
    """

    name = "rllib-ppo"
    config_class = RllibPpoSettings
    remedy = "lower learning_rate or clip_range"

    def __init__(self, env: Any, config: RllibPpoSettings) -> None:
        self.config = config
        self.env = as_vector_env(env, config.num_envs, config.seed, config.device)
        if getattr(self.env, "env_id", None) not in list_envs() or not hasattr(self.env, "scenario"):
            raise ValueError("rllib-ppo needs an environment that its workers can make: one of list_envs().")
        self.steps_trained = 0
        self.observation_space = Box(-1.0, 1.0, (self.env.observation_size,), np.float32)
        self.action_space = Box(-1.0, 1.0, (self.env.action_size,), np.float32)
        self.randomness = LentRandomness(config.seed, self.name, config.device)
        with self.randomness.lent(), quiet_ray():
            self.module = self._module_spec().build()

    @property
    def model_config(self) -> DefaultModelConfig:
        """Networks of policy and value, which share nothing."""
        return DefaultModelConfig(
            fcnet_hiddens=list(self.config.hidden), fcnet_activation="relu", vf_share_layers=False
        )

    def train(
        self,
        total_steps: int | None = None,
        log_dir: str | Path | None = None,
        resume: str | Path | None = None,
        figures: Callable[[int], dict[str, Any]] | None = None,
        callback: Callable[[int], None] | None = None,
        progress: bool | None = None,
    ) -> dict[str, float]:
        """As ``Agent.train``.

        Resuming restores networks and optimiser; episodes in the making and random numbers begin anew, so a resumed run
        is not bit for bit the run that was not stopped.

        Raises:
            ValueError: a run that is finished or of another game, or a folder that holds a run.
            FileNotFoundError: nothing to resume from.
            ConnectionError: no Ray cluster at ``address``.
            FloatingPointError: a loss or reward is NaN or infinite; names the last good checkpoint.
        """
        rollout = RllibRollout(self)
        try:
            return Trainer(self, rollout, total_steps, log_dir, resume, figures, callback, progress).run()
        finally:
            rollout.close()

    def act_batch(self, observations: Float[Tensor, "B n obs"]) -> Float[Tensor, "B n act"]:
        """The mean of the policy for every agent, any number of them, clipped to [-1, 1]."""
        rows = observations.reshape(-1, observations.shape[-1]).cpu()
        with torch.no_grad():
            inputs = self.module.forward_inference({"obs": rows})["action_dist_inputs"]
        means = inputs.chunk(2, -1)[0].clamp(-1.0, 1.0)
        return means.reshape(*observations.shape[:2], -1).to(observations.device)

    def policy_state(self) -> dict[str, Any]:
        """What ``save`` writes: a copy of the policy and of what it belongs to."""
        return {
            "name": self.name,
            "config": self.config.to_dict(),
            "sizes": [self.env.observation_size, self.env.action_size],
            "signature": game_signature(self.env),
            "policy": copy.deepcopy(self.module.state_dict()),
            "steps": self.steps_trained,
        }

    def load_policy(self, state: dict[str, Any]) -> None:
        """Take over the policy from ``policy_state``; ValueError if it belongs to another game."""
        check_signature(self.env, state["signature"])
        here = [self.env.observation_size, self.env.action_size]
        if state["sizes"] != here:
            raise ValueError(
                f"the checkpoint's policy maps {state['sizes'][0]} to {state['sizes'][1]} numbers, this environment "
                f"needs {here[0]} to {here[1]}; make the environment with the training overrides."
            )
        self.module.load_state_dict(state["policy"])
        self.steps_trained = int(state["steps"])

    def _module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(
            module_class=DefaultPPOTorchRLModule,
            observation_space=self.observation_space,
            action_space=self.action_space,
            inference_only=True,
            model_config=dataclasses.asdict(self.model_config),
        )
