"""Runs of a sweep: kept, gone on with, reported; one table of them all."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from scipy import stats

from cfpos_envs import locks
from scripts import collect, sweeps
from tests.scripts.commands import SCENE, TRAINER, command, environment, run

# A command that tells what it was called with and then ends as its first setting says.
SCRIPT = """
import os, pathlib, signal, sys
with open("calls.txt", "a") as file:
    print(*sys.argv[1:], file=file)
folder = next((a.split("=")[1] for a in sys.argv if a.startswith(("hydra.run.dir=", "resume="))))
if "end=killed" in sys.argv:
    pathlib.Path(folder, "last.pt").touch()
    os.kill(os.getpid(), signal.SIGKILL)
if "end=refused" in sys.argv:
    sys.exit("error: this is wrong")
if "end=interrupted" in sys.argv:
    sys.exit(130)
print("done")
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path / "script.py"


def calls(folder: Path) -> list[str]:
    return (folder / "calls.txt").read_text().splitlines()


def test_a_finished_run_is_kept_and_another_gets_the_next_number(script: Path, tmp_path: Path) -> None:
    for _ in range(2):
        sweeps.run_apart(script, ["seed=1"], tmp_path / "0", tmp_path, quiet=True)
    assert calls(tmp_path) == [f"seed=1 hydra.run.dir={tmp_path / '0'}"]
    assert (tmp_path / "0" / sweeps.OUTPUT).read_text() == "done\n"
    assert sweeps.unfinished(tmp_path) == []
    sweeps.run_apart(script, ["seed=2"], tmp_path / "0", tmp_path, quiet=True)
    assert calls(tmp_path)[1:] == [f"seed=2 hydra.run.dir={tmp_path / '1'}"]


def test_a_killed_run_is_told_with_its_settings_and_goes_on_the_next_time(
    script: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweeps.run_apart(script, ["end=killed", "seed=1"], tmp_path / "0", tmp_path, quiet=True)
    sweeps.run_apart(script, ["end=refused", "seed=2"], tmp_path / "1", tmp_path, quiet=True)
    sweeps.run_apart(script, ["seed=3"], tmp_path / "2", tmp_path, quiet=True)
    told = capsys.readouterr().err
    assert "failed: end=killed seed=1: killed by SIGKILL" in told
    assert "failed: end=refused seed=2: error: this is wrong" in told
    assert [line.split(":")[0] for line in sweeps.unfinished(tmp_path)] == ["end=killed seed=1", "end=refused seed=2"]
    sweeps.run_apart(script, ["end=killed", "seed=1"], tmp_path / "0", tmp_path, quiet=True)
    assert calls(tmp_path)[-1] == f"resume={tmp_path / '0'}"
    assert len(sweeps.unfinished(tmp_path)) == 1


def test_an_interrupted_run_ends_the_sweep(script: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt, match="goes on"):
        sweeps.run_apart(script, ["end=interrupted"], tmp_path / "0", tmp_path, quiet=True)


def hold(folder: Path, seconds: float) -> None:
    with locks.exclusive(folder):
        (folder / "held").touch()
        time.sleep(seconds)


def test_two_runs_never_write_to_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_PATIENCE_S", 0.3)
    other = multiprocessing.get_context("fork").Process(target=hold, args=(tmp_path, 60.0))
    other.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    with pytest.raises(ValueError, match="another run is writing to"), locks.exclusive(tmp_path):
        pass
    # A process that dies lets go.
    assert other.pid is not None
    other.kill()
    other.join()
    with locks.exclusive(tmp_path):
        pass


def finished_run(folder: Path, seed: int, rate: float, rmse: float, status: str | None = None) -> None:
    folder.mkdir(parents=True)
    config = {"env": {"id": "dcp-v0"}, "agent": {"name": "maddpg", "lr": rate, "seed": seed}, "seed": seed}
    OmegaConf.save(OmegaConf.create(config), folder / "config.yaml")
    (folder / "results.json").write_text(json.dumps({"rmse_m": rmse, "steps": 10.0}))
    if status is not None:
        told = {"overrides": [f"seed={seed}"], "status": status, "reason": "killed by SIGKILL"}
        (folder / sweeps.STATUS).write_text(json.dumps(told))


def test_runs_are_collected_by_what_differs_with_intervals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, rmse in enumerate((1.0, 2.0, 3.0)):
        finished_run(tmp_path / f"a{seed}", seed, 0.1, rmse, "finished")
    finished_run(tmp_path / "b0", 0, 0.2, 5.0)
    finished_run(tmp_path / "c0", 7, 0.2, 99.0, "failed")
    # A folder that is named twice counts once.
    collect.main([str(tmp_path), str(tmp_path / "a0"), "--out", str(tmp_path / "table.json")])
    table = json.loads((tmp_path / "table.json").read_text())
    half = float(stats.t.ppf(0.975, 2)) / 3**0.5
    assert table["rows"] == [
        {
            "agent.lr": "0.1",
            "rmse_m": 2.0,
            "low_95": pytest.approx(2.0 - half),
            "high_95": pytest.approx(2.0 + half),
            "runs": 3,
            "equal_seeds": 0,
        },
        {"agent.lr": "0.2", "rmse_m": 5.0, "low_95": None, "high_95": None, "runs": 1, "equal_seeds": 0},
    ]
    assert table["unfinished"] == [f"seed=7: killed by SIGKILL ({tmp_path / 'c0'})"]
    assert "unfinished:" in capsys.readouterr().out


def test_an_interval_covers_the_mean_as_often_as_it_says() -> None:
    import numpy as np

    draws = np.random.default_rng(0).normal(3.0, 2.0, (4000, 4))
    inside = [low < 3.0 < high for _, low, high in map(collect.mean_interval, draws.tolist()) if low and high]
    # 0.95 -+ 5 standard errors
    assert 0.932 < sum(inside) / 4000 < 0.968


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "no folder nowhere"),
        (["."], "no finished training run below ."),
        (["runs", "--metric", "rmse"], "--metric=rmse is unknown: did you mean rmse_m"),
        (["runs", "--by", "agent.lrr"], "--by=agent.lrr is unknown: did you mean agent.lr"),
    ],
)
def test_collecting_refuses_in_one_line(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    finished_run(tmp_path / "there" / "runs" / "0", 0, 0.1, 1.0)
    monkeypatch.chdir(tmp_path / ("there" if arguments[0] == "runs" else "empty"))
    with pytest.raises(SystemExit) as ended:
        collect.main(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


LAUNCHERS = {
    "joblib": ("hydra_plugins.hydra_joblib_launcher", "launchers", ["hydra.launcher.n_jobs=2"]),
    "submitit_local": ("hydra_plugins.hydra_submitit_launcher", "launchers", ["hydra.launcher.timeout_min=20"]),
    "ray": ("hydra_plugins.hydra_ray_launcher", "ray", ["+hydra.launcher.ray.init.num_cpus=2"]),
}


def has_launcher(name: str) -> bool:
    try:
        return importlib.util.find_spec(LAUNCHERS[name][0]) is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("name", [name for name in LAUNCHERS if not has_launcher(name)])
def test_a_launcher_that_is_missing_names_its_extra(name: str, refusal: Callable[..., str]) -> None:
    wanted = f'error: hydra/launcher={name} is not installed; pip install "cfpos[{LAUNCHERS[name][1]}]"'
    assert refusal("train", "--multirun", f"hydra/launcher={name}") == wanted


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=pytest.mark.skipif(
                not has_launcher(name), reason=f'the optional extra is not installed: pip install "cfpos[{extra}]"'
            ),
        )
        for name, (_, extra, _) in LAUNCHERS.items()
    ],
)
def test_every_launcher_does_all_runs_but_the_impossible_one(name: str, tmp_path: Path) -> None:
    settings = [*SCENE, *TRAINER, "total_steps=16", "seed=0,1", "hydra.sweep.dir=sweep"]
    own = [f"hydra/launcher={name}", *LAUNCHERS[name][2]]
    # One of four runs has a learning rate that is refused.
    done = run("train", "--multirun", *own, *settings, "agent.lr_actor=1e-3,2", folder=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "lr_actor=2.0 must be at most 1" in done.stderr
    assert [len(list((tmp_path / "sweep").glob(f"*/{file}"))) for file in ("run.json", "results.json")] == [4, 2]
    told = run("collect", "sweep", "--by", "agent.lr_actor", folder=tmp_path)
    assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines()[2].split()[-2:] == ["2", "0"]


def wait_for_runs(sweep: subprocess.Popen[str], folder: Path, count: int) -> None:
    """Until so many runs have begun to train."""
    until = time.monotonic() + 240
    while len(list(folder.glob("*/last.pt"))) < count:
        assert sweep.poll() is None, sweep.communicate()[1]
        assert time.monotonic() < until, "no run began"
        time.sleep(0.1)


def training_process(folder: Path) -> int:
    """The process that trains a run of a sweep: named so on its command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it may have ended meanwhile
            words = path.read_bytes().decode(errors="replace").split("\0")
            if f"hydra.run.dir={folder}" in words or f"resume={folder}" in words:
                return int(path.parent.name)
    raise AssertionError(f"nobody trains in {folder}")


def parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["training", "worker"])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=pytest.mark.skipif(
                not has_launcher(name), reason='the optional extra is not installed: pip install "cfpos[launchers]"'
            ),
        )
        for name in ("joblib", "submitit_local")
    ],
)
def test_eight_runs_outlive_a_killed_process(name: str, killed: str, tmp_path: Path) -> None:
    settings = [*SCENE, *TRAINER, "agent.checkpoint_every=8", "total_steps=800", "seed=0,1,2,3,4,5,6,7"]
    own = ["--multirun", f"hydra/launcher={name}", *LAUNCHERS[name][2], "hydra.sweep.dir=sweep"]
    started = subprocess.Popen(
        [*command("train", *own), *settings],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_runs(started, tmp_path / "sweep", 2)
    victim = next(path.parent for path in sorted((tmp_path / "sweep").glob("*/last.pt")))
    process = training_process(victim)
    os.kill(process if killed == "training" else parent(process), signal.SIGKILL)
    _, errors = started.communicate(timeout=1200)
    (seed,) = (word for word in sweeps.status(victim)["overrides"] if word.startswith("seed="))  # type: ignore[index]
    lines = [line for line in errors.splitlines() if seed in line and str(victim) in line]
    finished = len(list((tmp_path / "sweep").glob("*/results.json")))
    if killed == "training":
        # Nobody else is disturbed; the same command goes on with this one from its checkpoint.
        assert (started.returncode, finished) == (1, 7), errors
        assert all("killed by SIGKILL" in line for line in lines)
        assert lines
        again = run("train", *own, *settings, folder=tmp_path)
        assert again.returncode == 0, again.stderr
        assert victim.joinpath("output.log").read_text().count("writing to") == 2
    else:
        # These launchers abort all runs then; they are restarted.
        assert (started.returncode, finished) == (0, 8), errors
        assert errors.count("the launcher is restarted") == 1
        assert any("its worker died" in line for line in lines), errors
    results = sorted((tmp_path / "sweep").glob("*/results.json"))
    assert [json.loads(path.read_text())["steps"] for path in results] == [800.0] * 8
    rows = collect.rows(collect.find_runs([tmp_path / "sweep"]), "rmse_m", [])
    assert (rows[0]["runs"], rows[0]["equal_seeds"]) == (8, 0)


@pytest.mark.slow
@pytest.mark.skipif(not has_launcher("ray"), reason='the optional extra is not installed: pip install "cfpos[ray]"')
def test_a_sweep_outlives_a_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.cluster_utils import Cluster

    # Workers of the lowest priority would starve beside whatever else this machine computes.
    monkeypatch.setenv("RAY_worker_niceness", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    try:
        settings = [*SCENE, *TRAINER, "agent.checkpoint_every=8", "total_steps=800", "seed=0,1,2,3,4,5,6,7"]
        # Unless told otherwise the launcher asks for a size of the object store, which a running cluster refuses.
        own = ["hydra/launcher=ray", "hydra.sweep.dir=sweep", "+hydra.launcher.ray.init.object_store_memory=null"]
        own.append(f"hydra.launcher.ray.init.address={cluster.address}")
        started = subprocess.Popen(
            [*command("train", "--multirun", *own), *settings],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for_runs(started, tmp_path / "sweep", 2)
        cluster.remove_node(second, allow_graceful=False)
        _, errors = started.communicate(timeout=1200)
    finally:
        cluster.shutdown()
    assert started.returncode == 0, errors
    results = sorted((tmp_path / "sweep").glob("*/results.json"))
    assert [json.loads(path.read_text())["steps"] for path in results] == [800.0] * 8
    rows = collect.rows(collect.find_runs([tmp_path / "sweep"]), "rmse_m", [])
    assert (rows[0]["runs"], rows[0]["equal_seeds"]) == (8, 0)


def test_a_child_dies_with_its_worker(tmp_path: Path) -> None:
    if sys.platform != "linux":
        return
    (tmp_path / "script.py").write_text(
        "import os, pathlib, time\npathlib.Path('pid').write_text(str(os.getpid()))\ntime.sleep(60)"
    )
    worker = multiprocessing.get_context("spawn").Process(
        target=sweeps.run_apart, args=(tmp_path / "script.py", ["seed=0"], tmp_path / "0", tmp_path, True)
    )
    worker.start()
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.02)
    child: Any = int((tmp_path / "pid").read_text())
    worker.kill()
    worker.join()
    until = time.monotonic() + 20
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split(")")[1][:3]:
        assert time.monotonic() < until
        time.sleep(0.02)
    assert sweeps.unfinished(tmp_path) == [f"seed=0: its worker died ({tmp_path / '0'})"]
