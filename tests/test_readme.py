"""What the README shows works: every Python block and every marked command is run in an empty folder."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON_BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^<!-- tested with: (.*?) -->\n```bash\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    return subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_readme_has_the_blocks_that_are_tested() -> None:
    assert len(PYTHON_BLOCKS) >= 7
    assert len(COMMANDS) >= 2
    assert TEXT.count("```bash") == len(COMMANDS) + 1  # `make test` is this test suite


@pytest.mark.parametrize("block", PYTHON_BLOCKS, ids=[f"block-{index}" for index in range(len(PYTHON_BLOCKS))])
def test_python_block_runs(block: str, tmp_path: Path) -> None:
    done = run([sys.executable, "-c", block], tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("quick", "block"), COMMANDS, ids=[f"command-{index}" for index in range(len(COMMANDS))])
def test_command_runs_with_quick_settings(quick: str, block: str, tmp_path: Path) -> None:
    for line in block.strip().splitlines():
        program, script, *arguments = shlex.split(line)
        assert program == "python"
        replaced = {entry.split("=")[0] for entry in quick.split()}
        kept = [entry for entry in arguments if entry.split("=")[0] not in replaced]
        done = run([sys.executable, str(ROOT / script), *kept, *quick.split()], tmp_path)
        assert done.returncode == 0, done.stderr
        assert any(tmp_path.glob("outputs/*/*/config.yaml"))


def test_the_readme_names_no_unknown_make_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    assert set(re.findall(r"make ([a-z]+)$", TEXT, re.MULTILINE)) <= targets
