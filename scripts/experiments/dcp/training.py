"""Training of the experiments' agents: each once, kept in a folder, several at a time; a stopped experiment goes on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from cfpos.agents import load_agent, make_agent
from cfpos.agents.registry import config_class
from cfpos.scripts.workers import finished
from cfpos_envs import make_env

if TYPE_CHECKING:
    from cfpos.scripts.experiments.common import Effort

_QUICK_AGENT = {"warmup_steps": 16, "batch_size": 32, "evaluations": 2, "validation_envs": 4, "test_envs": 4}


@dataclass(frozen=True)
class Job:
    """One agent to train.

    Attributes:
        env_id: environment.
        seed: of environment and agent.
        env, agent: overrides.
        name: which agent.
    """

    env_id: str
    seed: int
    env: Mapping[str, Any] = field(default_factory=dict)
    agent: Mapping[str, Any] = field(default_factory=dict)
    name: str = "maddpg"

    def file_name(self, effort: Effort) -> str:
        """Name of the kept policies: equal jobs of equal effort have equal names."""
        recipe = [self.env_id, self.seed, dict(self.env), dict(self.agent)]
        recipe += [effort.train_steps, effort.num_envs, dict(effort.small)]
        recipe += [] if self.name == "maddpg" else [self.name]
        digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
        return f"{self.env_id}-{digest[:16]}.pt"


def train(
    env_id: str,
    effort: Effort,
    seed: int,
    env: Mapping[str, Any] | None = None,
    agent: Mapping[str, Any] | None = None,
    log_dir: str | Path | None = None,
    name: str = "maddpg",
) -> Any:
    """One agent, trained without labels on training sites; taken from ``effort.agents_folder`` if it is there.

    Args:
        env_id: environment.
        effort: number of steps and parallel episodes.
        seed: of environment and agent.
        env: environment overrides.
        agent: overrides of the agent's settings.
        log_dir: where checkpoints and TensorBoard files go; None: a folder that is removed afterwards.
        name: which agent.

    Returns:
        The agent with the selected weights.
    """
    job = Job(env_id, seed, env or {}, agent or {}, name)
    batched = make_env(env_id, num_envs=effort.num_envs, seed=seed, **effort.env(**job.env))
    kept = None if effort.agents_folder is None else Path(effort.agents_folder) / job.file_name(effort)
    if kept is not None and kept.exists() and log_dir is None:
        return load_agent(kept, batched)
    # Test drops are evaluated once, at the end, by the experiment itself.
    known = {entry.name for entry in dataclasses.fields(config_class(name))}
    quick = {key: value for key, value in _QUICK_AGENT.items() if key in known}
    settings = {
        "seed": seed,
        "threads": 1,
        "evaluations": 10,
        "test_envs": 0,
        **(quick if effort.is_quick else {}),
        **job.agent,
    }
    learner = make_agent(name, batched, **settings)
    with tempfile.TemporaryDirectory() as scratch:
        learner.train(total_steps=effort.train_steps, log_dir=log_dir or scratch, progress=False)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        learner.save(kept)
        # The policy alone: some learners hold a gigabyte of replay.
        return load_agent(kept, batched)
    return learner


def train_ahead(jobs: Sequence[Job], effort: Effort, description: str) -> None:
    """Train what is not kept yet, ``effort.workers`` at a time; without a folder to keep agents in, do nothing.

    Args:
        jobs: agents that the experiment will ask ``train`` for.
        effort: of all of them.
        description: of the progress bar.
    """
    if effort.agents_folder is None:
        return
    missing = [job for job in jobs if not (Path(effort.agents_folder) / job.file_name(effort)).exists()]
    if not missing:
        return
    done = finished(partial(_train_and_keep, effort=effort), missing, effort.workers)
    for _ in tqdm(done, total=len(missing), desc=description):
        pass


def _train_and_keep(job: Job, effort: Effort) -> None:
    train(job.env_id, effort, job.seed, job.env, job.agent, name=job.name)
