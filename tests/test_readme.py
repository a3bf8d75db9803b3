"""What README and documentation show works: every Python block, every marked command is run in an empty folder."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.forked import environment, run_script

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
_PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
PYTHON_BLOCKS = _PYTHON.findall(TEXT)
DOCS_BLOCKS = {
    f"{page.relative_to(ROOT / 'docs').with_suffix('')}-{index}": block
    for page in sorted((ROOT / "docs").rglob("*.md"))
    for index, block in enumerate(_PYTHON.findall(page.read_text(encoding="utf-8")))
}
# Examples with a library that is no dependency of ours say so in front: package, and how to get it.
_NEEDS = re.compile(r"^<!-- needs: (\w+); (.*?) -->\n```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
NEEDED = {
    block: (package, remedy)
    for page in sorted((ROOT / "docs").rglob("*.md"))
    for package, remedy, block in _NEEDS.findall(page.read_text(encoding="utf-8"))
}
TRAINERS = {name: block for name, block in DOCS_BLOCKS.items() if name.startswith("trainers/")}
POLICIES = ROOT / "docs" / "policies"
COMMANDS = re.findall(r"^<!-- tested with: (.*?) -->\n```bash\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, cwd=folder, env=environment(), capture_output=True, text=True, check=False)


def test_a_block_that_fails_is_noticed(tmp_path: Path) -> None:
    assert run_script("import torch; assert torch.ones(1) > 0", tmp_path) == (0, "")
    code, errors = run_script("raise ValueError('no')", tmp_path)
    assert code == 1
    assert "ValueError: no" in errors
    assert run_script("raise SystemExit(3)", tmp_path)[0] == 3
    code, errors = run_script("import cfpos_envs.measurements\nprint(cfpos_envs.importers)", tmp_path)
    assert code == 1, "something of the project was there before it was imported"


def test_the_readme_has_the_blocks_that_are_tested() -> None:
    assert len(PYTHON_BLOCKS) >= 7
    assert len(COMMANDS) >= 2
    assert TEXT.count("```bash") == len(COMMANDS) + 1  # `make test` is this test suite


@pytest.mark.parametrize("block", PYTHON_BLOCKS, ids=[f"block-{index}" for index in range(len(PYTHON_BLOCKS))])
def test_python_block_runs(block: str, tmp_path: Path) -> None:
    code, errors = run_script(block, tmp_path)
    assert code == 0, errors


@pytest.mark.parametrize("block", DOCS_BLOCKS.values(), ids=list(DOCS_BLOCKS))
def test_python_block_of_the_documentation_runs(block: str, tmp_path: Path) -> None:
    package, remedy = NEEDED.get(block, ("torch", ""))
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"the optional package {package} is not installed: {remedy}")
    code, errors = run_script(block, tmp_path)
    assert code == 0, errors


def test_trainers_are_shown_in_few_lines_each() -> None:
    assert {name.split("/")[1].split("-")[0] for name in TRAINERS} >= {"sb3", "torchrl", "agilerl", "rllib"}
    for name, block in TRAINERS.items():
        assert len([line for line in block.splitlines() if line.strip()]) <= 40, name


def test_no_python_block_escapes_for_its_spelling() -> None:
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        # The blocks of docs/adding.md are the files of a package, which tests/test_adding.py writes and runs.
        text = re.sub(r"^```python file=.*$", "```", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert len(re.findall(r"```\s*py", text)) == len(_PYTHON.findall(text)), page


def test_every_policy_has_a_page_that_the_index_links() -> None:
    # The table in the index is made from the registry, which `make docs` checks.
    index = (POLICIES / "index.md").read_text(encoding="utf-8")
    registered = set(re.findall(r"^\| `([\w-]+)` \|", index, re.MULTILINE))
    assert "joint-gn" in registered
    assert {page.stem for page in POLICIES.glob("*.md")} - {"index"} == registered
    for name in registered:
        assert (POLICIES / f"{name}.md").read_text(encoding="utf-8").startswith(f"# `{name}`")
        assert f"({name}.md)" in index


@pytest.mark.parametrize(("quick", "block"), COMMANDS, ids=[f"command-{index}" for index in range(len(COMMANDS))])
def test_command_runs_with_quick_settings(quick: str, block: str, tmp_path: Path) -> None:
    for line in block.strip().splitlines():
        program, command, *arguments = shlex.split(line)
        assert program == "cfpos"
        replaced = {entry.split("=")[0] for entry in quick.split()}
        kept = [entry for entry in arguments if entry.split("=")[0] not in replaced]
        done = run([sys.executable, "-m", "cfpos", command, *kept, *quick.split()], tmp_path)
        assert done.returncode == 0, done.stderr
        assert any(tmp_path.glob("outputs/*/*/config.yaml"))


def test_the_readme_names_no_unknown_make_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    assert set(re.findall(r"make ([a-z]+)$", TEXT, re.MULTILINE)) <= targets
