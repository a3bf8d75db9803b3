"""Designs of the surfaces' profiles that learn nothing: what agents of the surfaces' game are compared with."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.physics.ris.phases import svd_profile
from cfpos_envs.scenarios.ris_phase.beams import GRID, chirp_phases, sector_grid

from ..base import Policy
from ..yardsticks import RandomOptions

if TYPE_CHECKING:
    from ..base import Env


class PhaseDesign(Policy):
    """A design that every surface makes of its sector: of the first two entries of what it observes.

    Profiles are written as if the base station stood at boresight: the game's actions are relative to a chirp, which
    turns with the base station's direction as every other profile does.

    Raises:
        ValueError: when it acts in a game that is not played with raw phases, which alone can say any profile.
    """

    families: ClassVar[tuple[str, ...]] = ("ris-phase",)

    @abstractmethod
    def profiles(
        self, azimuth_rad: Float[Tensor, "B R"], elevation_rad: Float[Tensor, "B R"]
    ) -> Float[Tensor, "B R n1 n2"]:
        """Phases in radians for sectors around these directions."""

    def act(self, observations: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every surface of the ``ParallelEnv`` plays its profile."""
        stacked = torch.from_numpy(np.stack(list(observations.values())))
        return dict(zip(observations, self.act_batch(stacked.unsqueeze(0))[0].cpu().numpy()))

    def act_batch(self, observations: Float[Tensor, "B R obs"]) -> Float[Tensor, "B R act"]:
        """Every surface of the ``VectorEnv`` plays its profile."""
        self._require_raw()
        azimuth, elevation = middle_directions(observations)
        extra = self.profiles(azimuth, elevation) - self._chirp(azimuth, elevation)
        return (torch.remainder(extra / math.pi + 1.0, 2.0) - 1.0).flatten(2).to(observations)

    @property
    def shape(self) -> tuple[int, int]:
        """Elements of a surface."""
        found: tuple[int, int] = self._required_env().config.scene.system.ris_shape
        return found

    @property
    def half_width_rad(self) -> float:
        """Of the sector in either angle."""
        return float(self._required_env().config.sector_rad)

    def _require_raw(self) -> None:
        if self._required_env().config.action != "raw":
            raise ValueError(f"{self.name} sets every element by itself; make the environment with action='raw'")

    def _chirp(self, azimuth: Float[Tensor, "B R"], elevation: Float[Tensor, "B R"]) -> Float[Tensor, "B R n1 n2"]:
        boresight = torch.zeros(*azimuth.shape, 2, dtype=azimuth.dtype, device=azimuth.device)
        grid = sector_grid(azimuth, elevation, self.half_width_rad, boresight, GRID).flatten(2, 3)
        return chirp_phases(grid.amin(dim=2), grid.amax(dim=2), self.shape)


class RisSvd(PhaseDesign):
    """Phases of the sector's dominant singular vector: the largest mean gain, in wide sectors by one narrow beam."""

    name: ClassVar[str] = "ris-svd"

    def __init__(self, env: Env | None = None, options: object = None) -> None:
        super().__init__(env, options)
        self._last: tuple[Tensor, Tensor] | None = None

    def profiles(
        self, azimuth_rad: Float[Tensor, "B R"], elevation_rad: Float[Tensor, "B R"]
    ) -> Float[Tensor, "B R n1 n2"]:
        """One eigenproblem of the number of elements per surface and sector; the last sectors are kept."""
        sectors = torch.stack((azimuth_rad, elevation_rad), dim=-1)
        if self._last is None or not torch.equal(self._last[0], sectors):
            found = [
                svd_profile(self.shape, ((0.0, 0.0),), azimuth, elevation, self.half_width_rad).angle()
                for azimuth, elevation in sectors.flatten(0, 1).tolist()
            ]
            self._last = (sectors, torch.stack(found).to(sectors).reshape(*azimuth_rad.shape, *self.shape))
        return self._last[1]


class RisChirp(PhaseDesign):
    """A chirp along both axes over the sector: action 0 of the game, with beams as with raw phases."""

    name: ClassVar[str] = "ris-chirp"

    def profiles(
        self, azimuth_rad: Float[Tensor, "B R"], elevation_rad: Float[Tensor, "B R"]
    ) -> Float[Tensor, "B R n1 n2"]:
        """The design from which actions are counted."""
        return self._chirp(azimuth_rad, elevation_rad)

    def act_batch(self, observations: Float[Tensor, "B R obs"]) -> Float[Tensor, "B R act"]:
        """Zeros for every surface."""
        return observations.new_zeros(*observations.shape[:-1], self._required_env().action_size)


class RisRandomPhases(PhaseDesign):
    """``random`` under its old name: the same distribution. Its phases are counted from zero instead of from the chirp,
    so that its numbers stay.
    """

    name: ClassVar[str] = "ris-random-phases"
    options_class: ClassVar[type] = RandomOptions
    options: RandomOptions

    def __init__(self, env: Env | None = None, options: RandomOptions | None = None) -> None:
        super().__init__(env, options)
        self._generator = torch.Generator().manual_seed(self.options.seed)

    def profiles(
        self, azimuth_rad: Float[Tensor, "B R"], elevation_rad: Float[Tensor, "B R"]
    ) -> Float[Tensor, "B R n1 n2"]:
        """Drawn anew in every round."""
        drawn = torch.rand(*azimuth_rad.shape, *self.shape, generator=self._generator)
        return 2 * math.pi * drawn.to(azimuth_rad)


def middle_directions(
    observations: Float[Tensor, "B R obs"],
) -> tuple[Float[Tensor, "B R"], Float[Tensor, "B R"]]:
    """Azimuth and elevation of the middle of every sector, radians.

    A surface cannot tell front from back: azimuths are taken to lie in [0, pi], which changes no cosine.

    Args:
        observations: whose first two entries are the middle's cosines to both axes of the surface.
    """
    first, second = observations[..., 0].double(), observations[..., 1].double()
    elevation = torch.asin(second.clamp(-1.0, 1.0))
    return torch.acos((first / elevation.cos().clamp(min=1e-9)).clamp(-1.0, 1.0)), elevation
