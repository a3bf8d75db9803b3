"""Where the ends of a link are: what stage 2 knows beside the estimated channel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.physics.ris.geometry import BS_AXES


@dataclass(frozen=True)
class Links:
    """T pairs of one UE and one base station; everything known, double precision.

    Attributes:
        bs_m, ris_m: positions.
        rotation: orientation of the UE.
    """

    bs_m: Float[Tensor, "T 3"]
    ris_m: Float[Tensor, "T R 3"]
    rotation: Float[Tensor, "T 3 3"]

    @property
    def first_hop_m(self) -> Float[Tensor, "T L"]:
        """D_l; 0 for the line of sight."""
        hops = torch.linalg.vector_norm(self.ris_m - self.bs_m.unsqueeze(-2), dim=-1)
        return torch.cat((torch.zeros_like(hops[..., :1]), hops), dim=-1)

    @property
    def departures(self) -> Float[Tensor, "T R 2"]:
        """Known cosines at the base station towards the surfaces."""
        hops = self.ris_m - self.bs_m.unsqueeze(-2)
        hops = hops / torch.linalg.vector_norm(hops, dim=-1, keepdim=True)
        return hops @ torch.tensor(BS_AXES, dtype=hops.dtype, device=hops.device).mT

    @property
    def sources_m(self) -> Float[Tensor, "T L 3"]:
        """Where each path's last hop begins: the base station, then the surfaces."""
        return torch.cat((self.bs_m.unsqueeze(-2), self.ris_m), dim=-2)
