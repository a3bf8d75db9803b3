"""Surveys and scans in text files: who heard which access point how strongly, and where.

One row per scan and one column per access point (``rss_<ap>``, and ``range_<ap>`` where distances were measured), or
one row per reading (``ap``, ``rss_dbm``). Access points are known by name; where the names are numbered, their order is
that of the numbers, however the columns stand.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cfpos_envs.checks import nearest, one_of, unknown_name
from cfpos_envs.files.coordinates import GeoOrigin
from cfpos_envs.files.epochs import METRES
from cfpos_envs.files.ipin_logs import Reading, read_log
from cfpos_envs.files.tables import Table, read_table

_POSITION = ("x_m", "y_m")
_LABELS = ("floor", "building", "id", "device")
_PREFIXES = ("rss_", "range_", "aoa_")
_AOA_COLUMN = re.compile(r"aoa_(?P<ap>.+)_(?P<beam>[^_]+)")
_NUMBERED = re.compile(r"(?P<prefix>.*?)(?P<number>\d+)")
_ALLOWED = (
    "x_m, y_m, rss_<ap>, range_<ap>, aoa_<ap>_<beam>, floor, building, time_s, id, device, or one reading a row with "
    "ap and rss_dbm"
)


@dataclass(frozen=True)
class Layout:
    """How a known kind of file calls its columns.

    Attributes:
        columns: name or pattern with one ``*`` -> our name, None for columns without use here; absent ones do no harm.
        not_heard: numbers that mean that an access point was not heard.
        on_bad: what happens to readings that cannot be, where files of this kind are known to have some.
        position_unit_m: metres in a step of the file's coordinates.
        range_unit: of the file's ranges, one of ``METRES``; None: metres, or what the reader is told.
        not_ranged: numbers in that unit that mean that there is no range.
    """

    columns: Mapping[str, str | None] = field(default_factory=dict)
    not_heard: tuple[float, ...] = ()
    on_bad: str = "refuse"
    position_unit_m: float = 1.0
    range_unit: str | None = None
    not_ranged: tuple[float, ...] = ()


LAYOUTS = {
    "plain": Layout(),
    # https://doi.org/10.24432/C5MS59; the training file has 137 readings of 0 dBm.
    "uji": Layout(
        {
            "WAP*": "rss_WAP*",
            "LONGITUDE": "x_m",
            "LATITUDE": "y_m",
            "FLOOR": "floor",
            "BUILDINGID": "building",
            "TIMESTAMP": "time_s",
            "SPACEID": None,
            "RELATIVEPOSITION": None,
            "USERID": None,
            "PHONEID": "device",
        },
        (100.0,),
        "drop",
    ),
    "ipin": Layout(),
    # https://doi.org/10.5281/zenodo.11558792; coordinates are steps of a grid.
    "ftm-feng": Layout(
        {
            "X": "x_m",
            "Y": "y_m",
            "AP* RTT(mm)": "range_AP*",
            "AP* RSS(dBm)": "rss_AP*",
            "LOS APs": None,
        },
        not_heard=(-200.0,),
        position_unit_m=0.6,
        range_unit="mm",
        not_ranged=(100_000.0,),
    ),
}
"""Layouts by name: ``plain`` as in this module's first lines, ``uji`` of UJIIndoorLoc, ``ipin`` log files of the IPIN
competition, ``ftm-feng`` of the Wi-Fi FTM rooms of Feng et al."""


@dataclass(frozen=True)
class SurveyTable:
    """P scans of M access points.

    Attributes:
        file: where they come from, for messages.
        where: file and line of every scan.
        ap_names: names of the access points.
        rss_dbm: [P, M] dBm, NaN where an access point was not heard.
        positions_m: [P, 2] metres, or None if the file does not say.
        angular_power: [P, M, L] linear, or None.
        floors, buildings, ids, devices: one label per scan, or None.
        range_m: [P, M] metres, NaN where there is none; None where nothing was ranged.
        time_s: [P] seconds, or None.
        lists_all: whether an access point without column is one that was not heard (scans list what they heard), not
            one that was not looked for.
        geo_origin: where (0, 0) lies, if the file has latitudes and longitudes.
    """

    file: str
    where: tuple[str, ...]
    ap_names: tuple[str, ...]
    rss_dbm: NDArray[np.float64]
    positions_m: NDArray[np.float64] | None = None
    angular_power: NDArray[np.float64] | None = None
    floors: tuple[str, ...] | None = None
    buildings: tuple[str, ...] | None = None
    ids: tuple[str, ...] | None = None
    devices: tuple[str, ...] | None = None
    range_m: NDArray[np.float64] | None = None
    time_s: NDArray[np.float64] | None = None
    lists_all: bool = False
    geo_origin: GeoOrigin | None = None

    def __len__(self) -> int:
        """Number of scans."""
        return len(self.where)

    def rows_with(self, wanted: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """RSS [P, len(wanted)] of access points by name, and [len(wanted)] whether they were looked for at all."""
        looked_for = np.array([name in self.ap_names or self.lists_all for name in wanted], dtype=bool)
        return self._columns(self.rss_dbm, wanted), looked_for

    def ranges_with(self, wanted: Sequence[str]) -> NDArray[np.float64] | None:
        """Ranges [P, len(wanted)] to access points by name; None where nothing was ranged."""
        return None if self.range_m is None else self._columns(self.range_m, wanted)

    def _columns(self, values: NDArray[np.float64], wanted: Sequence[str]) -> NDArray[np.float64]:
        at = {name: column for column, name in enumerate(self.ap_names)}
        found = np.full((len(self), len(wanted)), math.nan)
        for column, name in enumerate(wanted):
            if name in at:
                found[:, column] = values[:, at[name]]
        return found


def read_survey(
    path: str | PathLike[str] | Sequence[str | PathLike[str]],
    layout: str = "plain",
    columns: Mapping[str, str | None] | None = None,
    not_heard: Collection[float] = (),
    geo_origin: GeoOrigin | None = None,
    range_unit: str = "m",
) -> SurveyTable:
    """Read a survey (scans at known places) or a user's scans (places are optional).

    Args:
        path: a file, or several with the same layout; access points that only some of them list were not heard in the
            others.
        layout: one of ``LAYOUTS``.
        columns: column in the file -> ``x_m``, ``rss_door``, ...; None passes a column over; one ``*`` in both stands
            for any text (``{"WAP*": "rss_*"}``).
        not_heard: numbers that mean that an access point was not heard, besides those of the layout.
        geo_origin: what becomes (0, 0) of an ``ipin`` file, e.g. the site's; None: its first mark.
        range_unit: of the columns ``range_<ap>``, one of ``METRES``; a layout knows its own.

    Raises:
        ValueError: another layout, or a file that does not fit it; names file and line.
        OSError: it cannot be read.
    """
    one_of("layout", layout, LAYOUTS)
    one_of("range_unit", range_unit, METRES)
    if isinstance(path, Sequence) and not isinstance(path, str):
        if not path:
            raise ValueError("no survey file given; give at least one")
        tables: list[SurveyTable] = []
        for each in path:
            tables.append(read_survey(each, layout, columns, not_heard, geo_origin, range_unit))
            geo_origin = tables[0].geo_origin
        return joined(tables)
    if layout == "ipin":
        if columns:
            raise ValueError("columns= renames columns of tables; ipin log files have none")
        log = read_log(path, geo_origin)
        return _by_reading(Path(path).name, log.readings, log.positions_m, not_heard, geo_origin=log.geo_origin)
    kind = LAYOUTS[layout]
    table = read_table(path)
    table = _renamed(_renamed(table, kind.columns, optional=True), columns or {}, optional=False)
    kind = dataclasses.replace(kind, not_heard=(*kind.not_heard, *not_heard), range_unit=kind.range_unit or range_unit)
    return _long(table, kind.not_heard) if "ap" in table and "rss_dbm" in table else _wide(table, kind)


def joined(tables: Sequence[SurveyTable]) -> SurveyTable:
    """Several tables one after another; what one of them lacks, all lack, but for access points.

    Args:
        tables: at least one.
    """
    if len(tables) == 1:
        return tables[0]
    names = in_order(name for table in tables for name in table.ap_names)
    ranges = [table.ranges_with(names) for table in tables]
    if any(table.angular_power is not None for table in tables):
        raise ValueError(f"{tables[0].file}: angular spectra of several files cannot be joined; put them into one file")

    def labels(name: str) -> tuple[str, ...] | None:
        parts = [getattr(table, name) for table in tables]
        return None if any(part is None for part in parts) else tuple(label for part in parts for label in part)

    def numbers(name: str) -> NDArray[np.float64] | None:
        parts = [getattr(table, name) for table in tables]
        return None if any(part is None for part in parts) else np.concatenate(parts)

    return SurveyTable(
        tables[0].file,
        tuple(where for table in tables for where in table.where),
        names,
        np.concatenate([table.rows_with(names)[0] for table in tables]),
        numbers("positions_m"),
        None,
        labels("floors"),
        labels("buildings"),
        labels("ids"),
        labels("devices"),
        None if any(part is None for part in ranges) else np.concatenate([part for part in ranges if part is not None]),
        numbers("time_s"),
        all(table.lists_all for table in tables),
        tables[0].geo_origin,
    )


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Names once each: by number where all are one prefix and a number, else as they come."""
    once = list(dict.fromkeys(names))
    numbered = [_NUMBERED.fullmatch(name) for name in once]
    if all(numbered) and len({match["prefix"] for match in numbered if match}) == 1:
        return tuple(sorted(once, key=ap_number))
    return tuple(once)


def ap_number(name: str) -> int:
    """The number at the end of a name, -1 if there is none."""
    match = _NUMBERED.fullmatch(name)
    return int(match["number"]) if match else -1


def _renamed(table: Table, columns: Mapping[str, str | None], optional: bool) -> Table:
    """The table with other column names; columns mapped to None are gone."""
    names: list[str | None] = list(table.columns)
    for old, new in columns.items():
        star = re.compile("(.*)".join(re.escape(part) for part in old.split("*")))
        matches = [(at, star.fullmatch(name)) for at, name in enumerate(table.columns)]
        found = [(at, match) for at, match in matches if match]
        if not found and not optional:
            raise ValueError(
                f"{table.file} has no column {old!r} to rename{nearest(old, table.columns) or '.'} "
                f"It has: {_shortened(table.columns)}"
            )
        for at, match in found:
            names[at] = new.replace("*", match[1]) if new is not None and match.groups() else new
    kept = [at for at, name in enumerate(names) if name is not None]
    header = tuple(name for name in names if name is not None)
    twice = next((name for at, name in enumerate(header) if name in header[:at]), None) if columns else None
    if twice is not None:
        raise ValueError(f"{table.file} has two columns for {twice!r} after renaming; map one of them to None")
    if header == table.columns:
        return table
    rows = table.rows if len(kept) == len(names) else tuple(tuple(row[at] for at in kept) for row in table.rows)
    return dataclasses.replace(table, columns=header, rows=rows)


def _wide(table: Table, kind: Layout) -> SurveyTable:
    """One scan per row; ``kind`` has all marks and the unit of the ranges."""
    listed = [
        name.removeprefix(prefix) for prefix in _PREFIXES[:2] for name in table.columns if name.startswith(prefix)
    ]
    known = {*_POSITION, *_LABELS, "time_s"}
    unknown = [name for name in table.columns if name not in known and not name.startswith(_PREFIXES)]
    if unknown:
        raise ValueError(
            f"{table.file}: {unknown_name('column', unknown[0], known, 'Allowed')}, rss_<ap>, range_<ap>, "
            f"aoa_<ap>_<beam>; columns={{{unknown[0]!r}: None}} passes it over"
        )
    if not listed:
        raise ValueError(f"{table.file} has no column rss_<ap> or range_<ap>. Allowed are {_ALLOWED}")
    aps = in_order(listed)
    beams = _beams(table, aps)
    spectra = None
    if beams:
        flat = table.numbers([f"aoa_{ap}_{beam}" for ap in aps for beam in beams])
        spectra = flat.reshape(len(table), len(aps), len(beams))
    labels = {name: table.texts(name) if name in table else None for name in _LABELS}
    positions, ranges = _positions(table), _of_aps(table, "range_", aps, kind.not_ranged)
    return SurveyTable(
        table.file,
        tuple(table.where(row) for row in range(len(table))),
        aps,
        _of_aps(table, "rss_", aps, kind.not_heard),
        None if positions is None else positions * kind.position_unit_m,
        spectra,
        floors=labels["floor"],
        buildings=labels["building"],
        ids=labels["id"],
        devices=labels["device"],
        range_m=None if np.isnan(ranges).all() else ranges * METRES[kind.range_unit or "m"],
        time_s=table.numbers(["time_s"])[:, 0] if "time_s" in table else None,
    )


def _of_aps(table: Table, prefix: str, aps: Sequence[str], marks: Collection[float]) -> NDArray[np.float64]:
    """Readings [P, M]; NaN for access points that have no such column."""
    there = [column for column, ap in enumerate(aps) if f"{prefix}{ap}" in table]
    values = np.full((len(table), len(aps)), math.nan)
    values[:, there] = table.numbers([f"{prefix}{aps[column]}" for column in there], marks)
    return values


def _long(table: Table, marks: Collection[float]) -> SurveyTable:
    """One reading per row; readings that share all else are one scan."""
    known = {*_POSITION, *_LABELS, "time_s", "ap", "rss_dbm"}
    unknown = [name for name in table.columns if name not in known]
    if unknown:
        raise ValueError(f"{table.file}: {unknown_name('column', unknown[0], known, 'Allowed')}")
    rss, positions = table.numbers(["rss_dbm"])[:, 0], _positions(table)
    times = table.numbers(["time_s"])[:, 0] if "time_s" in table else None
    texts = {name: table.texts(name) for name in _LABELS if name in table}
    rest = [at for at, name in enumerate(table.columns) if name not in ("ap", "rss_dbm")]
    readings = [
        Reading(
            tuple(table.rows[row][at] for at in rest),
            table.where(row),
            ap,
            float(rss[row]),
            None if times is None else float(times[row]),
            **{name: column[row] for name, column in texts.items()},
        )
        for row, ap in enumerate(table.texts("ap"))
    ]
    return _by_reading(table.file, readings, positions, marks)


def _by_reading(
    file: str,
    readings: Sequence[Reading],
    positions_m: NDArray[np.float64] | None,
    marks: Collection[float],
    geo_origin: GeoOrigin | None = None,
) -> SurveyTable:
    """A table with one row per scan, from readings [n] and the place of each [n, 2]."""
    scans: dict[tuple[str, ...], list[int]] = {}
    for at, reading in enumerate(readings):
        scans.setdefault(reading.scan, []).append(at)
    aps = in_order(reading.ap for reading in readings)
    column = {name: number for number, name in enumerate(aps)}
    rss = np.full((len(scans), len(aps)), math.nan)
    for row, members in enumerate(scans.values()):
        for at in members:
            if readings[at].rss_dbm not in marks:
                # An access point that is listed twice in one scan counts with the stronger reading.
                rss[row, column[readings[at].ap]] = np.fmax(rss[row, column[readings[at].ap]], readings[at].rss_dbm)
    first = [members[0] for members in scans.values()]
    heads = [readings[at] for at in first]

    def labels(name: str) -> tuple[str, ...] | None:
        found = [getattr(head, name) for head in heads]
        return None if any(label is None for label in found) else tuple(found)

    times = [head.time_s for head in heads]
    return SurveyTable(
        file,
        tuple(head.where for head in heads),
        aps,
        rss,
        None if positions_m is None else positions_m[first],
        None,
        floors=labels("floor"),
        buildings=labels("building"),
        ids=labels("id"),
        devices=labels("device"),
        time_s=None if None in times else np.array(times, dtype=np.float64),
        lists_all=True,
        geo_origin=geo_origin,
    )


def _positions(table: Table) -> NDArray[np.float64] | None:
    given = [name for name in _POSITION if name in table]
    if not given:
        return None
    table.require(_POSITION, "a place has both")
    return table.numbers(_POSITION)


def _beams(table: Table, aps: Sequence[str]) -> list[str]:
    """Names of the beams, the same for every access point; none if there are no spectra."""
    spectral = [name for name in table.columns if name.startswith("aoa_")]
    matches = [_AOA_COLUMN.fullmatch(name) for name in spectral]
    beams = list(dict.fromkeys(match["beam"] for match in matches if match))
    expected = {f"aoa_{ap}_{beam}" for ap in aps for beam in beams}
    if expected != set(spectral):
        odd = sorted(expected ^ set(spectral))[0]
        raise ValueError(f"{table.file}: {len(spectral)} aoa columns do not fit, see {odd}; every AP needs the same")
    return list(in_order(beams))


def _shortened(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 12 else f"{', '.join(names[:12])} and {len(names) - 12} more"
