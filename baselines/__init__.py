"""Classical estimators and reference policies; each one locates users with or without an environment."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .registry import list_policies, make_policy, register_policy

if TYPE_CHECKING:
    from .dcp.fingerprint import Fingerprint
    from .direct import locate_csi, locate_ranges, locate_rss, locate_tdoa
    from .toa.calibration.anchors import calibrate_anchors
    from .toa.calibration.ranges import calibrate_ranges

__all__ = [
    "Fingerprint",
    "calibrate_anchors",
    "calibrate_ranges",
    "list_policies",
    "locate_csi",
    "locate_ranges",
    "locate_rss",
    "locate_tdoa",
    "make_policy",
    "register_policy",
]

_HOMES = {
    "Fingerprint": ".dcp.fingerprint",
    "calibrate_anchors": ".toa.calibration.anchors",
    "calibrate_ranges": ".toa.calibration.ranges",
    "locate_csi": ".direct",
    "locate_ranges": ".direct",
    "locate_rss": ".direct",
    "locate_tdoa": ".direct",
}


def __getattr__(name: str) -> Any:
    # Imported when first asked for: the fingerprint brings scikit-learn with it.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name], __package__), name)
    raise AttributeError(f"module 'baselines' has no attribute {name!r}")
