"""Classical estimators and reference policies; each one locates users with or without an environment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .registry import list_policies, make_policy, register_policy

if TYPE_CHECKING:
    from .dcp.fingerprint import Fingerprint

__all__ = ["Fingerprint", "list_policies", "make_policy", "register_policy"]


def __getattr__(name: str) -> Any:
    # Imported when first asked for: it brings scikit-learn with it.
    if name == "Fingerprint":
        from .dcp.fingerprint import Fingerprint

        return Fingerprint
    raise AttributeError(f"module 'baselines' has no attribute {name!r}")
