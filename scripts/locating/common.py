"""What all kinds of measurements share on their way to positions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from inspect import signature
from typing import Any

import numpy as np
import yaml

from cfpos.scripts.cli import UsageError, suggest
from cfpos_envs.checks import nearest
from cfpos_envs.files.positions import Positions
from cfpos_envs.files.sites import SiteFile

_SPOKEN: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (r"columns=\{'([^']*)': None\}", r"--columns '\1='"),
        (r"columns=\{'([^']*)': \.\.\.\}", r"--columns '\1=...'"),
        (r"map one of them to None", "pass one of them over by --columns NAME="),
        (r"\bcolumns= ?", "--columns "),
        (r"\bnot_heard=", "--missing "),
        (r"\bon_bad='(\w+)'", r"--on-bad \1"),
        (r"\blower neighbours or spacing", "lower --option neighbours="),
    )
)
"""How messages of the library call what is an option here."""


def spoken(message: str) -> str:
    """A message of the library in the words of the command line.

    Args:
        message: with options of Python calls in it, such as ``not_heard=100``.
    """
    for pattern, words in _SPOKEN:
        message = pattern.sub(words, message)
    return message


@contextmanager
def in_our_words() -> Iterator[None]:
    """Messages of the library name options of this command.

    Raises:
        ValueError: what the library refuses.
    """
    try:
        yield
    except ValueError as error:
        if (words := spoken(str(error))) == str(error):
            raise
        raise UsageError(words) from error


@dataclass(frozen=True)
class Located:
    """Positions, what to draw around them, and what to say about them.

    Attributes:
        table: in the coordinates of the site's file.
        method: name of the policy.
        ap_names, aps_m: [M, 2] of the site; empty without one.
        outline_m: [C, 2] corners of the area, or None.
        notes: what was assumed, passed over or left out.
        advice: reason -> what to do about it with this command, besides what holds everywhere.
        suspicion: what the measurements say is wrong with the files; empty if nothing.
        seen: [n] rows that the policy was trained or chosen on; None: it was not trained, or nobody knows.
    """

    table: Positions
    method: str
    ap_names: tuple[str, ...] = ()
    aps_m: np.ndarray | None = None
    outline_m: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    advice: Mapping[str, str] = field(default_factory=dict)
    suspicion: str = ""
    seen: np.ndarray | None = None


def drawn_site(site: SiteFile | None) -> dict[str, Any]:
    """The fields of ``Located`` that a site gives, in the coordinates of its file."""
    if site is None:
        return {}
    origin = np.array(site.origin_m)
    outline = None if site.area is None else site.area.corners.numpy() + origin
    return {"ap_names": site.ap_names, "aps_m": site.ap_positions_m.numpy() + origin, "outline_m": outline}


def pairs(entries: Sequence[str], option: str) -> dict[str, Any]:
    """KEY=VALUE words as a dictionary, values as YAML reads them.

    Raises:
        UsageError: a word without ``=`` or with an unreadable value.
    """
    found = {}
    for entry in entries:
        key, equals, value = entry.partition("=")
        if not equals or not key:
            raise UsageError(f"{option} {entry} must look like {option} KEY=VALUE")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UsageError(f"{option} {entry}: the value is not readable") from None
    return found


def checked_names(given: Mapping[str, Any], function: Callable[..., Any], taken: Sequence[str], option: str) -> None:
    """Refuse names that are no keyword of a function, or that are said in another way.

    Raises:
        UsageError: naming the nearest.
    """
    allowed = [name for name, entry in signature(function).parameters.items() if entry.kind is entry.KEYWORD_ONLY]
    free = [name for name in allowed if name not in taken]
    for name in given:
        if name not in free:
            raise UsageError(f"{option} {name} is unknown: {suggest(name, free)}")


def renamed(words: Sequence[str]) -> dict[str, str | None]:
    """FILE_NAME=our_name words, or FILE_NAME= for what is passed over; a name in the file may hold ``=``.

    Raises:
        UsageError: a word without ``=``.
    """
    found: dict[str, str | None] = {}
    for word in words:
        theirs, equals, ours = word.rpartition("=")
        if not equals or not theirs:
            raise UsageError(
                f"--columns {word} must look like --columns FILE_NAME=our_name, or FILE_NAME= to pass it over"
            )
        found[theirs] = ours or None
    return found


def of_file(columns: Mapping[str, str | None], names: Sequence[str]) -> dict[str, str | None]:
    """The new names of columns that a file has: not all files of a command have the same.

    Args:
        columns: name or pattern in the files -> our name.
        names: those of the file.
    """
    return {old: new for old, new in columns.items() if any(fnmatchcase(name, old) for name in names)}


def refuse_unused(columns: Mapping[str, str | None], files: Mapping[str, Sequence[str]]) -> None:
    """Refuse new names for what no file has.

    Args:
        columns: name or pattern in the files -> our name.
        files: name of each file -> its names.

    Raises:
        UsageError: with the nearest.
    """
    names = [name for known in files.values() for name in known]
    for old in columns:
        if not of_file({old: None}, names):
            raise UsageError(
                f"--columns {old}=...: no column {old!r} to rename in {' or '.join(files)}{nearest(old, names) or '.'} "
                f"Named there: {', '.join(dict.fromkeys(names))}"
            )
