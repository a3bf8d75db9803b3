"""Libraries are loaded only if they are whole, the user's own, and in a folder that nobody else may write to."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cfpos_envs.locks import exclusive
from cfpos_envs.native import build, kept


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CFPOS_CACHE", str(tmp_path / "cache"))
    return kept.cache_folder()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "answer.cpp"
    path.write_text('extern "C" int answer() { return 42; }\n')
    return path


def answer(source: Path) -> int:
    """What the library says that a new process would load."""
    library = build._found.__wrapped__((source,))
    assert not isinstance(library, build.KernelUnavailableError), library
    return int(library.answer())


def replaced(path: Path, content: bytes) -> None:
    # By another file: this process has the first one mapped.
    path.unlink()
    path.write_bytes(content)
    path.chmod(0o700)


def linked(path: Path) -> None:
    elsewhere = path.with_name("elsewhere")
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


WRONG: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: replaced(path, path.read_bytes()[:3000]),
    "empty": lambda path: replaced(path, b""),
    "a flipped bit": lambda path: replaced(path, path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])),
    "a link": linked,
    "others may write": lambda path: path.chmod(0o722),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


def test_what_is_wrong_is_built_again_and_what_is_right_is_not(
    folder: Path, source: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    line = f"building compiled kernels (answer.cpp) once, into {folder}\n"
    assert answer(source) == 42
    assert capfd.readouterr().err == line
    for name, harm in WRONG.items():
        (path,) = folder.glob("kernels-*")
        assert answer(source) == 42
        assert capfd.readouterr().err == "", name
        harm(path)
        assert kept.kept_library(folder, path.stem.split("-")[1]) is None, name
        if name == "a folder":
            path.rmdir()
        assert answer(source) == 42
        assert capfd.readouterr().err == line, name
    assert sorted(path.suffix for path in folder.iterdir()) == ["", ".so"]


def test_a_library_of_another_user_is_not_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = folder / "made"
    made.write_bytes(b"x")
    path = kept.keep_library(made, folder, "key")
    assert kept.kept_library(folder, "key") == path
    user = os.getuid()
    monkeypatch.setattr(kept.os, "getuid", lambda: user + 1)
    assert kept.kept_library(folder, "key") is None


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_folder_that_others_may_write_to_is_refused(folder: Path, source: Path, mode: int) -> None:
    folder.chmod(mode)
    refused = build._found.__wrapped__((source,))
    assert isinstance(refused, build.KernelUnavailableError)
    assert f"others may write to {folder}; take that right from them (chmod go-w) or set CFPOS_CACHE" in str(refused)
    assert list(folder.iterdir()) == []


def test_what_killed_builders_left_goes_and_those_at_work_are_waited_for(
    folder: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = build._key(build._compiler(), (source,))
    (folder / f".building-{key}-left").mkdir()
    (folder / ".building-other-left").mkdir()
    assert answer(source) == 42
    assert sorted(path.name for path in folder.glob(".*")) == [".building-other-left"]
    # Built by another process while this one waited for the lock.
    (path,) = folder.glob("kernels-*")
    looked = iter([None, path])
    monkeypatch.setattr(build, "kept_library", lambda *_: next(looked))
    monkeypatch.setattr(build, "_build", None)
    assert answer(source) == 42
    with exclusive(folder, f".{key}.lock"):
        assert path.exists()
