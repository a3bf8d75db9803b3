"""What the commands can be told. Every default stands in a dataclass; this module shows those dataclasses to Hydra.

``conf/*.yaml`` only composes: ``schema/<id>`` in the group ``env`` is the config dataclass of that environment (plus
its ``id``), ``schema/<agent>-<preset>`` in the group ``agent`` that of the trainer (plus its ``name``). Mistyped keys
therefore fail.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from cfpos.agents.registry import config_class, list_agents
from cfpos_envs import list_envs
from cfpos_envs.registry import make_config


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
        debug: show tracebacks.
    """

    env: Any = MISSING
    agent: Any = MISSING
    seed: int = 0
    total_steps: int | None = None
    device: str = "cpu"
    threads: int = 1
    resume: str | None = None
    debug: bool = False


@dataclass
class EvaluateSettings:
    """Settings of ``scripts/evaluate.py``.

    Attributes:
        env: group; see ``conf/env``.
        policy: names from ``list_policies()``, folders or checkpoint files of training runs, or dictionaries with
            ``name`` and the policy's options, e.g. ``policy=[{name:fingerprint,spacing:0.5},music]``.
        episodes: evaluation episodes, the same for every policy.
        seed: of layouts, drops, channels and noise.
        device, threads, debug: as in training.
    """

    env: Any = MISSING
    policy: Any = field(default_factory=lambda: ["fingerprint", "music", "joint-gn"])
    episodes: int = 200
    seed: int = 7
    device: str = "cpu"
    threads: int = 1
    debug: bool = False


def register_schemas() -> None:
    """Put every settings dataclass into Hydra's store; the yaml files name them in their defaults lists.

    Also makes ``${run_folder:RESUMED,FRESH}`` known: the folder of a run that goes on, else a fresh one.
    """
    OmegaConf.register_new_resolver("run_folder", lambda old, fresh: fresh if old is None else old, replace=True)
    store = ConfigStore.instance()
    store.store(name="train_settings", node=TrainSettings)
    store.store(name="evaluate_settings", node=EvaluateSettings)
    for env_id in list_envs():
        store.store(group="env/schema", name=env_id, node=schema({"id": env_id}, make_config(env_id)))
    for agent in list_agents():
        for preset in config_class(agent).presets:
            node = schema({"name": agent}, config_class(agent).preset(preset))
            store.store(group="agent/schema", name=f"{agent}-{preset}", node=node)


def schema(names: dict[str, str], config: Any) -> DictConfig:
    """A typed, writable Hydra node with the fields and values of a (frozen) config dataclass.

    Args:
        names: further string keys in front, e.g. the id that the values belong to.
        config: instance whose values become the defaults.
    """
    hints = typing.get_type_hints(type(config))
    fields: list[tuple[str, Any, Any]] = [(key, str, value) for key, value in names.items()]
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        default = field(default_factory=partial(list, value)) if isinstance(value, tuple) else value
        fields.append((entry.name, _hydra_type(hints[entry.name]), default))
    made = dataclasses.make_dataclass(f"{type(config).__name__}Schema", fields)
    node = OmegaConf.structured(made)
    assert isinstance(node, DictConfig)
    return node


def fitted(agent: str, values: Mapping[str, Any], env: Any, typed: Collection[str] = ()) -> dict[str, Any]:
    """Settings of an agent for the game it gets: the named ones are for games with entities, others need other ones.

    Where a game has no entities, whatever the preset ``entity`` sets gives way to what suits the game, but for fields
    that were typed. A model critic stays one, with one network for all agents.

    Args:
        agent: registered name.
        values: composed settings.
        env: batched environment.
        typed: fields that were set on the command line.

    Returns:
        The settings, unchanged where the game has entities or ``share`` is not ``entity`` or was typed.
    """
    chosen = dict(values)
    if chosen.get("share") != "entity" or "share" in typed or getattr(env, "entities", None) is not None:
        return chosen
    known = config_class(agent)
    suited = {**known.preset("default").to_dict(), **known.suited(env, {})}
    chosen.update({name: suited[name] for name in known.presets.get("entity", {}) if name not in typed})
    if values.get("critic") == "model":
        chosen.update(critic="model", share="shared", lr_actor=values["lr_actor"])
    return chosen


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
