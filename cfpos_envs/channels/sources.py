"""Where channels come from: the interface that the embedded city and stored ray-traced data both serve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from cfpos_envs.physics.ecc.csi import CsiPaths


@dataclass(frozen=True)
class Users:
    """Users that a source has drawn.

    Attributes:
        position_m: [U, 3].
        index: [U] number of the stored user for a source that stores them; -1 where nothing is stored.
    """

    position_m: Tensor
    index: Tensor


@runtime_checkable
class CsiSource(Protocol):
    """A scene with base stations in which users can be put and heard.

    Attributes:
        name: for reports.
        area_min_m, area_max_m: corners of the box in which users are.
        bs_positions_m [L, 3], bs_orientation_rad [L, 3]: see ``CsiMeasurements``.
        box_min_m, box_max_m [buildings, 3]: for drawings; none is fine.
        max_displacement_m: how far from where it was drawn a user can be moved; infinite where anything goes.
    """

    name: str
    area_min_m: tuple[float, float, float]
    area_max_m: tuple[float, float, float]
    bs_positions_m: Tensor
    bs_orientation_rad: Tensor
    box_min_m: Tensor
    box_max_m: Tensor
    max_displacement_m: float

    def draw_users(self, generator: torch.Generator, count: int, split: str) -> Users:
        """Users at random places.

        Args:
            generator: source of randomness, already another one for every split.
            count: U.
            split: ``train``, ``test`` or ``calibrate``. A source with stored users never gives one of them to both
                training and test; ``calibrate`` may use those of training.
        """

    def paths(self, users: Users, displacement_m: Tensor) -> CsiPaths:
        """Paths from moved users to every BS, batch shape [U, S, L], strongest first; a link without a path has zero
        gains.

        Args:
            users: from ``draw_users``.
            displacement_m: [U, S, 3] how far each user has moved at S moments.

        Raises:
            ValueError: a displacement beyond ``max_displacement_m``.
        """

    def is_free(self, points_m: Tensor) -> Tensor:
        """[...] whether a user can be at points [..., 3] (in the area, outside of buildings)."""
