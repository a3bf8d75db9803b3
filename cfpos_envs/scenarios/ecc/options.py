"""What the options of every edge-cloud game have in common, wherever its channels come from."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import ClassVar, TypeVar

from cfpos_envs.checks import one_of
from cfpos_envs.fields import Declared, Range
from cfpos_envs.physics.ecc.csi import STABILISE
from cfpos_envs.physics.ecc.features import FEATURES
from cfpos_envs.scenarios.ranges import GAME_RANGES
from cfpos_envs.streams import RNGS

FUSIONS = ("mean", "confidence")
REWARDS = ("error", "consistency")

OptionsT = TypeVar("OptionsT", bound="EccOptions")


class EccOptions(Declared, ABC):
    """Base of the config of a game; the subclass is a frozen dataclass with these fields.

    Attributes:
        splits: what ``split`` may be.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "test")

    ranges: ClassVar[Mapping[str, Range]] = {
        **{name: GAME_RANGES[name] for name in ("num_ues", "rounds", "confidence_scale")},
        "fronthaul_bits_max": (1e-3, 1e15),
        "lost_bs": (0, 10_000),
    }
    choices: ClassVar[Mapping[str, Collection[str]]] = {
        "features": FEATURES,
        "stabilise": STABILISE,
        "fusion": FUSIONS,
        "reward": REWARDS,
        "rng": RNGS,
    }

    split: str
    num_ues: int
    rounds: int
    features: str
    stabilise: str
    fusion: str
    confidence_scale: float
    reward: str
    fronthaul_bits_max: float | None
    lost_bs: int
    rng: str

    def changed(self: OptionsT, **changes: object) -> OptionsT:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]

    @property
    def snapshots(self) -> int:
        """Measured snapshots per episode."""
        return 1

    @property
    def moves(self) -> str:
        """How users move: ``static`` or a kind of way."""
        return "static"

    @property
    @abstractmethod
    def site_name(self) -> str:
        """How ``describe`` calls the place."""


def validate_game(c: EccOptions) -> None:
    """Refuse options that are out of range.

    Raises:
        ValueError: the first one that is not allowed.
    """
    one_of("split", c.split, c.splits)


def check_lost(lost_bs: int, num_bs: int) -> None:
    """ValueError if no base station would be left."""
    if lost_bs >= num_bs:
        raise ValueError(f"lost_bs={lost_bs} leaves none of num_bs={num_bs} base stations; lower it")
