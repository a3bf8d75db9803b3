"""A person's own site from a YAML or CSV file: AP positions and what is known about their arrays."""

from __future__ import annotations

import csv
import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.checks import nearest, unknown_name

AP_KEYS = ("x_m", "y_m", "height_m", "orientation_deg")
SITE_KEYS = ("name", "preset", "aps")
CSV_COLUMNS = (*AP_KEYS, "num_antennas", "carrier_hz")
SITE_SUFFIXES = (".yaml", ".yml", ".csv")
_REQUIRED = ("x_m", "y_m")
_SAME_POINT_M = 1e-3


@dataclass(frozen=True)
class SiteFile:
    """What a site file says; None where it is silent.

    Attributes:
        ap_positions_m: [M, 2] horizontal positions, in the order of the file.
        ap_height_m: [M] heights above ground.
        orientation_rad: [M] directions of the array axes, counter-clockwise from +x.
        name: of the site; the file's stem if it gives none.
        path: of the file.
        preset: the named site that it starts from.
        fields: fields of the site's config that it sets.
    """

    ap_positions_m: Float[Tensor, "M 2"]
    ap_height_m: Float[Tensor, " M"] | None
    orientation_rad: Float[Tensor, " M"] | None
    name: str
    path: str
    preset: str | None
    fields: dict[str, Any]


def site_base(name: str) -> str:
    """What a site given by name is: ``file`` or ``preset``."""
    return "file" if name.lower().endswith(SITE_SUFFIXES) else "preset"


def load_site_file(path: str | Path, config_class: type) -> SiteFile:
    """Read a site from ``*.yaml``/``*.yml`` or ``*.csv``.

    YAML: a mapping with ``aps``, a list of ``{x_m, y_m, height_m, orientation_deg}`` of which the last two are
    optional, and optionally ``name``, ``preset`` and any field of the site's config. CSV: a header line and one line
    per AP with ``x_m, y_m`` and optionally ``height_m, orientation_deg, num_antennas, carrier_hz``; the last two must
    not differ between APs. Heights and orientations are given for all APs or for none.

    Args:
        path: the file.
        config_class: dataclass whose fields the file may set.

    Raises:
        ValueError: for anything missing, unknown, not finite or contradictory, naming file and row.
    """
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix not in SITE_SUFFIXES:
        raise ValueError(f"site file {file}: unknown type {suffix!r}; use .yaml, .yml or .csv")
    if not file.is_file():
        raise ValueError(f"site file {file} does not exist; give the path of a YAML or CSV file")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"site file {file} cannot be read as UTF-8 text: {error}") from error
    where = f"site file {file}"
    rows, general = _from_csv(text, where) if suffix == ".csv" else _from_yaml(text, where)
    return _site(rows, {"name": file.stem, **general}, where, str(path), config_class)


def checked_fields(
    values: Mapping[str, Any], config_class: type, where: str, also: Sequence[str] = ()
) -> dict[str, Any]:
    """Fields of a site's config as the types that it declares; their ranges are the config's own affair.

    Args:
        values: as read from YAML, CSV or the command line: numbers may be text, as YAML reads 10e9.
        config_class: dataclass with these fields.
        where: what messages begin with.
        also: further names that the caller knows, for the hint.

    Raises:
        ValueError: unknown field, with the nearest; a value of another type.
    """
    hints = typing.get_type_hints(config_class)
    known = [entry.name for entry in dataclasses.fields(config_class)]
    for name in values:
        if name not in known:
            raise ValueError(f"{where}: {unknown_name('site field', str(name), [*known, *also])}")
    return {name: _typed(value, hints[name], f"{where}: {name}") for name, value in values.items()}


def _typed(value: Any, hint: Any, what: str) -> Any:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and type(None) in kinds:
        return None
    kind = kinds[0]
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{what} must be a list, got {value!r}")
        return tuple(value)
    if kind is bool and not isinstance(value, bool):
        raise ValueError(f"{what} must be true or false, got {value!r}")
    if kind is str and not isinstance(value, str):
        raise ValueError(f"{what} must be text, got {value!r}")
    if kind is int and _number(value, what) != int(float(value)):
        raise ValueError(f"{what} must be a whole number, got {value!r}")
    return kind(_number(value, what)) if kind in (int, float) else value


def _from_yaml(text: str, where: str) -> tuple[list[Mapping[str, Any]], dict[str, Any]]:
    """Its APs, and everything else."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{where} must be a mapping with the key 'aps'")
    rows = content.pop("aps", None)
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"{where} has no APs; list at least one under 'aps'")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise ValueError(f"{where}, AP {number}: must be a mapping with {', '.join(AP_KEYS)}, got {row!r}")
        _refuse_unknown(row, AP_KEYS, f"{where}, AP {number}")
    return rows, content


def _from_csv(text: str, where: str) -> tuple[list[Mapping[str, Any]], dict[str, Any]]:
    """Its APs, and what all of them share."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    reader = csv.DictReader(lines, skipinitialspace=True)
    header = [name.strip() for name in reader.fieldnames or ()]
    reader.fieldnames = header
    missing = [name for name in _REQUIRED if name not in header]
    if missing:
        raise ValueError(f"{where} lacks the columns {', '.join(missing)}; its first line must name the columns")
    if len(set(header)) < len(header):
        raise ValueError(f"{where} names a column twice: {', '.join(header)}")
    _refuse_unknown(header, CSV_COLUMNS, where)
    rows: list[Mapping[str, Any]] = []
    for number, row in enumerate(reader, start=1):
        if None in row or None in row.values():
            raise ValueError(f"{where}, AP {number}: the line must have {len(header)} values")
        rows.append({key: value for key, value in row.items() if str(value).strip()})
    shared = {key: _shared(rows, key, where) for key in ("num_antennas", "carrier_hz")}
    return rows, {key: value for key, value in shared.items() if value is not None}


def _shared(rows: Sequence[Mapping[str, Any]], key: str, where: str) -> Any:
    """The one value that all APs have in a column; None if the column is empty."""
    given = [
        (number, _number(row[key], f"{where}, AP {number}: {key}")) for number, row in enumerate(rows, 1) if key in row
    ]
    for number, value in given:
        if value != given[0][1]:
            raise ValueError(
                f"{where}: APs {given[0][0]} and {number} differ in {key} ({given[0][1]:g} and {value:g}); it must be "
                "the same for all"
            )
    return given[0][1] if given else None


def _site(
    rows: Sequence[Mapping[str, Any]], general: dict[str, Any], where: str, path: str, config_class: type
) -> SiteFile:
    """Check the values and build the result."""
    if not rows:
        raise ValueError(f"{where} has no APs; list at least one")
    name, preset = str(general.pop("name")), general.pop("preset", None)
    if "wrap" in general and not hasattr(config_class, "wrap") and general.pop("wrap") is not False:
        raise ValueError(f"{where} says wrap: true, but distances of this game are not taken on a torus; remove it")
    fields = checked_fields(general, config_class, where, SITE_KEYS)
    for key in ("side_m", "num_antennas", "carrier_hz"):
        if key in fields and fields[key] <= 0:
            raise ValueError(f"{where}: {key} must be positive, got {fields[key]:g}")
    positions = torch.stack([_column(rows, key, where, required=True) for key in _REQUIRED], dim=-1)
    _refuse_shared_points(positions, where)
    side = fields.get("side_m", math.inf)
    outside = ((positions < 0) | (positions > side)).any(dim=-1).nonzero().flatten().tolist()
    if outside and side < math.inf:
        raise ValueError(f"{where}, AP {outside[0] + 1}: lies outside the area [0, {side:g}] m; enlarge side_m")
    orientation = _column(rows, "orientation_deg", where)
    height = _column(rows, "height_m", where)
    return SiteFile(
        ap_positions_m=positions.to(torch.float32),
        ap_height_m=None if height is None else height.to(torch.float32),
        orientation_rad=None if orientation is None else torch.deg2rad(orientation).to(torch.float32),
        name=name,
        path=path,
        preset=preset,
        fields=fields,
    )


def _column(rows: Sequence[Mapping[str, Any]], key: str, where: str, required: bool = False) -> Any:
    """One value per AP as a double tensor, or None if no AP has it."""
    given = [row.get(key) is not None for row in rows]
    if not any(given) and not required:
        return None
    if not all(given):
        raise ValueError(f"{where}, AP {given.index(False) + 1}: {key} is missing")
    values = [_number(row[key], f"{where}, AP {number}: {key}") for number, row in enumerate(rows, start=1)]
    return torch.tensor(values, dtype=torch.float64)


def _number(value: Any, what: str) -> float:
    # Text is welcome because YAML reads 10e9 as text and CSV knows nothing else.
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{what} must be a number, got {value!r}") from None
    if not math.isfinite(number):
        raise ValueError(f"{what} must be a finite number, got {value!r}")
    return number


def _refuse_shared_points(positions: Tensor, where: str) -> None:
    gaps = torch.cdist(positions, positions, compute_mode="donot_use_mm_for_euclid_dist")
    close = torch.triu(gaps < _SAME_POINT_M, diagonal=1).nonzero()
    if len(close):
        first, second = (int(index) + 1 for index in close[0])
        raise ValueError(f"{where}: APs {first} and {second} stand on one point; move or remove one of them")


def _refuse_unknown(keys: Any, allowed: Sequence[str], where: str) -> None:
    for key in keys:
        if key not in allowed:
            hint = nearest(key, allowed, " ({})")
            raise ValueError(f"{where}: unknown key {key!r}{hint}; allowed: {', '.join(allowed)}")
