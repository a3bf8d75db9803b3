"""Calibrations of ranges kept with a site: what columns of its access points say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cfpos_envs.files.site_formats import RANGE_KEYS, Row
from cfpos_envs.measurements.calibration import RangeCalibration

DEVICES_KEY = "range_device_offsets_m"


def stored_calibration(
    rows: Sequence[Row], names: tuple[str, ...], devices: Any, where: str
) -> RangeCalibration | None:
    """The calibration that a site's file holds; None where it holds none.

    Args:
        rows: of the APs.
        names: of the APs.
        devices: offsets by device, or None.
        where: what messages begin with.

    Raises:
        ValueError: an offset or spread of some APs only, a scale or spread that is not positive.
    """
    columns = {key: _numbers(rows, key) for key in RANGE_KEYS}
    if all(values is None for values in columns.values()) and devices is None:
        return None
    offset, std = columns["range_offset_m"], columns["range_std_m"]
    if std is None or offset is None:
        raise ValueError(f"{where}: a calibration needs range_offset_m and range_std_m of every AP")
    count = len(rows)
    ones = torch.ones(count, dtype=torch.float64)
    scale, offset_std, epochs = (columns[key] for key in ("range_scale", "range_offset_std_m", "range_epochs"))
    for key in ("range_scale", "range_std_m"):
        values = columns[key]
        if values is not None and not bool((values > 0).all()):
            raise ValueError(f"{where}: {key} must be above 0 for every AP")
    if devices is not None and not isinstance(devices, Mapping):
        raise ValueError(f"{where}: {DEVICES_KEY} must be a mapping from a device to its offset in metres")
    return RangeCalibration(
        offset_m=offset,
        scale=ones if scale is None else scale,
        std_m=std,
        offset_covariance_m2=torch.diag(torch.zeros_like(ones) if offset_std is None else offset_std.square()),
        epochs=(ones if epochs is None else epochs).long().clamp(min=1),
        method="file",
        pays=True,
        reason=f"read from {where.removeprefix('site file ')}",
        device_offset_m={str(name): _number(where, name, value) for name, value in (devices or {}).items()},
        ap_names=names,
    )


def _numbers(rows: Sequence[Row], key: str) -> Tensor | None:
    """One number for every AP; None if no AP has it."""
    if not any(row.values.get(key) is not None for row in rows):
        return None
    return torch.tensor([_number(row.label, key, row.values.get(key)) for row in rows], dtype=torch.float64)


def _number(where: str, key: Any, value: Any) -> float:
    if value is None:
        raise ValueError(f"{where}: {key} is missing; a calibration is given for all APs or for none")
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise ValueError(f"{where}: {key} must be a finite number, got {value!r}")
    return found
