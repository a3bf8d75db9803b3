"""Every option of everything that is registered has a type and a finite range, and nothing else gets past its class."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from agents.registry import config_class, list_agents
from baselines.registry import _load, _paths
from cfpos_envs import list_envs, make_env
from cfpos_envs.checks import MOST_ENVS, MOST_NUMBERS
from cfpos_envs.fields import Declared, gathered, members
from cfpos_envs.registry import make_config
from cfpos_envs.scenarios.site_config import SiteOptions
from tests.own_games import OWN_GAMES

FREE_TEXT = {"site", "data", "dataset", "set", "device", "address", "weights", "survey", "antenna_order", "los", "sync"}
"""Paths, devices, and words that a table elsewhere holds."""
ELSEWHERE = {"split", "phase", "subcarrier_order", "family"}
"""Words that the class checks itself."""
STORED = {"ecc-csi-v0", "measured-v0"}
"""Games whose sizes are those of a file."""
INFINITE = {("HybridOptions", "threshold")}
"""Where infinity means something."""


def configs() -> Iterator[Declared]:
    """One of every class of options, with its defaults, and the sites behind the games."""
    for env_id in list_envs():
        config = make_config(env_id)
        yield config
        if isinstance(config, SiteOptions):
            yield config.settings
    for name in list_agents():
        yield config_class(name)()
    for name in _paths:
        for policy in _load(name):
            yield policy.options_class()


def is_ours(config: Declared) -> bool:
    """Not of a game that another test has registered."""
    return not type(config).__module__.startswith("tests.") and bool(dataclasses.fields(config))


UNIQUE = {type(config): config for config in configs() if is_ours(config)}
FIELDS = [(config, entry.name) for config in UNIQUE.values() for entry in dataclasses.fields(config)]
NAMES = [f"{type(config).__name__}.{name}" for config, name in FIELDS]


def declared(config: Declared, attribute: str) -> Mapping[str, Any]:
    own = gathered(type(config), attribute)
    return {**gathered(type(config.settings), attribute), **own} if isinstance(config, SiteOptions) else own


def leaves(hint: Any) -> set[Any]:
    """The types that the values in an option have."""
    found: set[Any] = set()
    for kind in members(hint):
        inner = [entry for entry in typing.get_args(kind) if entry is not Ellipsis]
        is_list = inner and typing.get_origin(kind) is not None and not issubclass(typing.get_origin(kind), Mapping)
        found |= set().union(*(leaves(entry) for entry in inner)) if is_list else {typing.get_origin(kind) or kind}
    return found


def test_every_class_declares() -> None:
    assert len(UNIQUE) > 30
    for options in UNIQUE:
        assert issubclass(options, Declared), options


@pytest.mark.parametrize(("config", "name"), FIELDS, ids=NAMES)
def test_numbers_have_finite_ranges_and_words_a_list(config: Declared, name: str) -> None:
    kinds = leaves(typing.get_type_hints(type(config))[name])
    assert kinds <= {bool, int, float, str, type(None)} | {Mapping} | {
        kind for kind in kinds if "PathLike" in str(kind)
    }, kinds
    if kinds & {int, float}:
        low, high = declared(config, "ranges")[name]
        assert low <= high
        assert math.isfinite(low)
        assert math.isfinite(high) or (type(config).__name__, name) in INFINITE
    if str in kinds and name not in FREE_TEXT | ELSEWHERE:
        assert name in declared(config, "choices")


@pytest.mark.parametrize("env_id", [name for name in OWN_GAMES if name not in STORED])
def test_every_game_says_what_its_episodes_hold_before_it_takes_the_memory(env_id: str) -> None:
    numbers = make_config(env_id).numbers_per_episode
    assert numbers > 0
    most = MOST_NUMBERS // numbers
    if most < MOST_ENVS:
        with pytest.raises(ValueError, match=f"num_envs={most + 1}, of "):
            make_env(env_id, num_envs=most + 1)


def unchecked(config: Declared, name: str, value: Any) -> None:
    """The same options with another value, past the type checker that only tests have in front of ``__init__``."""
    made = object.__new__(type(config))
    for entry in dataclasses.fields(config):
        object.__setattr__(made, entry.name, value if entry.name == name else getattr(config, entry.name))
    made.__post_init__()


@pytest.mark.parametrize(("config", "name"), FIELDS, ids=NAMES)
def test_what_does_not_fit_is_refused_in_one_line(config: Declared, name: str) -> None:
    hint = typing.get_type_hints(type(config))[name]
    wrong: list[Any] = [object(), b"bytes"]
    if leaves(hint) & {int, float}:
        low, high = declared(config, "ranges")[name]
        wrong += [math.nan, -math.inf, low - max(abs(low) * 1e-3, 1e-3), -(10**40)]
        wrong += [] if high == math.inf else [math.inf, high * 1.001 + 1, 10**40]
        wrong += [] if bool in leaves(hint) or name == "los_blocked" else [True]
    if type(None) not in members(hint):
        wrong.append(None)
    if str not in leaves(hint):
        wrong.append("twelve")
    for value in wrong:
        with pytest.raises(ValueError, match=name) as caught:
            unchecked(config, name, value)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 1000
