"""State of an episode of edge-cloud cooperative positioning."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cfpos_envs.scenarios.base import TensorState


@dataclass
class EccState(TensorState):
    """B episodes, S snapshots (1 if static), J users, L base stations.

    Attributes:
        true_position_m [B, S, J, 3]: hidden; used by ``truth`` and the privileged reward alone.
        sequence_csi complex64 [B, S, J, L, T, A, N]: estimated CSI.
        sequence_mean_csi [B, S, J, L, A, N]: its slots turned to one phase and averaged.
        sequence_valid [B, S, J, L]: links with a path whose BS sends.
        sequence_features [B, S, J, L, F]: what the BSs see of it.
        sequence_gain [B, S, J, L]: (7).
        site_ids [B]: all equal, there is one scene.
        consensus_m [B, J, 3]: fused report.
        round [B]: rounds played.
        payload_bits [B]: what the policy sends per BS, user and snapshot, as it has been declared.
        sent_bits [B]: what has crossed the fronthaul per BS so far.
    """

    true_position_m: Tensor
    sequence_csi: Tensor
    sequence_mean_csi: Tensor
    sequence_valid: Tensor
    sequence_features: Tensor
    sequence_gain: Tensor
    site_ids: Tensor
    consensus_m: Tensor
    round: Tensor
    payload_bits: Tensor
    sent_bits: Tensor

    def now(self, sequence: Tensor) -> Tensor:
        """This round's entry [B, ...] of a sequence [B, S, ...]."""
        if sequence.shape[1] == 1:
            return sequence[:, 0]
        index = self.round.clamp(max=sequence.shape[1] - 1)
        return sequence[torch.arange(len(index), device=index.device), index]

    def played(self) -> EccState:
        """The state of the round whose measurements the present estimate is made of."""
        earlier: EccState = self.replace(round=(self.round - 1).clamp(min=0))
        return earlier
