"""Measured ranges and powers from text files: one line per epoch (wide) or per link (long), APs matched by name."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from cfpos_envs.checks import ON_BAD, nearest, number, one_of
from cfpos_envs.files.tables import Table, read_table
from cfpos_envs.physics.units import SPEED_OF_LIGHT_M_S

METRES = {"m": 1.0, "cm": 1e-2, "mm": 1e-3, "km": 1e3, "ft": 0.3048, "ns": SPEED_OF_LIGHT_M_S * 1e-9}
"""Units of ranges; ns is the time of flight in one direction."""
SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
QUANTITIES = ("range", "tdoa", "std", "rss")
"""What a link may bring; columns QUANTITY_UNIT (long) or QUANTITY_AP_UNIT (wide)."""
_KEYS = ("episode", "user", "epoch")
_TRUTH = ("truth_x_m", "truth_y_m", "truth_z_m")
_TIME = re.compile(r"time_(s|ms|us|ns)")
_Rows = np.ndarray


@dataclass(frozen=True)
class EpochOptions:
    """How a file is to be read.

    Attributes:
        renamed: column in the file -> name that it shall have; None passes it over.
        unit: of ranges, differences and their standard deviations where the column's name has none.
        missing: numbers that mean "not measured", as they stand in the file.
        without: APs that are left out, of the site or not.
        window_s: long files: links of one user within this time belong together; None: those of equal epoch and time.
        on_bad: "refuse" ranges and powers that cannot be right, or "drop" and count them.
        ceiling_dbm: no received power is as high as this.

    Raises:
        ValueError: an unknown unit or word, a window that is not positive.
    """

    renamed: Mapping[str, str | None] | None = None
    unit: str = "m"
    missing: tuple[float, ...] = ()
    without: tuple[str, ...] = ()
    window_s: float | None = None
    on_bad: str = "refuse"
    ceiling_dbm: float = 0.0

    def __post_init__(self) -> None:
        one_of("unit", self.unit, [*METRES])
        one_of("on_bad", self.on_bad, ON_BAD)
        if self.window_s is not None:
            number("window", self.window_s, 0.0, above=True)


@dataclass(frozen=True)
class Epochs:
    """n epochs of one user each, and what M access points measured; NaN where there is no measurement.

    Attributes:
        user, epoch: as in the file; users without a name are 0.
        episode: numbers of recordings.
        time_s: when; None where the file does not say.
        links: quantity -> [n, M]: ``range``, ``tdoa`` and ``std`` in metres, ``rss`` in dBm.
        truth_m: true positions; None where the file has none.
        notes: what was passed over, averaged or left out, for people.
    """

    user: Shaped[np.ndarray, " n"]
    epoch: Shaped[np.ndarray, " n"] | None
    episode: Int[np.ndarray, " n"]
    time_s: Float[np.ndarray, " n"] | None
    links: dict[str, Float[np.ndarray, "n M"]]
    truth_m: Float[np.ndarray, "n D"] | None
    notes: tuple[str, ...]

    def __len__(self) -> int:
        """Number of epochs."""
        return len(self.user)

    def select(self, rows: Shaped[np.ndarray, " k"]) -> Epochs:
        """Some epochs only."""
        kept = {name: value[rows] for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        changes: dict[str, Any] = {**kept, "links": {name: value[rows] for name, value in self.links.items()}}
        return dataclasses.replace(self, **changes)


def read_epochs(path: str | PathLike[str], ap_names: Sequence[str], options: EpochOptions | None = None) -> Epochs:
    """Read a table of measurements.

    Wide: one line per epoch and user, columns ``range_<AP>``, ``tdoa_<AP>``, ``std_<AP>``, ``rss_<AP>``, each also
    with its unit at the end (``range_gate_mm``). Long: one line per link with ``ap`` and ``range``, ``tdoa``, ``std``
    or ``rss`` (``range_m``, ``rss_dbm``). Both may have ``user``, ``epoch``, ``episode``, ``time_s`` (or _ms, _us,
    _ns) and the truth, ``truth_x_m, truth_y_m, truth_z_m``.

    Args:
        path: a text file as ``read_table`` takes it.
        ap_names: of the site's APs; the second axis of the result.
        options: how to read it.

    Raises:
        ValueError: naming file and line: an AP that the site does not have, a number that cannot be, no measurement, a
            long file that does not say which lines belong together.
        OSError: it cannot be read.
    """
    chosen = options or EpochOptions()
    table = read_table(path, chosen.renamed)
    reader = _Reader(table, tuple(ap_names), chosen)
    return reader.long() if "ap" in table else reader.wide()


def read_links(path: str | PathLike[str], ap_names: Sequence[str], options: EpochOptions | None = None) -> Epochs:
    """Read a table with one line per link, each an epoch of its own, for filters that take one link at a time.

    Args:
        path: with a column ``ap`` and ``time_s`` (or _ms, _us, _ns), else as for ``read_epochs``.
        ap_names, options: as there; ``window_s`` is of no use.

    Raises:
        ValueError: as there; a file with one line per epoch, or without times.
        OSError: it cannot be read.
    """
    chosen = options or EpochOptions()
    reader = _Reader(read_table(path, chosen.renamed), tuple(ap_names), chosen)
    return reader.long(single=True)


class _Reader:
    """One file on its way to epochs; collects notes."""

    def __init__(self, table: Table, names: tuple[str, ...], options: EpochOptions) -> None:
        self.table, self.names, self.options = table, names, options
        self.notes: list[str] = []
        self._time = next((name for name in table.columns if _TIME.fullmatch(name)), None)
        self._keys = [name for name in _KEYS if name in table]
        self._truth = [name for name in _TRUTH if name in table]
        if self._truth and self._truth[:2] != [*_TRUTH[:2]]:
            raise ValueError(f"{table.file} has {' and '.join(self._truth)}; the truth needs truth_x_m and truth_y_m")

    def wide(self) -> Epochs:
        rows = np.arange(len(self.table))
        links: dict[str, np.ndarray] = {}
        used = {*self._keys, *self._truth, self._time}
        for column in self.table.columns:
            found = None if column in used else self._wide_column(column)
            if found is None:
                continue
            quantity, ap, factor = found
            used.add(column)
            if ap is None:
                continue
            values = links.setdefault(quantity, np.full((len(rows), len(self.names)), math.nan))
            if np.isfinite(values[:, ap]).any():
                raise ValueError(f"{self.table.file} has two columns {quantity} of AP {self.names[ap]}; rename one")
            values[:, ap] = self._checked(quantity, column, factor)
        if not links.keys() - {"std"}:
            raise ValueError(
                f"{self.table.file} has no measurement: no column range_AP, tdoa_AP or rss_AP, and no column ap with "
                f"range_m or rss_dbm beside it. It has: {', '.join(self.table.columns)}; name them by --columns"
            )
        self._note_unused(used)
        for ap, name in enumerate(self.names):
            silent = all(np.isnan(values[:, ap]).all() for quantity, values in links.items() if quantity != "std")
            if silent and name not in self.options.without:
                self.notes.append(f"no measurement of AP {name}")
        return self._epochs(rows, links)

    def long(self, single: bool = False) -> Epochs:
        if single and ("ap" not in self.table or self._time is None):
            raise ValueError(
                f"{self.table.file} needs one line per link with the columns ap and time_s for a filter that takes one "
                "link at a time; name them by --columns"
            )
        columns = {q: self._long_column(q) for q in QUANTITIES}
        present = {q: found for q, found in columns.items() if found is not None}
        if not present.keys() - {"std"}:
            raise ValueError(
                f"{self.table.file} has a column ap but none of range_m, tdoa_m and rss_dbm. It has: "
                f"{', '.join(self.table.columns)}; name them by --columns"
            )
        self._note_unused({"ap", *self._keys, *self._truth, self._time, *(found[0] for found in present.values())})
        aps = self._aps_of_rows()
        kept = np.flatnonzero(aps >= 0)
        first, group = (np.arange(len(self.table)),) * 2 if single else self._groups()
        values = {q: self._checked(q, *found) for q, found in present.items()}
        links, repeated = {}, 0
        for quantity, column in values.items():
            rows = kept[np.isfinite(column[kept])]
            total = np.zeros((len(first), len(self.names)))
            count = np.zeros_like(total)
            np.add.at(total, (group[rows], aps[rows]), column[rows])
            np.add.at(count, (group[rows], aps[rows]), 1)
            links[quantity] = np.where(count > 0, total / np.maximum(count, 1), math.nan)
            repeated = max(repeated, int((count > 1).sum()))
        if repeated:
            self.notes.append(f"{repeated} links were read more than once in an epoch: averaged")
        return self._epochs(first, links, group)

    def _wide_column(self, column: str) -> tuple[str, int | None, float] | None:
        """Quantity, AP (None: to be left out) and factor to metres of a column; None: it is no measurement."""
        quantity, _, rest = column.partition("_")
        if quantity not in QUANTITIES or not rest:
            return None
        head, _, unit = rest.rpartition("_")
        units = {"dbm": 1.0} if quantity == "rss" else METRES
        default = 1.0 if quantity == "rss" else METRES[self.options.unit]
        for name, factor in ((rest, default), *([(head, units[unit])] if head and unit in units else [])):
            if name in self.options.without:
                return quantity, None, factor
            if (ap := self._ap(name)) is not None:
                return quantity, ap, factor
        raise ValueError(self._unknown_ap(f"{self.table.file}, column {column}", head if unit in units else rest))

    def _long_column(self, quantity: str) -> tuple[str, float] | None:
        units = {"dbm": 1.0} if quantity == "rss" else METRES
        default = 1.0 if quantity == "rss" else METRES[self.options.unit]
        wanted = {quantity: default, **{f"{quantity}_{unit}": factor for unit, factor in units.items()}}
        there = [name for name in wanted if name in self.table]
        if len(there) > 1:
            raise ValueError(f"{self.table.file} has {' and '.join(there)}; keep one of them")
        return (there[0], wanted[there[0]]) if there else None

    def _ap(self, name: str) -> int | None:
        """The site's AP of a name: the same, or the same but for capital letters or as a number (3.0 is 3)."""
        if name in self.names:
            return self.names.index(name)
        plain = [_plain(known) for known in self.names]
        return plain.index(_plain(name)) if plain.count(_plain(name)) == 1 else None

    def _unknown_ap(self, where: str, name: str) -> str:
        hint = nearest(name, self.names)
        return (
            f"{where}: the site has no AP {name!r}{hint or '.'} It has: {', '.join(self.names)}; rename the column by "
            f"--columns, or leave this AP out by --without {name}"
        )

    def _aps_of_rows(self) -> _Rows:
        index: dict[str, int] = dict.fromkeys(self.options.without, -1)
        found = np.empty(len(self.table), dtype=np.int64)
        for row, name in enumerate(self.table.texts("ap")):
            if name not in index:
                ap = self._ap(name)
                if ap is None:
                    raise ValueError(self._unknown_ap(self.table.where(row), name))
                index[name] = ap
            found[row] = index[name]
        return found

    def _groups(self) -> tuple[_Rows, _Rows]:
        """First row of every epoch, in the order of the file, and the epoch of every row."""
        if self._time is None and "epoch" not in self._keys:
            raise ValueError(
                f"{self.table.file} has one line per link but does not say which lines belong together; it needs a "
                "column epoch or time_s (name one by --columns)"
            )
        keys = [self.table.texts(name) for name in self._keys]
        if self._time is not None and (self.options.window_s is not None or "epoch" not in self._keys):
            keys.append(self._windows() if self.options.window_s is not None else self.table.texts(self._time))
        elif self.options.window_s is not None:
            raise ValueError(f"{self.table.file} has no time_s, so no window can be applied; leave --window out")
        seen: dict[tuple[str, ...], int] = {}
        first, group = [], np.empty(len(self.table), dtype=np.int64)
        for row, key in enumerate(zip(*keys)):
            if key not in seen:
                seen[key] = len(seen)
                first.append(row)
            group[row] = seen[key]
        return np.array(first), group

    def _windows(self) -> tuple[str, ...]:
        assert self.options.window_s is not None
        times = self._times()
        return tuple(str(int(index)) for index in np.floor((times - times.min()) / self.options.window_s))

    def _times(self) -> np.ndarray:
        assert self._time is not None
        times = self.table.numbers([self._time])[:, 0] * SECONDS[self._time.removeprefix("time_")]
        if np.isnan(times).any():
            raise ValueError(f"{self.table.where(int(np.isnan(times).argmax()))}: {self._time} is missing")
        return times

    def _checked(self, quantity: str, column: str, factor: float) -> np.ndarray:
        """A column in our unit; ranges and powers that cannot be right are refused or left out."""
        values = self.table.numbers([column], self.options.missing)[:, 0]
        wrong = np.isinf(values)
        if quantity == "range":
            wrong |= values <= 0
        elif quantity == "rss":
            wrong |= values >= self.options.ceiling_dbm
        if wrong.any():
            row = int(wrong.argmax())
            if self.options.on_bad == "refuse":
                mark = f"say --missing {values[row]:g} if it means that nothing was measured, or "
                raise ValueError(
                    f"{self.table.where(row)}, column {column}: {values[row]:g} cannot be right ({int(wrong.sum())} "
                    f"such entries); {mark * (len(np.unique(values[wrong])) == 1)}leave such links out by --on-bad drop"
                )
            self.notes.append(f"{column}: left out {int(wrong.sum())} entries that cannot be right")
        return np.where(wrong, math.nan, values) * factor

    def _note_unused(self, used: Collection[str | None]) -> None:
        unused = [column for column in self.table.columns if column not in used]
        if unused:
            self.notes.append(f"columns passed over: {', '.join(unused)}")

    def _refuse_silence(self, links: Mapping[str, np.ndarray]) -> None:
        """Without a single measurement there is nothing to locate."""
        measured = {quantity: values for quantity, values in links.items() if quantity != "std"}
        if not any(np.isfinite(values).any() for values in measured.values()):
            why = [f"equal to --missing {' '.join(f'{mark:g}' for mark in self.options.missing)}"]
            causes = [
                "empty or NaN",
                *why * bool(self.options.missing),
                *["left out"] * (self.options.on_bad == "drop"),
            ]
            raise ValueError(
                f"{self.table.file} has no measurement in {len(self.table)} lines: every {' and '.join(measured)} is "
                f"{' or '.join(causes)}; look at the columns (--columns) and at what stands for missing (--missing)"
            )

    def _epochs(self, first: _Rows, links: dict[str, np.ndarray], group: _Rows | None = None) -> Epochs:
        def mean(column: np.ndarray) -> np.ndarray:
            if group is None:
                return column
            return np.bincount(group, weights=column, minlength=len(first)) / np.bincount(group, minlength=len(first))

        table = self.table
        self._refuse_silence(links)
        truth = None
        if self._truth:
            columns = table.numbers(self._truth)
            truth = np.stack([mean(columns[:, axis]) for axis in range(len(self._truth))], axis=1)

        def texts(name: str) -> np.ndarray:
            return np.array(table.texts(name), dtype=np.str_)[first]

        return Epochs(
            user=texts("user") if "user" in self._keys else np.full(len(first), "0"),
            epoch=texts("epoch") if "epoch" in self._keys else None,
            episode=_numbered(texts("episode")) if "episode" in self._keys else np.zeros(len(first), dtype=np.int64),
            time_s=None if self._time is None else mean(self._times()),
            links=links,
            truth_m=truth,
            notes=tuple(self.notes),
        )


def _plain(name: str) -> str:
    lower = name.casefold()
    return lower[:-2] if re.fullmatch(r"\d+\.0", lower) else lower


def _numbered(texts: np.ndarray) -> np.ndarray:
    """Whole numbers as they are; other names by their first appearance."""
    try:
        return texts.astype(np.int64)
    except ValueError:
        order = {name: number for number, name in enumerate(dict.fromkeys(texts.tolist()))}
        return np.array([order[name] for name in texts.tolist()], dtype=np.int64)
