"""What the folder of a training run says of its game, so that evaluation plays what was trained."""

from __future__ import annotations

import hashlib
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import OverrideParseException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cfpos.baselines import list_policies
from cfpos.scripts.reports import write_text
from cfpos.scripts.settings import plain, schema, shown
from cfpos_envs import list_envs
from cfpos_envs.checkpoints import LAST, DamagedWarning, read_checkpoint
from cfpos_envs.registry import make_config
from cfpos_envs.scenarios.site_files import site_base

CONFIG_FILE = "config.yaml"
_NO_DIFFERENCE = ("split", "kernel")
"""Options that evaluation sets itself, or that leave the game as it is."""
_NAMED = 6
_FIRST_LINE = "# Settings of a run; the last line is their digest. Take both lines out if you change anything."
_LAST_LINE = "# sha256 "
_UNQUOTED = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./+")


@dataclass(frozen=True)
class TrainedGame:
    """The game that a policy on disk was trained in.

    Attributes:
        path: what was named: a run's folder or a checkpoint file.
        env_id: id of the environment.
        config: where the run's settings are; None: a checkpoint that has none beside it.
    """

    path: Path
    env_id: str
    config: Path | None

    @cached_property
    def settings(self) -> DictConfig | None:
        """The settings of the environment; None where they are not known.

        Raises:
            ValueError: the file is damaged or of another build.
        """
        if self.config is None:
            return None
        node = schema({"id": self.env_id}, make_config(self.env_id))
        for name, value in run_config(self.config.parent).env.items():
            if name not in node:
                raise ValueError(
                    f"{self.config} sets env.{name}, which {self.env_id} does not know; say the settings with env=..."
                )
            node[name] = value
        return node


def write_config(path: Path, config: DictConfig) -> Path:
    """Write the settings of a run, between two comments that tell whether they are whole."""
    return write_text(path, config_text(config))


def config_text(config: DictConfig) -> str:
    """What ``write_config`` writes."""
    text = OmegaConf.to_yaml(config, resolve=True)
    return f"{_FIRST_LINE}\n{text}{_LAST_LINE}{_digest(text)}\n"


def run_config(folder: Path, needed: Sequence[str] = ("env",)) -> DictConfig:
    """The settings of a run; where ``config.yaml`` is not whole, with a warning those that its checkpoint notes.

    Args:
        folder: of the run.
        needed: what must be among them.

    Raises:
        ValueError: not whole, and nothing is noted.
    """
    path = folder / CONFIG_FILE
    try:
        return saved_config(path, needed)
    except ValueError:
        noted = _noted(folder)
        if noted is None:
            raise
    warnings.warn(f"{path} is damaged; the settings that {LAST} notes are used", DamagedWarning, stacklevel=2)
    return noted


def mend_config(folder: Path) -> None:
    """Write the settings of a run again if they are not whole and its checkpoint notes them."""
    try:
        saved_config(folder / CONFIG_FILE)
    except ValueError:
        noted = _noted(folder)
        if noted is not None:
            write_config(folder / CONFIG_FILE, noted)


def _noted(folder: Path) -> DictConfig | None:
    try:
        note = read_checkpoint(folder, LAST).get("note")
    except (ValueError, FileNotFoundError):
        return None
    noted = OmegaConf.create(note or "")
    return noted if isinstance(noted, DictConfig) and noted else None


def saved_config(path: Path, needed: Sequence[str] = ("env",)) -> DictConfig:
    """The settings of a run as its ``config.yaml`` has them.

    Args:
        path: of the file.
        needed: what it must say.

    Raises:
        ValueError: damaged, cut short, or changed without taking the comments out.
    """
    try:
        _check_whole(path)
        config = OmegaConf.load(path)
    except (YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}); start a new run") from error
    if not isinstance(config, DictConfig) or "id" not in config.get("env", {}):
        raise ValueError(f"{path} is no configuration of a run; start a new run")
    for name in needed:
        if OmegaConf.select(config, name, default=MISSING) == MISSING:
            raise ValueError(f"{path} is cut short: it does not say {name}; restore it or start a new run")
    return config


def _check_whole(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if _FIRST_LINE not in text and _LAST_LINE not in text:  # of a build before, or written by hand
        return
    head, _, rest = text.partition("\n")
    settings, _, digest = rest.rpartition(_LAST_LINE)
    if head != _FIRST_LINE or digest != f"{_digest(settings)}\n":
        raise ValueError(
            f"{path} is damaged, cut short or was changed: restore it, or take its first and last line out if the "
            "change is meant"
        )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def trained_game(entry: Any) -> TrainedGame | None:
    """The game of a policy as ``scripts.policies.build_policy`` takes it.

    None: not a policy on disk, or a file of a build that named no game.

    Raises:
        ValueError: a damaged file.
    """
    if isinstance(entry, Mapping) or str(entry) in list_policies() or not Path(str(entry)).exists():
        return None
    path = Path(str(entry))
    config = (path if path.is_dir() else path.parent) / CONFIG_FILE
    stored = read_checkpoint(path)["agent"]
    if "env_id" not in stored:
        return None
    env_id = str(stored["env_id"])
    if config.is_file() and run_config(config.parent).env.id == env_id:
        return TrainedGame(path, env_id, config)
    return TrainedGame(path, env_id, None)


def game_to_follow(arguments: Sequence[str]) -> list[str]:
    """What is added to the command line of an evaluation that names no game: that of its runs.

    Args:
        arguments: the command line.

    Returns:
        ``env=`` and ``settings_of=``, or nothing: a game is named, or no run.

    Raises:
        ValueError: runs of different games.
    """
    said = {entry.split("=", 1)[0]: entry for entry in arguments if "=" in entry}
    if {"--multirun", "-m"} & set(arguments) or "env" in said or not {"policy", "settings_of"} & said.keys():
        return []
    try:
        value = _parsed(said.get("settings_of", said.get("policy", ""))).value()
    except OverrideParseException:  # Hydra has the better words for it
        return []
    entries = value if isinstance(value, list) else [value]
    games = [game for game in map(trained_game, entries) if game is not None and game.env_id in list_envs()]
    if not games:
        return []
    first = games[0]
    for other in games[1:]:
        if other.env_id != first.env_id:
            raise ValueError(
                f"policy lists runs of different games: {first.path} of {first.env_id}, "
                f"{other.path} of {other.env_id}; evaluate them one at a time"
            )
    follow = [] if "settings_of" in said else [f"settings_of={in_hydra(str(first.path))}"]
    return [f"env={first.env_id.removesuffix('-v0')}", *follow]


def followed(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The settings of the environment in an evaluation: those of ``settings_of``, with what was typed put over them.

    Args:
        config: of the command.
        overrides: as typed.

    Raises:
        ValueError: ``settings_of`` is no run, or one of another game.
    """
    if config.settings_of is None:
        return config.env
    game = trained_game(config.settings_of)
    if game is None:
        raise ValueError(f"settings_of={config.settings_of} is no run; give the folder of a training run")
    if game.env_id != config.env.id:
        raise ValueError(
            f"settings_of={config.settings_of} is a run of {game.env_id}, but env={config.env.id.removesuffix('-v0')}; "
            "leave out env="
        )
    if game.settings is None:
        return config.env
    node = game.settings.copy()
    for override in map(_parsed, overrides):
        name = override.key_or_group.removeprefix("env.")
        if name == override.key_or_group:
            continue
        if name.startswith("site.") and not isinstance(node.site, DictConfig):
            OmegaConf.update(node, "site", {site_base(node.site): node.site}, merge=False)
        adds = override.is_add() or override.is_force_add()
        OmegaConf.update(node, name, override.value(), merge=True, force_add=adds or name.startswith("site."))
    return node


def difference(game: TrainedGame, played: DictConfig) -> str | None:
    """A sentence on what an evaluation plays otherwise than a policy was trained; None: nothing.

    Args:
        game: where it was trained.
        played: settings of the environment that is played.
    """
    if game.settings is None:
        return (
            f"{game.path} has no {CONFIG_FILE} beside it, so nobody knows with which settings it was trained; "
            f"it plays {played.id} as the command line says"
        )
    there, here = options(game.settings), options(played)
    names = [name for name in {**there, **here} if there.get(name) != here.get(name) and name not in _NO_DIFFERENCE]
    if not names:
        return None
    more = f" and {len(names) - _NAMED} more" * (len(names) > _NAMED)
    trained, plays = (
        " ".join(f"env.{name}={in_hydra(found.get(name))}" for name in names[:_NAMED]) for found in (there, here)
    )
    return f"{game.path} was trained with {trained}{more}; here it plays with {plays}{more}"


def options(node: DictConfig) -> dict[str, Any]:
    """Settings of an environment by their present names, one spelling for each value."""
    default = make_config(node.id)
    old_names = getattr(default, "old_names", {})
    values = plain(node, "id", *old_names)
    values |= {new: node[old] for old, new in old_names.items() if node.get(old) is not None}
    if isinstance(values.get("site"), str) and isinstance(shown(default, "site"), Mapping):
        values["site"] = {site_base(values["site"]): values["site"]}
    return values


def in_hydra(value: Any) -> str:
    """A value as Hydra reads it on the command line."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{in_hydra(part)}" for name, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(in_hydra(part) for part in value) + "]"
    if isinstance(value, str) and not (value and _UNQUOTED.issuperset(value)):
        # Only backslashes before a quote are special to Hydra.
        return "'" + re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), value) + "'"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def warn(message: str) -> None:
    """A line on standard error that stops nothing."""
    print(f"warning: {message}", file=sys.stderr)


def _parsed(override: str) -> Override:
    return OverridesParser.create().parse_override(override)
