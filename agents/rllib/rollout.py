"""RLlib's loop of sampling and learning, one iteration at a time."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from cfpos_envs.checkpoints import State
from cfpos_envs.front_ends.base import BatchedEnv
from cfpos_envs.ray_address import check_listening

from ..randomness import LentRandomness
from ..training import Round
from .envs import register
from .settings import RllibPpoSettings

SHARED = "shared"
_LOSSES = ("policy_loss", "vf_loss", "entropy", "total_loss")


@runtime_checkable
class RllibLearner(Protocol):
    """What a rollout needs of its agent: the attributes of ``RllibPpo``."""

    config: RllibPpoSettings
    env: BatchedEnv
    module: Any
    randomness: LentRandomness

    @property
    def model_config(self) -> DefaultModelConfig:
        """Networks of policy and value."""


class RllibRollout:
    """One training iteration per ``play``.

    Args:
        agent: whose policy learns.

    Raises:
        ConnectionError: no Ray cluster at ``address``.
    """

    def __init__(self, agent: RllibLearner) -> None:
        self.agent = agent
        self._own_ray = not ray.is_initialized()
        check_listening(agent.config.address if self._own_ray else None)
        if self._own_ray:
            ray.init(
                address=agent.config.address,
                # Processes that play need a slot each, whatever this machine has.
                num_cpus=None if agent.config.address else max(2, agent.config.env_runners + 1),
                include_dashboard=False if agent.config.address is None else None,
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
        with agent.randomness.lent(), quiet_ray():
            self.algorithm = algorithm_config(agent).build_algo()
        self._copy_policy()

    def play(self, steps: int, fraction: float) -> list[Round]:
        """One iteration; see ``agents.training.Rollout``."""
        del steps, fraction
        with self.agent.randomness.lent():
            result = self.algorithm.train()
        self._copy_policy()
        played = result["env_runners"]
        learned = result["learners"][SHARED]
        earned = torch.tensor(float(played["episode_return_mean"]) / len(self.agent.env.agents))
        scalars = {f"rllib/{name}": torch.tensor(float(learned[name])) for name in _LOSSES}
        # Rounds are not distinguished by RLlib, so the sum over an episode goes to the log as it is.
        return [
            Round(
                earned.reshape(1, 1),
                {},
                {**scalars, "reward/episode": earned},
                done=False,
                logged={"rate/actor": self.agent.config.learning_rate},
                env_steps=int(played["num_env_steps_sampled"]),
            )
        ]

    def state_dict(self) -> State:
        """Networks and optimiser of the learner."""

        def state(learner: Any) -> State:
            optimisers = dict(learner.get_optimizers_for_module(SHARED))
            return {
                "module": learner.module[SHARED].state_dict(),
                "optimisers": {name: optimiser.state_dict() for name, optimiser in optimisers.items()},
            }

        return _first(self.algorithm.learner_group.foreach_learner(state))

    def load_state_dict(self, state: State) -> None:
        """Go on from ``state_dict``."""

        def load(learner: Any) -> None:
            learner.module[SHARED].load_state_dict(state["module"])
            for name, optimiser in learner.get_optimizers_for_module(SHARED):
                optimiser.load_state_dict(state["optimisers"][name])

        _first(self.algorithm.learner_group.foreach_learner(load))
        self.algorithm.env_runner_group.sync_weights(
            from_worker_or_learner_group=self.algorithm.learner_group, inference_only=True
        )
        self._copy_policy()

    def close(self) -> None:
        """Stop the processes that play, and Ray if it was started here."""
        self.algorithm.stop()
        # Empty: checkpoints and scalars are ours.
        shutil.rmtree(self.algorithm.logdir, ignore_errors=True)
        if self._own_ray:
            ray.shutdown()

    def _copy_policy(self) -> None:
        self.agent.module.load_state_dict(self.algorithm.get_module(SHARED).state_dict())


@contextmanager
def quiet_ray() -> Iterator[None]:
    """Without Ray's remarks on what it will change in later releases."""
    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def algorithm_config(agent: RllibLearner) -> PPOConfig:
    """RLlib's description of the training."""
    config, env = agent.config, agent.env
    assert env.scenario is not None
    game = env.scenario.config
    overrides = {field.name: getattr(game, field.name) for field in dataclasses.fields(game)}
    return (
        PPOConfig()
        .environment(register(), env_config={"id": env.env_id, "seed": config.seed, **overrides})
        .env_runners(
            num_env_runners=config.env_runners,
            num_envs_per_env_runner=config.num_envs // max(config.env_runners, 1),
            # Fragments end wherever they do: values are bootstrapped there.
            batch_mode="truncate_episodes",
        )
        .learners(num_gpus_per_learner=1 if config.device.startswith("cuda") else 0)
        .multi_agent(policies={SHARED}, policy_mapping_fn=_shared)
        .rl_module(model_config=agent.model_config)
        .training(
            lr=config.learning_rate,
            gamma=config.gamma,
            lambda_=config.gae_lambda,
            train_batch_size_per_learner=config.num_envs * config.n_steps,
            minibatch_size=min(config.minibatch_size, config.num_envs * config.n_steps),
            num_epochs=config.n_epochs,
            clip_param=config.clip_range,
            entropy_coeff=config.ent_coef,
            vf_loss_coeff=config.vf_coef,
            # RLlib cuts large value errors off by default, for no reason that holds here.
            vf_clip_param=float("inf"),
            grad_clip=config.max_grad_norm,
            grad_clip_by="global_norm",
            use_kl_loss=False,
        )
        .fault_tolerance(restart_failed_env_runners=True)
        .debugging(seed=config.seed, log_level="ERROR")
    )


def _shared(agent_id: str, episode: Any, **kwargs: Any) -> str:
    return SHARED


def _first(results: Any) -> Any:
    listed = list(results)
    return listed[0].get() if hasattr(listed[0], "get") and not isinstance(listed[0], dict) else listed[0]
