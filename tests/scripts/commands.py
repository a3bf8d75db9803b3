"""Running the project's commands as a person would, from an empty folder, with a tiny scene."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.cli import run_hydra

ROOT = Path(__file__).resolve().parents[2]
SCENE = ["env.num_aps=9", "env.num_ues=2", "env.num_antennas=4", "env.num_sites=2"]
TRAINER = [
    "agent.num_envs=8",
    "agent.warmup_steps=16",
    "agent.batch_size=32",
    "agent.evaluations=2",
    "agent.validation_envs=4",
    "agent.test_envs=4",
]


def command(script: str, *arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "scripts" / f"{script}.py"), *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}


def run(script: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(script, *arguments), cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )


def run_here(script: str, *arguments: str, folder: Path) -> str:
    """The same without the seconds that a new process costs; what it printed. Errors of the user end the process."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as said:
        patch.chdir(folder)
        patch.setattr(sys, "argv", [f"{script}.py", *arguments])
        patch.setenv("HYDRA_FULL_ERROR", "1")
        run_hydra(importlib.import_module(f"scripts.{script}").main, script)
    return said.getvalue()


def error_line(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a refusal; anything else on standard error fails."""
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}
