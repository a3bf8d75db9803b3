"""Settings of MADDPG: one frozen dataclass, validated on construction, the single source of every default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from cfpos_envs.checks import MOST_STEPS, MOST_WIDTH
from cfpos_envs.fields import Range
from cfpos_envs.settings import Partitioned, Presets, RunSettings

PRESETS: dict[str, dict[str, object]] = {
    "default": {},
    # One small network over all (AP, UE) pairs, credit per pair, no bootstrapping.
    "entity": {
        "share": "entity",
        "critic": "own",
        "gamma": 0.0,
        "actor_hidden": (48, 48),
        "critic_hidden": (48, 48),
        "batch_size": 4096,
        "buffer_size": 2048,
        "lr_final_factor": 0.1,
        "noise_end": 0.05,
        "reward_normalisation": True,
        "reward_clip": 5.0,
        "warmup_steps": 0,
    },
    # Algorithm 1 of Liu et al. without additions: own actors, joint critics, discounted return, white noise.
    "paper": {
        "share": "separate",
        "critic": "concatenated",
        "gamma": 0.9,
        "batch_size": 128,
        "buffer_size": 6144,
        "updates_per_step": 1,
        "saturation_penalty": 0.0,
        "grad_clip": 0.0,
    },
    # mpe2.simple_spread_v3 with three agents and 25 cycles; see docs/results/trainers.md for what it reaches.
    "simple-spread": {
        # The three agents are alike: one actor for all learns from three times the experience.
        "share": "shared",
        "critic": "permutation-invariant",
        "gamma": 0.9,
        "batch_size": 512,
        "update_every": 2,
        "updates_per_step": 1,
        # The critic learns several times faster than the actors that follow it.
        "lr_actor": 3e-4,
        "lr_critic": 2e-3,
        "tau": 0.01,
        "noise_start": 0.8,
        "noise_end": 0.1,
        "saturation_penalty": 3e-3,
        "actor_hidden": (64, 64),
        "critic_hidden": (128, 128),
        "evaluations": 10,
        "test_envs": 0,
    },
}

# The same actors ascending the environment's own objective: no critic, no noise, no memory.
PRESETS["model"] = {**PRESETS["entity"], "critic": "model", "lr_actor": 2e-3}


@dataclass(frozen=True)
class MaddpgConfig(RunSettings):
    """Everything that can be set on MADDPG (Lowe et al. 2017), with the switches of TD3 (Fujimoto et al. 2018).

    Steps are environment steps: ``num_envs`` of them pass in every round that the parallel episodes play.

    Attributes:
        share: ``separate`` one actor per agent; ``shared`` one for all agents; ``entity`` one small network for every
            (agent, UE) pair of environments that have entities.
        critic: ``concatenated`` Q_i(all observations, all actions); ``permutation-invariant`` the same through a mean
            of embeddings (DeepSets); ``own`` Q(o_i, a_i), per entity if ``share=entity``; ``model`` none: the
            environment's differentiable objective itself is ascended (analytic critic, needs such an environment).
        actor_hidden, critic_hidden: widths of the hidden layers.
        lr_actor, lr_critic: Adam's learning rates.
        lr_final_factor: both rates fall by this factor along a cosine over the run; None: 0.1 for the model critic,
            1 (constant) for learned ones.
        gamma: discount; 0 switches bootstrapping and target networks off.
        tau: share of the online network that enters the target network at each policy update.
        batch_size: joint transitions per update; with ``share=entity critic=own`` (agent, UE) samples per update.
        buffer_size: joint transitions kept.
        update_every: rounds between two bursts of updates.
        updates_per_step: updates in one burst.
        warmup_steps: environment steps with uniformly random actions before the first update.
        noise: ``gaussian`` (white) or ``ou`` (Ornstein-Uhlenbeck, correlated over an episode).
        noise_start, noise_end: standard deviation of exploration at the start and at the end of its decay.
        noise_fraction: part of the run over which it falls linearly.
        ou_theta: pull of the Ornstein-Uhlenbeck process towards zero per round.
        reward_clip: rewards are clipped to +- this before storage; 0: never.
        reward_normalisation: rewards of a round are divided by the mean of their absolute values over the batch.
        saturation_penalty: weight of the mean squared pre-tanh output in the actor's loss.
        grad_clip: largest gradient norm of one network; 0: none.
        twin_critics, target_smoothing, target_smoothing_clip, policy_delay: TD3: minimum of two critics; standard
            deviation and clip of the target policy's noise (0: off); critic updates per policy update.
        observation_normalisation: running mean and standard deviation of every observation entry.
        seed: of weights, exploration, replay and the agent's environments.
        device: torch device of networks and buffer.

    Raises:
        ValueError: a value outside its range, named with the range.
    """

    title: ClassVar[str] = "MADDPG"
    presets: ClassVar[Presets] = PRESETS
    choices: ClassVar[Mapping[str, Sequence[str]]] = {
        "share": ("separate", "shared", "entity"),
        "critic": ("concatenated", "permutation-invariant", "own", "model"),
        "noise": ("gaussian", "ou"),
    }
    ranges: ClassVar[Mapping[str, Range]] = {
        "lr_actor": (0, 1),
        "lr_critic": (0, 1),
        "lr_final_factor": (0, 1),
        "gamma": (0, 1),
        "tau": (0, 1),
        "actor_hidden": (1, MOST_WIDTH),
        "critic_hidden": (1, MOST_WIDTH),
        "batch_size": (1, 1 << 24),
        "buffer_size": (1, 1 << 28),
        "update_every": (1, 1_000_000),
        "updates_per_step": (1, 1_000_000),
        "warmup_steps": (0, MOST_STEPS),
        "noise_start": (0, 100),
        "noise_end": (0, 100),
        "noise_fraction": (0, 1),
        "ou_theta": (0, 1),
        "reward_clip": (0, 1e9),
        "saturation_penalty": (0, 1e6),
        "grad_clip": (0, 1e9),
        "target_smoothing": (0, 100),
        "target_smoothing_clip": (0, 100),
        "policy_delay": (1, 1_000_000),
    }

    share: str = "separate"
    critic: str = "concatenated"
    actor_hidden: tuple[int, ...] = (64, 64)
    critic_hidden: tuple[int, ...] = (64, 64)
    lr_actor: float = 1e-3
    lr_critic: float = 2e-3
    lr_final_factor: float | None = None
    gamma: float = 0.95
    tau: float = 0.01
    batch_size: int = 1024
    buffer_size: int = 100_000
    update_every: int = 1
    updates_per_step: int = 3
    warmup_steps: int = 1000
    noise: str = "gaussian"
    noise_start: float = 0.3
    noise_end: float = 0.1
    noise_fraction: float = 1.0
    ou_theta: float = 0.15
    reward_clip: float = 0.0
    reward_normalisation: bool = False
    saturation_penalty: float = 1e-3
    grad_clip: float = 1.0
    twin_critics: bool = False
    target_smoothing: float = 0.0
    target_smoothing_clip: float = 0.5
    policy_delay: int = 1
    observation_normalisation: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size > self.buffer_size and not self.samples_rows and self.critic != "model":
            raise ValueError(
                f"batch_size={self.batch_size} is larger than buffer_size={self.buffer_size}; raise buffer_size."
            )

    @property
    def samples_rows(self) -> bool:
        """Whether updates draw single (agent, UE) samples instead of joint transitions."""
        return self.share == "entity" and self.critic == "own"

    @property
    def final_lr_factor(self) -> float:
        """The factor that learning rates have reached at the end of a run."""
        if self.lr_final_factor is not None:
            return self.lr_final_factor
        return 0.1 if self.critic == "model" else 1.0

    @classmethod
    def suited(cls, env: Partitioned, overrides: Mapping[str, object]) -> Mapping[str, object]:
        """The preset ``entity`` where the environment has entities (``model`` if that critic is asked for there), and
        ``default`` elsewhere."""
        if env.entities is not None and overrides.get("critic") == "model":
            return PRESETS["model"]
        return super().suited(env, overrides)
