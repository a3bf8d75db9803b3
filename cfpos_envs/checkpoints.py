"""Files of a run: written whole or not at all, read back without executing anything, refused by another game."""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Protocol, cast, runtime_checkable

import torch

from cfpos_envs.checks import Notice
from cfpos_envs.disk import is_full, sync
from cfpos_envs.sealing import SealingFile, is_whole

State = dict[str, Any]
"""Tensors and plain values by name, nested: what a checkpoint holds."""
BEST, LAST, PREVIOUS = "best.pt", "last.pt", "previous.pt"
"""Of a run's folder: the policy to use, what the run goes on from, and what ``last.pt`` was before."""
FORMAT_VERSION = 2
"""Of the content of checkpoints; since 2 they are sealed. Files without one are of the builds before and load through
``OLD_GAMES``."""
_FORMAT = 2
_SEALED_SINCE = 2

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


class DamagedError(ValueError):
    """A file is cut short, or its content is not what was written."""


class DamagedWarning(Notice):
    """A damaged file was done without."""


class UnwritableError(OSError):
    """A file of a run could not be written: no room, or a folder that may not be written to."""


def write_checkpoint(path: str | Path, content: State, keep: str | Path | None = None) -> None:
    """Write to a temporary file beside ``path``, force it to the disk, then rename: readers never see half a file.

    Args:
        path: of the file.
        content: tensors and plain values, ``agent`` among them.
        keep: what the file that was there before is called from now on; None: it is replaced.

    Raises:
        UnwritableError: it cannot be written; the message names it and what to do. What was there is left as it is.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                sealing = SealingFile(file)
                whole = {"format": _FORMAT, "format_version": FORMAT_VERSION, **content}
                torch.save(whole, cast(IO[bytes], sealing))
                sealing.seal()
            if keep is not None:
                _keep(path, Path(keep))
            os.replace(temporary, path)
            sync(path.parent)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
    except OSError as error:
        remedy = "free some space" if is_full(error) else "choose a folder you may write to"
        raise UnwritableError(f"cannot write {path}: {error.strerror}; {remedy}.") from None


def remove_leftovers(folder: str | Path) -> None:
    """Remove what writers that were killed have left in a run's folder; only for who holds its lock."""
    for name in (BEST, LAST, PREVIOUS):
        for path in Path(folder).glob(f".{name}.*"):
            path.unlink(missing_ok=True)


def read_checkpoint(path: str | Path, prefer: str = BEST) -> State:
    """Read a checkpoint, or the one called ``prefer`` of a run's folder.

    Where that one of a folder is damaged, another that holds the same policy takes its place, with a warning.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: the file is cut short, damaged or not one of ours, and nothing can take its place.
        ValueError: a file of another version.
    """
    return found_checkpoint(path, prefer)[1]


def found_checkpoint(path: str | Path, prefer: str = BEST) -> tuple[Path, State]:
    """``read_checkpoint``, and from which file it was read."""
    chosen = checkpoint_path(path, prefer)
    try:
        return chosen, _read(chosen)
    except DamagedError as damage:
        if not Path(path).is_dir():
            raise
        for other, content in _others(chosen):
            warnings.warn(f"{chosen} is damaged; {other} is used instead", DamagedWarning, stacklevel=2)
            return other, content
        raise damage from None


def checkpoint_path(path: str | Path, prefer: str = BEST) -> Path:
    """The checkpoint file meant by a file or a run's folder.

    Raises:
        FileNotFoundError: nothing there; the message says what was looked for.
    """
    path = Path(path)
    if path.is_dir():
        for name in (prefer, LAST, PREVIOUS):
            if (path / name).is_file():
                return path / name
        raise FileNotFoundError(f"no {prefer} in {path}; give a run's folder or a checkpoint file.")
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}; give a run's folder or a file written by save().")
    return path


def folder_of(run: str | Path) -> Path:
    """The folder of a run that is named by itself or by a checkpoint in it."""
    return Path(run) if Path(run).is_dir() else Path(run).parent


def holds_run(folder: str | Path) -> bool:
    """Whether a training has left something to go on from in a folder."""
    return any((Path(folder) / name).exists() for name in (LAST, PREVIOUS))


def _read(path: Path) -> State:
    damaged = DamagedError(
        f"{path} is damaged, truncated or no checkpoint of ours; use another checkpoint of the run or train again."
    )
    sealed = is_whole(path)
    if sealed is False:
        raise damaged
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (PermissionError, MemoryError):
        raise
    # Old files have checksums, but not of everything: what is wrong with one may show as anything.
    except Exception:
        raise damaged from None
    if not isinstance(content, dict) or content.get("format") != _FORMAT or "agent" not in content:
        raise ValueError(f"{path} is not a checkpoint of this version; use a file written by save() or train().")
    version = content.setdefault("format_version", 0)
    if version > FORMAT_VERSION:
        raise ValueError(f"{path} has format version {version}, this build reads up to {FORMAT_VERSION}; update cfpos.")
    if version >= _SEALED_SINCE and sealed is None:
        raise damaged
    return content


def _others(damaged: Path) -> Iterator[tuple[Path, State]]:
    """What can take the place of a damaged file of a run, the best first."""
    for name in (LAST, PREVIOUS):
        path = damaged.with_name(name)
        if path == damaged or not path.is_file():
            continue
        try:
            content = _read(path)
        except ValueError:
            continue
        if damaged.name != BEST:
            yield path, content
        elif content.get("run", {}).get("best") is not None:
            yield path, {**content, "agent": content["run"]["best"]}


def _keep(path: Path, kept: Path) -> None:
    """Give a file another name too, so that its own can be taken without a moment in which there is none."""
    if not path.exists():
        return
    link = path.with_name(f".{kept.name}.{os.getpid()}")
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError:  # no such links on this disk
        link = path
    os.replace(link, kept)


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
