"""What every command shares: one Hydra entry point, errors in one line with exit code 2, folders that stay clean."""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cfpos.scripts import sweeps
from cfpos.scripts.runs import game_to_follow
from cfpos.scripts.settings import CONF, ROOT, register_folders, register_schemas
from cfpos_envs.checks import Notice, nearest
from cfpos_envs.extras import install_command
from cfpos_envs.supervised.processes import launched

USER_ERROR = 2
LAUNCHERS = {"joblib": "launchers", "submitit_local": "launchers", "submitit_slurm": "launchers", "ray": "ray"}
"""Hydra's launchers that are no dependency of ours -> the extra that installs them."""
INTERRUPTED = sweeps.INTERRUPTED
RELAUNCHES = 3
"""How often a launcher that died with one of its workers is restarted."""
_MOST_LISTED = 600
"""Letters of a list of names in a message, which stays one line to a person."""
_FIRST_WORD_S = 5.0
_SHOWING = frozenset({"--cfg", "-c", "--info", "-i", "--help", "-h", "--hydra-help"})
"""What makes Hydra show something instead of running."""


class UsageError(ValueError):
    """The person at the keyboard can mend this; the message says what was wrong, what is allowed, what to do."""


class Parser(argparse.ArgumentParser):
    """Refuses like every command of the project: one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Say it instead of printing the usage.

        Raises:
            SystemExit: always.
        """
        print(f"error: {one_line(UsageError(message))}; see --help", file=sys.stderr)
        raise SystemExit(USER_ERROR)


def words(text: str) -> tuple[str, ...]:
    """The words of a comma-separated option."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def suggest(name: str, allowed: Iterable[str]) -> str:
    """``did you mean a or b? Allowed: a, b, c``: the end of every message about an unknown name."""
    names = sorted(allowed)
    shown = len(names)
    while shown > 1 and sum(map(len, names[:shown])) + 2 * shown > _MOST_LISTED:
        shown -= 1
    rest = f" and {len(names) - shown} more" if shown < len(names) else ""
    return f"{nearest(name, names, '{} ')}Allowed: {', '.join(names[:shown])}{rest}"


def one_line(error: BaseException) -> str:
    """The message of an error (and of its cause, where OmegaConf hides the reason there) on a single line."""
    text = str(error)
    if isinstance(error.__cause__, OmegaConfBaseException):
        reason = str(error.__cause__.msg).split("\n")[0]
        text = f"{text}: {reason}"
    return re.sub(r"\s*\n\s*", "; ", text.strip())


@contextmanager
def user_errors(debug: bool) -> Iterator[None]:
    """Turn errors that a person can mend into one line on stderr and exit code 2, warnings for people into one line.

    Of several processes of torchrun the first has the first word: the others are ended before they say the same.

    Args:
        debug: let them through with their traceback instead.
    """
    rank, _ = launched()
    try:
        with _warnings_in_one_line():
            yield
    except KeyboardInterrupt as stop:
        if rank == 0:
            print(f"\n{stop or 'stopped by Ctrl-C'}", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    except (ValueError, OSError, FloatingPointError, HydraException, OmegaConfBaseException) as error:
        if debug:
            raise
        if rank > 0:
            time.sleep(_FIRST_WORD_S)
        print(f"error{f' in process {rank}' * (rank > 0)}: {one_line(error)}", file=sys.stderr)
        raise SystemExit(USER_ERROR) from error


def run_hydra(task: Callable[[DictConfig], None], config_name: str) -> None:
    """Compose ``conf/<config_name>.yaml`` with the command line and run ``task`` on it.

    With ``--multirun`` every run gets a process of its own (``scripts.sweeps``), whatever launcher starts it; runs that
    fail are reported at the end, with exit code 1, and the others go on.

    Args:
        task: gets the composed config.
        config_name: file below ``conf/`` without its ending.
    """
    debug = any(argument.replace("+", "") in ("debug=true", "debug=True", "debug=1") for argument in sys.argv[1:])
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors reach user_errors() instead of Hydra's own printing

    def job(config: DictConfig) -> None:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            with user_errors(debug):
                _run_of_sweep(config_name)
            return
        folder = output_folder()
        with _empty_folder_removed(folder), user_errors(debug):
            task(config)

    register_schemas()
    register_folders(reserve=not _SHOWING & set(sys.argv[1:]))
    main = hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(job)
    sweeps.SweepReport.folder = None
    with user_errors(debug), _explained(config_name), _own_folder():
        if config_name == "evaluate":
            sys.argv += game_to_follow(sys.argv[1:])
        _launch(main, debug)


def _run_of_sweep(config_name: str) -> None:
    hydra_config = HydraConfig.get()
    cwd = Path(hydra_config.runtime.cwd)
    # A worker elsewhere may have been started in another folder than the command.
    folder = cwd / str(hydra_config.sweep.dir) / str(hydra_config.sweep.subdir)
    quiet = not str(hydra_config.launcher["_target_"]).endswith(".BasicLauncher")
    sweeps.run_apart(ROOT / "scripts" / f"{config_name}.py", list(hydra_config.overrides.task), folder, cwd, quiet)


def _launch(main: Callable[[], None], debug: bool) -> None:
    """Run Hydra's ``main``, and say at the end which runs of a sweep have not finished.

    Some launchers abort all runs when the worker of one has died. They are restarted: finished runs are kept,
    others go on.
    """
    for attempt in range(RELAUNCHES + 1):
        died = _launched(main, debug)
        folder = sweeps.SweepReport.folder
        if folder is None:
            return
        missing = sweeps.unfinished(folder)
        if died is not None:
            print(f"error: the launcher failed ({type(died).__name__}: {one_line(died)})", file=sys.stderr)
        if missing:
            print("\n".join(["unfinished:", *(f"  {line}" for line in missing)]), file=sys.stderr)
        again = f"hydra.sweep.dir={folder}"
        if died is not None and sweeps.orphaned(folder) and attempt < RELAUNCHES:
            print(f"the launcher is restarted with {again}", file=sys.stderr, flush=True)
            sys.argv.append(again)
        elif missing or died is not None:
            print(f"the same command with {again} does what is missing", file=sys.stderr)
            raise SystemExit(1)
        else:
            return


def _launched(main: Callable[[], None], debug: bool) -> Exception | None:
    """The error by which a sweep's launcher died, if it did."""
    try:
        main()
    except Exception as error:
        # Before a sweep and in a single run errors have their own explanation.
        if debug or sweeps.SweepReport.folder is None or isinstance(error, HydraException):
            raise
        return error
    return None


def output_folder() -> Path:
    """Where this run writes."""
    return Path(HydraConfig.get().runtime.output_dir)


def overrides_typed() -> list[str]:
    """The overrides on the command line."""
    return list(HydraConfig.get().overrides.task)


def overrides_given() -> dict[str, str]:
    """The overrides typed on the command line: key -> value as typed."""
    typed = [entry.lstrip("+~") for entry in overrides_typed()]
    return dict(entry.split("=", 1) for entry in typed if "=" in entry)


@contextmanager
def _own_folder() -> Iterator[None]:
    """Further processes of torchrun write nothing: Hydra's folder for them is elsewhere, and removed."""
    rank, processes = launched()
    if processes > 1 and {"--multirun", "-m"} & set(sys.argv):
        raise UsageError("a sweep starts processes of its own; use --multirun without torchrun")
    if rank == 0:
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        sys.argv.append(f"hydra.run.dir={folder}")
        yield


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Warnings about old names of options, and notices, are shown once, without the line that found them."""
    seen: set[str] = set()
    usual = warnings.showwarning

    def show(message: Warning | str, *rest: Any, **named: Any) -> None:
        if " is the old name of " not in str(message) and not isinstance(message, Notice):
            usual(message, *rest, **named)
        elif str(message) not in seen:
            seen.add(str(message))
            print(f"warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.filterwarnings("always", ".* is the old name of ", DeprecationWarning)
        warnings.simplefilter("always", Notice)
        warnings.showwarning = show
        yield


@contextmanager
def _empty_folder_removed(folder: Path) -> Iterator[None]:
    """A refused run leaves nothing behind: Hydra's fresh folder and its empty parents go again."""
    try:
        yield
    except BaseException:
        while folder.is_dir() and not any(folder.iterdir()) and folder != Path.cwd():
            folder.rmdir()
            folder = folder.parent
        raise


@contextmanager
def _explained(config_name: str) -> Iterator[None]:
    """Hydra's composition errors, said with the nearest valid name."""
    try:
        yield
    except MissingConfigException as error:
        group, _, option = str(error.missing_cfg_file or "").rpartition("/")
        if not group or error.options is None:
            raise
        if group == "hydra/launcher" and option in LAUNCHERS:
            raise UsageError(f"{group}={option} is not installed; {install_command(LAUNCHERS[option])}") from error
        choices = [name for name in error.options if name != "schema"]
        raise UsageError(f"{group}={option} is unknown: {suggest(option, choices)}") from error
    except ConfigCompositionException as error:
        unknown = re.match(r"Could not override '([^']+)'", str(error))
        if unknown is not None:
            key = unknown[1]
            raise UsageError(f"{key} is unknown: {suggest(key, _valid_keys(config_name, key))}") from error
        raise UsageError(one_line(error).removeprefix("Error merging override ")) from error
    except OSError as error:
        raise OSError(
            f"cannot write the folder {error.filename}: {error.strerror}; choose another with hydra.run.dir=FOLDER"
        ) from error


def _valid_keys(config_name: str, like: str) -> list[str]:
    """The keys of the innermost node on the way to ``like`` that exists in the config of the chosen groups."""
    parts = like.split(".")
    groups = [entry for entry in sys.argv[1:] if entry.split("=")[0] in ("env", "agent") and "," not in entry]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose(config_name, overrides=groups)
    prefixes = (".".join(parts[:length]) for length in range(len(parts) - 1, 0, -1))
    for prefix in prefixes:
        node = OmegaConf.select(config, prefix, default=None)
        if isinstance(node, DictConfig):
            return [f"{prefix}.{key}" for key in node if isinstance(key, str)]
    return [key for key in config if isinstance(key, str)]
