"""Commands of several processes: whichever of them is killed, the same command goes on to the same weights."""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cfpos.scripts.cli import ROOT
from cfpos.scripts.faulty.subjects import same, weights
from cfpos_envs.checkpoints import LAST

_TINY = ["env.num_aps=9", "env.num_ues=2", "env.num_antennas=4", "env.num_sites=2", "agent.num_envs=8"]
_TINY += ["agent.evaluations=0", "agent.warmup_steps=16", "agent.batch_size=32", "agent.checkpoint_every=80"]
_FAST = ["env=ecc-urban-small", "agent=ecc-fast", "agent.pool=600", "agent.validation=100", "agent.batch_size=64"]
_FAST += ["agent.fusion_hidden=32", "agent.encoder_hidden=16", "agent.evaluations=2", "agent.checkpoint_every=20"]
_TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
_PATIENCE_S = 600.0
_LOOK_S = 0.02
KINDS = ("joblib sweep", "ray sweep", "torchrun")


def killed_commands(kind: str, kills: int, seed: int) -> dict[str, Any]:
    """Kill processes of a command ``kills`` times while it trains.

    Args:
        kind: one of ``KINDS``.
        kills: of the launcher, a worker or a training.
        seed: of what is killed, and when.
    """
    row: dict[str, Any] = {"run": kind, "kills": 0, "started again": 0, "runs": 0, "equal": 0, "errors": ""}
    launcher = f"hydra_plugins.hydra_{kind.split()[0]}_launcher"
    if kind != "torchrun" and importlib.util.find_spec(launcher) is None:
        return {**row, "errors": "not installed"}
    drawn = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        whole, folder = Path(place) / "whole", Path(place) / "killed"
        for path, wanted in ((whole, 0), (folder, kills)):
            path.mkdir()
            for attempt in range(2 * kills + 2):
                command = _command(kind, path, resume=(path / "run" / LAST).exists())
                row["started again"] += attempt > 0
                row["kills"] += (hits := _run(command, path, wanted - row["kills"], drawn))[0]
                if hits[1] == 0:
                    break
            else:
                return {**row, "errors": (path / "said").read_text()[-300:]}
        pairs = [(path, folder / path.relative_to(whole)) for path in sorted(whole.rglob(LAST))]
        row["runs"] = len(pairs)
        row["equal"] = sum(same(weights(one.parent), weights(other.parent)) for one, other in pairs)
    return row


def _command(kind: str, folder: Path, resume: bool) -> list[str]:
    train = str(ROOT / "scripts" / "train.py")
    if kind == "torchrun":
        what = ["resume=run"] if resume else [*_FAST, "total_steps=9600", "hydra.run.dir=run"]
        return [sys.executable, *_TORCHRUN, train, *what]
    launcher = [f"hydra/launcher={kind.split()[0]}", *["hydra.launcher.n_jobs=2"] * (kind == "joblib sweep")]
    several = ["--multirun", "seed=0,1", "total_steps=1600", f"hydra.sweep.dir={folder / 'sweep'}"]
    return [sys.executable, train, *several, *launcher, *_TINY]


def _run(command: Sequence[str], folder: Path, kills: int, drawn: random.Random) -> tuple[int, int]:
    """Run a command and kill one of its processes after every few checkpoints; kills and exit code."""
    done, last, wait = 0, -1.0, drawn.randint(1, 3)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    with open(folder / "said", "a", encoding="utf-8") as said:
        started = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said)
        until = time.monotonic() + _PATIENCE_S
        while started.poll() is None and time.monotonic() < until:
            time.sleep(_LOOK_S)
            newest = max((path.stat().st_mtime for path in folder.rglob(LAST)), default=last)
            if newest == last or done >= kills:
                continue
            last, wait = newest, wait - 1
            if wait == 0:
                victims = [started.pid, *_descendants(started.pid)]
                os.kill(drawn.choice(victims), signal.SIGKILL)
                done, wait = done + 1, drawn.randint(1, 3)
        if started.poll() is None:
            started.kill()
    return done, started.wait()


def _descendants(pid: int) -> list[int]:
    try:
        children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [*children, *(child for parent in children for child in _descendants(parent))]
