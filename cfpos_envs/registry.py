"""The names of the environments: id -> scenario class and the settings that make the id, imported when first used."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, overload

import gymnasium
import pettingzoo
import torch
from gymnasium.vector import AutoresetMode

from cfpos_envs.checks import unknown_name
from cfpos_envs.front_ends.base import Game
from cfpos_envs.front_ends.parallel import ParallelEnv
from cfpos_envs.front_ends.single import SingleAgentEnv
from cfpos_envs.front_ends.vector import VectorEnv
from cfpos_envs.scenarios.base import Scenario
from cfpos_envs.scenarios.site_files import site_base

NAMESPACE = "cfpos"
"""Prefix of the ids in the registries of Gymnasium and PettingZoo: ``cfpos/dcp-rss-v0``."""

_ATTRIBUTES = ("config", "agents", "observation_size", "action_size", "rounds")
_RESERVED = ("num_envs", "device", "seed", "render_mode", "autoreset_mode")


@dataclass(frozen=True)
class _Entry:
    scenario_class_path: str
    config_defaults: dict[str, object]


_entries: dict[str, _Entry] = {}


def register(id: str, scenario_class_path: str, **config_defaults: object) -> None:
    """Give a scenario a name, here and in the registries of Gymnasium and PettingZoo.

    Nothing is imported before the first use. ``gymnasium.make("cfpos/ID")`` gives the single-agent view,
    ``pettingzoo.make("parallel", "cfpos/ID")`` the parallel environment and ``pettingzoo.make("aec", "cfpos/ID")`` its
    turn-based view. PettingZoo 1.27 has a registry; with an older one that has none, ``make_env`` is the only way.

    Args:
        id: new name ending in a version, e.g. ``"my-game-v0"``.
        scenario_class_path: ``"package.module:ClassName"`` of a ``Scenario`` with a ``config_class``.
        config_defaults: config fields that this id sets differently from the config dataclass.

    Raises:
        ValueError: the id is taken by something else, or the path is not of the form ``module:Class``.
    """
    entry = _Entry(scenario_class_path, config_defaults)
    module, _, name = scenario_class_path.partition(":")
    if not module or not name:
        raise ValueError(
            f"scenario_class_path is {scenario_class_path!r}; it must look like 'package.module:ClassName'"
        )
    if id in _entries:
        if _entries[id] == entry:
            return
        raise ValueError(f"environment id {id!r} is taken by {_entries[id].scenario_class_path}; choose another id")
    _entries[id] = entry
    full_id = f"{NAMESPACE}/{id}"
    gymnasium.register(full_id, entry_point="cfpos_envs.registry:_make_single", kwargs={"env_id": id})
    if hasattr(pettingzoo, "register"):
        pettingzoo.register("parallel", full_id, "cfpos_envs.registry:_make_parallel", kwargs={"env_id": id})
        pettingzoo.register("aec", full_id, "cfpos_envs.registry:_make_aec", kwargs={"env_id": id})


def list_envs() -> list[str]:
    """All registered ids, sorted."""
    return sorted(_entries)


def make_scenario(id: str, *, device: str | torch.device = "cpu", **overrides: object) -> Game:
    """Build the game behind an id without a front end.

    Args:
        id: a name from ``list_envs()``.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        overrides: fields of the scenario's config dataclass.

    Raises:
        ValueError: unknown id, unknown or invalid override, device that is not there.
    """
    config = make_config(id, **overrides)
    scenario: Game = _scenario_class(id)(config, device=checked_device(device))
    missing = [name for name in _ATTRIBUTES if not hasattr(scenario, name)]
    if missing:
        raise ValueError(_incomplete(id, missing, "set them, or call Scenario.__init__, which does"))
    return scenario


def make_config(id: str, **overrides: object) -> Any:
    """The options of an id as its validated config dataclass; nothing of the game itself is made.

    Args:
        id: a name from ``list_envs()``.
        overrides: fields of the scenario's config dataclass.

    Raises:
        ValueError: unknown id, unknown or invalid override.
    """
    config_class, defaults = _scenario_class(id).config_class, _find(id).config_defaults
    return config_class(**{**defaults, **check_overrides(config_class, overrides, defaults)})


def has_entities(id: str) -> bool:
    """Whether the vectors of an id's agents are made of equal parts, one per user.

    Nothing is built: the class says so, by ``entities: Entities`` instead of ``Scenario``'s ``Entities | None``.

    Raises:
        ValueError: unknown id.
    """
    hints = (inspect.get_annotations(parent).get("entities") for parent in _scenario_class(id).__mro__)
    return "None" not in str(next(hint for hint in hints if hint is not None))


def _scenario_class(id: str) -> Any:
    """The class behind an id; ValueError if it cannot be imported, is no scenario, or lacks what every scenario has."""
    module, _, name = _find(id).scenario_class_path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ValueError(
            f"environment {id!r} cannot be loaded from {_find(id).scenario_class_path}: {error}; "
            "correct the path given to register(), or install what is missing"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Scenario)):
        raise ValueError(
            f"{_find(id).scenario_class_path} of environment {id!r} is no subclass of Scenario; make it one"
        )
    if hasattr(found, "config_class") and not dataclasses.is_dataclass(found.config_class):
        raise ValueError(
            f"config_class {found.config_class.__name__} of environment {id!r} is no dataclass, which its options are "
            "read from; put @dataclass(frozen=True) above it"
        )
    missing = [*sorted(found.__abstractmethods__), *([] if hasattr(found, "config_class") else ["config_class"])]
    if missing:
        raise ValueError(_incomplete(id, missing, "define what cfpos_envs.scenarios.base.Scenario asks for"))
    return found


def _incomplete(id: str, missing: Sequence[str], remedy: str) -> str:
    return f"{_find(id).scenario_class_path} of environment {id!r} lacks {', '.join(missing)}; {remedy}"


@overload
def make_env(
    id: str,
    *,
    num_envs: None = None,
    device: str | torch.device = "cpu",
    seed: int | None = None,
    render_mode: str | None = None,
    autoreset_mode: None = None,
    **overrides: object,
) -> ParallelEnv: ...
@overload
def make_env(
    id: str,
    *,
    num_envs: int,
    device: str | torch.device = "cpu",
    seed: int | None = None,
    render_mode: None = None,
    autoreset_mode: AutoresetMode | str | None = None,
    **overrides: object,
) -> VectorEnv: ...
def make_env(
    id: str,
    *,
    num_envs: int | None = None,
    device: str | torch.device = "cpu",
    seed: int | None = None,
    render_mode: str | None = None,
    autoreset_mode: AutoresetMode | str | None = None,
    **overrides: object,
) -> ParallelEnv | VectorEnv:
    """Make an environment: a PettingZoo ``ParallelEnv``, or with ``num_envs`` a batched ``VectorEnv``.

    Args:
        id: a name from ``list_envs()``, with or without the prefix ``cfpos/``.
        num_envs: number of episodes played at once as tensors; None for one episode in PettingZoo's interface.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        seed: first seed of all random streams; None takes one from the operating system.
        render_mode: ``"rgb_array"``, ``"human"`` or None; a ``VectorEnv`` draws nothing.
        autoreset_mode: of a ``VectorEnv``, see there; None: episodes begin anew by ``reset`` alone.
        overrides: fields of the scenario's config dataclass.

    Raises:
        ValueError: unknown id or override (the nearest names and all valid ones are listed), a value out of range,
            ``num_envs`` below 1, a device that is not there.
    """
    if num_envs is not None and render_mode is not None:
        raise ValueError("render_mode needs num_envs=None: batched environments draw nothing; leave one of the two out")
    if num_envs is None and autoreset_mode is not None:
        raise ValueError("autoreset_mode needs num_envs: one episode begins anew by reset(); leave one of the two out")
    scenario = make_scenario(id, device=device, **overrides)
    if num_envs is not None:
        return VectorEnv(scenario, num_envs, seed=seed, env_id=_bare(id), autoreset_mode=autoreset_mode)
    return ParallelEnv(scenario, seed=seed, render_mode=render_mode, env_id=_bare(id))


def check_overrides(
    config_class: type, overrides: Mapping[str, Any], base: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Overrides by their present names, ready for the config.

    Args:
        config_class: dataclass whose fields they are; ``old_names`` of it, if there, maps names of earlier builds.
        overrides: by name. A mapping as ``site`` that names no preset or file changes the site of ``base``.
        base: options that they are put on.

    Raises:
        ValueError: a name that is no field, with its nearest matches and all valid ones; a name given twice.
    """
    valid = {entry.name: entry.default for entry in dataclasses.fields(config_class) if entry.init}
    old_names: Mapping[str, str] = getattr(config_class, "old_names", {})
    chosen = {name: value for name, value in overrides.items() if name not in old_names}
    for name in chosen:
        if name not in valid:
            raise ValueError(unknown_name("override", name, valid, "Valid overrides", also=_RESERVED))
    for old, new in old_names.items():
        # The command line knows the old names too, as None where nobody sets them.
        if overrides.get(old) is not None:
            if chosen.get(new, valid[new]) != valid[new]:
                raise ValueError(f"{old} is the old name of {new}; give {new} alone")
            warnings.warn(f"{old} is the old name of {new}; write {new}={overrides[old]}", DeprecationWarning, 3)
            chosen[new] = overrides[old]
    site, before = chosen.get("site"), (base or {}).get("site")
    if isinstance(site, Mapping) and before is not None and not {"preset", "file"} & site.keys():
        named = before if isinstance(before, Mapping) else {site_base(before): before}
        chosen["site"] = {**named, **site}
    return chosen


def checked_device(device: str | torch.device) -> torch.device:
    """A device that is there.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ValueError: it is another, or this machine has none such.
    """
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(f"device is {device!r}; it must be 'cpu', 'cuda' or 'cuda:N'") from None
    if chosen.type not in ("cpu", "cuda"):
        raise ValueError(f"device is {device!r}; only 'cpu', 'cuda' and 'cuda:N' are supported")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {device!r} is not there (PyTorch sees {torch.cuda.device_count()} GPUs); use device='cpu'"
        )
    return chosen


def _bare(id: str) -> str:
    return id.removeprefix(f"{NAMESPACE}/")


def _find(id: str) -> _Entry:
    if not isinstance(id, str):
        raise ValueError(f"environment id is {id!r}; it must be one of {', '.join(list_envs())}")
    if _bare(id) not in _entries:
        raise ValueError(unknown_name("environment", _bare(id), list_envs(), "Registered"))
    return _entries[_bare(id)]


def _make_parallel(env_id: str, **kwargs: Any) -> ParallelEnv:
    return make_env(env_id, **kwargs)


def _make_aec(env_id: str, **kwargs: Any) -> Any:
    from pettingzoo.utils.conversions import parallel_to_aec

    return parallel_to_aec(_make_parallel(env_id, **kwargs))


def _make_single(
    env_id: str, joint_reward: Literal["mean", "sum"] = "mean", render_mode: str | None = None, **kwargs: Any
) -> SingleAgentEnv:
    return SingleAgentEnv(make_env(env_id, render_mode=render_mode, **kwargs), joint_reward)


_DCP = "cfpos_envs.scenarios.dcp.game:DcpScenario"
# The stages of the paper alone: gain actions judged by the AP's own report. Joint and chained games keep DcpConfig's
# defaults: information fusion judged by held-out APs.
_GAIN_GAME = {"action": "gain", "reward": "local", "similarity": "log", "fusion": "line-search"}
register("dcp-rss-v0", _DCP, stage="rss", start="centroid", **_GAIN_GAME)
register("dcp-aoa-v0", _DCP, stage="aoa", start="stage-1", **_GAIN_GAME)
# Five rounds of correction: three leave the fix still on its way from the RSS stage.
register("dcp-v0", _DCP, stage="chained", rounds=8)
register("dcp-jar-v0", _DCP, stage="joint")

_TOA = "cfpos_envs.scenarios.toa.game:ToaScenario"
register("toa-v0", _TOA, family="toa")
register("tdoa-v0", _TOA, family="tdoa")
register("rtt-v0", _TOA, family="rtt")

register("hybrid-v0", "cfpos_envs.scenarios.hybrid.game:HybridScenario")

_ECC = "cfpos_envs.scenarios.ecc.game:EccScenario"
register("ecc-urban-v0", _ECC, site="urban")
register("ecc-urban-small-v0", _ECC, site="urban-small")
register("ecc-raytraced-v0", _ECC, source="raytraced", num_paths=32)
register("ecc-csi-v0", "cfpos_envs.scenarios.ecc.game:EccCsiScenario")

register("measured-v0", "cfpos_envs.scenarios.measured.game:MeasuredScenario")

# Small arrays, two UEs, clocks off by up to 12 m.
register(
    "ris-v0",
    "cfpos_envs.scenarios.ris.game:RisScenario",
    preset="small",
    num_ues=2,
    ue_box_m=1.5,
    bias_ns=[0.0, 40.0],
    phases="chirp",
    sector_deg=8.0,
)
register("ris-phase-v0", "cfpos_envs.scenarios.ris_phase.game:RisPhaseScenario")
