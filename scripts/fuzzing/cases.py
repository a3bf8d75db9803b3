"""One thing to try, and what became of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

MOST_LETTERS = 1000
"""Longest message that still is one line to a person."""

GOOD = ("played", "accepted", "refused")
BAD = ("crash", "hang", "silent NaN", "raw error", "unclear")
"""Ways in which a case may end: killed by a signal; no answer in time; NaN in what it gave; an error that is not ours;
a refusal that is not one line or names nothing that the person wrote."""


class NotFinite(Exception):  # noqa: N818 - a finding, no error
    """What was computed holds NaN or infinity; the message says where."""


@dataclass(frozen=True)
class Case:
    """Something to try.

    Attributes:
        area: ``environments``, ``policies``, ``agents``, ``files`` or ``commands``.
        target: which of them.
        said: what is tried, in a line.
        run: does it; True: something was computed and is finite. Raises what a person would see.
        names: a refusal has to hold one of these.
    """

    area: str
    target: str
    said: str
    run: Callable[[], bool]
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What became of a case: one of ``GOOD`` or ``BAD``, and the message."""

    kind: str
    detail: str = ""


def attempt(case: Case) -> Outcome:
    """Try a case in this process."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Outcome("played" if case.run() else "accepted")
    except NotFinite as found:
        return Outcome("silent NaN", str(found))
    except (ValueError, OSError, FloatingPointError) as error:
        return judged(str(error), case.names)
    except ModuleNotFoundError as error:
        return Outcome("refused", str(error))
    except BaseException as error:
        return Outcome("raw error", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def judged(message: str, names: tuple[str, ...]) -> Outcome:
    """Whether a refusal is one line that names what the person wrote."""
    is_clear = 0 < len(message) <= MOST_LETTERS and "\n" not in message.strip()
    named = not names or any(name in message for name in names)
    return Outcome("refused" if is_clear and named else "unclear", " ".join(message.split())[:300])
