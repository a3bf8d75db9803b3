"""Many episodes in Gymnasium's vector interface: one agent that sees and does what all agents together see and do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from torch import Tensor

from cfpos_envs.checks import shown
from cfpos_envs.front_ends.base import Game
from cfpos_envs.front_ends.parallel import to_numpy, told_truth
from cfpos_envs.front_ends.resets import Options, Seed, checked_episode_seed, is_single, reset_mask
from cfpos_envs.front_ends.vector import FINAL_OBS, HAS_FINAL_OBS, VectorEnv, refuse_ended

Infos = dict[str, Any]


class SingleAgentVectorEnv(gymnasium.vector.VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """B joint games as a ``gymnasium.vector.VectorEnv``: spaces, rewards and infos are those of ``SingleAgentEnv``.

    ``single_observation_space``: the agents' observations one after another in the order of ``vector.agents``, float32
    in [-1, 1], length n * observation_size. ``single_action_space``: likewise, length n * action_size. The batched
    spaces have B such rows. Rewards are float64 [B]. ``infos`` hold for every name that ``SingleAgentEnv`` tells an
    array [B, ...] and under ``_name`` the mask [B] of the episodes that it speaks of; with ``SAME_STEP``
    ``final_obs`` (an object array [B], None where no episode has ended), ``final_info`` and their masks too.

    Args:
        vector: the batched game; its ``autoreset_mode`` is that of this view.
        joint_reward: ``"mean"`` or ``"sum"`` over agents, see ``SingleAgentEnv``.

    Raises:
        ValueError: unknown ``joint_reward``, or something else than a ``VectorEnv`` of ours.
    """

    def __init__(self, vector: VectorEnv, joint_reward: Literal["mean", "sum"] = "mean") -> None:
        if joint_reward not in ("mean", "sum"):
            raise ValueError(f"joint_reward is {joint_reward!r}; it must be 'mean' or 'sum'")
        if not isinstance(vector, VectorEnv):
            raise ValueError(f"{type(vector).__name__} is no batched game; make one with make_env(id, num_envs=16)")
        self.vector, self.joint_reward = vector, joint_reward
        self.env_id, self.num_envs = vector.env_id, vector.num_envs
        self.scenario: Game = vector.scenario
        self._mode = vector.metadata["autoreset_mode"]
        self.metadata = {"render_modes": [], "autoreset_mode": self._mode}
        count = len(vector.agents)
        self._action_shape = (self.num_envs, count, vector.action_size)
        self.single_observation_space = Box(-1.0, 1.0, (count * vector.observation_size,), np.float32)
        self.single_action_space = Box(-1.0, 1.0, (count * vector.action_size,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def reset(self, *, seed: Seed = None, options: Options = None) -> tuple[np.ndarray, Infos]:
        """Begin all episodes, or those of ``options["reset_mask"]``, see ``VectorEnv.reset``.

        Args:
            seed: an integer from 0 on, with which the batch as a whole begins, or one per episode (``rng=counter``).
            options: ``reset_mask``; it is left as it is.

        Returns:
            Observations of all episodes, infos of those that have begun.
        """
        if seed is not None and is_single(seed):
            seed = checked_episode_seed("seed", seed)
            super().reset(seed=seed)
        observations = self.vector.reset(seed, options)
        mask = reset_mask(options, self.num_envs)
        begun = np.ones(self.num_envs, dtype=np.bool_) if mask is None else mask
        return self._joined(observations), self._infos(self.vector.truth(), np.full(self.num_envs, np.nan), begun)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Infos]:
        """Play one round.

        Args:
            actions: finite, [B, n * action_size].

        Raises:
            ValueError: wrong shape, NaN or infinite actions.
            RuntimeError: no episode is running, or one is over and the mode is ``DISABLED``.
        """
        try:
            actions = np.asarray(actions, dtype=np.float32)
        except (TypeError, ValueError):
            raise ValueError(f"actions are {shown(actions)}; they must be an array {self.action_space.shape}") from None
        if actions.shape != self.action_space.shape:
            raise ValueError(f"actions have shape {actions.shape}; they must be {self.action_space.shape}")
        if self._mode == AutoresetMode.DISABLED:
            refuse_ended(self.vector.over)
        taken = self.vector.step(torch.from_numpy(actions.reshape(self._action_shape)).to(self.vector.device))
        metrics, everybody = taken.metrics, np.ones(self.num_envs, dtype=np.bool_)
        score = to_numpy(metrics["score"]).astype(np.float64)
        infos: Infos = {}
        if HAS_FINAL_OBS in metrics:
            over, final = to_numpy(metrics[HAS_FINAL_OBS]), self._joined(metrics[FINAL_OBS])
            last = self.scenario.truth(self.vector.final_state)
            # As Gymnasium's own vector environments give them: objects, None where no episode has ended.
            ends = np.full(self.num_envs, None, dtype=object)
            for place in np.flatnonzero(over):
                ends[place] = final[place]
            infos = {"final_obs": ends, "final_info": self._infos(last, score, over)}
            infos.update({f"_{name}": over.copy() for name in list(infos)})
            score = np.where(over, np.nan, score)
        infos.update(self._infos(self.vector.truth(), score, everybody))
        rewards = to_numpy(taken.rewards).astype(np.float64)
        return (
            self._joined(taken.observations),
            rewards.mean(axis=1) if self.joint_reward == "mean" else rewards.sum(axis=1),
            to_numpy(taken.terminated),
            to_numpy(taken.truncated),
            infos,
        )

    def _infos(self, truth: Mapping[str, Tensor], score: np.ndarray, mask: np.ndarray) -> Infos:
        """Arrays by name, zero where ``mask`` is false, each with the mask."""
        infos: Infos = {}
        for name, value in {**told_truth(truth), "score": score}.items():
            infos[name] = np.where(mask.reshape(-1, *(1,) * (value.ndim - 1)), value, np.zeros_like(value))
            infos[f"_{name}"] = mask.copy()
        return infos

    def _joined(self, observations: Tensor) -> np.ndarray:
        return to_numpy(observations.flatten(1))
