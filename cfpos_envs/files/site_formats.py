"""What a site file says, before it is judged: its APs and everything else, from YAML, CSV or GeoJSON."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cfpos_envs.checks import nearest
from cfpos_envs.files.tables import Table, column_names, read_table

SITE_SUFFIXES = (".yaml", ".yml", ".csv", ".geojson")
PLACE_KEYS = ("x_m", "y_m", "x", "y", "latitude", "longitude")
RANGE_KEYS = ("range_offset_m", "range_offset_std_m", "range_scale", "range_std_m", "range_epochs")
"""What a calibration of ranges says of an AP."""
AP_KEYS = ("name", *PLACE_KEYS, "height_m", "height", "orientation_deg", *RANGE_KEYS)
SITE_KEYS = ("name", "preset", "aps", "area", "origin", "units", "side_m", "wrap", "range_device_offsets_m")
SHARED_COLUMNS = ("num_antennas", "carrier_hz", "side_m", "wrap", "units")
"""Columns of a CSV file that belong to the site: all APs have the same, or the first alone says it."""
_PASS_OVER = "columns={{{}: None}} passes one over"
_REMEDY = "; rename it in the file, or read it with columns={{{0}: ...}} (columns={{{0}: None}} passes it over)"
_NEAR = 0.75
_WGS84 = ("CRS84", "4326")


@dataclass(frozen=True)
class Row:
    """One AP: what messages call it, and its values by key."""

    label: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Description:
    """The content of a file.

    Attributes:
        where: what messages begin with.
        rows: its APs, in the order of the file.
        general: everything else by key, as the file writes it.
    """

    where: str
    rows: tuple[Row, ...]
    general: dict[str, Any]


def read_description(path: str | Path, columns: Mapping[str, str | None] | None = None) -> Description:
    """Read a file by its ending.

    Args:
        path: the file.
        columns: name that a value of an AP has in the file (column, key or property) -> ours; None passes it over.
            Names that the file does not have do no harm.

    Raises:
        ValueError: another ending, no such file, no APs, not valid, an unknown key; names file and line or AP.
    """
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix not in SITE_SUFFIXES:
        raise ValueError(f"site file {file}: unknown type {suffix!r}; use {', '.join(SITE_SUFFIXES)}")
    if not file.is_file():
        raise ValueError(f"site file {file} does not exist; give the path of a YAML, CSV or GeoJSON file")
    where = f"site file {file}"
    if suffix == ".csv":
        rows, general = _from_csv(file, where, columns or {})
    elif suffix == ".geojson":
        rows, general = _from_geojson(_text(file, where), where, columns or {})
    else:
        rows, general = _from_yaml(_text(file, where), where, columns or {})
    if not rows:
        raise ValueError(f"{where} has no APs; list at least one")
    return Description(where, tuple(rows), {"name": file.stem, **general})


def value_names(path: str | Path) -> tuple[str, ...]:
    """The names of values that a site file has of its APs: columns, keys or properties; empty if it cannot be read."""
    file = Path(path)
    try:
        if file.suffix.lower() == ".csv":
            return column_names(file)
        content = yaml.safe_load(_text(file, ""))  # JSON is YAML
        listed = content.get("aps") or [feature["properties"] for feature in content["features"]]
        return tuple(dict.fromkeys(str(name) for values in listed for name in values or ()))
    except (ValueError, OSError, yaml.YAMLError, AttributeError, KeyError, TypeError):
        return ()


def refuse_unknown(keys: Iterable[Any], allowed: Sequence[str], where: str, remedy: str = "") -> None:
    """ValueError for the first key that is not allowed, with the nearest.

    Args:
        keys: what the file has.
        allowed: what it may have.
        where: what the message begins with.
        remedy: what it ends with; ``{}`` is the key.
    """
    for key in keys:
        if key not in allowed:
            raise ValueError(
                f"{where}: unknown key {key!r}{nearest(key, allowed, ' ({})')}; allowed: {', '.join(allowed)}"
                f"{remedy.format(repr(key))}"
            )


def refuse_misspelt(keys: Iterable[Any], known: Sequence[str], where: str) -> None:
    """ValueError for a key that is nearly one of ``known``; others may stand for something else."""
    for key in keys:
        near = difflib.get_close_matches(str(key), known, n=1, cutoff=_NEAR)
        if key not in known and near:
            raise ValueError(f"{where}: unknown key {key!r}; did you mean {near[0]}?")


def _text(file: Path, where: str) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{where} cannot be read as UTF-8 text: {error}") from error


def _renamed(values: Mapping[str, Any], columns: Mapping[str, str | None], label: str) -> dict[str, Any]:
    """The values of an AP under their new names."""
    given = [(columns.get(key, key), value) for key, value in values.items()]
    kept = {key: value for key, value in given if key is not None}
    if len(kept) < sum(key is not None for key, _ in given):
        names = [key for key, _ in given]
        twice = next(key for key in names if names.count(key) > 1)
        raise ValueError(f"{label}: has two values for {twice!r} after renaming; {_PASS_OVER.format('NAME')}")
    return kept


def _from_yaml(text: str, where: str, columns: Mapping[str, str | None]) -> tuple[list[Row], dict[str, Any]]:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{where} must be a mapping with the key 'aps'")
    listed = content.pop("aps", None)
    if not isinstance(listed, list) or not listed:
        raise ValueError(f"{where} has no APs; list at least one under 'aps'")
    rows = []
    for number, values in enumerate(listed, start=1):
        label = f"{where}, {_ap(number, values)}"
        if not isinstance(values, dict):
            raise ValueError(f"{label}: must be a mapping with {', '.join(AP_KEYS)}, got {values!r}")
        values = _renamed(values, columns, label)
        refuse_unknown(values, AP_KEYS, label, _REMEDY)
        rows.append(Row(label, values))
    return rows, content


def _from_csv(file: Path, where: str, columns: Mapping[str, str | None]) -> tuple[list[Row], dict[str, Any]]:
    there = column_names(file)
    table = read_table(file, {old: new for old, new in columns.items() if old in there})
    refuse_unknown(table.columns, (*AP_KEYS, *SHARED_COLUMNS), where, _REMEDY)
    _refuse_placeless(table.columns, where)
    _refuse_other_units(table, where)
    given = [_cells(table, index) for index in range(len(table))]
    rows = [
        Row(f"{where}, line {line}, {_ap(number, values)}", values)
        for number, (line, values) in enumerate(zip(table.lines, given), start=1)
    ]
    shared = {key: _shared(rows, key, where) for key in SHARED_COLUMNS}
    own = [Row(row.label, {key: value for key, value in row.values.items() if key in AP_KEYS}) for row in rows]
    return own, {key: value for key, value in shared.items() if value is not None}


def _refuse_placeless(columns: Sequence[str], where: str) -> None:
    pairs = [PLACE_KEYS[at : at + 2] for at in (0, 2, 4)]
    if not any(set(pair) <= set(columns) for pair in pairs):
        begun = next((pair for pair in pairs if set(pair) & set(columns)), pairs[0])
        missing = ", ".join(name for name in begun if name not in columns)
        raise ValueError(f"{where} lacks the columns {missing}; its first line must name the columns")


def _refuse_other_units(table: Table, where: str) -> None:
    """A line of units must not contradict the names of the columns."""
    for column, unit in zip(table.columns, table.units):
        if column.endswith("_m") and unit not in ("", "m", "metre", "metres", "meter", "meters"):
            raise ValueError(
                f"{where}: {column} is in metres, but the line below the header says {unit!r}; convert it, or name the "
                f"column {column.removesuffix('_m')} and declare units (m or ft) in a column"
            )


def _cells(table: Table, index: int) -> dict[str, str]:
    """The cells of a line that say something; numbers with a point."""
    cells = {key: cell for key, cell in zip(table.columns, table.rows[index]) if cell}
    if not table.decimal_comma:
        return cells
    return {key: cell if key == "name" else cell.replace(",", ".") for key, cell in cells.items()}


def _shared(rows: Sequence[Row], key: str, where: str) -> Any:
    """The one value that all APs have in a column; None if the column is empty."""
    given = [(number, row.values[key]) for number, row in enumerate(rows, start=1) if key in row.values]
    for number, value in given:
        if _plain(value) != _plain(given[0][1]):
            raise ValueError(
                f"{where}: APs {given[0][0]} and {number} differ in {key} ({given[0][1]} and {value}); it must be "
                "the same for all"
            )
    if not given:
        return None
    return {"true": True, "false": False}.get(given[0][1].lower(), given[0][1]) if key == "wrap" else given[0][1]


def _plain(value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value.lower()


def _from_geojson(text: str, where: str, columns: Mapping[str, str | None]) -> tuple[list[Row], dict[str, Any]]:
    """Points are APs with their properties, one polygon is the area, further members are keys of the site."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not valid JSON: line {error.lineno}: {error.msg}") from error
    if not isinstance(content, dict) or content.get("type") != "FeatureCollection":
        raise ValueError(f"{where} must be a GeoJSON FeatureCollection")
    _refuse_projected(content.get("crs"), where)
    general = {key: value for key, value in content.items() if key not in ("type", "features", "crs", "bbox")}
    refuse_misspelt(general, SITE_KEYS, where)
    rows: list[Row] = []
    for number, feature in enumerate(content.get("features") or (), start=1):
        label = f"{where}, feature {number}"
        kind, coordinates = _geometry(feature, label)
        if kind == "Point":
            rows.append(_point(feature, coordinates, where, len(rows) + 1, label, columns))
        elif "area" in general:
            raise ValueError(f"{label}: a second polygon; a site has one area, leave the others out")
        else:
            general["area"] = _outline(kind, coordinates, label)
    return rows, general


def _refuse_projected(crs: Any, where: str) -> None:
    if crs is not None and not any(code in json.dumps(crs) for code in _WGS84):
        raise ValueError(
            f"{where} is not in WGS 84 but {json.dumps(crs)}; save it with longitude and latitude (EPSG:4326)"
        )


def _geometry(feature: Any, label: str) -> tuple[str, Any]:
    geometry = feature.get("geometry") if isinstance(feature, dict) else None
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    coordinates = geometry.get("coordinates") if isinstance(geometry, dict) else None
    if kind not in ("Point", "Polygon", "MultiPolygon") or not isinstance(coordinates, list):
        raise ValueError(f"{label}: geometry {kind!r} is neither a Point (an AP) nor a Polygon (the area)")
    return kind, coordinates


def _point(
    feature: Mapping[str, Any],
    coordinates: Sequence[Any],
    where: str,
    number: int,
    feature_label: str,
    columns: Mapping[str, str | None],
) -> Row:
    given = {key: value for key, value in (feature.get("properties") or {}).items() if value is not None}
    properties = _renamed(given, columns, feature_label)
    if "name" not in properties and "id" in feature:
        properties["name"] = feature["id"]
    label = f"{feature_label}, {_ap(number, properties)}"
    own = ("name", "height_m", "height", "orientation_deg", *RANGE_KEYS)
    refuse_misspelt(properties, own, label)
    values = {key: value for key, value in properties.items() if key in own}
    values.update(_longitude_latitude(coordinates, label))
    return Row(label, values)


def _outline(kind: str, coordinates: Any, label: str) -> list[dict[str, Any]]:
    polygons = [coordinates] if kind == "Polygon" else coordinates
    if len(polygons) != 1 or not isinstance(polygons[0], list) or len(polygons[0]) != 1:
        raise ValueError(f"{label}: the area must be one polygon without holes; draw one outline")
    ring = polygons[0][0]
    # RFC 7946: the first and the last position of a ring are the same.
    closed = len(ring) > 1 and ring[0] == ring[-1]
    return [_longitude_latitude(corner, label) for corner in (ring[:-1] if closed else ring)]


def _longitude_latitude(position: Any, label: str) -> dict[str, Any]:
    if not isinstance(position, list) or len(position) not in (2, 3):
        raise ValueError(f"{label}: a position must be [longitude, latitude] or with a height, got {position!r}")
    values = {"longitude": position[0], "latitude": position[1]}
    return {**values, "altitude_m": position[2]} if len(position) == 3 else values


def _ap(number: int, values: Any) -> str:
    name = values.get("name") if isinstance(values, dict) else None
    return f"AP {number}" if name is None else f"AP {number} ({name})"
