"""Cases of command lines: in this process, as a fork, or as a process of their own."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from hypothesis import strategies as st

from cfpos.scripts.cli import run_hydra
from cfpos.scripts.fuzzing.cases import MOST_LETTERS, Case, NotFinite
from cfpos.scripts.fuzzing.files import FORMATS
from cfpos.scripts.fuzzing.values import options_of
from cfpos_envs import list_envs
from cfpos_envs.registry import make_config

_ROOT = Path(__file__).resolve().parents[2]
_PROCESS_S = 300
_ENDED_WELL = (0, 1, 2, 130)
_SAID = (
    "nan",
    "inf",
    "-1",
    "0",
    "1e300",
    "null",
    "abc",
    "true",
    "[]",
    "[1,2]",
    "{}",
    "{a:nan}",
    "''",
    "99999999999999999",
)
_NUMBERS = ("nan", "inf", "-1", "0", "1e300", "x", "", "3", "0.5", "99999999999999999999")
_DCP = ("env.num_aps=6", "env.num_ues=2", "env.num_antennas=4", "env.num_sites=2")
_TRAIN = ("agent.num_envs=2", "agent.warmup_steps=4", "agent.batch_size=4", "agent.evaluations=0", "total_steps=8")
_PLOTS = {
    "peb-map": ("--resolution", "--side", "--noise", "--aps", "--dpi"),
    "tdoa-loci": ("--ue", "--aps", "--sigma"),
    "ellipses": ("--spacing", "--enlarged"),
    "episode": ("--seed", "--env", "--policy", "--set"),
    "cdf": ("--threshold",),
}
_FLAGS = {
    "locate": ("--sigma", "--window", "--filter", "--user-height", "--missing", "--unit", "--held-out", "--known"),
    "collect": ("--metric", "--by", "--out"),
    "reproduce": ("--seeds", "--episodes", "--steps", "--workers"),
    "check-csi": ("--snapshots", "--subcarrier-order"),
    "convert": ("--antenna-order", "--phase", "--test-share", "--block-m", "--seed"),
}


class RefusalError(ValueError):
    """A command was refused; the message is what it wrote to standard error."""


@contextlib.contextmanager
def _in_a_folder() -> Iterator[Path]:
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        for name, kind in FORMATS.items():
            (Path(folder) / name).write_bytes(kind.content())
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


def here(arguments: Sequence[str]) -> bool:
    """A command line in this process, as a person would see it end."""
    said, errors, code = io.StringIO(), io.StringIO(), 0
    with _in_a_folder() as folder, contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors):
        sys.argv = ["cfpos", *arguments]
        before = set(folder.rglob("*"))
        try:
            _run(arguments)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        left = set(folder.rglob("*")) - before
        return _ended(code, said.getvalue(), errors.getvalue(), left)


def _run(arguments: Sequence[str]) -> None:
    """What the console command does, without loading the command's module anew."""
    name, *rest = arguments
    sys.argv = [f"cfpos {name}", *rest]
    module = importlib.import_module(f"cfpos.scripts.{name.replace('-', '_')}")
    if name in ("train", "evaluate"):
        return run_hydra(module.main, name)
    code = module.main(rest)
    raise SystemExit(code)


def apart(arguments: Sequence[str]) -> bool:
    """A command line in a process of its own."""
    paths = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])
    with _in_a_folder() as folder:
        before = set(folder.rglob("*"))
        done = subprocess.run(
            [sys.executable, "-m", "cfpos", *arguments],
            env={**os.environ, "PYTHONPATH": paths},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PROCESS_S,
            check=False,
        )
        left = set(folder.rglob("*")) - before
    if done.returncode < 0:
        raise RuntimeError(f"ended by signal {-done.returncode}")
    return _ended(done.returncode, done.stdout, done.stderr, left)


def _ended(code: int, said: str, errors: str, left: set[Path]) -> bool:
    lines = [line for line in errors.splitlines() if line.strip() and not line.startswith(("warning:", "note:"))]
    if "Traceback (most recent call last)" in errors or code not in _ENDED_WELL:
        raise RuntimeError(f"code {code}: {lines[-1] if lines else 'nothing said'}")
    if code == 0:
        if "=nan" in said:
            raise NotFinite("what was printed")
        return True
    if code == 2 and left:
        raise RuntimeError(f"refused, and left {sorted(path.name for path in left)[:3]} behind: {lines[-1:]}")
    if code == 2 and not (len(lines) == 1 and lines[0].startswith("error: ") and len(lines[0]) <= MOST_LETTERS):
        raise RefusalError("\n".join(lines) or "nothing")
    raise RefusalError(lines[0] if lines else "nothing")


def _hydra() -> st.SearchStrategy[tuple[str, ...]]:
    names = [env_id.removesuffix("-v0") for env_id in list_envs()]
    words = {name: [option.name for option in options_of(make_config(f"{name}-v0"))] for name in names}
    own = st.sampled_from(["seed", "total_steps", "device", "threads", "resume", "start_from", "agent.num_envs"])
    settings = st.sampled_from(
        ["agent.lr_actor", "agent.gamma", "agent.batch_size", "agent.buffer_size", "agent.share"]
    )

    def of(name: str) -> st.SearchStrategy[tuple[str, ...]]:
        sizes = _DCP if name == "dcp-jar" else ()
        key = st.one_of(st.sampled_from(words[name]).map(lambda word: f"env.{word}"), own, settings)
        change = st.tuples(key, st.sampled_from(_SAID)).map(lambda pair: f"{pair[0]}={pair[1]}")
        wrong = st.sampled_from(["env=nothing", "agent=nothing", "env.nothing=1", "=", "env.", "+x=1", "env.num_ues"])
        return st.lists(st.one_of(change, change, change, wrong), min_size=1, max_size=2).map(
            lambda given: ("train", f"env={name}", "agent=maddpg", *sizes, *_TRAIN, *given)
        )

    return st.one_of(st.just("dcp-jar"), st.sampled_from(names)).flatmap(of)


def _evaluate() -> st.SearchStrategy[tuple[str, ...]]:
    policies = st.sampled_from(
        ["[joint-gn]", "[]", "[nothing]", "[{name:fingerprint,spacing:nan}]", "[{}]", "null", "3"]
    )
    keys = st.sampled_from(["episodes", "seed", "positions", "answers", "device", "threads", "settings_of"])
    change = st.tuples(keys, st.sampled_from(_SAID)).map(lambda pair: f"{pair[0]}={pair[1]}")
    return st.tuples(policies, st.lists(change, max_size=1)).map(
        lambda drawn: ("evaluate", "env=dcp-jar", *_DCP, "episodes=2", f"policy={drawn[0]}", *drawn[1])
    )


def _plain(in_processes: bool) -> st.SearchStrategy[tuple[str, ...]]:
    files = st.sampled_from([*FORMATS, "missing.csv", "."])
    number = st.sampled_from(_NUMBERS)

    def flags(known: Sequence[str]) -> st.SearchStrategy[tuple[str, ...]]:
        pair = st.tuples(st.sampled_from([*known, "--nothing"]), number)
        return st.lists(pair, max_size=2).map(lambda pairs: tuple(word for given in pairs for word in given))

    locate = st.tuples(files, files, flags(_FLAGS["locate"])).map(
        lambda drawn: ("locate", "--site", drawn[0], "--measurements", drawn[1], *drawn[2])
    )
    plots = st.sampled_from(list(_PLOTS)).flatmap(
        lambda name: flags(_PLOTS[name]).map(lambda given: ("plot", name, *given))
    )
    cdf = files.map(lambda name: ("plot", "cdf", name))
    others = [
        st.tuples(files, flags(_FLAGS[name])).map(lambda drawn, name=name: (name, drawn[0], *drawn[1]))  # type: ignore[misc]
        for name in ("collect", "check-csi")
    ]
    others.append(
        st.tuples(files, flags(_FLAGS["convert"])).map(lambda d: ("convert", "csi", d[0], "--out", "o.npz", *d[1]))
    )
    others.append(flags(_FLAGS["reproduce"]).map(lambda given: ("reproduce", "nothing", *given)))
    strange = st.lists(st.sampled_from([*_NUMBERS, "train", "--help", "--version", "nothing"]), max_size=3).map(tuple)
    return st.one_of(locate, locate, plots, cdf, *others, *([strange] if in_processes else []))


def commands(in_processes: bool) -> st.SearchStrategy[Case]:
    """Command lines with wrong values, unknown names and damaged files.

    Args:
        in_processes: each in a process of its own, as a person would start it.
    """
    area = "processes" if in_processes else "commands"
    run = apart if in_processes else here

    def of(arguments: tuple[str, ...]) -> Case:
        return Case(area, arguments[0] if arguments else "", " ".join(arguments), partial(run, arguments))

    return st.one_of(_hydra(), _plain(in_processes), _plain(in_processes), _evaluate()).map(of)
