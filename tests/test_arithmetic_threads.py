"""Torch's threads: one by default, never more than cores, never the end of the process."""

from __future__ import annotations

import threading

import pytest
import torch

from cfpos_envs import arithmetic_threads, evaluate
from cfpos_envs.arithmetic_threads import torch_threads, usable_threads


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Torch as it is where nobody set anything, on four cores; the numbers that it was told to use."""
    now, told = [2], []

    def set_threads(count: int) -> None:
        now[0] = count
        told.append(count)

    monkeypatch.setattr(torch, "get_num_threads", lambda: now[0])
    monkeypatch.setattr(torch, "set_num_threads", set_threads)
    monkeypatch.setattr(arithmetic_threads, "cores", lambda: 4)
    return told


def test_one_by_default_and_what_was_before_afterwards(two_threads: list[int]) -> None:
    with torch_threads():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    assert two_threads == [1, 2]


def test_none_changes_nothing(two_threads: list[int]) -> None:
    with torch_threads(None):
        assert torch.get_num_threads() == 2
    assert two_threads == []


def test_afterwards_also_when_the_work_fails() -> None:
    with pytest.raises(RuntimeError), torch_threads():
        raise RuntimeError
    assert torch.get_num_threads() == 2


def test_no_more_threads_than_cores() -> None:
    assert [usable_threads(count) for count in (1, 3, 4, 5, 1000)] == [1, 3, 4, 4, 4]


def test_threads_that_cannot_be_started_are_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def start(thread: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    monkeypatch.setattr(threading.Thread, "join", lambda thread: None)
    assert usable_threads(4) == 2


def test_evaluation_takes_one_thread_whatever_torch_has(two_threads: list[int]) -> None:
    seen = []

    class Watches:
        name = "watches"

        def act_batch(self, observations: torch.Tensor) -> torch.Tensor:
            seen.append(torch.get_num_threads())
            return torch.zeros(*observations.shape[:-1], 2)

    scene = {"num_aps": 4, "num_ues": 1, "num_antennas": 2, "num_sites": 1}
    evaluate("dcp-rss-v0", Watches(), episodes=1, **scene)
    evaluate("dcp-rss-v0", Watches(), episodes=1, threads=3, **scene)
    assert set(seen[: len(seen) // 2]) == {1}
    assert set(seen[len(seen) // 2 :]) == {3}
