"""A person's own site for a game: the file's site, and the fields of the game's site config that it sets."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from cfpos_envs.checks import unknown_name
from cfpos_envs.files.areas import Area
from cfpos_envs.files.site_formats import SITE_KEYS, SITE_SUFFIXES
from cfpos_envs.files.sites import USER_HEIGHT_M, SiteFile, load_site, typed_number

__all__ = [
    "SiteFile",
    "USER_HEIGHT_M",
    "checked_fields",
    "known_square_m",
    "load_site",
    "load_site_file",
    "on_square",
    "refuse_outside",
    "site_base",
]

_ROUNDING_M = 1e-6


def site_base(name: str) -> str:
    """What a site given by name is: ``file`` or ``preset``."""
    return "file" if name.lower().endswith(SITE_SUFFIXES) else "preset"


def load_site_file(path: str | Path, config_class: type) -> SiteFile:
    """``load_site`` for a game: ``fields`` are checked against its config and have the types that it declares.

    Args:
        path: the file.
        config_class: dataclass whose fields the file may set.

    Raises:
        ValueError: as ``load_site``; an unknown field, with the nearest; a value of another type.
        ModuleNotFoundError: as ``load_site``.
    """
    site = load_site(path)
    where, general = f"site file {path}", dict(site.fields)
    if "wrap" in general and not hasattr(config_class, "wrap") and general.pop("wrap") is not False:
        raise ValueError(f"{where} says wrap: true, but distances of this game are not taken on a torus; remove it")
    fields = checked_fields(general, config_class, where, SITE_KEYS)
    for key in ("num_antennas", "carrier_hz"):
        if key in fields and fields[key] <= 0:
            raise ValueError(f"{where}: {key} must be positive, got {fields[key]:g}")
    return dataclasses.replace(site, fields=fields)


def on_square(site: SiteFile, side_m: float | None) -> tuple[SiteFile, float]:
    """The site in the square [0, side] on which games are played, and the side.

    Games know squares only. With a side said, the square begins at the site's own x = y = 0. Otherwise it is the
    smallest one that holds the area (without one: the APs), from its lower left corner; if all APs stand on one line
    that would cut this square, it lies on the side of the line where the area is.

    Args:
        site: the file's.
        side_m: what the file or the options say; None: nothing.

    Raises:
        ValueError: nothing says how large the site is.
    """
    if side_m is not None:
        square = Area.rectangle((0.0, 0.0), (side_m, side_m)) if side_m > 0 else None
        return dataclasses.replace(site, area=site.area or square), side_m
    low, high = site.bounds_m
    low = torch.minimum(low, site.ap_positions_m.amin(dim=0))
    high = torch.maximum(high, site.ap_positions_m.amax(dim=0))
    side = float((high - low).max())
    if side <= 0:
        raise ValueError(f"site file {site.path}: one AP spans no area; say side_m or area")
    above, below = low.tolist(), (high - side).tolist()
    for corner in (above, below):
        if site.excludes_mirror_images(Area.rectangle(corner, (corner[0] + side, corner[1] + side))):
            return site.moved(corner), side
    return site.moved(above), side


def refuse_outside(site: SiteFile, side_m: float) -> None:
    """ValueError for the first AP outside the square [0, side_m]."""
    outside = ((site.ap_positions_m < -_ROUNDING_M) | (site.ap_positions_m > side_m + _ROUNDING_M)).any(dim=-1)
    if outside.any():
        row = int(outside.nonzero()[0]) + 1
        raise ValueError(
            f"AP {row} of site file {site.path!r} lies outside the square [0, {side_m:g}] m; set side_m or move the AP"
        )


def known_square_m(site: SiteFile | None, side_m: float) -> tuple[tuple[float, float], ...] | None:
    """Corners of the square [0, side_m] where the users of a person's own site are; None: a drawn site.

    It tells places apart that the ranges do not: mirror images at a row of APs along a wall.
    """
    return None if site is None else ((0.0, 0.0), (side_m, 0.0), (side_m, side_m), (0.0, side_m))


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
    if kind is int and typed_number(value, what) != int(float(value)):
        raise ValueError(f"{what} must be a whole number, got {value!r}")
    return kind(typed_number(value, what)) if kind in (int, float) else value
