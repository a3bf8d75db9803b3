"""Stable-Baselines3's loop of playing and learning, one short piece at a time, with everything needed to resume."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.noise import NormalActionNoise, VectorizedActionNoise
from torch import Tensor

from cfpos_envs.checkpoints import State
from cfpos_envs.front_ends.base import VectorStep
from cfpos_envs.front_ends.sb3 import Sb3VecEnv

from ..maddpg.rollout import scale_rewards
from ..maddpg.schedules import cosine_factor
from ..randomness import LentRandomness
from ..training import Round

_ARRAYS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
_COUNTERS = ("num_timesteps", "_n_updates", "_episode_num")


class WhiteNoise(VectorizedActionNoise):
    """Gaussian exploration noise for all rows at once: SB3's own draws row by row.

    Args:
        rows, actions: shape of the noise.
        deviation: its standard deviation.
    """

    def __init__(self, rows: int, actions: int, deviation: float) -> None:
        super().__init__(NormalActionNoise(np.zeros(rows * actions), np.full(rows * actions, deviation)), 1)
        self.shape = rows, actions

    def reset(self, indices: Iterable[int] | None = None) -> None:
        """White noise has nothing to forget."""

    def __call__(self) -> np.ndarray:
        """Noise [rows, actions]."""
        return self.noises[0]().reshape(self.shape)


@runtime_checkable
class Sb3Learner(Protocol):
    """What a rollout needs of its agent: the attributes of ``Sb3Agent``."""

    config: Any
    venv: Sb3VecEnv
    model: BaseAlgorithm
    randomness: LentRandomness
    learning_rate: float

    @property
    def rounds_per_update(self) -> int:
        """Rounds that SB3 plays before it learns."""


class Sb3Rollout:
    """Calls ``learn`` for one update of the model at a time.

    Args:
        agent: whose model learns; SB3 uses its global random numbers meanwhile.
    """

    def __init__(self, agent: Sb3Learner) -> None:
        self.agent, self.venv = agent, agent.venv
        # The three algorithms differ in what they hold.
        self.model: Any = agent.model
        self.venv.scale = self._scaled
        self._played: list[Round] = []
        self.model.set_logger(Logger(folder=None, output_formats=[]))

    def play(self, steps: int, fraction: float) -> list[Round]:
        """The rounds between two updates and the update; see ``agents.training.Rollout``."""
        del steps
        config = self.agent.config
        rate = config.learning_rate * cosine_factor(fraction, config.lr_final_factor)
        self.agent.learning_rate = rate
        self._played = []
        with self.agent.randomness.lent():
            self.model.learn(
                self.agent.rounds_per_update * self.venv.num_envs,
                callback=lambda *_: self._note(),
                log_interval=None,
                reset_num_timesteps=False,
            )
        last = self._played[-1]
        self._played[-1] = Round(last.rewards, last.metrics, self._scalars(), last.done, {"rate/actor": rate})
        return self._played

    def state_dict(self) -> State:
        """Networks, optimisers, replay, running episodes, counters and random numbers."""
        model = self.model
        # Only SAC has one, and only if it is learned.
        entropy = getattr(model, "log_ent_coef", None)
        noisy = model.action_space.np_random.bit_generator.state
        return {
            "model": model.get_parameters(),
            "entropy": None if entropy is None else entropy.detach().clone(),
            "counters": {name: int(getattr(model, name)) for name in _COUNTERS},
            "observations": _tensor(model._last_obs),
            "starts": _tensor(model._last_episode_starts),
            "replay": _replay_state(model.replay_buffer) if hasattr(model, "replay_buffer") else None,
            "env": self.venv.state_dict(),
            "randomness": self.agent.randomness.state_dict(),
            "warmup": {**noisy, "state": {name: str(value) for name, value in noisy["state"].items()}},
        }

    def load_state_dict(self, state: State) -> None:
        """Go on from ``state_dict``."""
        model = self.model
        model.set_parameters(state["model"], device=model.device)
        if state["entropy"] is not None:
            model.log_ent_coef.data.copy_(state["entropy"])
        for name, value in state["counters"].items():
            setattr(model, name, value)
        model._last_obs, model._last_episode_starts = _array(state["observations"]), _array(state["starts"])
        if state["replay"] is not None:
            _load_replay(model.replay_buffer, state["replay"])
        self.venv.load_state_dict(state["env"])
        self.agent.randomness.load_state_dict(state["randomness"])
        words = {name: int(value) for name, value in state["warmup"]["state"].items()}
        model.action_space.np_random.bit_generator.state = {**state["warmup"], "state": words}

    def close(self) -> None:
        """Nothing is open."""

    def _note(self) -> bool:
        step = self.venv.last_step
        assert step is not None
        done = bool((step.terminated | step.truncated).all())
        self._played.append(Round(step.rewards, step.metrics, {}, done))
        return True

    def _scaled(self, paid: Float[Tensor, " rows"], step: VectorStep) -> Float[Tensor, " rows"]:
        config = self.agent.config
        valid = step.metrics.get("entity_valid") if config.share == "entity" else None
        valid = None if valid is None else valid.reshape(1, -1).cpu()
        return scale_rewards(paid[None], config.reward_normalisation, config.reward_clip, valid)[0]

    def _scalars(self) -> dict[str, Tensor]:
        # How much of the variance is explained is undefined where all returns are equal.
        recorded = {
            name: float(value)
            for name, value in self.model.logger.name_to_value.items()
            if name.startswith("train/") and "explained_variance" not in name and "learning_rate" not in name
        }
        self.model.logger.dump()
        return {name.replace("train/", "sb3/"): torch.tensor(value) for name, value in recorded.items()}


def _tensor(array: np.ndarray | None) -> Tensor | None:
    return None if array is None else torch.from_numpy(array.copy())


def _array(tensor: Tensor | None) -> np.ndarray | None:
    return None if tensor is None else tensor.numpy().copy()


def _replay_state(buffer: ReplayBuffer) -> State:
    end = buffer.buffer_size if buffer.full else buffer.pos
    arrays = {name: torch.from_numpy(getattr(buffer, name)[:end].copy()) for name in _ARRAYS}
    return {"arrays": arrays, "pos": int(buffer.pos), "full": bool(buffer.full)}


def _load_replay(buffer: ReplayBuffer, state: State) -> None:
    for name, stored in state["arrays"].items():
        getattr(buffer, name)[: len(stored)] = stored.numpy()
    buffer.pos, buffer.full = state["pos"], state["full"]
