"""Shards of a data set as tasks of a Ray cluster: each traced by some node, again if that node is lost.

Shards depend on the recipe and their number alone, so it does not matter where or how often one is traced. Needs the
extra ``[ray]``, and on every node the project with the extra ``[raytracing]``.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from cfpos_envs.channels.tracing.generate import MadeShard, TracerLike, header_of, make_shard
from cfpos_envs.channels.tracing.recipe import Recipe
from cfpos_envs.channels.tracing.storage import DatasetError, Header, Shard
from cfpos_envs.extras import install_command
from cfpos_envs.ray_address import check_listening

NEW_CLUSTER = "local"
"""Address that means: start Ray on this machine, with all its cores."""
RETRIES = 3
"""How often a shard is tried again whose node or process was lost."""
_WAITING_PER_CPU = 2


class ClusterUnavailableError(RuntimeError):
    """Ray is not installed or there is no cluster; the message says what to do."""


@contextlib.contextmanager
def connected(address: str) -> Iterator[None]:
    """Connect to a Ray cluster and let go of it afterwards; a connection that this process has already is used.

    Args:
        address: ``auto``, ``HOST:6379`` or ``ray://HOST:10001``; ``NEW_CLUSTER``: start Ray on this machine.

    Raises:
        ClusterUnavailableError: Ray is not installed, or no cluster is there.
    """
    if importlib.util.find_spec("ray") is None:
        raise ClusterUnavailableError(f"Ray is not installed; run: {install_command('ray')}")
    import ray

    if ray.is_initialized():
        yield
        return
    try:
        check_listening(address)
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise ClusterUnavailableError(str(error).splitlines()[0]) from None
    try:
        yield
    finally:
        ray.shutdown()


def on_cluster(
    recipe: Recipe, tracer: Callable[[Recipe], TracerLike], missing: Sequence[tuple[str, int]]
) -> tuple[Header, Iterator[MadeShard]]:
    """As ``generate.make_here``, in tasks of one core each on the cluster that this process is connected to.

    Args:
        recipe: the settings.
        tracer: makes the tracer of a recipe; can be imported on every node.
        missing: (split, number) of the wanted shards.

    Returns:
        The header, and the shards in the order in which they are finished.

    Raises:
        DatasetError: after all others are made, if shards were lost with their processes more than ``RETRIES`` times.
    """
    import ray

    header = _result(ray.remote(num_cpus=1, max_retries=RETRIES)(_header).remote(recipe, tracer))
    return header, _shards(recipe, tracer, missing)


def _shards(
    recipe: Recipe, tracer: Callable[[Recipe], TracerLike], missing: Sequence[tuple[str, int]]
) -> Iterator[MadeShard]:
    import ray

    task = ray.remote(num_cpus=1, max_retries=RETRIES)(_shard)
    waiting = list(missing)[::-1]
    running: dict[Any, tuple[str, int]] = {}
    lost: list[str] = []
    while waiting or running:
        # A few more than there are cores, so that none idles and finished ones do not pile up in memory.
        while waiting and len(running) < max(1, _WAITING_PER_CPU * int(ray.cluster_resources().get("CPU", 1))):
            split, index = waiting.pop()
            running[task.remote(recipe, tracer, split, index)] = split, index
        (done, *_), _ = ray.wait(list(running), num_returns=1)
        split, index = running.pop(done)
        try:
            shard = _result(done)
        except ray.exceptions.RayError as error:
            lost.append(f"{split}-{index:05d} ({type(error).__name__})")
            continue
        yield split, index, shard
    if lost:
        raise DatasetError(
            f"{len(lost)} shards were lost with their processes {RETRIES + 1} times each: {', '.join(lost)}; "
            "the same command makes what is missing"
        )


def _result(reference: Any) -> Any:
    """What a task gave; what it raised is raised here as it was, without Ray's account of where."""
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None


@lru_cache(maxsize=1)
def _scene(recipe: Recipe, tracer: Callable[[Recipe], TracerLike]) -> TracerLike:
    """The tracer of this process, which takes seconds to load."""
    return tracer(recipe)


def _header(recipe: Recipe, tracer: Callable[[Recipe], TracerLike]) -> Header:
    return header_of(recipe, _scene(recipe, tracer))


def _shard(recipe: Recipe, tracer: Callable[[Recipe], TracerLike], split: str, index: int) -> Shard:
    return make_shard(recipe, _scene(recipe, tracer), split, index)
