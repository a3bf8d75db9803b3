"""What the central unit receives when ranges, directions and powers are measured together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfpos_envs.measurements.base import Measurements, check_shapes
from cfpos_envs.physics.toa.model import TimingModel


@dataclass(frozen=True)
class HybridMeasurements(Measurements):
    """One batch of episodes as the central unit sees them after the fronthaul; no true position is in here.

    B episodes, M APs, K UEs. The last axis of ``values``, ``variance`` and ``valid`` is that of
    ``physics.hybrid.KINDS``: range in metres, cosine of the angle to the array's axis, received power in dBm.

    Attributes:
        model: the known constants.
        ap_positions_m, ap_orientation_rad, height_diff_m: the known site (array axis direction; AP minus UE height).
        values: what was measured; entries that are not ``valid`` are finite and mean nothing.
        variance: of a measurement in line of sight, in its unit squared, > 0; infinite where it says nothing.
        valid: what was measured. Any part may be missing: ranges alone, directions of some APs, ...
        site_ids: one integer per episode; equal integers mean the same site.
        origin_m: see ``Measurements``.
    """

    families: ClassVar[tuple[str, ...]] = ("hybrid",)
    content: ClassVar[str] = "ranges, directions and powers"
    environments: ClassVar[str] = "hybrid-v0"

    model: TimingModel
    ap_positions_m: Float[Tensor, "B M 2"]
    ap_orientation_rad: Float[Tensor, "B M"]
    height_diff_m: Float[Tensor, "B M"]
    values: Float[Tensor, "B M K 3"]
    variance: Float[Tensor, "B M K 3"]
    valid: Bool[Tensor, "B M K 3"]
    site_ids: Int[Tensor, " B"]
    origin_m: tuple[float, float] = (0.0, 0.0)

    def check(self) -> None:
        """Refuse tensors that do not fit together and sites that are not finite.

        Raises:
            ValueError: names the first field that is wrong.
        """
        shape = tuple(self.values.shape)
        if len(shape) != 4 or shape[-1] != 3:
            raise ValueError(f"values has shape {shape}; it must be [B, M, K, 3]: episodes, APs, UEs, kinds")
        site = {"ap_positions_m": (*shape[:2], 2), "ap_orientation_rad": shape[:2], "height_diff_m": shape[:2]}
        check_shapes(self, {**site, "variance": shape, "valid": shape}, "these values")
        for name in site:
            if not bool(torch.isfinite(getattr(self, name)).all()):
                raise ValueError(f"{name} has entries that are not finite; the site must be known")
        if not bool((self.variance > 0)[self.valid].all()):
            raise ValueError(
                "variance of a valid measurement is not positive; give its mean square error or set valid=False"
            )
