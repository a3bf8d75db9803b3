"""Settings of the RLlib agent; importing this module needs no Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from cfpos_envs.checks import MOST_WIDTH
from cfpos_envs.fields import Range
from cfpos_envs.settings import Presets, RunSettings


@dataclass(frozen=True)
class RllibPpoSettings(RunSettings):
    """Proximal policy optimisation (Schulman et al. 2017) of RLlib, one policy shared by all agents.

    Attributes:
        num_envs: parallel episodes, shared evenly among the processes that play.
        env_runners: processes that play, on any node of the Ray cluster; 0: the training process itself.
        address: Ray cluster to connect to (``auto``, ``ray://HOST:10001``); None: the one that this process is
            connected to, else one that is started here and stopped after the run.
        hidden: widths of the hidden layers of policy and value.
        learning_rate: Adam's learning rate.
        gamma: discount.
        n_steps: rounds played between two updates.
        minibatch_size: rows in one gradient step, at most num_envs x n_steps.
        n_epochs: passes over the rows of one update.
        gae_lambda: trade of bias for variance in the advantages.
        clip_range: largest change of the policy's probability ratio that is still rewarded.
        ent_coef: weight of the entropy.
        vf_coef: weight of the value's error.
        max_grad_norm: largest gradient norm.
        device: torch device of the learner.

    Raises:
        ValueError: a value outside its range, named with the range, or episodes that cannot be shared evenly.
    """

    title: ClassVar[str] = "RLlib PPO"
    presets: ClassVar[Presets] = {
        "default": {},
        # Actions act in the same round: nothing to discount.
        "entity": {"gamma": 0.0},
    }
    ranges: ClassVar[Mapping[str, Range]] = {
        "env_runners": (0, 4096),
        "hidden": (1, MOST_WIDTH),
        "learning_rate": (0, 1),
        "gamma": (0, 1),
        "n_steps": (1, 1_000_000),
        "minibatch_size": (1, 1 << 24),
        "n_epochs": (1, 10_000),
        "gae_lambda": (0, 1),
        "clip_range": (0, 100),
        "ent_coef": (0, 1000),
        "vf_coef": (0, 1000),
        "max_grad_norm": (0, 1e9),
    }

    env_runners: int = 0
    address: str | None = None
    hidden: tuple[int, ...] = (64, 64)
    learning_rate: float = 1e-3
    gamma: float = 0.95
    n_steps: int = 12
    minibatch_size: int = 192
    n_epochs: int = 4
    gae_lambda: float = 0.95
    clip_range: float = 0.2
    ent_coef: float = 0.0
    vf_coef: float = 0.5
    max_grad_norm: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_envs % max(self.env_runners, 1):
            raise ValueError(
                f"num_envs={self.num_envs} cannot be shared evenly by env_runners={self.env_runners}; "
                "choose a multiple of env_runners."
            )
