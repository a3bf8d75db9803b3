"""Options of the commands. Every default stands in a dataclass; this module shows those dataclasses to Hydra.

``schema/<id>`` in the group ``env`` is the config dataclass of that environment (plus its ``id``),
``schema/<agent>-<preset>`` in the group ``agent`` that of the trainer (plus its ``name``): they give ``conf/*.yaml``
their types, and mistyped keys fail. The values in these files are written from the same dataclasses by
``scripts/conf_values.py``. What is registered without a file is composed from its schema alone.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
import types
import typing
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from cfpos.agents.registry import config_class, list_agents
from cfpos_envs import list_envs
from cfpos_envs.arithmetic_threads import DEFAULT_THREADS
from cfpos_envs.registry import has_entities, make_config
from cfpos_envs.scenarios.site_config import SiteOptions

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"
GIVEN_BY_THE_RUN = ("seed", "device", "threads")
"""Settings of every agent that are those of the command."""
PLUGINS = "cfpos.envs"
"""Entry points of this group are loaded first: other packages register their environments and agents there."""


@dataclass
class TrainSettings:
    """Settings of ``scripts/train.py``.

    Attributes:
        env, agent: groups; see ``conf/env`` and ``conf/agent``.
        seed: of environment, weights, exploration and replay.
        total_steps: environment steps to train for (all parallel episodes together); None: the agent's ``samples``
            where it is trained on labelled snapshots, else 30 000.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        threads: torch threads; small networks run fastest on one.
        resume: folder of an earlier run that goes on exactly where it stopped.
        start_from: folder or checkpoint of another run of the same agent, in this game or in one with the same rules
            (``measured`` after ``rtt``): training begins with its policy.
        debug: show tracebacks.
    """

    env: Any = MISSING
    agent: Any = MISSING
    seed: int = 0
    total_steps: int | None = None
    device: str = "cpu"
    threads: int = DEFAULT_THREADS
    resume: str | None = None
    start_from: str | None = None
    debug: bool = False


@dataclass
class EvaluateSettings:
    """Settings of ``scripts/evaluate.py``.

    Attributes:
        env: group; see ``conf/env``.
        policy: names from ``list_policies()``, folders or checkpoint files of training runs, or dictionaries with
            ``name`` and the policy's options, e.g. ``policy=[{name:fingerprint,spacing:0.5},music]``.
        settings_of: training run whose env settings are taken; what is typed as ``env.KEY`` is put over them. Without
            ``env=`` it is the first run in ``policy``, and the game is the run's.
        episodes: evaluation episodes, the same for every policy.
        seed: of layouts, drops, channels and noise.
        positions: format of the table of all positions: csv, geojson, npz, parquet, or none for no table.
        answers: whose errors ``cdf.png`` shows: ``all`` (the same users for every policy), or the ``valid`` ones.
        workers: policies at the same time, a process and a core each; null: one per core from 100 episodes on, else
            one (a process takes seconds to start).
        device, threads, debug: as in training.
    """

    env: Any = MISSING
    policy: Any = field(default_factory=lambda: ["fingerprint", "music", "joint-gn"])
    settings_of: str | None = None
    episodes: int = 200
    seed: int = 7
    positions: str = "csv"
    answers: str = "all"
    workers: int | None = None
    device: str = "cpu"
    threads: int = DEFAULT_THREADS
    debug: bool = False


def load_plugins() -> None:
    """Import what other packages register: scenarios, policies, agents."""
    for plugin in entry_points(group=PLUGINS):
        plugin.load()


def register_schemas() -> None:
    """Put every settings dataclass into Hydra's store; the yaml files name them in their defaults lists."""
    register_folders(reserve=False)
    store = ConfigStore.instance()
    store.store(name="train_settings", node=TrainSettings)
    store.store(name="evaluate_settings", node=EvaluateSettings)
    load_plugins()
    for agent in list_agents():
        for preset in config_class(agent).presets:
            node = schema({"name": agent}, config_class(agent).preset(preset))
            store.store(group="agent/schema", name=f"{agent}-{preset}", node=node)
    presets = {path.stem: agent_preset(path) for path in sorted((CONF / "agent").glob("*.yaml"))}
    for agent in list_agents():
        if agent not in presets:
            presets[agent] = agent, "entity" if "entity" in config_class(agent).presets else "default"
            node = schema({"name": agent}, config_class(agent).preset(presets[agent][1]))
            node.update({name: f"${{{name}}}" for name in GIVEN_BY_THE_RUN})
            store.store(group="agent", name=agent, node=node)
    for env_id in list_envs():
        env, node = env_id.removesuffix("-v0"), schema({"id": env_id}, make_config(env_id))
        store.store(group="env/schema", name=env_id, node=node)
        if not (CONF / "env" / f"{env}.yaml").is_file():
            store.store(group="env", name=env, node=node)
        if not has_entities(env_id):
            for name, (agent, preset) in presets.items():
                changed = without_entities(agent, preset)
                store.store(group="agent/without_entities", name=f"{name}-{env}", node=changed, package="agent")


def register_folders(reserve: bool) -> None:
    """Make ``${run_folder:RESUMED,FRESH}`` known: the folder of a run that goes on, else a fresh one.

    Args:
        reserve: make the fresh folder when it is first asked for, so that no other process can get it too.
    """
    fresh_folder = reserved_folder if reserve else str
    # Cached as Hydra's ``now`` is: one run sees one folder, however often its name is read.
    OmegaConf.register_new_resolver(
        "run_folder", lambda old, fresh: fresh_folder(fresh) if old is None else old, replace=True, use_cache=True
    )


def reserved_folder(wanted: str) -> str:
    """Make a folder, or the first of WANTED_2, WANTED_3 ... that nobody has made: two runs never get the same one.

    Args:
        wanted: its path. Where nothing can be made it is returned as it is; who writes there says why it cannot.
    """
    for number in itertools.count(1):
        folder = wanted if number == 1 else f"{wanted}_{number}"
        try:
            os.makedirs(folder)
        except FileExistsError:
            continue
        except OSError:
            break
        return folder
    return wanted


def agent_preset(path: Path) -> tuple[str, str]:
    """Agent and preset of a file in ``conf/agent``: what its defaults list calls ``schema@_here_: AGENT-PRESET``.

    Raises:
        ValueError: it has no such line.
    """
    named = re.findall(r"schema@_here_: (\S+)", path.read_text(encoding="utf-8"))
    for agent in list_agents():
        for preset in config_class(agent).presets:
            if f"{agent}-{preset}" in named:
                return agent, preset
    raise ValueError(f"{path} names no schema; begin its defaults with '- schema@_here_: AGENT-PRESET'")


def without_entities(agent: str, preset: str) -> dict[str, Any]:
    """What changes in a preset that shares one network over (agent, user) pairs, in a game whose vectors have none.

    Whatever the preset ``entity`` sets is as in ``default``. A model critic stays one, with one network for all agents.
    """
    known = config_class(agent)
    chosen = known.preset(preset).to_dict()
    if chosen.get("share") != "entity":
        return {}
    default = known.preset("default").to_dict()
    changed = {name: default[name] for name in known.presets["entity"]}
    return {**changed, "critic": "model", "share": "shared"} if chosen.get("critic") == "model" else changed


def schema(names: dict[str, str], config: Any) -> DictConfig:
    """A typed, writable Hydra node with the fields and values of a (frozen) config dataclass.

    Args:
        names: further string keys in front, e.g. the id that the values belong to.
        config: instance whose values become the defaults.
    """
    hints = typing.get_type_hints(type(config))
    fields: list[tuple[str, Any, Any]] = [(key, str, value) for key, value in names.items()]
    for entry in dataclasses.fields(config):
        value = shown(config, entry.name)
        default = field(default_factory=partial(copy, value)) if isinstance(value, (list, dict)) else value
        fields.append((entry.name, _hydra_type(hints[entry.name]), default))
    # Old names are taken too; make_config translates them.
    fields += [(name, Any, None) for name in getattr(config, "old_names", ())]
    made = dataclasses.make_dataclass(f"{type(config).__name__}Schema", fields)
    node = OmegaConf.structured(made)
    assert isinstance(node, DictConfig)
    for name, *_ in fields:
        if isinstance(node[name], DictConfig):
            # Its keys are the dataclass' affair, which knows them all.
            OmegaConf.set_struct(node[name], False)
    return node


def shown(config: Any, name: str) -> Any:
    """The value of an option as YAML has it: lists for tuples, ``{preset: NAME}`` for the site of that name."""
    value = getattr(config, name)
    if name == "site" and isinstance(config, SiteOptions):
        return dict(value) if isinstance(value, Mapping) else {"preset": value}
    return (
        [list(entry) if isinstance(entry, tuple) else entry for entry in value] if isinstance(value, tuple) else value
    )


def check_counts(config: DictConfig, *names: str) -> None:
    """Refuse counts below 1 before anything is computed or written.

    Raises:
        ValueError: names the first wrong one.
    """
    for name in names:
        if config[name] is not None and config[name] < 1:
            raise ValueError(f"{name}={config[name]} must be at least 1")


def plain(config: DictConfig, *without: str) -> dict[str, Any]:
    """The keys of a node as plain Python values, all interpolations resolved, some left out."""
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items() if key not in without}


def _hydra_type(hint: Any) -> Any:
    """The nearest type that OmegaConf can enforce; ``Any`` where it has none (the dataclass itself still checks)."""
    if hint in (int, float, bool, str):
        return hint
    if typing.get_origin(hint) is typing.Literal and all(isinstance(value, str) for value in typing.get_args(hint)):
        return str
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(hint) if member is not type(None)]
        if len(members) == 1 and _hydra_type(members[0]) is not Any:
            return typing.Optional[_hydra_type(members[0])]  # noqa: UP045 - built at run time
    return Any
