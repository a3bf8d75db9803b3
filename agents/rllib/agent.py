"""PPO of RLlib as an agent: the same command line, checkpoints and evaluator as all others."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import torch
from gymnasium.spaces import Box
from jaxtyping import Float
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from torch import Tensor

from cfpos_envs import list_envs
from cfpos_envs.checkpoints import State

from ..environments import as_vector_env
from ..memory import check_memory
from ..randomness import LentRandomness
from ..training import PlayingAgent
from .rollout import RllibRollout, quiet_ray
from .settings import RllibPpoSettings


class RllibPpo(PlayingAgent):
    """One policy shared by all agents of a game, trained by RLlib with as many playing processes as one likes.

    Ray is started (or connected to) by ``train`` only; a trained policy acts without it.

    Args:
        env: id, VectorEnv or ParallelEnv of ours; RLlib's processes make environments of the same id and settings.
        config: settings.

    Attributes:
        module: the policy.
        randomness: the global random numbers that RLlib uses meanwhile.

    Raises:
        ValueError: the environment is not registered, so that other processes could not make it.
    """

    name = "rllib-ppo"
    config_class = RllibPpoSettings
    remedy = "lower learning_rate or clip_range"

    config: RllibPpoSettings

    def __init__(self, env: object, config: RllibPpoSettings) -> None:
        self.config = config
        self.env = as_vector_env(env, config.num_envs, config.seed, config.device)
        check_memory(self.env, config, joint_rows=False)
        if self.env.env_id not in list_envs() or self.env.scenario is None:
            raise ValueError("rllib-ppo needs an environment that its workers can make: one of list_envs().")
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

    def rollout(self) -> RllibRollout:
        """RLlib's own loop, one iteration at a time.

        Resuming restores networks and optimiser; episodes in the making and random numbers begin anew, so a resumed run
        is not bit for bit the run that was not stopped.

        Raises:
            ConnectionError: no Ray cluster at ``address``.
        """
        return RllibRollout(self)

    def act_batch(self, observations: Float[Tensor, "B n obs"]) -> Float[Tensor, "B n act"]:
        """The mean of the policy for every agent, any number of them, clipped to [-1, 1]."""
        rows = observations.reshape(-1, observations.shape[-1]).cpu()
        with torch.no_grad():
            inputs = self.module.forward_inference({"obs": rows})["action_dist_inputs"]
        means = inputs.chunk(2, -1)[0].clamp(-1.0, 1.0)
        return means.reshape(*observations.shape[:2], -1).to(observations.device)

    def network_state(self) -> State:
        """A copy of the policy and of its sizes."""
        return {
            "sizes": [self.env.observation_size, self.env.action_size],
            "policy": copy.deepcopy(self.module.state_dict()),
        }

    def load_networks(self, state: State) -> None:
        """Take over the policy from ``network_state``; ValueError if its sizes are others."""
        here = [self.env.observation_size, self.env.action_size]
        if state["sizes"] != here:
            raise ValueError(
                f"the checkpoint's policy maps {state['sizes'][0]} to {state['sizes'][1]} numbers, this environment "
                f"needs {here[0]} to {here[1]}; make the environment with the training overrides."
            )
        self.module.load_state_dict(state["policy"])

    def _module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(
            module_class=DefaultPPOTorchRLModule,
            observation_space=self.observation_space,
            action_space=self.action_space,
            inference_only=True,
            model_config=dataclasses.asdict(self.model_config),
        )
