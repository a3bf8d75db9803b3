"""What every policy offers, and the part that all one-shot estimators share: from an estimate to actions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

import numpy as np
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.measurements.base import Measurements, PositionEstimate

if TYPE_CHECKING:
    from typing import TypeAlias

    from cfpos_envs.front_ends.parallel import ParallelEnv
    from cfpos_envs.front_ends.vector import VectorEnv

    Env: TypeAlias = ParallelEnv | VectorEnv

MeasuredT = TypeVar("MeasuredT", bound=Measurements)


@dataclass(frozen=True)
class NoOptions:
    """Options of a policy that has none."""


class Policy(ABC):
    """Something that plays a positioning game.

    Attributes:
        name: as in ``list_policies()``.
        options_class: frozen dataclass with the options and their defaults.
        families: of the games it can play (``Scenario.family``); empty: any.

    Args:
        env: ``ParallelEnv`` or ``VectorEnv`` to play in; None where ``act`` and ``act_batch`` are not needed.
        options: an ``options_class``; None takes the defaults.

    Raises:
        TypeError: options of another policy.
    """

    name: ClassVar[str]
    options_class: ClassVar[type] = NoOptions
    options: object
    families: ClassVar[tuple[str, ...]] = ()

    def __init__(self, env: Env | None = None, options: object = None) -> None:
        self.env = env
        self.options = self.options_class() if options is None else options
        if not isinstance(self.options, self.options_class):
            raise TypeError(f"{self.name} takes {self.options_class.__name__}, got {type(options).__name__}")

    @abstractmethod
    def act(self, observations: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Actions of all agents of a ``ParallelEnv`` by name."""

    @abstractmethod
    def act_batch(self, observations: Float[Tensor, "B n obs"]) -> Float[Tensor, "B n act"]:
        """Actions of all agents of a ``VectorEnv``."""

    @property
    def reads_covariance(self) -> bool:
        """Whether it reads whole sample covariances where the games' agents see powers: another bound holds then."""
        return False

    def reset(self) -> None:
        """Begin a new episode. Policies without memory have nothing to do."""
        return

    def _required_env(self) -> Any:
        if self.env is None:
            raise ValueError(f"{self.name} was made without an environment; use make_policy({self.name!r}, env)")
        return self.env


class Estimator(Policy, Generic[MeasuredT]):
    """A one-shot estimator of user positions from what the central unit received.

    A new one is a class with ``name``, ``measurement_type`` and ``_locate``, and one line in the registry. The type
    decides which games it can play. There it reports its fix in every round; the fix is recomputed only when the
    measurements change.

    Attributes:
        measurement_type: what ``locate`` reads.
        families: of the measurements that it takes; follows from ``measurement_type`` unless it takes only some.
    """

    measurement_type: ClassVar[type[Measurements]]
    _episodes_at_a_time: ClassVar[int | None] = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        declared = cls.__dict__
        if "measurement_type" in declared and "families" not in declared:
            cls.families = cls.measurement_type.families

    def __init__(self, env: Env | None = None, options: object = None) -> None:
        super().__init__(env, options)
        self._last: tuple[MeasuredT, PositionEstimate] | None = None

    def locate(self, measurements: object) -> PositionEstimate:
        """Positions [B, K, 2 or 3] of all users in metres, with covariance where the method has one, and validity.

        Args:
            measurements: a ``measurement_type`` of one of ``families``.

        Raises:
            TypeError: measurements of another type.
            ValueError: of another family, or measurements that cannot be right.
        """
        received = self._checked(measurements)
        # Where temporaries are large, memory must not grow with the batch.
        episodes, step = len(received), self._chunk(received)
        if episodes <= step:
            return self._locate(received).moved(received.origin_m)
        pieces = [self._locate(received.select(slice(low, low + step))) for low in range(0, episodes, step)]
        return pieces[0].joined(pieces).moved(received.origin_m)

    @abstractmethod
    def _locate(self, measurements: MeasuredT) -> PositionEstimate:
        """``locate`` for a part of the batch whose measurements have been checked."""

    def _chunk(self, measurements: MeasuredT) -> int:
        """Largest number of episodes in a part."""
        return self._episodes_at_a_time or len(measurements)

    def act(self, observations: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every agent of the ``ParallelEnv`` reports the located users, as nearly as its action space can say it."""
        env = self._required_env()
        encoded = env.encode_estimate(self._fix(env.measurements).position[0].cpu().numpy())
        return {agent: encoded[agent] for agent in observations}

    def act_batch(self, observations: Float[Tensor, "B n obs"]) -> Float[Tensor, "B n act"]:
        """Every agent of the ``VectorEnv`` reports the located users."""
        env = self._required_env()
        encoded: Tensor = env.encode_estimate(self._fix(env.measurements).position)
        return encoded

    def reset(self) -> None:
        """Forget the fix of the last episode."""
        self._last = None

    def _fix(self, measurements: MeasuredT) -> PositionEstimate:
        if self._last is None or not self._last[0].same_as(measurements):
            self._last = (measurements, self.locate(measurements))
        return self._last[1]

    def _checked(self, measurements: object) -> MeasuredT:
        wanted = self.measurement_type
        if not isinstance(measurements, wanted):
            raise TypeError(
                f"{self.name} needs {wanted.__name__} ({wanted.content}), got {type(measurements).__name__}; "
                f"use it with {wanted.environments}"
            )
        if measurements.family not in self.families:
            raise ValueError(
                f"{self.name} takes {' or '.join(self.families)} measurements, got {measurements.family}; "
                f"use one of list_policies({measurements.family!r})"
            )
        measurements.check()
        return cast("MeasuredT", measurements)
