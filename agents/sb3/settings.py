"""Settings of the Stable-Baselines3 agents; importing this module needs no SB3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from cfpos_envs.checks import MOST_STEPS, MOST_WIDTH
from cfpos_envs.fields import Range
from cfpos_envs.settings import Presets, RunSettings

# One small network for every (agent, entity) pair, credit per pair, no bootstrapping: as MADDPG's preset of that name.
_ENTITY: dict[str, object] = {"share": "entity", "gamma": 0.0, "hidden": (48, 48), "lr_final_factor": 0.1}
# A round of 16 episodes of the default game has 3456 pairs: as many samples per round as MADDPG learns from.
_ENTITY_OFF_POLICY = {**_ENTITY, "batch_size": 4096, "updates_per_step": 3, "buffer_size": 400_000}


@dataclass(frozen=True)
class Sb3Settings(RunSettings):
    """What PPO, SAC and TD3 have in common. One policy is shared by all agents.

    Attributes:
        share: ``agent`` one row of experience per agent; ``entity`` one per (agent, UE) pair, with its own reward.
        agent_id: append a one-hot code of the agent to its observation (the number of agents is then fixed).
        hidden: widths of the hidden layers of policy and critics.
        learning_rate: Adam's learning rate.
        lr_final_factor: it falls by this factor along a cosine over the run.
        gamma: discount.
        reward_normalisation: rewards of a round are divided by the mean of their absolute values over the batch.
        reward_clip: rewards are clipped to +- this; 0: never.
        seed: of weights, exploration, replay and the agent's environments.

    Raises:
        ValueError: a value outside its range, named with the range.
    """

    title: ClassVar[str] = "SB3"
    choices: ClassVar[Mapping[str, Sequence[str]]] = {"share": ("agent", "entity")}
    ranges: ClassVar[Mapping[str, Range]] = {
        "learning_rate": (0, 1),
        "lr_final_factor": (0, 1),
        "gamma": (0, 1),
        "reward_clip": (0, 1e9),
        "hidden": (1, MOST_WIDTH),
    }

    share: str = "agent"
    agent_id: bool = False
    hidden: tuple[int, ...] = (64, 64)
    learning_rate: float = 1e-3
    lr_final_factor: float = 1.0
    gamma: float = 0.95
    reward_normalisation: bool = True
    reward_clip: float = 5.0


@dataclass(frozen=True)
class PpoSettings(Sb3Settings):
    """Proximal policy optimisation (Schulman et al. 2017).

    Attributes:
        n_steps: rounds played between two updates.
        batch_size: rows in one gradient step.
        n_epochs: passes over the rows of one update.
        gae_lambda: trade of bias for variance in the advantages.
        clip_range: largest change of the policy's probability ratio that is still rewarded.
        ent_coef: weight of the entropy.
        vf_coef: weight of the value's error.
        max_grad_norm: largest gradient norm.
        log_std_init: logarithm of the initial standard deviation of exploration.
    """

    title: ClassVar[str] = "SB3 PPO"
    presets: ClassVar[Presets] = {"default": {}, "entity": _ENTITY}
    ranges: ClassVar[Mapping[str, Range]] = {
        "n_steps": (1, 1_000_000),
        "batch_size": (2, 1 << 24),
        "n_epochs": (1, 10_000),
        "gae_lambda": (0, 1),
        "clip_range": (0, 100),
        "ent_coef": (0, 1000),
        "vf_coef": (0, 1000),
        "max_grad_norm": (0, 1e9),
        "log_std_init": (-20, 2),
    }

    n_steps: int = 12
    batch_size: int = 1024
    n_epochs: int = 4
    gae_lambda: float = 0.95
    clip_range: float = 0.2
    ent_coef: float = 0.0
    vf_coef: float = 0.5
    max_grad_norm: float = 0.5
    log_std_init: float = -1.0


@dataclass(frozen=True)
class _OffPolicySettings(Sb3Settings):
    """What SAC and TD3 have in common.

    Attributes:
        batch_size: rows in one gradient step.
        buffer_size: rows kept.
        warmup_steps: environment steps with uniformly random actions before the first update.
        tau: share of the online networks that enters the target networks at each update of these.
        update_every: rounds between two bursts of updates.
        updates_per_step: updates in one burst.
    """

    presets: ClassVar[Presets] = {"default": {}, "entity": _ENTITY_OFF_POLICY}
    ranges: ClassVar[Mapping[str, Range]] = {
        "batch_size": (2, 1 << 24),
        "buffer_size": (1, 1 << 28),
        "warmup_steps": (0, MOST_STEPS),
        "tau": (0, 1),
        "update_every": (1, 1_000_000),
        "updates_per_step": (1, 1_000_000),
    }

    batch_size: int = 1024
    buffer_size: int = 200_000
    warmup_steps: int = 500
    tau: float = 0.01
    update_every: int = 1
    updates_per_step: int = 1


@dataclass(frozen=True)
class SacSettings(_OffPolicySettings):
    """Soft actor-critic (Haarnoja et al. 2018).

    Attributes:
        ent_coef: weight of the entropy; None: learned, so that its mean is minus the number of action entries.
    """

    title: ClassVar[str] = "SB3 SAC"
    ranges: ClassVar[Mapping[str, Range]] = {"ent_coef": (0, 1000)}

    ent_coef: float | None = None


@dataclass(frozen=True)
class Td3Settings(_OffPolicySettings):
    """Twin delayed deterministic policy gradient (Fujimoto et al. 2018).

    Attributes:
        noise: standard deviation of the Gaussian exploration noise.
        policy_delay: critic updates per policy update.
        target_smoothing, target_smoothing_clip: standard deviation and clip of the target policy's noise.
    """

    title: ClassVar[str] = "SB3 TD3"
    ranges: ClassVar[Mapping[str, Range]] = {
        "noise": (0, 100),
        "policy_delay": (1, 1_000_000),
        "target_smoothing": (0, 100),
        "target_smoothing_clip": (0, 100),
    }

    noise: float = 0.1
    policy_delay: int = 2
    target_smoothing: float = 0.2
    target_smoothing_clip: float = 0.5
