"""What the settings of all agents have in common: built from names, refused in one line, written as plain values."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

SettingsT = TypeVar("SettingsT", bound="Settings")

Range = tuple[float, float]
"""Lowest and highest allowed value, both included."""
RUN_RANGES: dict[str, Range] = {
    "num_envs": (1, math.inf),
    "evaluations": (0, math.inf),
    "validation_envs": (0, math.inf),
    "test_envs": (0, math.inf),
    "checkpoint_every": (1, math.inf),
    "seed": (-math.inf, math.inf),
    "threads": (1, math.inf),
}
"""The settings that ``agents.training`` reads; whole numbers, ``threads`` may be None."""


class Settings:
    """Base of the config dataclass of an agent; a subclass is a frozen dataclass that checks its values itself.

    Every subclass has the fields ``num_envs``, ``seed``, ``device`` and ``threads``: the command line and
    ``make_agent`` rely on them.

    Attributes:
        title: how messages call the agent.
        presets: named settings, each the fields in which it differs from the defaults; ``default`` among them.
    """

    title: ClassVar[str] = "agent"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"default": {}}

    num_envs: int
    seed: int
    device: str
    threads: int | None

    @classmethod
    def preset(cls: type[SettingsT], preset: str, **overrides: Any) -> SettingsT:
        """A named setting, with changes on top.

        Args:
            preset: a key of ``presets``.
            overrides: fields of this class.

        Raises:
            ValueError: unknown preset or field, with the nearest names.
        """
        if preset not in cls.presets:
            raise ValueError(unknown_name("preset", preset, cls.presets))
        return cls.build({**cls.presets[preset], **overrides})

    @classmethod
    def build(cls: type[SettingsT], fields: Mapping[str, Any]) -> SettingsT:
        """Settings from a dict; an unknown name is refused with its nearest matches."""
        names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
        for name in fields:
            if name not in names:
                raise ValueError(unknown_name(f"{cls.title} setting", name, names))
        plain: dict[str, Any] = {}
        for name, value in fields.items():
            plain[name] = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
        return cls(**plain)

    @classmethod
    def suited(cls, env: Any, overrides: Mapping[str, Any]) -> Mapping[str, Any]:
        """The preset's fields that suit a batched environment where the caller names no preset.

        That is the preset ``entity``, if there is one, where the environment has entities, and ``default`` elsewhere.

        Args:
            env: from ``agents.environments.as_vector_env``.
            overrides: what the caller sets himself.
        """
        has_entities = getattr(env, "entities", None) is not None
        return cls.presets["entity" if has_entities and "entity" in cls.presets else "default"]

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain numbers, strings and lists, for checkpoints and logs."""
        values = dataclasses.asdict(self)  # type: ignore[call-overload]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def unknown_name(kind: str, name: str, allowed: Iterable[str]) -> str:
    """One line for an unknown name: what is wrong, what is near, what is allowed."""
    names = sorted(allowed)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"unknown {kind} {name!r}.{hint} Valid: {', '.join(names)}."


def check_choice(name: str, value: Any, allowed: Collection[str]) -> None:
    """ValueError unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is unknown; choose one of {', '.join(allowed)}.")


def check_switch(name: str, value: Any) -> None:
    """ValueError unless ``value`` is true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value!r} is not a switch; use true or false.")


def checked_widths(name: str, value: Any) -> tuple[int, ...]:
    """Widths of hidden layers as a tuple.

    Raises:
        ValueError: anything but whole numbers of at least 1.
    """
    widths = (value,) if isinstance(value, int) else tuple(value)
    if any(not isinstance(width, int) or width < 1 for width in widths):
        raise ValueError(f"{name}={value!r} must be whole numbers of units >= 1, e.g. [64, 64].")
    return widths


def checked_number(name: str, value: Any, low: float = -math.inf, high: float = math.inf, whole: bool = False) -> Any:
    """A number of a setting, as int if ``whole``, else as float.

    Args:
        name: of the setting.
        value: what was given.
        low, high: allowed range, both ends included.
        whole: whether only integers are allowed.

    Raises:
        ValueError: no number, or out of range.
    """
    kind = int if whole else (int, float)
    described = "a whole number" if whole else "a number"
    if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
        raise ValueError(f"{name}={value!r} must be {described} in [{low:g}, {high:g}].")
    return int(value) if whole else float(value)


def check_numbers(
    config: Settings, ranges: Mapping[str, Range], whole: Collection[str], optional: Collection[str]
) -> None:
    """Replace every number of a frozen config by its checked value.

    Args:
        config: may lack some of the names.
        ranges: name -> lowest and highest allowed value, both included.
        whole: names of which only integers are allowed.
        optional: names that may be None.

    Raises:
        ValueError: no number, or out of range.
    """
    for name in ranges:
        value = getattr(config, name, None)
        if hasattr(config, name) and not (value is None and name in optional):
            low, high = ranges[name]
            object.__setattr__(config, name, checked_number(name, value, low, high, name in whole))
