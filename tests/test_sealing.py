"""Any flipped bit and any cut of a sealed file is found; files of the builds before load; a full disk is one line."""

from __future__ import annotations

import errno
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cfpos_envs import sealing
from cfpos_envs.checkpoints import (
    BEST,
    LAST,
    PREVIOUS,
    DamagedError,
    DamagedWarning,
    UnwritableError,
    found_checkpoint,
    read_checkpoint,
    remove_leftovers,
    write_checkpoint,
)

CONTENT: dict[str, Any] = {"agent": {"weights": torch.arange(600.0), "name": "x"}, "run": {"steps": 3, "best": None}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "last.pt"
    write_checkpoint(path, CONTENT)
    return path


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=150, deadline=None)
def test_every_flipped_bit_is_found(whole: Path, place: float, bit: int) -> None:
    content = bytearray(whole.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    damaged = whole.with_name("flipped.pt")
    damaged.write_bytes(content)
    with pytest.raises(DamagedError, match=r"flipped\.pt is damaged"):
        read_checkpoint(damaged)


@given(kept=st.floats(0, 1, exclude_max=True))
@settings(max_examples=60, deadline=None)
def test_every_cut_is_found(whole: Path, kept: float) -> None:
    content = whole.read_bytes()
    cut = whole.with_name("cut.pt")
    cut.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(DamagedError):
        read_checkpoint(cut)


@pytest.mark.parametrize("back", [1, 40, len(sealing._MARK) + 32, 46, 60])
def test_the_seal_itself_is_checked(whole: Path, back: int) -> None:
    content = bytearray(whole.read_bytes())
    content[-back] ^= 1
    (whole.with_name("seal.pt")).write_bytes(content)
    with pytest.raises(DamagedError):
        read_checkpoint(whole.with_name("seal.pt"))


def test_others_read_a_sealed_file_as_an_archive_of_torch(whole: Path) -> None:
    content = torch.load(whole, weights_only=True)
    assert torch.equal(content["agent"]["weights"], CONTENT["agent"]["weights"])


@pytest.mark.parametrize("version", [{}, {"format_version": 1}])
def test_files_of_the_builds_before_load_and_their_damage_is_found(version: dict[str, int], tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    torch.save({"format": 2, **version, **CONTENT}, path)
    read = read_checkpoint(path)
    assert torch.equal(read["agent"]["weights"], CONTENT["agent"]["weights"])
    assert read["format_version"] == version.get("format_version", 0)
    content = bytearray(path.read_bytes())
    content[content.index(CONTENT["agent"]["weights"].numpy().tobytes()) + 1000] ^= 16
    path.write_bytes(content)
    assert not torch.equal(torch.load(path, weights_only=True)["agent"]["weights"], CONTENT["agent"]["weights"])
    with pytest.raises(DamagedError):
        read_checkpoint(path)


def test_a_file_of_this_build_without_its_seal_is_damaged(tmp_path: Path) -> None:
    torch.save({"format": 2, "format_version": 2, **CONTENT}, tmp_path / "bare.pt")
    with pytest.raises(DamagedError):
        read_checkpoint(tmp_path / "bare.pt")


def test_only_archives_are_sealed(tmp_path: Path) -> None:
    with open(tmp_path / "text", "wb") as stream:
        file = sealing.SealingFile(stream)
        for piece in (b"n", b"", b"o", b"t", memoryview(b"hing like it")):
            assert file.write(piece) == len(piece)
        with pytest.raises(ValueError, match="only an archive"):
            file.seal()
    assert (tmp_path / "text").read_bytes() == b"nothing like "


def step_in(folder: Path, prefer: str = LAST) -> tuple[str, int]:
    path, content = found_checkpoint(folder, prefer)
    return path.name, content["run"]["steps"]


def stored(folder: Path, steps: int, best: dict[str, int] | None = None) -> None:
    content = {"agent": {}, "run": {"steps": steps, "best": best}}
    write_checkpoint(folder / LAST, content, keep=folder / PREVIOUS)


def test_the_checkpoint_before_is_kept_and_used_with_a_word(tmp_path: Path) -> None:
    for steps in (1, 2, 3):
        stored(tmp_path, steps)
        assert step_in(tmp_path) == (LAST, steps)
    assert read_checkpoint(tmp_path / PREVIOUS)["run"]["steps"] == 2
    assert {path.name for path in tmp_path.iterdir()} == {LAST, PREVIOUS}
    (tmp_path / LAST).write_bytes((tmp_path / LAST).read_bytes()[:-100])
    with pytest.warns(DamagedWarning, match=r"last\.pt is damaged; .*previous\.pt is used instead"):
        assert step_in(tmp_path) == (PREVIOUS, 2)
    with pytest.raises(DamagedError):
        read_checkpoint(tmp_path / LAST)
    (tmp_path / PREVIOUS).write_bytes(b"")
    with pytest.raises(DamagedError, match=r"last\.pt"):
        read_checkpoint(tmp_path, LAST)


def test_without_links_the_checkpoint_before_is_kept_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr("os.link", refused)
    stored(tmp_path, 1)
    stored(tmp_path, 2)
    assert [step_in(tmp_path), step_in(tmp_path, PREVIOUS)] == [(LAST, 2), (PREVIOUS, 1)]


def test_the_best_policy_is_found_in_what_the_run_goes_on_from(tmp_path: Path) -> None:
    stored(tmp_path, 1, {"which": 7})
    (tmp_path / BEST).write_bytes(b"PK")
    with pytest.warns(DamagedWarning):
        assert read_checkpoint(tmp_path)["agent"] == {"which": 7}
    stored(tmp_path, 2)
    (tmp_path / PREVIOUS).unlink()
    with pytest.raises(DamagedError, match=r"best\.pt"):
        read_checkpoint(tmp_path)


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".last.pt.k3j", ".best.pt.x", ".previous.pt.81", ".hidden", "last.pt", "last.pt.mine"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".hidden", "last.pt", "last.pt.mine"}


class FullDisk(io.FileIO):
    """Takes a few bytes and then no more."""

    room = 700

    def write(self, piece: Any) -> int:
        self.room -= len(piece)
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(piece)


def test_a_full_disk_is_said_in_one_line_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    stored(tmp_path, 1)
    monkeypatch.setattr("os.fdopen", lambda handle, mode: FullDisk(handle, mode))
    with pytest.raises(UnwritableError) as full:
        write_checkpoint(tmp_path / LAST, CONTENT, keep=tmp_path / PREVIOUS)
    assert str(full.value) == f"cannot write {tmp_path / LAST}: No space left on device; free some space."
    assert step_in(tmp_path) == (LAST, 1)
    assert [path.name for path in tmp_path.iterdir()] == [LAST]
    assert capfd.readouterr().err == ""
