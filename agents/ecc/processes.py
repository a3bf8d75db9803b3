"""The processes of torchrun that share one training run."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist


def join_process_group(device: str) -> None:
    """Join the processes that torchrun started, if it did; every process makes the same pool and trains on its part.

    Args:
        device: ``cpu`` (gloo) or ``cuda`` (NCCL, one GPU per process).
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
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
