"""What a world of base stations must be able to do: find users and measure them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Complex64, Float
from torch import Tensor

from cfpos_envs.channels.sources import Users, UserSource
from cfpos_envs.measurements.ecc import CsiSystem
from cfpos_envs.streams import Streams


@dataclass(frozen=True)
class Snapshots:
    """What the BSs measured.

    Attributes:
        csi: estimated CSI, zero on invalid links.
        valid: the link has a path.
    """

    csi: Complex64[Tensor, "U S L T A N"]
    valid: Bool[Tensor, "U S L"]


@runtime_checkable
class World(Protocol):
    """Users of one place with their CSI; the same for training and test.

    Attributes:
        source: where users are.
        system: what the network knows.
        device: where the tensors live.
    """

    @property
    def source(self) -> UserSource:
        """Where users are."""

    @property
    def system(self) -> CsiSystem:
        """What the network knows."""

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""

    def measure(self, streams: Streams, users: Users, displacement_m: Float[Tensor, "U S 3"]) -> Snapshots:
        """CSI of users at S moments, as the base stations estimate it.

        Args:
            streams: of fading, clocks and noise.
            users: U users of ``source``.
            displacement_m: from where they were drawn.
        """
