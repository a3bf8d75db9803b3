"""A claim of a source, the kept rows that answer it, and the table of both."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from cfpos.scripts.cli import ROOT

Verdict = Literal["agrees", "in part", "differs", "not comparable"]
Row = dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """What was measured, in words with the kept numbers, and what that says of the claim."""

    text: str
    verdict: Verdict


@dataclass(frozen=True)
class Claim:
    """One statement of a source.

    Attributes:
        says: the statement, in words of our own.
        place: figure, table or section of the source.
        experiments: names for ``cfpos reproduce`` whose kept results are read.
        finding: makes the finding from ``docs/results``.
        why: one sentence, without numbers, for it is not made from the results.
        command: where it is not ``cfpos reproduce`` alone.
    """

    says: str
    place: str
    experiments: tuple[str, ...]
    finding: Callable[[], Finding]
    why: str
    command: str = ""


def rows(name: str, where: Mapping[str, Any] | None = None) -> list[Row]:
    """The rows of ``docs/results/NAME.json`` that have the values of ``where``.

    Raises:
        ValueError: no row has them.
    """
    content = json.loads((ROOT / "docs" / "results" / f"{name}.json").read_text(encoding="utf-8"))
    wanted = dict(where or {})
    found = [row for row in content["rows"] if all(row[key] == value for key, value in wanted.items())]
    if not found:
        raise ValueError(f"docs/results/{name}.json has no row with {wanted}; name one that it has, or reproduce it")
    return found


def value(name: str, column: str, where: Mapping[str, Any]) -> float:
    """One number of ``docs/results/NAME.json``.

    Raises:
        ValueError: not one row alone has the values of ``where``.
    """
    found = rows(name, where)
    if len(found) > 1:
        raise ValueError(f"docs/results/{name}.json has {len(found)} rows with {dict(where)}; name more of its columns")
    return float(found[0][column])


def figure(number: float) -> str:
    """Three significant digits, large numbers without an exponent."""
    return f"{number:.0f}" if abs(number) >= 1000 else f"{number:.3g}"


def figures(numbers: Iterable[float], separator: str = ", ") -> str:
    """Several numbers, each as in :func:`figure`."""
    return separator.join(figure(number) for number in numbers)


def falling(numbers: Iterable[float]) -> bool:
    """Whether every number is smaller than the one before."""
    listed = list(numbers)
    return all(later < earlier for earlier, later in pairwise(listed))


def verdict(*parts: bool) -> Verdict:
    """``agrees`` where all parts of a claim hold, ``differs`` where none does, else ``in part``."""
    if all(parts):
        return "agrees"
    return "in part" if any(parts) else "differs"


def table_row(claim: Claim) -> dict[str, str]:
    """A claim as one row of the page."""
    found = claim.finding()
    commands = [f"`cfpos reproduce {name}`" for name in claim.experiments]
    return {
        "the source": f"{claim.says} ({claim.place})",
        "measured here": found.text,
        "command": ", ".join([*commands, *([f"`{claim.command}`"] if claim.command else [])]) or "none",
        "verdict": f"**{found.verdict}**",
        "why": claim.why,
    }
