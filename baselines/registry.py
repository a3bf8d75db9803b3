"""The names of the policies: name -> class, imported when first used."""

from __future__ import annotations

import dataclasses
import importlib
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

from cfpos_envs.checks import nearest, unknown_name

if TYPE_CHECKING:
    from .base import Env, Policy

_paths: dict[str, str | tuple[str, ...]] = {
    "fingerprint": ".dcp.fingerprint:Fingerprint",
    "gpr": ".dcp.gpr:GaussianProcess",
    # By what the environment measures; without one, the first.
    "music": (".dcp.bearings:Music", ".ecc.music:Music3d"),
    "beamscan": ".dcp.bearings:Beamscan",
    "rss-gn": ".dcp.gauss_newton:RssGaussNewton",
    "rss-mmse": ".dcp.posterior:RssPosteriorMean",
    "joint-gn": ".dcp.gauss_newton:JointGaussNewton",
    "joint-em": ".dcp.joint_em:JointEm",
    "direct-search": ".dcp.search:DirectSearch",
    "centroid": ".dcp.search:Centroid",
    "random": ".yardsticks:RandomPolicy",
    "untrained": ".yardsticks:Untrained",
    "toa-wls": ".toa.wls:ToaWls",
    "rtt-wls": ".toa.wls:RttWls",
    "tdoa-wls": ".toa.wls:TdoaWls",
    "tdoa-chan": ".toa.chan:TdoaChan",
    "toa-huber": ".toa.robust:ToaHuber",
    "toa-em": ".toa.robust:ToaEm",
    "toa-mmse": ".toa.area_mean:AreaMean",
    "toa-nlos-drop": ".toa.nlos:ToaNlosDrop",
    "toa-oracle": ".toa.nlos:ToaOracle",
    "joint-cp": ".toa.joint:JointCp",
    "transformer": ".ecc.networks:Transformer",
    "adcpm": ".ecc.networks:Adcpm",
    "mfcnet": ".ecc.networks:MfcNet",
    "csi-knn": ".ecc.knn:CsiKnn",
    "csi-scalar-q": ".ecc.networks:CsiScalarQ",
    "hybrid-gn": ".hybrid.gauss_newton:HybridGn",
    "ris-wls": ".ris.policies:RisWls",
    "ris-wls-paper": ".ris.policies:RisWlsPaper",
    "ris-ls": ".ris.policies:RisLs",
    "ris-aoa-toa": ".ris.policies:RisAoaToa",
    "ris-siso": ".ris.policies:RisSiso",
    "ris-svd": ".ris.phase_designs:RisSvd",
    "ris-chirp": ".ris.phase_designs:RisChirp",
}
# Old options that still work: option -> (name to use instead, values that are called otherwise now).
_renamed_options: dict[str, tuple[str, Mapping[object, object]]] = {"bearing": ("links", {"profile": "dft"})}
# Old names that still work: (class, name to use instead).
_deprecated = {"ris-random-phases": (".ris.phase_designs:RisRandomPhases", "random")}


def list_policies(family: str | None = None) -> list[str]:
    """Registered names, sorted: all, or those of the policies that can play games of a family."""
    names = sorted(_paths)
    if family is None:
        return names
    accepted = {name: policy_families(name) for name in names}
    return [name for name, families in accepted.items() if not families or family in families]


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
    if name in _paths and _paths[name] not in (class_path, class_path.removeprefix(str(__package__))):
        raise ValueError(f"policy name {name!r} is taken by {_paths[name]}; choose another name")
    _paths[name] = class_path


def make_policy(name: str, env: Env | str | None = None, **options: object) -> Policy:
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
    scenario = None if env is None else env.scenario
    classes, family = _load(name), "" if scenario is None else scenario.family
    if name in _deprecated:
        warnings.warn(f"policy {name!r} is deprecated; use {_deprecated[name][1]!r}", DeprecationWarning, stacklevel=2)
    policy_class = next((found for found in classes if family in found.families), classes[0])
    options = _renamed(name, policy_class.options_class, options)
    check_options(name, policy_class.options_class, options)
    chosen = policy_class.options_class(**options)
    accepted = policy_families(name)
    if family and accepted and family not in accepted:
        raise ValueError(
            f"policy {name!r} takes measurements of the family {' or '.join(accepted)}, this environment "
            f"makes {family}; choose one of {', '.join(list_policies(family))}"
        )
    return policy_class(env, chosen)


def policy_families(name: str) -> tuple[str, ...]:
    """The families of games (``Scenario.family``) that a policy can play; empty: any.

    Raises:
        ValueError: unknown name.
    """
    return tuple(family for found in _load(name) for family in found.families)


def _load(name: str) -> list[type[Policy]]:
    """The classes of a name: one, or one for every type of measurements."""
    if name not in _paths and name not in _deprecated:
        raise ValueError(unknown_name("policy", name, list_policies(), "Registered"))
    paths = _deprecated[name][0] if name in _deprecated else _paths[name]
    pairs = [path.partition(":") for path in ([paths] if isinstance(paths, str) else paths)]
    return [getattr(importlib.import_module(module, __package__), found) for module, _, found in pairs]


def _renamed(policy: str, options_class: type, options: Mapping[str, object]) -> dict[str, object]:
    """Options by their present names; old ones warn."""
    valid, present = {entry.name for entry in dataclasses.fields(options_class)}, dict(options)
    for old, (new, values) in _renamed_options.items():
        if old not in present or old in valid or new not in valid or new in present:
            continue
        given = present.pop(old)
        present[new] = values.get(given, given) if isinstance(given, str) else given
        warnings.warn(
            f"option {old!r} of policy {policy!r} is deprecated; use {new}={present[new]!r}",
            DeprecationWarning,
            stacklevel=3,
        )
    return present


def check_options(policy: str, options_class: type, options: Mapping[str, object]) -> None:
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
