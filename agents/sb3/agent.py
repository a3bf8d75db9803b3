"""PPO, SAC and TD3 of Stable-Baselines3 as agents: one policy for all, one command line, one kind of checkpoint."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from abc import abstractmethod
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from stable_baselines3 import PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import Tensor

from cfpos_envs.checkpoints import State
from cfpos_envs.front_ends.sb3 import Rows, Sb3VecEnv, Share
from cfpos_envs.streams import derive_seed

from ..environments import as_vector_env
from ..memory import check_memory
from ..randomness import LentRandomness
from ..training import PlayingAgent
from .rollout import Sb3Rollout, WhiteNoise
from .settings import PpoSettings, SacSettings, Sb3Settings, Td3Settings


class Sb3Agent(PlayingAgent):
    """One policy of Stable-Baselines3 shared by all agents of a game, or by all (agent, entity) pairs.

    SB3 draws from global random numbers; it gets some of its own (``agents.randomness``), so those of the process
    stay as they are and two agents do not disturb each other. Checkpoints hold state dictionaries and plain values:
    SB3's own zip files are neither written nor read, since reading them executes what they contain.

    Args:
        env: id, VectorEnv, ParallelEnv of ours, or any PettingZoo parallel environment with Box actions.
        config: settings.

    Attributes:
        venv: the environment as SB3 sees it.
        model: SB3's algorithm.
        learning_rate: the present one.
        randomness: SB3's global random numbers.

    Raises:
        ValueError: the settings ask for what the environment does not have.
    """

    remedy = "lower learning_rate or set reward_clip"

    config: Any  # of one of three classes that differ in their fields

    def __init__(self, env: object, config: Sb3Settings) -> None:
        self.config = config
        self.env = as_vector_env(env, config.num_envs, config.seed, config.device)
        check_memory(self.env, config, joint_rows=False)
        self.venv = Sb3VecEnv(self.env, cast(Share, config.share), config.agent_id, time_limits=config.gamma > 0)
        self.rows = self.venv.rows
        self.learning_rate = config.learning_rate
        self.randomness = LentRandomness(config.seed, self.name, config.device)
        with self.randomness.lent(), warnings.catch_warnings():
            # That the last minibatch of an epoch is smaller does no harm.
            warnings.filterwarnings("ignore", message="You have specified a mini-batch size")
            self.model = self.make_model()
        self.model.action_space.seed(derive_seed(config.seed, "warmup") % 2**31)

    @abstractmethod
    def make_model(self) -> BaseAlgorithm:
        """SB3's algorithm with the settings of this agent."""

    @property
    @abstractmethod
    def rounds_per_update(self) -> int:
        """Rounds that SB3 plays before it learns."""

    def rollout(self) -> Sb3Rollout:
        """SB3's own loop, one update at a time."""
        return Sb3Rollout(self)

    def act_batch(self, observations: Float[Tensor, "B n obs"]) -> Float[Tensor, "B n act"]:
        """Noise-free actions; without ``agent_id`` for any number of agents, with ``share=entity`` of entities too."""
        rows = self.rows.observations(observations).cpu().numpy().astype(np.float32)
        chosen, _ = self.model.predict(rows, deterministic=True)
        actions = torch.from_numpy(np.asarray(chosen, dtype=np.float32)).to(observations.device)
        return actions.reshape(*observations.shape[:2], -1)

    def network_state(self) -> State:
        """A copy of the networks and of the rows that they are for."""
        return {"rows": dataclasses.asdict(self.rows), "policy": copy.deepcopy(self.model.policy.state_dict())}

    def load_networks(self, state: State) -> None:
        """Take over networks from ``network_state``; ValueError if their sizes are others."""
        trained = Rows(**state["rows"])
        here = self.rows
        if (trained.row_observation_size, trained.row_action_size) != (here.row_observation_size, here.row_action_size):
            raise ValueError(
                f"the checkpoint's policy maps {trained.row_observation_size} to {trained.row_action_size} numbers, "
                f"this environment needs {here.row_observation_size} to {here.row_action_size}; make the environment "
                "with the training overrides."
            )
        self.model.policy.load_state_dict(state["policy"])

    def _common(self) -> dict[str, Any]:
        config = self.config
        # SB3 asks for the rate before every update.
        return {
            "policy": "MlpPolicy",
            "env": self.venv,
            "learning_rate": lambda _: self.learning_rate,
            "gamma": config.gamma,
            "batch_size": config.batch_size,
            "device": config.device,
        }

    def _off_policy(self) -> dict[str, Any]:
        config = self.config
        return {
            **self._common(),
            "buffer_size": config.buffer_size,
            "learning_starts": config.warmup_steps * self.rows.per_episode,
            "tau": config.tau,
            "train_freq": config.update_every,
            "gradient_steps": config.updates_per_step,
        }


class Sb3Ppo(Sb3Agent):
    """Proximal policy optimisation: on-policy, a Gaussian policy whose noise is learned."""

    name = "sb3-ppo"
    config_class = PpoSettings

    @property
    def rounds_per_update(self) -> int:
        """One rollout."""
        return self.config.n_steps

    def make_model(self) -> PPO:
        """SB3's PPO."""
        config = self.config
        rows = config.n_steps * self.venv.num_envs
        return PPO(
            **{**self._common(), "batch_size": min(config.batch_size, rows)},
            n_steps=config.n_steps,
            n_epochs=config.n_epochs,
            gae_lambda=config.gae_lambda,
            clip_range=config.clip_range,
            ent_coef=config.ent_coef,
            vf_coef=config.vf_coef,
            max_grad_norm=config.max_grad_norm,
            policy_kwargs={
                "net_arch": list(config.hidden),
                "activation_fn": torch.nn.ReLU,
                "log_std_init": config.log_std_init,
            },
        )


class Sb3Sac(Sb3Agent):
    """Soft actor-critic: off-policy, a stochastic policy that is paid for its entropy."""

    name = "sb3-sac"
    config_class = SacSettings

    @property
    def rounds_per_update(self) -> int:
        """Rounds between two bursts of updates."""
        return self.config.update_every

    def make_model(self) -> SAC:
        """SB3's SAC."""
        entropy = "auto" if self.config.ent_coef is None else self.config.ent_coef
        return SAC(**self._off_policy(), ent_coef=entropy, policy_kwargs={"net_arch": list(self.config.hidden)})


class Sb3Td3(Sb3Agent):
    """Twin delayed DDPG: off-policy, a deterministic policy explored with Gaussian noise."""

    name = "sb3-td3"
    config_class = Td3Settings

    @property
    def rounds_per_update(self) -> int:
        """Rounds between two bursts of updates."""
        return self.config.update_every

    def make_model(self) -> TD3:
        """SB3's TD3."""
        config = self.config
        return TD3(
            **self._off_policy(),
            action_noise=WhiteNoise(self.venv.num_envs, self.rows.row_action_size, config.noise),
            policy_delay=config.policy_delay,
            target_policy_noise=config.target_smoothing,
            target_noise_clip=config.target_smoothing_clip,
            policy_kwargs={"net_arch": list(config.hidden)},
        )
