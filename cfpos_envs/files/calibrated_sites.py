"""A site written anew with the calibration of its ranges."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import yaml

from cfpos_envs.files.calibrations import DEVICES_KEY
from cfpos_envs.files.sites import SiteFile
from cfpos_envs.files.writing import replacing
from cfpos_envs.measurements.calibration import RangeCalibration

_DECIMALS = 6


def write_calibrated_site(site: SiteFile, found: RangeCalibration, path: str | Path) -> Path:
    """The site as YAML, in the coordinates of its file, with what was found of every AP.

    Args:
        site: as ``load_site`` gives it.
        found: of its APs.
        path: ``*.yaml`` or ``*.yml``.

    Raises:
        ValueError: another ending, or another number of APs.
        OSError: it cannot be written.
    """
    file = Path(path)
    if file.suffix.lower() not in (".yaml", ".yml"):
        raise ValueError(f"{file}: a calibrated site is written as .yaml, which keeps area and origin too")
    if len(found.offset_m) != len(site.ap_names):
        raise ValueError(f"the calibration is of {len(found.offset_m)} APs, the site has {len(site.ap_names)}")
    moved = site.moved((-site.origin_m[0], -site.origin_m[1]))
    content: dict[str, Any] = {"name": site.name}
    if site.preset is not None:
        content["preset"] = site.preset
    content.update(site.fields)
    if moved.area is not None:
        content["area"] = [[_rounded(x), _rounded(y)] for x, y in moved.area.corners_m]
    if moved.geo_origin is not None:
        origin = moved.geo_origin
        content["origin"] = {
            "latitude": origin.latitude_deg,
            "longitude": origin.longitude_deg,
            "height_m": origin.height_m,
            "north": origin.north,
        }
    content["aps"] = [_access_point(moved, found, m) for m in range(len(site.ap_names))]
    if found.device_offset_m:
        content[DEVICES_KEY] = {name: _rounded(value) for name, value in found.device_offset_m.items()}
    with replacing(file) as temporary:
        temporary.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return file


def _access_point(site: SiteFile, found: RangeCalibration, m: int) -> dict[str, Any]:
    x, y = site.ap_positions_m[m].tolist()
    values: dict[str, Any] = {"name": site.ap_names[m], "x_m": _rounded(x), "y_m": _rounded(y)}
    if site.ap_height_m is not None:
        values["height_m"] = _rounded(float(site.ap_height_m[m]))
    if site.orientation_rad is not None:
        values["orientation_deg"] = _rounded(math.degrees(float(site.orientation_rad[m])))
    heard = bool(torch.isfinite(found.std_m[m]))
    # An AP that was never heard gets the spread of the others: finite, and nobody's measurement.
    spread = found.std_m[m] if heard else found.std_m[torch.isfinite(found.std_m)].mean()
    values["range_offset_m"] = _rounded(float(found.offset_m[m]))
    values["range_offset_std_m"] = _rounded(float(found.offset_std_m[m]))
    values["range_scale"] = _rounded(float(found.scale[m]))
    values["range_std_m"] = _rounded(float(spread))
    values["range_epochs"] = int(found.epochs[m])
    return values


def _rounded(value: float) -> float:
    return round(value, _DECIMALS)
