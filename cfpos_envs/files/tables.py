"""Tables in text files as other programs write them: encodings, separators, decimal commas, comments, unit rows.

Every message names the file and the true number of the line, as an editor shows it.
"""

from __future__ import annotations

import codecs
import csv
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from cfpos_envs.checks import nearest

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SEPARATORS = (",", ";", "\t")
MISSING = ("", "nan", "na", "n/a", "null", "none", "-")
"""Cells that say that there is no number, in any case."""


@dataclass(frozen=True)
class Table:
    """The cells of a text file under its header.

    Attributes:
        file: its name, for messages.
        columns: names in the header line.
        rows: one tuple of cells per line of data, stripped.
        lines: the number of that line in the file, from 1.
        decimal_comma: whether numbers are written with a comma.
        units: what the line below the header says about each column, in small letters; empty without such a line.
    """

    file: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]
    decimal_comma: bool = False
    units: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Lines of data."""
        return len(self.rows)

    def __contains__(self, column: str) -> bool:
        """Whether there is such a column."""
        return column in self.columns

    def where(self, row: int) -> str:
        """``ranges.csv, line 7``."""
        return f"{self.file}, line {self.lines[row]}"

    def require(self, names: Collection[str], purpose: str) -> None:
        """Refuse a table without these columns.

        Args:
            names: columns that must be there.
            purpose: what needs them, for the message.

        Raises:
            ValueError: names the missing ones and the nearest that are there.
        """
        missing = [name for name in names if name not in self.columns]
        if missing:
            hint = nearest(missing[0], self.columns)
            raise ValueError(
                f"{self.file} lacks the column {' and '.join(missing)} ({purpose}){hint or '.'} "
                f"It has: {', '.join(self.columns)}"
            )

    def texts(self, name: str) -> tuple[str, ...]:
        """The cells of a column."""
        at = self.columns.index(name)
        return tuple(row[at] for row in self.rows)

    def numbers(self, names: Sequence[str], missing: Collection[float] = ()) -> np.ndarray:
        """Columns as numbers, float64 [rows, len(names)]; cells without a number and marks for missing become NaN.

        Args:
            names: columns.
            missing: numbers that mean "not measured" in this file, e.g. 100 in UJIIndoorLoc.

        Raises:
            ValueError: a cell that is no number, naming file, line and column.
        """
        place = {name: column for column, name in enumerate(self.columns)}
        at = [place[name] for name in names]
        # Wide tables say the same few cells millions of times.
        known: dict[str, float] = {}
        values = np.empty((len(self), len(at)))
        for row, cells in enumerate(self.rows):
            for column in at:
                if cells[column] not in known:
                    known[cells[column]] = self._number(row, column)
            values[row] = [known[cells[column]] for column in at]
        for mark in missing:
            values[values == mark] = math.nan
        return values

    def _number(self, row: int, column: int) -> float:
        cell = self.rows[row][column]
        if cell.lower() in MISSING:
            return math.nan
        value = as_number(cell, self.decimal_comma)
        if value is None:
            raise ValueError(f"{self.where(row)}, column {self.columns[column]}: {cell!r} is not a number")
        return value


def read_table(path: str | PathLike[str], renamed: Mapping[str, str | None] | None = None) -> Table:
    """Read a text file with a header line.

    UTF-8 and UTF-16 (with its mark); columns separated by comma, semicolon or tab, decimal commas with the last two;
    blank lines and lines that begin with ``#`` are passed over, as is a line of units below the header.

    Args:
        path: the file.
        renamed: column in the file -> name that it shall have; None passes it over.

    Raises:
        ValueError: another encoding, no data, a column named twice, a line of another length, a column to rename that
            is not there; all name the file and, where it is about one, the line.
        OSError: it cannot be read.
    """
    file = Path(path)
    numbered = file_lines(file)
    if not numbered:
        raise ValueError(f"{file.name} is empty; its first line must name the columns")
    separator = _separator(numbered[0][1])
    shared: dict[str, str] = {}
    cells = []
    for number, line in numbered:
        read = _cells(line, separator)
        # Equal cells are kept once: a survey with hundreds of columns would take gigabytes otherwise.
        cells.append((number, tuple(shared.setdefault(cell, cell) for cell in map(str.strip, read))))
    header, kept = _header(file.name, cells[0][1], renamed or {})
    comma = separator != "," and any("," in cell for _, row in cells[1:] for cell in row)
    has_units = len(cells) > 1 and _is_units(cells[1][1])
    body = cells[2:] if has_units else cells[1:]
    units = tuple(_unit(cell) for cell in cells[1][1]) if has_units else ()
    if not body:
        raise ValueError(f"{file.name} has a header but no data; give at least one line below it")
    for number, row in body:
        if len(row) != len(cells[0][1]):
            raise ValueError(f"{file.name}, line {number}: {len(row)} columns, the header has {len(cells[0][1])}")
    rows = tuple(_at(row, kept) for _, row in body)
    return Table(file.name, header, rows, tuple(number for number, _ in body), comma, _at(units, kept))


def column_names(path: str | PathLike[str]) -> tuple[str, ...]:
    """The names in the header line of a text file as ``read_table`` takes it; empty for an empty file.

    Raises:
        ValueError: another encoding.
        OSError: it cannot be read.
    """
    lines = file_lines(path)
    return tuple(cell.strip() for cell in _cells(lines[0][1], _separator(lines[0][1]))) if lines else ()


def file_lines(path: str | PathLike[str], comment: str = "#") -> list[tuple[int, str]]:
    """The lines of a text file with their numbers from 1, without blank lines and comments.

    Args:
        path: the file, UTF-8 or UTF-16 with its mark.
        comment: what a comment line begins with.

    Raises:
        ValueError: another encoding.
        OSError: it cannot be read.
    """
    lines = enumerate(_text(Path(path)).splitlines(), start=1)
    return [(number, line) for number, line in lines if line.strip() and not line.lstrip().startswith(comment)]


def as_number(cell: str, decimal_comma: bool = False) -> float | None:
    """The number that a cell says, or None."""
    try:
        return float(cell.replace(",", ".") if decimal_comma else cell)
    except ValueError:
        return None


def _text(file: Path) -> str:
    content = file.read_bytes()
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        raise ValueError(f"{file.name} is neither UTF-8 nor UTF-16 text; save it as CSV in UTF-8") from None


def _separator(header: str) -> str:
    return max(_SEPARATORS, key=header.count)


def _cells(line: str, separator: str) -> list[str]:
    return next(csv.reader([line], delimiter=separator, skipinitialspace=True))


def _at(row: tuple[str, ...], kept: Sequence[int]) -> tuple[str, ...]:
    """Some cells of a row; an empty one (no line of units) stays so."""
    return row if len(row) in (0, len(kept)) else tuple(row[at] for at in kept)


def _header(file: str, names: tuple[str, ...], renamed: Mapping[str, str | None]) -> tuple[tuple[str, ...], list[int]]:
    """The new names, and which columns they are."""
    absent = [name for name in renamed if name not in names]
    if absent:
        raise ValueError(
            f"{file} has no column {absent[0]!r} to rename{nearest(absent[0], names) or '.'} It has: {', '.join(names)}"
        )
    given = [renamed.get(name, name) for name in names]
    kept = [at for at, name in enumerate(given) if name is not None]
    header = tuple(name for name in given if name is not None)
    twice = next((name for at, name in enumerate(header) if name in header[:at]), None)
    if twice is not None:
        raise ValueError(f"{file} names the column {twice!r} twice; rename one of them")
    return header, kept


def _unit(cell: str) -> str:
    return cell.strip("[]() ").lower()


def _is_units(row: tuple[str, ...]) -> bool:
    """A line below the header in which nothing is a number and something is a unit in brackets or letters."""
    return all(as_number(cell, True) is None for cell in row) and any(_unit(cell) in _UNITS for cell in row)


_UNITS = frozenset({"m", "cm", "mm", "km", "ft", "feet", "dbm", "db", "s", "ms", "us", "ns", "deg", "rad", "°", "hz"})
