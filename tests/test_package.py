"""The wheel carries the environments and nothing else, and works where it is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = """
import json, sys
import cfpos_envs, gymnasium
from cfpos_envs import list_envs, make_env
env = make_env("dcp-jar-v0", num_aps=9, num_ues=2)
env.reset(seed=0)
single = gymnasium.make("cfpos/dcp-rss-v0", num_aps=9, num_ues=2)
single.reset(seed=0)
assert "agents" not in sys.modules and "baselines" not in sys.modules
print(json.dumps({"file": cfpos_envs.__file__, "envs": list_envs(), "agents": len(env.agents)}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built with the build backend that is installed here."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_ships_the_environments_only(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert "cfpos_envs" in tops
    assert all(top == "cfpos_envs" or top.endswith(".dist-info") for top in tops)
    kinds = (".py", ".cpp", ".hpp")
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "cfpos_envs").rglob("*") if path.suffix in kinds}
    assert any(source.endswith(".cpp") for source in sources)
    assert sources == {name for name in names if name.endswith(kinds)}


def test_the_wheel_works_in_another_environment(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, env=clean)
    # The dependencies are borrowed as plain folders: .pth files there, such as an editable install's, have no effect.
    show = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    own = Path(subprocess.run(show, check=True, env=clean, capture_output=True, text=True).stdout.strip())
    (own / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    done = subprocess.run(
        [str(python), "-c", PROGRAM], cwd=tmp_path, env=clean, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert Path(told["file"]).is_relative_to(home)
    assert {"dcp-rss-v0", "dcp-aoa-v0", "dcp-v0", "dcp-jar-v0"} <= set(told["envs"])
    assert told["agents"] == 9
