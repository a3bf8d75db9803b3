"""Fixtures of the command tests."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.cli import run_hydra
from tests.scripts.commands import SCENE, TRAINER, run_here


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run on dcp-jar-v0."""
    folder = tmp_path_factory.mktemp("finished")
    run_here("train", "hydra.run.dir=run", *SCENE, *TRAINER, "total_steps=96", "seed=3", folder=folder)
    return folder / "run"


@pytest.fixture
def refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command in this process, which is faster than a new one, and returns the single line of its refusal."""

    def refuse(script: str, *arguments: str) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *arguments])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run_hydra(importlib.import_module(f"scripts.{script}").main, script)
        lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
        assert ended.value.code == 2
        assert len(lines) == 1, lines
        assert lines[0].startswith("error: ")
        return lines[0]

    return refuse
