"""What training asks of the memory, and how the C library deals with that of tensors."""

from __future__ import annotations

import ctypes
import itertools
import sys

from cfpos_envs.checks import fits
from cfpos_envs.front_ends.base import BatchedEnv
from cfpos_envs.settings import RunSettings

# glibc's numbers of these settings, see mallopt(3); the second cannot be set higher.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT_BYTES, _LARGEST_KEPT_BYTES = 1 << 30, 32 << 20


def check_memory(env: BatchedEnv, config: RunSettings, joint_rows: bool) -> None:
    """Refuse settings whose memory, batches or layers would need more than is sensible, before anything is made.

    Args:
        env: the game.
        config: settings of an agent that plays it; names that it does not have are passed over.
        joint_rows: whether a row of memory and batch is one of all agents, or of one.

    Raises:
        ValueError: names the setting.
    """
    agents, vectors = len(env.agents), 2 * env.observation_size + env.action_size + 2
    for name in ("buffer_size", "batch_size", "validation_envs", "test_envs", "n_steps"):
        rows = getattr(config, name, 0) * (config.num_envs if name == "n_steps" else 1)
        rows *= agents if joint_rows or not name.endswith("_size") else 1
        fits("what it counts", rows * vectors, f"{name}={getattr(config, name, 0)}, for {agents} agents")
    for name in ("hidden", "actor_hidden", "critic_hidden"):
        widths = getattr(config, name, ())
        joint = agents * (env.observation_size + env.action_size)
        weights = agents * sum(one * other for one, other in itertools.pairwise((joint, *widths)))
        fits("the weights of all agents", weights, f"{name}={list(widths)}, for {agents} agents")


def keep_freed_memory() -> None:
    """Let this process reuse the memory of freed tensors instead of giving it back to the system at once.

    An update of 36 agents makes some forty tensors of 2 MB. One in memory that is fresh from the system is written ten
    times slower than one in memory that was in use before, because the system fills in the pages one by one. Up to
    1 GiB of freed memory stays with the process; what it holds at its peak does not change. Only glibc is set, larger
    tensors and other devices are unaffected.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)
