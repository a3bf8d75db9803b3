"""What the settings of all agents have in common: built from names, refused in one line, written as plain values."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from cfpos_envs.arithmetic_threads import DEFAULT_THREADS
from cfpos_envs.checks import MOST_ENVS, MOST_STEPS, MOST_THREADS, SEEDS, Notice, unknown_name
from cfpos_envs.fields import Declared, Range, check_fields

SettingsT = TypeVar("SettingsT", bound="Settings")

Presets = Mapping[str, Mapping[str, object]]
"""Name -> the fields that it sets."""


@runtime_checkable
class Partitioned(Protocol):
    """What a choice of settings looks at in an environment."""

    @property
    def entities(self) -> object | None:
        """Whether (not None) and how vectors are made of equal parts, one per user."""


@dataclass(frozen=True)
class Settings(Declared):
    """Base of the config dataclass of an agent; a subclass is a frozen dataclass.

    Values are checked by what the class declares: types by the annotation of the field, limits of numbers by
    ``ranges``, words by ``choices``; see ``cfpos_envs.fields``.

    Attributes:
        num_envs: parallel episodes where the environment is built by the agent (from an id or a ParallelEnv of ours).
        seed: of weights, exploration and the agent's environments.
        device: torch device of networks.
        threads: torch threads during training, no more than there are cores; None leaves torch's setting.

    Raises:
        ValueError: a value outside its range, named with the range.
    """

    title: ClassVar[str] = "agent"
    """How messages call the agent."""
    presets: ClassVar[Presets] = {"default": {}}
    """Named settings, each the fields in which it differs from the defaults; ``default`` among them."""
    ranges: ClassVar[Mapping[str, Range]] = {"num_envs": (1, MOST_ENVS), "seed": SEEDS, "threads": (1, MOST_THREADS)}
    """Limits of numbers, both included; those of the parent classes hold too."""
    choices: ClassVar[Mapping[str, Sequence[str]]] = {}
    """Allowed words."""
    former: ClassVar[Mapping[str, object]] = {}
    """Values of fields that files of builds before do not name, where that is not the default."""
    unsaid: ClassVar[Collection[str]] = ()
    """Those of ``former`` that change nothing of what a stored policy plays, so that nobody has to be told."""

    num_envs: int = 16
    seed: int = 0
    device: str = "cpu"
    threads: int | None = DEFAULT_THREADS

    def __post_init__(self) -> None:
        for name, value in check_fields(self).items():
            object.__setattr__(self, name, value)

    @classmethod
    def preset(cls: type[SettingsT], preset: str, **overrides: object) -> SettingsT:
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
    def build(cls: type[SettingsT], fields: Mapping[str, object]) -> SettingsT:
        """Settings from a dict; an unknown name is refused with its nearest matches."""
        names = [field.name for field in dataclasses.fields(cls)]
        for name in fields:
            if name not in names:
                raise ValueError(unknown_name(f"{cls.title} setting", name, names))
        plain: dict[str, Any] = {}
        for name, value in fields.items():
            plain[name] = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
        return cls(**plain)

    @classmethod
    def restored(cls: type[SettingsT], fields: Mapping[str, object]) -> SettingsT:
        """Settings from a file, see ``completed``."""
        return cls.build(cls.completed(fields))

    @classmethod
    def completed(cls, fields: Mapping[str, object]) -> dict[str, object]:
        """Fields of a file with those of ``former`` that it lacks; a warning says which are not today's defaults."""
        defaults = {entry.name: entry.default for entry in dataclasses.fields(cls)}
        for name, value in cls.former.items():
            if name not in fields and value != defaults[name] and name not in cls.unsaid:
                warnings.warn(former_value(cls.title, name, value, defaults[name]), Notice, stacklevel=3)
        return {**cls.former, **fields}

    @classmethod
    def suited(cls, env: Partitioned, overrides: Mapping[str, object]) -> Mapping[str, object]:
        """The preset's fields that suit an environment where the caller names no preset.

        That is the preset ``entity``, if there is one, where the environment has entities, and ``default`` elsewhere.

        Args:
            env: any front end.
            overrides: what the caller sets himself.
        """
        del overrides
        return cls.presets["entity" if env.entities is not None and "entity" in cls.presets else "default"]

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain numbers, strings and lists, for checkpoints and logs."""
        values = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


@dataclass(frozen=True)
class RunSettings(Settings):
    """What ``agents.training`` reads of the settings of an agent that learns by playing.

    Attributes:
        evaluations: how often, evenly spread over a run, the noise-free policy is scored (0: never).
        validation_envs: episodes of the batch that selects the best checkpoint (label-free score).
        test_envs: episodes of the evaluation batch whose RMSE and bound are logged (never used to select); 0: none.
        checkpoint_every: environment steps between two checkpoints.
    """

    ranges: ClassVar[Mapping[str, Range]] = {
        "evaluations": (0, 1_000_000),
        "validation_envs": (0, MOST_ENVS),
        "test_envs": (0, MOST_ENVS),
        "checkpoint_every": (1, MOST_STEPS),
    }

    evaluations: int = 20
    validation_envs: int = 64
    test_envs: int = 32
    checkpoint_every: int = 20_000


def former_value(title: str, name: str, value: object, default: object) -> str:
    """What to say of a file that does not name a field.

    Args:
        title: whose file.
        name: of the field.
        value: what the file means.
        default: today's.
    """
    return f"the {title} file is of a build before {name}: it means {name}={value}, today's default is {default}."
