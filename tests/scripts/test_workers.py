"""Pieces of work in processes: all of them, each once, one thread each, and an error that ends the rest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from scripts.workers import finished


def work(job: tuple[str, int]) -> tuple[int, int, int]:
    """Runs in a worker: its process, its threads, the square of the number."""
    folder, number = job
    if number < 0:
        raise ValueError(f"no square root of {number}")
    Path(folder, str(number)).touch()
    return os.getpid(), torch.get_num_threads(), number**2


def test_one_worker_is_this_process(tmp_path: Path) -> None:
    jobs = [(str(tmp_path), number) for number in range(3)]
    assert list(finished(work, jobs, 1)) == [(job, (os.getpid(), 1, job[1] ** 2)) for job in jobs]


def test_several_workers_are_others_with_one_thread_each_and_an_error_ends_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    jobs = [(str(tmp_path), number) for number in (3, 4, -1, *range(50))]
    found = {}

    def take_all() -> None:
        for job, result in finished(work, jobs, 2):
            found[job] = result

    with pytest.raises(ValueError, match="no square root of -1"):
        take_all()
    assert os.getpid() not in {process for process, _, _ in found.values()}
    assert {threads for _, threads, _ in found.values()} == {1}
    assert all(square == job[1] ** 2 for job, (_, _, square) in found.items())
    assert len(list(tmp_path.iterdir())) < 50
