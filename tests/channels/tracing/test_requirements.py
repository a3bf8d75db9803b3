"""A machine without the extra or with an old LLVM is told so in one line, and nothing crashes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cfpos_envs.channels.tracing import requirements
from cfpos_envs.channels.tracing.recipe import Recipe
from cfpos_envs.channels.tracing.requirements import RayTracingUnavailableError, llvm_version, require_ray_tracing
from cfpos_envs.channels.tracing.tracer import Tracer
from scripts.make_dataset import main


def interpreter(folder: Path, script: str) -> str:
    """Something to be run in place of Python."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def with_extra(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(requirements, "missing_packages", lambda: ())
    return monkeypatch


@pytest.fixture
def without_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "missing_packages", lambda: ("sionna.rt", "mitsuba"))


def test_version_is_asked_for_in_another_process(tmp_path: Path) -> None:
    assert llvm_version(interpreter(tmp_path, "echo noise; echo llvm 19 1 7")) == (19, 1, 7)


@pytest.mark.parametrize(
    "script",
    ["kill -ABRT $$", "echo 'ImportError' >&2; exit 1", "echo llvm 19 1 7; exit 3", "echo nothing"],
    ids=["aborts", "cannot import", "fails late", "says nothing"],
)
def test_a_process_that_dies_gives_no_version(tmp_path: Path, script: str) -> None:
    assert llvm_version(interpreter(tmp_path, script)) == ()


def test_no_interpreter_gives_no_version(tmp_path: Path) -> None:
    assert llvm_version(str(tmp_path / "none")) == ()


def test_recent_llvm_is_accepted(with_extra: pytest.MonkeyPatch) -> None:
    with_extra.setattr(requirements, "llvm_version", lambda: (19, 1, 7))
    require_ray_tracing()


@pytest.mark.parametrize(("version", "said"), [((15, 0, 6), "LLVM 15.0.6 was found"), ((), "no usable LLVM was found")])
def test_old_or_no_llvm_is_refused_with_the_line_to_run(
    with_extra: pytest.MonkeyPatch, version: tuple[int, ...], said: str
) -> None:
    with_extra.setattr(requirements, "llvm_version", lambda: version)
    with pytest.raises(RayTracingUnavailableError, match=f"LLVM 19 or newer, {said}; run: apt-get install"):
        require_ray_tracing()


@pytest.mark.usefixtures("without_extra")
def test_missing_extra_is_named_with_the_line_to_run() -> None:
    with pytest.raises(RayTracingUnavailableError, match=r"sionna.rt, mitsuba missing.*pip install .*\[raytracing\]"):
        Tracer(Recipe())


@pytest.mark.usefixtures("without_extra")
def test_the_command_says_it_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path / "set"), "--train", "10", "--test", "0"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("make_dataset: the ray tracer is not installed")
    assert said.count("\n") == 1
    assert not (tmp_path / "set").exists()


# In a process without the type checker of the tests, as users run it.
PLAIN = """
import sys
from cfpos_envs.channels.tracing import generate, requirements, storage, tracer
from cfpos_envs.channels.tracing.recipe import Recipe
requirements.missing_packages()
print({"mitsuba", "drjit", "sionna.rt"} & set(sys.modules))
for wrong in ({"rays": 1e4}, {"centre_m": 3.0}, {"indoor": "yes"}, {"num_bss": True}):
    try:
        Recipe(**wrong)
    except ValueError as error:
        print(error)
"""


def test_asking_imports_no_ray_tracer_and_wrong_kinds_are_refused() -> None:
    said = subprocess.run([sys.executable, "-c", PLAIN], check=True, capture_output=True, text=True).stdout.splitlines()
    assert said == [
        "set()",
        "rays is 10000.0; it must be an integer from 1 to 1e+09",
        "centre_m is 3.0; it must be two numbers",
        "indoor is 'yes'; it must be true or false",
        "num_bss is True; it must be an integer from 1 to 1e+09",
    ]
