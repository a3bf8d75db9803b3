"""docs/adding.md as a third party would follow it: a package outside the repository, registered by name."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import agents.registry
import baselines.registry
from cfpos_envs import evaluate, make_env, register, registry
from tests.conformance.checks import CHECKS

ROOT = Path(__file__).resolve().parent.parent
BLOCKS = dict(re.findall(r"^```python file=(\S+)\n(.*?)^```$", (ROOT / "docs/adding.md").read_text(), re.M | re.S))
MOST_LINES = 120


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The package of the page, written to disk and imported."""
    folder = tmp_path_factory.mktemp("elsewhere")
    for name, text in BLOCKS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    sys.path.insert(0, str(folder))
    importlib.import_module("ranging")
    yield folder
    sys.path.remove(str(folder))
    # Other tests of this process look at everything that is registered.
    for known in (registry._entries, agents.registry._entries, baselines.registry._paths):
        for name in ("ranging-v0", "lacking-v0", "unset-v0", "search", "robust-ranges"):
            known.pop(name, None)


def test_a_complete_scenario_fits_on_a_page() -> None:
    assert len(BLOCKS["ranging/game.py"].splitlines()) <= MOST_LINES


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.usefixtures("package")
def test_the_scenario_conforms(check) -> None:
    check("ranging-v0")


def test_the_last_block_runs_where_the_package_is(package: Path) -> None:
    command = [sys.executable, "use.py"]
    environment = {"PYTHONPATH": f"{package}:{ROOT}", "OMP_NUM_THREADS": "1", "PATH": ""}
    done = subprocess.run(command, cwd=package, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "best_score" in done.stdout
    assert "robust-ranges on ranging-v0" in done.stdout
    assert "confidence" in done.stdout


def test_a_scenario_without_a_method_is_refused_by_name(package: Path) -> None:
    text = BLOCKS["ranging/game.py"].replace("def encode_estimate(", "def encode(")
    (package / "lacking.py").write_text(text, encoding="utf-8")
    register("lacking-v0", "lacking:RangingScenario")
    with pytest.raises(ValueError, match="encode_estimate") as caught:
        make_env("lacking-v0")
    assert "\n" not in str(caught.value)


def test_a_scenario_without_a_config_class_is_refused_by_name(package: Path) -> None:
    text = BLOCKS["ranging/game.py"].replace("    config_class = RangingConfig\n", "")
    (package / "unset.py").write_text(text, encoding="utf-8")
    register("unset-v0", "unset:RangingScenario")
    with pytest.raises(ValueError, match="config_class") as caught:
        make_env("unset-v0")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("package")
def test_the_estimator_locates_most_users() -> None:
    env = make_env("ranging-v0")
    result = evaluate(env, baselines.registry.make_policy("robust-ranges", env), episodes=100)
    assert result.median < 2 * result.bound_rmse
