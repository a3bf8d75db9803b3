"""A person's own site from a YAML or CSV file: AP positions and what is known about their arrays."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.checks import nearest

AP_KEYS = ("x_m", "y_m", "height_m", "orientation_deg")
SITE_KEYS = ("name", "carrier_hz", "num_antennas", "side_m", "wrap", "aps")
CSV_COLUMNS = (*AP_KEYS, "num_antennas", "carrier_hz")
_REQUIRED = ("x_m", "y_m")
_SAME_POINT_M = 1e-3


@dataclass(frozen=True)
class SiteFile:
    """What a site file says; None where it is silent.

    Attributes:
        ap_positions_m: [M, 2] horizontal positions, in the order of the file.
        ap_height_m: [M] heights above ground.
        orientation_rad: [M] directions of the array axes, counter-clockwise from +x.
        num_antennas, carrier_hz: of every AP.
        side_m, wrap: the square area [0, side_m]^2 and whether distances are taken on the torus.
        name: of the site; the file's stem if it gives none.
    """

    ap_positions_m: Float[Tensor, "M 2"]
    ap_height_m: Float[Tensor, " M"] | None
    orientation_rad: Float[Tensor, " M"] | None
    num_antennas: int | None
    carrier_hz: float | None
    side_m: float | None
    wrap: bool | None
    name: str


def load_site_file(path: str | Path) -> SiteFile:
    """Read a site from ``*.yaml``/``*.yml`` or ``*.csv``.

    YAML: a mapping with ``aps``, a list of ``{x_m, y_m, height_m, orientation_deg}`` of which the last two are
    optional, and optionally ``name, carrier_hz, num_antennas, side_m, wrap``. CSV: a header line and one line per AP
    with ``x_m, y_m`` and optionally ``height_m, orientation_deg, num_antennas, carrier_hz``; the last two must not
    differ between APs. Heights and orientations are given for all APs or for none.

    Args:
        path: the file.

    Raises:
        ValueError: for anything missing, unknown, not finite or contradictory, naming file and row.
    """
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix not in (".yaml", ".yml", ".csv"):
        raise ValueError(f"site file {file}: unknown type {suffix!r}; use .yaml, .yml or .csv")
    if not file.is_file():
        raise ValueError(f"site file {file} does not exist; give the path of a YAML or CSV file")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"site file {file} cannot be read as UTF-8 text: {error}") from error
    where = f"site file {file}"
    return _from_csv(text, where, file.stem) if suffix == ".csv" else _from_yaml(text, where, file.stem)


def _from_yaml(text: str, where: str, stem: str) -> SiteFile:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{where} must be a mapping with the key 'aps'")
    _refuse_unknown(content, SITE_KEYS, where)
    rows = content.get("aps")
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"{where} has no APs; list at least one under 'aps'")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise ValueError(f"{where}, AP {number}: must be a mapping with {', '.join(AP_KEYS)}, got {row!r}")
        _refuse_unknown(row, AP_KEYS, f"{where}, AP {number}")
    wrap = content.get("wrap")
    if wrap is not None and not isinstance(wrap, bool):
        raise ValueError(f"{where}: wrap must be true or false, got {wrap!r}")
    return _site(rows, {**content, "name": content.get("name", stem)}, where)


def _from_csv(text: str, where: str, stem: str) -> SiteFile:
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
    rows = []
    for number, row in enumerate(reader, start=1):
        if None in row or None in row.values():
            raise ValueError(f"{where}, AP {number}: the line must have {len(header)} values")
        rows.append({key: value for key, value in row.items() if str(value).strip()})
    shared = {key: _shared(rows, key, where) for key in ("num_antennas", "carrier_hz")}
    return _site(rows, {**shared, "name": stem}, where)


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


def _site(rows: Sequence[Mapping[str, Any]], general: Mapping[str, Any], where: str) -> SiteFile:
    """Check the values and build the result."""
    if not rows:
        raise ValueError(f"{where} has no APs; list at least one")
    positions = torch.stack([_column(rows, key, where, required=True) for key in _REQUIRED], dim=-1)
    side = _positive(general.get("side_m"), f"{where}: side_m")
    _refuse_shared_points(positions, where)
    if side is not None:
        outside = ((positions < 0) | (positions > side)).any(dim=-1).nonzero().flatten().tolist()
        if outside:
            raise ValueError(f"{where}, AP {outside[0] + 1}: lies outside the area [0, {side:g}] m; enlarge side_m")
    antennas = _positive(general.get("num_antennas"), f"{where}: num_antennas")
    if antennas is not None and antennas != int(antennas):
        raise ValueError(f"{where}: num_antennas must be a whole number, got {antennas:g}")
    orientation = _column(rows, "orientation_deg", where)
    height = _column(rows, "height_m", where)
    return SiteFile(
        ap_positions_m=positions.to(torch.float32),
        ap_height_m=None if height is None else height.to(torch.float32),
        orientation_rad=None if orientation is None else torch.deg2rad(orientation).to(torch.float32),
        num_antennas=None if antennas is None else int(antennas),
        carrier_hz=_positive(general.get("carrier_hz"), f"{where}: carrier_hz"),
        side_m=side,
        wrap=general.get("wrap"),
        name=str(general["name"]),
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


def _positive(value: Any, what: str) -> float | None:
    if value is None:
        return None
    number = _number(value, what)
    if number <= 0:
        raise ValueError(f"{what} must be positive, got {number:g}")
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
