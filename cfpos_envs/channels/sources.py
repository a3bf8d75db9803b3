"""Where channels come from: the interface that the embedded city and stored ray-traced data both serve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfpos_envs import draws
from cfpos_envs.physics.ecc.csi import CsiPaths


@dataclass(frozen=True)
class Users:
    """Users that a source has drawn.

    Attributes:
        position_m: where they are.
        index: number of the stored user for a source that stores them; -1 where nothing is stored.
    """

    position_m: Float[Tensor, "U 3"]
    index: Int[Tensor, " U"]


@runtime_checkable
class UserSource(Protocol):
    """A place with base stations in which users can be found.

    Attributes:
        name: for reports.
        area_min_m, area_max_m: corners of the box in which users are.
        bs_positions_m, bs_orientation_rad: see ``CsiMeasurements``.
        box_min_m, box_max_m: corners of the buildings, for drawings; none is fine.
    """

    name: str
    area_min_m: tuple[float, float, float]
    area_max_m: tuple[float, float, float]
    bs_positions_m: Float[Tensor, "L 3"]
    bs_orientation_rad: Float[Tensor, "L 3"]
    box_min_m: Float[Tensor, "buildings 3"]
    box_max_m: Float[Tensor, "buildings 3"]

    def draw_users(self, generator: draws.Source, count: int, split: str) -> Users:
        """Users at random places.

        Args:
            generator: source of randomness, already another one for every split.
            count: U.
            split: ``train``, ``test`` or ``calibrate``. A source with stored users never gives one of them to both
                training and test; ``calibrate`` may use those of training.
        """


@runtime_checkable
class CsiSource(UserSource, Protocol):
    """A scene whose users can be moved and measured.

    Attributes:
        max_displacement_m: how far from where it was drawn a user can be moved; infinite where anything goes.
    """

    max_displacement_m: float

    def paths(self, users: Users, displacement_m: Float[Tensor, "U S 3"]) -> CsiPaths:
        """Paths from moved users to every BS, batch shape [U, S, L], strongest first; a link without a path has zero
        gains.

        Args:
            users: from ``draw_users``.
            displacement_m: how far each user has moved at S moments.

        Raises:
            ValueError: a displacement beyond ``max_displacement_m``.
        """

    def stored_users(self, split: str) -> int | None:
        """How many users a split has to draw from; None where every draw is another place."""

    def sees(self, points_m: Float[Tensor, "U 3"], split: str) -> Bool[Tensor, "U L"]:
        """Which links of users at points have a line of sight; for reports, never for policies.

        Args:
            points_m: where users are.
            split: that they were drawn from.
        """

    def is_free(self, points_m: Float[Tensor, "*batch 3"]) -> Bool[Tensor, "*batch"]:
        """Whether a user can be at points (in the area, outside of buildings)."""
