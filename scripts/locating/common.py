"""What all kinds of measurements share on their way to positions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
import yaml

from cfpos.scripts.cli import UsageError, suggest
from cfpos_envs.files.positions import Positions
from cfpos_envs.files.sites import SiteFile

USER_HEIGHT_M = 1.5
"""Of people who hold a phone or wear a tag; used where the site has heights and nobody says otherwise."""


@dataclass(frozen=True)
class Located:
    """Positions, what to draw around them, and what to say about them.

    Attributes:
        table: in the coordinates of the site's file.
        method: name of the policy.
        ap_names, aps_m: [M, 2] of the site; empty without one.
        outline_m: [C, 2] corners of the area, or None.
        notes: what was assumed, passed over or left out.
    """

    table: Positions
    method: str
    ap_names: tuple[str, ...] = ()
    aps_m: np.ndarray | None = None
    outline_m: np.ndarray | None = None
    notes: tuple[str, ...] = ()


def drawn_site(site: SiteFile | None) -> dict[str, Any]:
    """The fields of ``Located`` that a site gives, in the coordinates of its file."""
    if site is None:
        return {}
    origin = np.array(site.origin_m)
    outline = None if site.area is None else site.area.corners.numpy() + origin
    return {"ap_names": site.ap_names, "aps_m": site.ap_positions_m.numpy() + origin, "outline_m": outline}


def pairs(entries: Sequence[str], option: str) -> dict[str, Any]:
    """KEY=VALUE words as a dictionary, values as YAML reads them.

    Raises:
        UsageError: a word without ``=`` or with an unreadable value.
    """
    found = {}
    for entry in entries:
        key, equals, value = entry.partition("=")
        if not equals or not key:
            raise UsageError(f"{option} {entry} must look like {option} KEY=VALUE")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UsageError(f"{option} {entry}: the value is not readable") from None
    return found


def checked_names(given: Mapping[str, Any], function: Callable[..., Any], taken: Sequence[str], option: str) -> None:
    """Refuse names that are no keyword of a function, or that are said in another way.

    Raises:
        UsageError: naming the nearest.
    """
    allowed = [name for name, entry in signature(function).parameters.items() if entry.kind is entry.KEYWORD_ONLY]
    free = [name for name in allowed if name not in taken]
    for name in given:
        if name not in free:
            raise UsageError(f"{option} {name} is unknown: {suggest(name, free)}")
