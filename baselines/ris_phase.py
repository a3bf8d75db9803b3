"""Designs of the surfaces' profiles that learn nothing: what agents of the surfaces' game are compared with."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from baselines.base import Policy
from cfpos_envs.physics.ris.phases import svd_profile
from cfpos_envs.scenarios.ris_phase.state import SectorMeasurements


class PhaseDesign(Policy):
    """A design that plays the same profiles in every round of an episode.

    Raises:
        ValueError: when it acts in a game that is not played with raw phases, which alone can say any profile.
    """

    families: ClassVar[tuple[str, ...]] = ("ris-phase",)

    def __init__(self, env: Any = None, options: Any = None) -> None:
        super().__init__(env, options)
        self._last: tuple[Tensor, Tensor] | None = None

    @abstractmethod
    def profiles(self, measurements: SectorMeasurements) -> Tensor:
        """[B, R, n1, n2] phases in radians."""

    def act(self, observations: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every surface of the ``ParallelEnv`` plays its profile."""
        chosen = self._actions()[0].cpu().numpy()
        return dict(zip(observations, chosen))

    def act_batch(self, observations: Tensor) -> Tensor:
        """Every surface of the ``VectorEnv`` plays its profile."""
        return self._actions()

    def reset(self) -> None:
        """Forget the profiles of the last episode."""
        self._last = None

    def _actions(self) -> Tensor:
        measurements = sector_measurements(self._required_env().measurements, self.name)
        # The tensors of a game state are never changed in place, so the same object means the same episode.
        if self._last is None or self._last[0] is not measurements.azimuth_rad:
            self._last = (measurements.azimuth_rad, self._encoded(measurements))
        return self._last[1]

    def _encoded(self, measurements: SectorMeasurements) -> Tensor:
        if self._required_env().action_size != math.prod(measurements.ris_shape):
            raise ValueError(f"{self.name} sets every element by itself; make the environment with action='raw'")
        extra = self.profiles(measurements).to(measurements.chirp_rad) - measurements.chirp_rad
        return (torch.remainder(extra / math.pi + 1.0, 2.0) - 1.0).flatten(2)


class RisSvd(PhaseDesign):
    """Phases of the sector's dominant singular vector: the largest mean gain, in wide sectors by one narrow beam."""

    name: ClassVar[str] = "ris-svd"

    def profiles(self, measurements: SectorMeasurements) -> Tensor:
        """One eigenproblem of the number of elements per surface and episode."""
        m = measurements
        known = torch.cat((m.incoming, m.azimuth_rad.unsqueeze(-1), m.elevation_rad.unsqueeze(-1)), dim=-1)
        found = [
            svd_profile(m.ris_shape, ((x, y),), azimuth, elevation, m.half_width_rad)
            for x, y, azimuth, elevation in known.flatten(0, 1).tolist()
        ]
        return torch.stack(found).angle().reshape(*m.incoming.shape[:2], *m.ris_shape)


class RisChirp(PhaseDesign):
    """A chirp along both axes over the sector: action 0 of the game, with which every round can be played."""

    name: ClassVar[str] = "ris-chirp"

    def profiles(self, measurements: SectorMeasurements) -> Tensor:
        """The design from which actions are counted."""
        return measurements.chirp_rad

    def _encoded(self, measurements: SectorMeasurements) -> Tensor:
        size = self._required_env().action_size
        return torch.zeros(*measurements.incoming.shape[:2], size, device=measurements.incoming.device)


@dataclass(frozen=True)
class RandomPhasesOptions:
    """Options of ``ris-random-phases``.

    Attributes:
        seed: of the policy's own random stream, which runs on over episodes.
    """

    seed: int = 0


class RisRandomPhases(PhaseDesign):
    """Uniform phases of all elements: a surface that nobody has configured."""

    name: ClassVar[str] = "ris-random-phases"
    options_class: ClassVar[type] = RandomPhasesOptions

    def __init__(self, env: Any = None, options: RandomPhasesOptions | None = None) -> None:
        super().__init__(env, options)
        self._generator = torch.Generator().manual_seed(self.options.seed)

    def profiles(self, measurements: SectorMeasurements) -> Tensor:
        """Drawn anew for every episode."""
        return 2 * math.pi * torch.rand(measurements.chirp_rad.shape, generator=self._generator)


def sector_measurements(measurements: Any, policy: str) -> SectorMeasurements:
    """The argument itself, refused unless it is a ``SectorMeasurements``.

    Raises:
        TypeError: measurements of another kind of scenario.
    """
    if not isinstance(measurements, SectorMeasurements):
        raise TypeError(
            f"{policy} needs the surfaces' sectors, got {type(measurements).__name__}; use it with a ris-phase game"
        )
    return measurements
