"""The processes of torchrun that share one training run: who they are, what they agree on, how one misses another."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist


def launched() -> tuple[int, int]:
    """Rank of this process and number of those that torchrun started, from the environment; (0, 1) without it."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def join_process_group(device: str) -> None:
    """Join the processes that torchrun started, if it did; every process makes the same pool and trains on its part.

    Args:
        device: ``cpu`` (gloo) or ``cuda`` (NCCL, one GPU per process).
    """
    if launched()[1] < 2 or dist.is_initialized():
        return
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if on_gpu else "gloo")


def process_group() -> tuple[int, int]:
    """Rank and number of the processes that share this run; (0, 1) outside torchrun."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def check_shared(batch_size: int, processes: int) -> None:
    """ValueError if a batch cannot be cut into equal parts for all processes."""
    if batch_size % processes:
        raise ValueError(
            f"batch_size={batch_size} does not divide among {processes} processes; choose a multiple of {processes}."
        )


def agreed(asked: bool, device: str) -> bool:
    """Whether any of the processes was asked to stop: all hear the same, so that all stop after the same step."""
    if process_group()[1] == 1:
        return asked
    flag = torch.tensor(int(asked), dtype=torch.int32, device=device)
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return bool(flag)


@contextmanager
def others_missed() -> Iterator[None]:
    """Says that another process has ended, where torch says that a connection was closed.

    Raises:
        ConnectionError: another process of this run has ended.
    """
    try:
        yield
    except RuntimeError as error:
        if process_group()[1] == 1 or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise ConnectionError("another process of this training has ended") from None
