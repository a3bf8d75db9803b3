"""Log files of the IPIN competition (GetSensorData): Wi-Fi readings between marks at known places.

Lines are ``TYPE;AppTimestamp(s);...`` with ``%`` comments. Used are

    WIFI;AppTimestamp;SensorTimestamp;SSID;BSSID;RSS             (2016)
    WIFI;AppTimestamp;SensorTimestamp;SSID;BSSID;frequency;RSS   (later)
    POSI;AppTimestamp;counter;latitude;longitude;floor;building

The two forms of WIFI do not announce themselves: the RSS is the last number after the address of the access point.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cfpos_envs.files.coordinates import GeoOrigin
from cfpos_envs.files.tables import file_lines

_ADDRESS = re.compile(r"(?:[0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}")


@dataclass(frozen=True)
class Reading:
    """One access point heard once.

    Attributes:
        scan: what all readings of one scan share and no other scan has.
        where: file and line.
        ap: name of the access point.
        rss_dbm: dBm.
        time_s: seconds, or None.
        floor, building, id, device: labels, or None.
    """

    scan: tuple[str, ...]
    where: str
    ap: str
    rss_dbm: float
    time_s: float | None = None
    floor: str | None = None
    building: str | None = None
    id: str | None = None
    device: str | None = None


@dataclass(frozen=True)
class Log:
    """What a log file says about Wi-Fi.

    Attributes:
        readings: of the scans whose place is known; all of them if the file has no marks.
        positions_m: [n, 2] their places from ``geo_origin``; None without marks.
        geo_origin: where (0, 0) lies; None without marks.
    """

    readings: list[Reading]
    positions_m: NDArray[np.float64] | None
    geo_origin: GeoOrigin | None


@dataclass(frozen=True)
class _Mark:
    time_s: float
    latitude_deg: float
    longitude_deg: float
    floor: str
    building: str


def read_log(path: str | PathLike[str], geo_origin: GeoOrigin | None = None) -> Log:
    """Read the WIFI and POSI lines of a log file.

    Marks are set while walking from one to the next: the place of a scan is interpolated in time between the marks
    before and after it. Scans before the first mark, after the last, or between marks on different floors have no
    known place and are left out. Readings with one AppTimestamp are one scan.

    Args:
        path: the file.
        geo_origin: where (0, 0) lies; None: at the first mark, x east and y north.

    Raises:
        ValueError: no WIFI line, no scan between marks, or a line with another number of fields or without a number;
            names file and line.
        ModuleNotFoundError: marks need pyproj.
        OSError: it cannot be read.
    """
    file = Path(path)
    marks: list[_Mark] = []
    readings: list[Reading] = []
    for number, line in file_lines(file, comment="%"):
        where, fields = f"{file.name}, line {number}", [cell.strip() for cell in line.strip().rstrip(";").split(";")]
        if fields[0] == "POSI":
            marks.append(_mark(where, fields))
        elif fields[0] == "WIFI":
            readings.append(_reading(where, fields))
    if not readings:
        raise ValueError(f"{file.name} has no WIFI line; an ipin log has lines WIFI;time;time;SSID;BSSID;...;RSS")
    if not marks:
        return Log(readings, None, None)
    marks.sort(key=lambda mark: mark.time_s)
    origin = geo_origin or GeoOrigin(marks[0].latitude_deg, marks[0].longitude_deg)
    geodetic = torch.tensor([(mark.latitude_deg, mark.longitude_deg) for mark in marks], dtype=torch.float64)
    at = origin.to_local(*geodetic.T)[:, :2].numpy()
    times = np.array([mark.time_s for mark in marks])
    placed, positions = [], []
    for reading in readings:
        assert reading.time_s is not None
        after = int(np.searchsorted(times, reading.time_s))
        exact = after < len(times) and times[after] == reading.time_s
        before = after if exact else after - 1
        if before < 0 or after == len(times):
            continue
        first, last = marks[before], marks[after]
        if (first.floor, first.building) != (last.floor, last.building):
            continue
        share = 0.0 if exact else (reading.time_s - first.time_s) / (last.time_s - first.time_s)
        positions.append((1.0 - share) * at[before] + share * at[after])
        placed.append(
            Reading(
                reading.scan, reading.where, reading.ap, reading.rss_dbm, reading.time_s, first.floor, first.building
            )
        )
    if not placed:
        raise ValueError(f"{file.name} has no WIFI line between two POSI marks on one floor; no scan has a known place")
    return Log(placed, np.array(positions), origin)


def _mark(where: str, fields: list[str]) -> _Mark:
    if len(fields) != 7:
        raise ValueError(
            f"{where}: POSI has {len(fields) - 1} fields; it must be POSI;time;counter;lat;lon;floor;building"
        )
    time, latitude, longitude = (_number(where, fields[at]) for at in (1, 3, 4))
    if not (abs(latitude) <= 90.0 and abs(longitude) <= 180.0):
        raise ValueError(f"{where}: ({latitude:g}, {longitude:g}) is no latitude and longitude in degrees")
    return _Mark(time, latitude, longitude, fields[5], fields[6])


def _reading(where: str, fields: list[str]) -> Reading:
    # A network's name may hold semicolons; its address cannot.
    at = next((place for place, cell in enumerate(fields) if place >= 4 and _ADDRESS.fullmatch(cell)), None)
    if at is None or len(fields) - at not in (2, 3):
        raise ValueError(f"{where}: a WIFI line must be WIFI;time;time;SSID;BSSID;RSS or ...;BSSID;frequency;RSS")
    return Reading((fields[1],), where, fields[at].lower(), _number(where, fields[-1]), _number(where, fields[1]))


def _number(where: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        raise ValueError(f"{where}: {cell!r} is not a number") from None
    if not math.isfinite(value):
        raise ValueError(f"{where}: {cell!r} is not a finite number")
    return value
