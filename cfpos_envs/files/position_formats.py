"""Columns of positions to CSV, GeoJSON, npz and Parquet, and back to the last bit."""

from __future__ import annotations

import csv
import dataclasses
import importlib
import json
import math
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cfpos_envs.checks import one_of
from cfpos_envs.extras import install_command
from cfpos_envs.files.coordinates import GeoOrigin
from cfpos_envs.files.tables import read_table
from cfpos_envs.files.writing import replacing

Columns = Mapping[str, np.ndarray]
_Read = tuple[dict[str, np.ndarray], GeoOrigin | None]

FORMAT = "cfpos-positions-1"
_INTEGERS = ("episode", "degrees_of_freedom")
_SWITCHES = ("valid",)
_RADII = ("radius_50", "radius_90")
_TEXTS = ("user", "reason", "policy", "epoch", "floor")
# Tenths of a millimetre.
_DEGREE_DECIMALS, _METRE_DECIMALS = 9, 4
_UNPLACED = (
    "x_m and y_m are local metres; there is no geometry because RFC 7946 allows WGS 84 only and the site has no origin"
)


def kind(name: str) -> type:
    """What the entries of a column are: ``int``, ``bool``, ``str`` or ``float``."""
    if name in _INTEGERS:
        return int
    if name in _SWITCHES:
        return bool
    return str if name in _TEXTS else float


def check_format(path: Path) -> None:
    """Refuse an ending that is none of ours.

    Raises:
        ValueError: naming those that are.
    """
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(f"{path.name} must end in one of {', '.join(ENDINGS)}")


def write(path: Path, columns: Columns, origin: GeoOrigin | None = None) -> Path:
    """Write columns of equal length, and where their metres lie on earth; the ending of ``path`` chooses the format.

    Raises:
        ValueError: another ending; Parquet without its package.
        OSError: the folder cannot be written.
    """
    check_format(path)
    with replacing(path) as temporary:
        _WRITERS[path.suffix.lower()](temporary, columns, origin)
    return path


def read(path: Path) -> tuple[dict[str, np.ndarray], GeoOrigin | None]:
    """Read what ``write`` wrote; the origin is None in a CSV.

    Raises:
        ValueError: another ending or content.
        OSError: it cannot be read.
    """
    check_format(path)
    return _READERS[path.suffix.lower()](path)


def _write_csv(path: Path, columns: Columns, origin: GeoOrigin | None) -> None:
    texts = [[_cell(value) for value in column.tolist()] for column in columns.values()]
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*texts))


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)
    return str(value)


def _read_csv(path: Path) -> _Read:
    table = read_table(path)
    numbers = [name for name in table.columns if kind(name) in (int, float) and _known(name)]
    values = table.numbers(numbers)
    found: dict[str, np.ndarray] = {}
    for name in table.columns:
        if name in numbers:
            column = values[:, numbers.index(name)]
            found[name] = column.astype(np.int64) if kind(name) is int else column
        elif kind(name) is bool:
            found[name] = np.array([_switch(cell, table.where(row)) for row, cell in enumerate(table.texts(name))])
        elif kind(name) is str:
            found[name] = np.array(table.texts(name), dtype=np.str_)
    return found, None


def _known(name: str) -> bool:
    """Numbers of ours end in their unit, so that a note in a column that somebody added is no wrong number."""
    return name in (*_INTEGERS, "chi_squared", *_RADII) or name.endswith(("_m", "_m2", "_s"))


def _switch(cell: str, where: str) -> bool:
    one_of(f"{where}: valid", cell.lower(), ("true", "false"))
    return cell.lower() == "true"


def _write_geojson(path: Path, columns: Columns, origin: GeoOrigin | None) -> None:
    rows = zip(*([_json(value) for value in column.tolist()] for column in columns.values()))
    features = [
        {"type": "Feature", "geometry": point, "properties": dict(zip(columns, row))}
        for point, row in zip(_points(columns, origin), rows)
    ]
    lines = ",\n".join(json.dumps(feature, allow_nan=False) for feature in features)
    about = {"note": _UNPLACED} if origin is None else {"geo_origin": dataclasses.asdict(origin)}
    head = json.dumps({"type": "FeatureCollection", "format": FORMAT, **about})
    path.write_text(f'{head[:-1]}, "features": [\n{lines}\n]}}\n', encoding="utf-8")


def _points(columns: Columns, origin: GeoOrigin | None) -> list[dict[str, Any] | None]:
    """A point per row in longitude, latitude and, in space, height; None where it is not finite or nobody knows."""
    local = np.stack([columns[name] for name in ("x_m", "y_m", "z_m") if name in columns], axis=1)
    points: list[dict[str, Any] | None] = [None] * len(local)
    known = np.isfinite(local).all(axis=1)
    if origin is None or not known.any():
        return points
    latitude, longitude, height = (part.numpy() for part in origin.to_geodetic(torch.from_numpy(local[known])))
    parts = (longitude, latitude, height)[: local.shape[1]]
    decimals = (_DEGREE_DECIMALS, _DEGREE_DECIMALS, _METRE_DECIMALS)
    rounded = zip(*(np.round(part, places).tolist() for part, places in zip(parts, decimals)))
    for row, coordinates in zip(np.flatnonzero(known).tolist(), rounded):
        points[row] = {"type": "Point", "coordinates": list(coordinates)}
    return points


def _json(value: Any) -> Any:
    """JSON has no NaN (null) and no infinity (text)."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _read_geojson(path: Path) -> _Read:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']!r}")
        rows = [feature["properties"] for feature in content["features"]]
        columns = {name: _typed(name, [row[name] for row in rows]) for name in (rows[0] if rows else ())}
        return columns, _origin(content.get("geo_origin"))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path.name} is no GeoJSON of positions ({error}); write it with Positions.write") from None


def _typed(name: str, values: list[Any]) -> np.ndarray:
    if kind(name) is float:
        return np.array([math.nan if value is None else float(value) for value in values], dtype=np.float64)
    return np.array(values, dtype={int: np.int64, bool: np.bool_, str: np.str_}[kind(name)])


def _write_npz(path: Path, columns: Columns, origin: GeoOrigin | None) -> None:
    with path.open("wb") as stream:
        content: dict[str, Any] = {"format": np.array(FORMAT), "geo_origin": np.array(_as_text(origin)), **columns}
        np.savez_compressed(stream, **content)


def _read_npz(path: Path) -> _Read:
    try:
        with np.load(path, allow_pickle=False) as content:
            if str(content["format"]) != FORMAT:
                raise ValueError(f"format {content['format']}")
            columns = {name: content[name] for name in content.files if name not in ("format", "geo_origin")}
            return columns, _origin(json.loads(str(content["geo_origin"])))
    except (ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{path.name} is no npz of positions ({error}); write it with Positions.write") from None


def _write_parquet(path: Path, columns: Columns, origin: GeoOrigin | None) -> None:
    arrow, parquet = _arrow()
    table = arrow.table({name: arrow.array(column.tolist()) for name, column in columns.items()})
    parquet.write_table(table.replace_schema_metadata({"format": FORMAT, "geo_origin": _as_text(origin)}), path)


def _read_parquet(path: Path) -> _Read:
    arrow, parquet = _arrow()
    try:
        table = parquet.read_table(path)
    except arrow.ArrowInvalid as error:
        raise ValueError(f"{path.name} is no Parquet file ({error})") from None
    said = (table.schema.metadata or {}).get(b"geo_origin", b"null")
    return {name: _typed(name, table.column(name).to_pylist()) for name in table.column_names}, _origin(
        json.loads(said)
    )


def _as_text(origin: GeoOrigin | None) -> str:
    return json.dumps(None if origin is None else dataclasses.asdict(origin))


def _origin(said: Any) -> GeoOrigin | None:
    if said is None:
        return None
    return GeoOrigin(**{**said, "shift_m": tuple(said["shift_m"])})


def _arrow() -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise ValueError(f"Parquet files need pyarrow: {install_command('parquet')}; or write .npz or .csv") from None


_WRITERS: dict[str, Callable[[Path, Columns, GeoOrigin | None], None]] = {
    ".csv": _write_csv,
    ".geojson": _write_geojson,
    ".npz": _write_npz,
    ".parquet": _write_parquet,
}
_READERS: dict[str, Callable[[Path], _Read]] = {
    ".csv": _read_csv,
    ".geojson": _read_geojson,
    ".npz": _read_npz,
    ".parquet": _read_parquet,
}
ENDINGS = tuple(_WRITERS)
"""What the name of such a file may end in."""
