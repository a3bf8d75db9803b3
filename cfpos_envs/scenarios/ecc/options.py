"""What the options of every edge-cloud game have in common, wherever its channels come from."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from typing import ClassVar, TypeVar

from cfpos_envs.checks import number_fields, one_of, whole_fields
from cfpos_envs.physics.ecc.csi import check_stabilise
from cfpos_envs.physics.ecc.features import check_features

FUSIONS = ("mean", "confidence")
REWARDS = ("error", "consistency")

OptionsT = TypeVar("OptionsT", bound="EccOptions")


class EccOptions(ABC):
    """Base of the config of a game; the subclass is a frozen dataclass with these fields.

    Attributes:
        splits: what ``split`` may be.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "test")

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
    one_of("fusion", c.fusion, FUSIONS)
    one_of("reward", c.reward, REWARDS)
    check_features(c.features)
    check_stabilise(c.stabilise)
    whole_fields(c, 1, "num_ues", "rounds")
    whole_fields(c, 0, "lost_bs")
    number_fields(c, 0.0, math.inf, "confidence_scale")
    number_fields(c, 0.0, math.inf, "fronthaul_bits_max", above=True)


def check_lost(lost_bs: int, num_bs: int) -> None:
    """ValueError if no base station would be left."""
    if lost_bs >= num_bs:
        raise ValueError(f"lost_bs={lost_bs} leaves none of num_bs={num_bs} base stations; lower it")
