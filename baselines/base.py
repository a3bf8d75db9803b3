"""What every policy offers, and the part that all one-shot estimators share: from an estimate to actions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs.measurements.base import PositionEstimate
from cfpos_envs.measurements.dcp import RadioMeasurements
from cfpos_envs.physics.geometry import into_area


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
    families: ClassVar[tuple[str, ...]] = ()

    def __init__(self, env: Any = None, options: Any = None) -> None:
        self.env = env
        self.options = self.options_class() if options is None else options
        if not isinstance(self.options, self.options_class):
            raise TypeError(f"{self.name} takes {self.options_class.__name__}, got {type(options).__name__}")

    @abstractmethod
    def act(self, observations: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Actions of all agents of a ``ParallelEnv`` by name."""

    @abstractmethod
    def act_batch(self, observations: Tensor) -> Tensor:
        """Actions [B, n, action_size] of a ``VectorEnv``."""

    def reset(self) -> None:
        """Begin a new episode. Policies without memory have nothing to do."""
        return

    def _required_env(self) -> Any:
        if self.env is None:
            raise ValueError(f"{self.name} was made without an environment; use make_policy({self.name!r}, env)")
        return self.env


class Estimator(Policy):
    """A one-shot estimator of user positions from what the central unit received.

    In a game it reports its fix in every round; the fix is recomputed only when the measurements change.
    """

    families: ClassVar[tuple[str, ...]] = ("dcp",)

    def __init__(self, env: Any = None, options: Any = None) -> None:
        super().__init__(env, options)
        self._last: tuple[Tensor, PositionEstimate] | None = None

    @abstractmethod
    def locate(self, measurements: RadioMeasurements) -> PositionEstimate:
        """Positions [B, K, 2] of all users in metres, with covariance where the method has one, and validity."""

    def act(self, observations: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every agent of the ``ParallelEnv`` reports the located users, as nearly as its action space can say it."""
        env = self._required_env()
        positions = self._fix(env.measurements).position[0].cpu().numpy()
        encoded: dict[str, np.ndarray] = env.encode_estimate(positions)
        return {agent: encoded[agent] for agent in observations}

    def act_batch(self, observations: Tensor) -> Tensor:
        """Every agent of the ``VectorEnv`` reports the located users."""
        env = self._required_env()
        encoded: Tensor = env.encode_estimate(self._fix(env.measurements).position)
        return encoded

    def reset(self) -> None:
        """Forget the fix of the last episode."""
        self._last = None

    def _fix(self, measurements: Any) -> PositionEstimate:
        received = radio_measurements(measurements, self.name)
        # The tensors of a game state are never changed in place, so the same object means the same measurements.
        if self._last is None or self._last[0] is not received.rss_dbm:
            self._last = (received.rss_dbm, self.locate(received))
        return self._last[1]


def radio_measurements(measurements: Any, policy: str) -> RadioMeasurements:
    """The argument itself, refused unless it is a ``RadioMeasurements``.

    Raises:
        TypeError: measurements of another kind of scenario.
    """
    if not isinstance(measurements, RadioMeasurements):
        raise TypeError(
            f"{policy} needs RadioMeasurements (RSS and angular power), got {type(measurements).__name__}; "
            "use it with a dcp environment"
        )
    return measurements


def usable_links(measurements: RadioMeasurements, *, aoa: bool = True) -> Bool[Tensor, "B M K"]:
    """Links with a finite RSS (no or negative power is not finite in dBm) and, for ``aoa``, a usable spectrum."""
    heard = torch.isfinite(measurements.rss_dbm)
    if not aoa:
        return heard
    spectrum = measurements.angular_power
    return heard & torch.isfinite(spectrum).all(dim=-1) & (spectrum.sum(dim=-1) > 0)


def cleaned(measurements: RadioMeasurements, usable: Bool[Tensor, "B M K"]) -> RadioMeasurements:
    """The measurements with harmless numbers in place of unusable links, so that nothing downstream turns NaN.

    The weakest usable RSS of the batch stands in for a missing one; spectrum and covariance become white.
    """
    if bool(usable.all()):
        return measurements
    finite = measurements.rss_dbm[usable]
    floor = finite.min() if len(finite) else measurements.rss_dbm.new_tensor(-150.0)
    white = torch.ones_like(measurements.angular_power)
    identity = torch.eye(measurements.covariance.shape[-1], dtype=measurements.covariance.dtype, device=white.device)
    return RadioMeasurements(
        **{
            **measurements.__dict__,
            "rss_dbm": torch.where(usable, measurements.rss_dbm, floor),
            "angular_power": torch.where(usable[..., None], measurements.angular_power, white),
            "covariance": torch.where(usable[..., None, None], measurements.covariance, identity),
        }
    )


def in_chunks(
    measurements: RadioMeasurements, episodes: int, function: Callable[[RadioMeasurements], PositionEstimate]
) -> PositionEstimate:
    """``function`` over at most ``episodes`` episodes at a time, so that memory does not grow with the batch."""
    total = measurements.rss_dbm.shape[0]
    parts = [function(measurements.select(slice(low, low + episodes))) for low in range(0, total, episodes)]
    if len(parts) == 1:
        return parts[0]
    covariances = [part.covariance for part in parts if part.covariance is not None]
    return PositionEstimate(
        torch.cat([part.position for part in parts]),
        torch.cat(covariances) if covariances else None,
        torch.cat([part.valid for part in parts]),
    )


def finished(
    positions_m: Float[Tensor, "B K 2"],
    covariance_m2: Float[Tensor, "B K 2 2"] | None,
    answered: Bool[Tensor, "B K"],
    side_m: float,
    wrap: bool,
) -> PositionEstimate:
    """The estimate inside the area; unanswered or non-finite positions become the centre of the area and invalid."""
    valid = answered & torch.isfinite(positions_m).all(dim=-1)
    centre = torch.full_like(positions_m, side_m / 2)
    inside = into_area(torch.where(valid[..., None], positions_m, centre), side_m, wrap)
    if covariance_m2 is not None:
        # What is not known at all has the covariance of a uniform distribution over the area.
        nothing = torch.eye(2, device=inside.device, dtype=inside.dtype) * (side_m**2 / 12)
        known = valid & torch.isfinite(covariance_m2).all(dim=-1).all(dim=-1)
        covariance_m2 = torch.where(known[..., None, None], covariance_m2, nothing)
    return PositionEstimate(inside, covariance_m2, valid)


def require_positive(name: str, value: Any) -> None:
    """Refuse an option that is no positive number.

    Raises:
        ValueError: it is zero, negative, NaN or no number at all.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ValueError(f"{name} is {value!r}; it must be a positive number")
