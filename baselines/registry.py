"""The names of the policies: name -> class, imported when first used."""

from __future__ import annotations

import dataclasses
import importlib
from typing import TYPE_CHECKING, Any

from cfpos_envs.checks import nearest, unknown_name

if TYPE_CHECKING:
    from .base import Policy

_paths: dict[str, str] = {
    "fingerprint": ".dcp.fingerprint:Fingerprint",
    "gpr": ".dcp.gpr:GaussianProcess",
    "music": ".dcp.bearings:Music",
    "beamscan": ".dcp.bearings:Beamscan",
    "rss-gn": ".dcp.gauss_newton:RssGaussNewton",
    "joint-gn": ".dcp.gauss_newton:JointGaussNewton",
    "direct-search": ".dcp.search:DirectSearch",
    "centroid": ".dcp.search:Centroid",
    "random": ".dcp.search:RandomPolicy",
    "untrained": ".dcp.search:Untrained",
    "toa-wls": ".toa.wls:ToaWls",
    "rtt-wls": ".toa.wls:RttWls",
    "tdoa-wls": ".toa.wls:TdoaWls",
    "tdoa-chan": ".toa.chan:TdoaChan",
    "toa-huber": ".toa.robust:ToaHuber",
    "toa-em": ".toa.robust:ToaEm",
    "toa-nlos-drop": ".toa.nlos:ToaNlosDrop",
    "toa-oracle": ".toa.nlos:ToaOracle",
    "joint-cp": ".toa.joint:JointCp",
    "transformer": ".ecc.networks:Transformer",
    "adcpm": ".ecc.networks:Adcpm",
    "mfcnet": ".ecc.networks:MfcNet",
    "csi-knn": ".ecc.knn:CsiKnn",
    "csi-scalar-q": ".ecc.networks:CsiScalarQ",
    "ris-wls": ".ris.policies:RisWls",
    "ris-wls-paper": ".ris.policies:RisWlsPaper",
    "ris-ls": ".ris.policies:RisLs",
    "ris-aoa-toa": ".ris.policies:RisAoaToa",
    "ris-siso": ".ris.policies:RisSiso",
    "ris-svd": ".ris.phase_designs:RisSvd",
    "ris-chirp": ".ris.phase_designs:RisChirp",
    "ris-random-phases": ".ris.phase_designs:RisRandomPhases",
}
# Names that mean another class where the environment is of another family: (name, family) -> class.
_family_paths: dict[tuple[str, str], str] = {
    ("music", "csi"): ".ecc.music:Music3d",
}


def list_policies() -> list[str]:
    """All registered names, sorted."""
    return sorted(_paths)


def register_policy(name: str, class_path: str) -> None:
    """Give a policy class a name.

    Args:
        name: new name.
        class_path: ``"package.module:ClassName"`` of a ``baselines.base.Policy``; imported at the first use.

    Raises:
        ValueError: the name is taken by another class, or the path is not of the form ``module:Class``.
    """
    module, _, class_name = class_path.partition(":")
    if not module or not class_name:
        raise ValueError(f"class_path is {class_path!r}; it must look like 'package.module:ClassName'")
    if _paths.get(name, class_path) != class_path:
        raise ValueError(f"policy name {name!r} is taken by {_paths[name]}; choose another name")
    _paths[name] = class_path


def make_policy(name: str, env: Any = None, **options: Any) -> Policy:
    """Build a policy by name.

    Args:
        name: one of ``list_policies()``.
        env: a ``ParallelEnv``, a ``VectorEnv``, an environment id, or None for estimators that are only asked to
            ``locate`` given measurements.
        options: fields of the policy's options dataclass (``baselines`` modules; ``policy_class.options_class``).

    Raises:
        ValueError: unknown name or option (nearest matches and valid ones are listed), a value out of range, or an
            environment of a family that the policy cannot play.
    """
    if isinstance(env, str):
        from cfpos_envs import make_env

        env = make_env(env)
    policy_class = _load(name, _family(env))
    check_options(name, policy_class.options_class, options)
    chosen = policy_class.options_class(**options)
    _check_family(name, env)
    return policy_class(env, chosen)


def policy_families(name: str) -> tuple[str, ...]:
    """The families of games (``Scenario.family``) that a policy can play; empty: any.

    Raises:
        ValueError: unknown name.
    """
    families: tuple[str, ...] = getattr(_load(name), "families", ())
    return families + tuple(family for other, family in _family_paths if other == name)


def _family(env: Any) -> str:
    return str(getattr(getattr(env, "scenario", None), "family", ""))


def _check_family(name: str, env: Any) -> None:
    family = _family(env)
    accepted = policy_families(name)
    if not family or not accepted or family in accepted:
        return
    suited = [other for other in list_policies() if not policy_families(other) or family in policy_families(other)]
    raise ValueError(
        f"policy {name!r} takes measurements of the family {' or '.join(accepted)}, this environment "
        f"makes {family}; choose one of {', '.join(suited)}"
    )


def _load(name: str, family: str = "") -> type[Policy]:
    if name not in _paths:
        raise ValueError(unknown_name("policy", name, list_policies(), "Registered"))
    module, _, class_name = _family_paths.get((name, family), _paths[name]).partition(":")
    policy_class: type[Policy] = getattr(importlib.import_module(module, __package__), class_name)
    return policy_class


def check_options(policy: str, options_class: type, options: dict[str, Any]) -> None:
    """Refuse names that are no fields of ``options_class``.

    Raises:
        ValueError: names the first wrong one, its nearest matches and all valid ones.
    """
    valid = sorted(entry.name for entry in dataclasses.fields(options_class))
    for name in options:
        if name not in valid:
            hint = nearest(name, valid) or "."
            listed = f"Valid options: {', '.join(valid)}" if valid else "It takes no options"
            raise ValueError(f"unknown option {name!r} of policy {policy!r}{hint} {listed}")
