"""The wheel brings everything under the names ``cfpos`` and ``cfpos_envs``, and lives beside a foreign ``agents``."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("agents", "baselines", "conf", "scripts")
MAX_WHEEL_BYTES = 12e6
FACE = (
    "from cfpos import evaluate, list_agents, list_envs, list_policies, load_agent, make_agent, make_env, make_policy"
)
USE = """
import json, sys
from cfpos import evaluate, list_agents, list_envs, list_policies, load_agent, make_agent, make_env, make_policy
import cfpos, cfpos_envs, gymnasium
from cfpos.agents.ecc.weights import weights
assert not {"agents", "baselines", "conf", "scripts"} & set(sys.modules)
gymnasium.make("cfpos/dcp-rss-v0", num_aps=9, num_ues=2).reset(seed=0)
small = {"num_aps": 9, "num_ues": 2}
kernel = make_env("dcp-jar-v0", num_envs=2, kernel="native", **small)
kernel.reset()
agent = make_agent("maddpg", make_env("dcp-rss-v0", num_envs=8, seed=0, **small), evaluations=0, warmup_steps=40)
agent.train(total_steps=80)
city = make_env("ecc-urban-small-v0", seed=0)
located = evaluate(city, load_agent(weights("ecc-fast-small"), city), episodes=2)
compared = evaluate(city, make_policy("random", city), episodes=2)
assert located.mean < compared.mean and agent.name in list_agents() and "random" in list_policies()
print(json.dumps({
    "files": [cfpos.__file__, cfpos_envs.__file__, str(weights("ecc-fast-small"))],
    "envs": list_envs(), "mean_m": located.mean, "version": cfpos.__version__,
}))
"""
IDENTITY = """
import importlib, importlib.util, pickle, sys
from pathlib import Path
import cfpos
names = [
    ".".join(path.relative_to(sys.argv[1]).with_suffix("").parts).removesuffix(".__init__")
    for folder in ("agents", "baselines", "scripts") for path in sorted(Path(sys.argv[1], folder).rglob("*.py"))
]
compared = 0
for index, name in enumerate(names):
    order = [name, f"cfpos.{name}"][:: 1 if index % 2 else -1]
    try:
        one, other = map(importlib.import_module, order)
    except ModuleNotFoundError as error:
        # Only packages of other people may be missing; that both names then fail alike is all there is to see.
        assert error.name.split(".")[0] not in ("cfpos", "cfpos_envs", "agents", "baselines", "scripts", "tests"), error
        continue
    assert one is other, name
    assert one.__name__ == one.__spec__.name == name, (name, one.__spec__)
    compared += 1
from cfpos.agents.registry import agent_class
from cfpos.baselines.base import Policy
import agents.maddpg.agent, baselines.base
assert agent_class("maddpg") is agents.maddpg.agent.Maddpg
assert pickle.loads(pickle.dumps(Policy)) is baselines.base.Policy
assert cfpos.make_agent is agents.make_agent and cfpos.make_policy is baselines.make_policy
print(compared, len(names))
"""


@dataclass(frozen=True)
class Home:
    """A virtual environment that borrows the dependencies, but nothing of this project, from the one that tests."""

    folder: Path

    @property
    def python(self) -> str:
        """Its interpreter."""
        return str(self._programs / "python")

    @property
    def command(self) -> str:
        """The console command installed there."""
        return str(self._programs / "cfpos")

    @property
    def _programs(self) -> Path:
        return self.folder / ("Scripts" if os.name == "nt" else "bin")

    def run(self, *arguments: str, cwd: Path, env: Mapping[str, str] | None = None) -> str:
        """Standard output of a command that must succeed."""
        clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        quiet = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
        done = subprocess.run(
            arguments, cwd=cwd, env={**clean, **quiet, **(env or {})}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def install(self, *wheels: Path, cwd: Path) -> None:
        """With pip, without dependencies and without an index."""
        for wheel in wheels:
            install = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel))
            self.run(self.python, *install, cwd=cwd)


def new_home(folder: Path) -> Home:
    venv.create(folder, with_pip=True)
    home = Home(folder)
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = Path(home.run(home.python, "-c", where, cwd=folder).strip())
    # Borrowed as plain folders: .pth files there, such as an editable install's, have no effect.
    (own / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home


def build(source: Path, folder: Path, *kinds: str) -> list[Path]:
    """What the build backend that is installed here makes of a project, or of its source distribution."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), *kinds, str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return sorted(folder.iterdir())


def stranger(folder: Path) -> Path:
    """A wheel of somebody else's distribution that owns the top-level package ``agents``."""
    package = folder / "source" / "agents"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('OWNER = "stranger"\n')
    (package / "registry.py").write_text('OWNER = "stranger"\n')
    (folder / "source" / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        '[project]\nname = "stranger-agents"\nversion = "1"\n'
        '[tool.hatch.build.targets.wheel]\npackages = ["agents"]\n'
    )
    (wheel,) = build(folder / "source", folder / "dist", "--wheel")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (built,) = build(ROOT, tmp_path_factory.mktemp("dist"), "--wheel")
    return built


@pytest.fixture(scope="module")
def home(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("home")
    made = new_home(folder / "venv")
    made.install(wheel, cwd=folder)
    return made


def test_the_wheel_holds_every_source_below_our_two_names(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"cfpos", "cfpos_envs"}
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "cfpos", "cfpos_envs", *FOLDERS],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if tracked.returncode == 0:  # not in an unpacked source distribution
        there = [name for name in tracked.stdout.splitlines() if (ROOT / name).is_file()]
        wanted = {f"cfpos/{name}" if name.split("/")[0] in FOLDERS else name for name in there}
        assert wanted == {name for name in names if ".dist-info/" not in name}
    for needed in ("cfpos/agents/ecc/trained/ecc-fast-small.pt", "cfpos_envs/native/dcp.cpp", "cfpos/conf/train.yaml"):
        assert needed in names
    assert wheel.stat().st_size <= MAX_WHEEL_BYTES


def test_the_source_distribution_makes_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    # ``build`` without a kind makes the wheel from the source distribution that it has made.
    made = build(ROOT, tmp_path)
    assert [path.name.endswith(ending) for path, ending in zip(made, (".whl", ".tar.gz"))] == [True, True]
    mine, theirs = (zipfile.ZipFile(path) for path in (wheel, made[0]))
    assert mine.namelist() == theirs.namelist()
    assert all(mine.read(name) == theirs.read(name) for name in mine.namelist())


def test_the_wheel_works_in_another_environment(home: Home, tmp_path: Path) -> None:
    kernels = tmp_path / "kernels"
    told = json.loads(
        home.run(home.python, "-c", USE, cwd=tmp_path, env={"CFPOS_CACHE": str(kernels)}).splitlines()[-1]
    )
    assert len(list(kernels.glob("*.so"))) == 2  # the environments' and the trainer's, from the sources in the wheel
    assert all(Path(file).is_relative_to(home.folder) for file in told["files"])
    assert {"dcp-rss-v0", "toa-v0", "ris-v0", "ecc-urban-v0"} <= set(told["envs"])
    assert 0.0 < told["mean_m"] < 2.0


def test_the_console_command_trains_resumes_sweeps_evaluates_and_draws(home: Home, tmp_path: Path) -> None:
    small = ("env=dcp-rss", "env.num_aps=9", "env.num_ues=2")
    short = (*small, "agent.num_envs=8", "agent.evaluations=1", "agent.test_envs=8")
    home.run(home.command, "train", *short, "total_steps=80", "hydra.run.dir=run", cwd=tmp_path)
    printed = home.run(home.command, "train", "resume=run", "total_steps=160", cwd=tmp_path)
    # What the run advises works as it stands, without the program's folder on the path.
    advice = shlex.split(printed.split("evaluate: ")[1].splitlines()[0])
    assert advice[:2] == ["cfpos", "evaluate"]
    home.run(home.command, *advice[1:], *small[1:], "episodes=2", "hydra.run.dir=judged", cwd=tmp_path)
    assert {"results.json", "cdf.png"} <= {path.name for path in (tmp_path / "judged").iterdir()}
    sweep = ("--multirun", "seed=0,1", "total_steps=40", "hydra.sweep.dir=sweep")
    home.run(home.command, "train", *sweep, *short, cwd=tmp_path)
    assert len(list((tmp_path / "sweep").rglob("best.pt"))) == 2
    home.run(home.command, "plot", "tdoa-loci", "--out", "loci.png", cwd=tmp_path)
    assert (tmp_path / "loci.png").is_file()
    for command in ("reproduce", "explorer", "make-dataset", "collect", "demo", "ecc-demo"):
        assert f"usage: cfpos {command}" in home.run(home.command, command, "--help", cwd=tmp_path)


def test_mistaken_commands_are_refused_in_one_line(home: Home, tmp_path: Path) -> None:
    done = subprocess.run([home.command, "tran"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown command 'tran'; did you mean train? Commands: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_somebody_elses_agents_and_ours_leave_each_other_alone(first: str, wheel: Path, tmp_path: Path) -> None:
    home = new_home(tmp_path / "venv")
    theirs = stranger(tmp_path / "stranger")
    both = (wheel, theirs) if first == "ours" else (theirs, wheel)
    home.install(*both, cwd=tmp_path)
    ours_works = "import cfpos.agents as ours; assert 'maddpg' in ours.list_agents(), ours"
    theirs_works = "import agents.registry; assert agents.OWNER == agents.registry.OWNER == 'stranger'"
    for order in ((ours_works, theirs_works), (theirs_works, ours_works)):
        home.run(home.python, "-c", "; ".join(order), cwd=tmp_path)
    gone, left = ("cfpos", theirs_works) if first == "ours" else ("stranger-agents", ours_works)
    home.run(home.python, "-m", "pip", "uninstall", "--quiet", "--yes", gone, cwd=tmp_path)
    home.run(home.python, "-c", left, cwd=tmp_path)


@pytest.mark.parametrize("loaded", ["before", "after", "never"])
def test_a_checkout_never_takes_somebody_elses_agents_for_its_own(loaded: str, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign" / "agents"
    foreign.mkdir(parents=True)
    (foreign / "__init__.py").write_text('OWNER = "stranger"\n')
    theirs = "import agents; assert agents.OWNER == 'stranger'"
    ours = (
        "from cfpos import list_agents, make_agent; import cfpos.agents.maddpg.agent as a, pickle; "
        "assert 'maddpg' in list_agents(); assert pickle.loads(pickle.dumps(a.Maddpg)) is a.Maddpg; "
        f"assert a.__file__.startswith({str(ROOT)!r}); from cfpos.scripts import cli"
    )
    program = {"before": f"{theirs}; {ours}", "after": f"{ours}; {theirs}", "never": ours}[loaded]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(foreign.parent), str(ROOT)))}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def in_checkout(arguments: Sequence[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_in_a_checkout_both_names_are_one_object_for_every_module(tmp_path: Path) -> None:
    done = in_checkout(["-c", IDENTITY, str(ROOT)], tmp_path)
    assert done.returncode == 0, done.stderr
    compared, known = map(int, done.stdout.split()[-2:])
    assert known > 150
    assert compared >= known - 10  # those that need optional packages


def test_importing_cfpos_imports_nothing_else(tmp_path: Path) -> None:
    program = (
        "import sys, cfpos; dir(cfpos); print(sorted({'torch', 'numpy', 'cfpos_envs', 'agents'} & set(sys.modules)))"
    )
    assert in_checkout(["-c", program], tmp_path).stdout == "[]\n"


@pytest.mark.parametrize("module", ["agents.ecc.weights", "cfpos.agents.ecc.weights", "cfpos.scripts.train", "cfpos"])
def test_modules_run_under_both_names(module: str, tmp_path: Path) -> None:
    done = in_checkout(["-m", module, "--help"], tmp_path)
    assert "usage" in (done.stdout + done.stderr).lower() or "Powered by Hydra" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_missing_extra_is_installed_by_the_command_that_the_message_names(home: Home, tmp_path: Path) -> None:
    ask = "from cfpos_envs.extras import install_command; print(install_command('ray'))"
    assert home.run(home.python, "-c", ask, cwd=tmp_path) == 'pip install "cfpos[ray]"\n'
    # Installed, cfpos is no question for an index: pip only looks for the extra's packages.
    requirement = ("-m", "pip", "install", "--no-index", "--no-deps", "--dry-run", "cfpos[ray]")
    assert "Requirement already satisfied: cfpos" in home.run(home.python, *requirement, cwd=tmp_path)
    # On the path only, it is installed along.
    bare = {"PYTHONPATH": str(ROOT)}
    hidden = (
        "import importlib.metadata as m\nfound = m.distribution\ndef hidden(name):\n    if name == 'cfpos': raise "
        f"m.PackageNotFoundError(name)\n    return found(name)\nm.distribution = hidden\n{ask}"
    )
    assert home.run(home.python, "-c", hidden, cwd=tmp_path, env=bare) == f'pip install -e "{ROOT}[ray]"\n'
