"""Independent pieces of work in processes of their own, one core each.

Two threads of one small training gain nothing; two trainings in two processes gain everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import TypeVar

import torch

from cfpos_envs.arithmetic_threads import DEFAULT_THREADS, cores, torch_threads

Job = TypeVar("Job")
Result = TypeVar("Result")


def default_workers() -> int:
    """As many as there are cores for this process."""
    return cores()


def finished(work: Callable[[Job], Result], jobs: Sequence[Job], workers: int) -> Iterator[tuple[Job, Result]]:
    """Every job with its result, as they end; they begin in the order given.

    Args:
        work: a function of a module, called with one job; what it prints appears as it comes.
        jobs: anything that can be sent to another process.
        workers: how many at the same time; 1: one after another in this process.

    Raises:
        Exception: what ``work`` raised; jobs that have not begun are dropped.
    """
    if min(workers, len(jobs)) <= 1:
        with torch_threads():
            for job in jobs:
                yield job, work(job)
        return
    # A fresh interpreter per worker: forking a process that has used threads can hang.
    processes = ProcessPoolExecutor(min(workers, len(jobs)), mp_context=get_context("spawn"), initializer=_begin_worker)
    with processes:
        running = {processes.submit(work, job): job for job in jobs}
        try:
            for done in as_completed(running):
                yield running[done], done.result()
        except BaseException:
            processes.shutdown(wait=False, cancel_futures=True)
            raise


def _begin_worker() -> None:
    torch.set_num_threads(DEFAULT_THREADS)
