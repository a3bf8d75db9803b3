"""Files of a run: written whole or not at all, read back without executing anything, refused by another game."""

from __future__ import annotations

import contextlib
import os
import pickle
import tempfile
import warnings
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

State = dict[str, Any]
"""Tensors and plain values by name, nested: what a checkpoint holds."""
BEST, LAST = "best.pt", "last.pt"
FORMAT_VERSION = 1
"""Of the content of checkpoints; files without one are of the builds before and load through ``OLD_GAMES``."""
_FORMAT = 2

OLD_GAMES: Mapping[str, tuple[str, ...]] = {
    "DcpScenario": ("dcp",),
    "ToaScenario": ("toa", "tdoa", "rtt"),
    "RisScenario": ("ris",),
    "RisPhaseScenario": ("ris-phase",),
    "EccScenario": ("csi",),
}
"""What files without a ``format_version`` call a game -> the families that it may have been."""
SIGNATURE_PARTS = ("family", "ranges", "observation", "action")
"""Of ``Scenario.signature``; those that say most in a message first."""


def write_checkpoint(path: str | Path, content: State) -> None:
    """Write to a temporary file beside ``path``, force it to the disk, then rename: readers never see half a file.

    Raises:
        OSError: the folder cannot be written; the message names it.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror}; choose a folder you may write to.") from None
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save({"format": _FORMAT, "format_version": FORMAT_VERSION, **content}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def read_checkpoint(path: str | Path, prefer: str = BEST) -> State:
    """Read a checkpoint, or the one called ``prefer`` of a run's folder.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is cut short, damaged or not one of ours.
    """
    path = checkpoint_path(path, prefer)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    # A file that ends early shows as any of these, an OSError among them (a seek before its beginning).
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile, pickle.UnpicklingError):
        raise ValueError(
            f"{path} is truncated or no checkpoint of ours; use another checkpoint of the run or train again."
        ) from None
    if not isinstance(content, dict) or content.get("format") != _FORMAT or "agent" not in content:
        raise ValueError(f"{path} is not a checkpoint of this version; use a file written by save() or train().")
    version = content.setdefault("format_version", 0)
    if version > FORMAT_VERSION:
        raise ValueError(f"{path} has format version {version}, this build reads up to {FORMAT_VERSION}; update cfpos.")
    return content


def checkpoint_path(path: str | Path, prefer: str = BEST) -> Path:
    """The checkpoint file meant by a file or a run's folder.

    Raises:
        FileNotFoundError: nothing there; the message says what was looked for.
    """
    path = Path(path)
    if path.is_dir():
        for name in (prefer, LAST):
            if (path / name).is_file():
                return path / name
        raise FileNotFoundError(f"no {prefer} in {path}; give a run's folder or a checkpoint file.")
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}; give a run's folder or a file written by save().")
    return path


@runtime_checkable
class NamedGame(Protocol):
    """What is noted of a game: any ``cfpos_envs.front_ends.base.Env``."""

    env_id: str

    def signature(self) -> State:
        """See ``Scenario.signature``."""

    def options(self) -> Mapping[str, object]:
        """The game's config by name."""


def game_of(env: NamedGame) -> State:
    """The entries by which a stored policy knows its game: ``{**game_of(env), ...}``; ``check_game`` reads them."""
    return {"env_id": env.env_id, "signature": env.signature()}


def check_game(state: State, env: NamedGame, parts: Collection[str] = SIGNATURE_PARTS) -> None:
    """Refuse a policy of another game.

    Args:
        state: what was stored, with the entries of ``game_of`` of the game it was trained in.
        env: the game it is to play.
        parts: which parts of the signature the policy relies on.

    Raises:
        ValueError: another game; names both and the entry in which they differ.
    """
    trained: State = state["signature"]
    if "family" not in trained:
        _check_old_game(trained, env)
        return
    there, mine = _entries(trained, parts), _entries(env.signature(), parts)
    for entry in {**there, **mine}:
        if there.get(entry) != mine.get(entry):
            raise ValueError(_another_game(state["env_id"], env.env_id, entry, there.get(entry), mine.get(entry)))


def _entries(signature: State, parts: Collection[str]) -> dict[str, object]:
    """The entries of a signature by the name that messages give them, those that say most first."""
    entries: dict[str, object] = {}
    for part in parts:
        content = signature[part]
        if part == "family":
            entries["family"] = content
        elif part == "ranges":
            entries.update({name: list(v) if isinstance(v, (list, tuple)) else v for name, v in content.items()})
        else:
            entries[f"{part} rows"] = ", ".join(row["name"] for row in content)
            entries.update({f"{key} of {part} {row['name']}": row[key] for row in content for key in ("size", "scale")})
    return entries


def _check_old_game(trained: Mapping[str, str], env: NamedGame) -> None:
    """``check_game`` for a file of the builds before, which names the game's class and a few of its options."""
    game = trained["game"]
    families = OLD_GAMES.get(game, (game,))
    here, options = env.signature(), env.options()
    if here["family"] not in families:
        raise ValueError(_another_game(game, env.env_id, "family", " or ".join(families), here["family"]))
    for name, value in trained.items():
        if name != "game" and str(options.get(name, value)) != value:
            raise ValueError(_another_game(game, env.env_id, name, value, options[name]))
    unknown = (["family"] if len(families) > 1 else []) + [name for name in here["ranges"] if name not in trained]
    if unknown:
        warnings.warn(
            f"the checkpoint is of a build that did not note {', '.join(unknown)}: it is taken to be of {env.env_id}; "
            "save it again to note them.",
            stacklevel=2,
        )


def _another_game(there: str, here: str, entry: str, value_there: object, value_here: object) -> str:
    return (
        f"the checkpoint is of another environment: trained in {there} with {entry}={value_there}, here {here} with "
        f"{value_here}; load it with the environment it was trained in."
    )
