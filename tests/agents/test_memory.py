"""Tensors that are freed and made anew do not ask the system for memory again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_COUNT = """
import resource, torch
from agents.memory import keep_freed_memory
keep_freed_memory()
def work():
    parts = [torch.ones(600_000) for _ in range(6)]
    return [part + 1 for part in parts]
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    work()
before = faults()
for _ in range(20):
    work()
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told")
def test_large_tensors_are_made_of_memory_that_was_in_use_before() -> None:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", _COUNT], cwd=root, capture_output=True, text=True, check=True, timeout=120
    )
    pages = 20 * 12 * 600_000 * 4 // 4096
    assert int(done.stdout) < 0.05 * pages  # all of them without the call
