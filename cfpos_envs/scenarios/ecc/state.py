"""State of an episode of edge-cloud cooperative positioning."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Complex64, Float, Int
from torch import Tensor

from cfpos_envs.scenarios.base import TensorState, at_round


@dataclass
class EccState(TensorState):
    """B episodes, S snapshots (1 if static), J users, L base stations.

    Attributes:
        true_position_m: hidden; used by ``truth`` and the privileged reward alone.
        sequence_csi: estimated CSI.
        sequence_mean_csi: its slots turned to one phase and averaged.
        sequence_valid: links with a path whose BS sends.
        sequence_features: what the BSs see of it.
        sequence_gain: (7).
        site_ids: all equal, there is one scene.
        consensus_m: fused report.
        round: rounds played.
        fronthaul_bits_per_snapshot: what the policy sends per BS, user and snapshot, as it has been declared.
        fronthaul_bits_so_far: what has crossed the fronthaul per BS.
    """

    true_position_m: Float[Tensor, "B S J 3"]
    sequence_csi: Complex64[Tensor, "B S J L T A N"]
    sequence_mean_csi: Complex64[Tensor, "B S J L A N"]
    sequence_valid: Bool[Tensor, "B S J L"]
    sequence_features: Float[Tensor, "B S J L F"]
    sequence_gain: Float[Tensor, "B S J L"]
    site_ids: Int[Tensor, " B"]
    consensus_m: Float[Tensor, "B J 3"]
    round: Int[Tensor, " B"]
    fronthaul_bits_per_snapshot: Float[Tensor, " B"]
    fronthaul_bits_so_far: Float[Tensor, " B"]

    def now(self, sequence: Tensor) -> Tensor:
        """This round's entry [B, ...] of a sequence [B, S, ...]."""
        return at_round(sequence, self.round)

    def played(self) -> EccState:
        """The state of the round whose measurements the present estimate is made of."""
        return self.replace(round=(self.round - 1).clamp(min=0))
