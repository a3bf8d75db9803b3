"""What all estimators from CSI share: what they read, snapshots at a time, the answer."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

from cfpos_envs.measurements.base import Measurements, PositionEstimate, Reason, Rows, first_reason
from cfpos_envs.measurements.ecc import CsiMeasurements, CsiSystem
from cfpos_envs.supervised.doubts import anywhere

from ..base import Estimator

FLAG_BITS = 1
"""Every message says whether the link has a path."""
FLOAT_BITS = 32
_CHUNK_SNAPSHOTS = 256


@dataclass(frozen=True)
class CsiAnswers(Rows):
    """Answers to S snapshots.

    Attributes:
        position_m: the answers.
        covariance_m2, chi_squared, degrees_of_freedom, radii: see ``PositionEstimate``; None where the method has none.
        reason: why an answer is not to be believed, 0 where it is; None: the method does not say.
    """

    position_m: Float[Tensor, "S 3"]
    covariance_m2: Float[Tensor, "S 3 3"] | None = None
    reason: Int[Tensor, " S"] | None = None
    chi_squared: Float[Tensor, " S"] | None = None
    degrees_of_freedom: Int[Tensor, " S"] | None = None
    radii: Float[Tensor, "S levels"] | None = None


class CsiEstimator(Estimator[CsiMeasurements]):
    """A one-shot estimator that reads ``CsiMeasurements``.

    Attributes:
        fronthaul_bits: bits that a BS sends per user and snapshot.
        least_links: base stations that must hear a user for a position.
    """

    measurement_type: ClassVar[type[Measurements]] = CsiMeasurements
    least_links: ClassVar[int] = 1
    needs_planes: ClassVar[bool] = False

    @property
    @abstractmethod
    def fronthaul_bits(self) -> float:
        """Bits that a BS sends per user and snapshot."""

    def _locate(self, received: CsiMeasurements) -> PositionEstimate:
        """Positions [B, J, 3] in metres, in the middle of the area where no BS hears the user; invalid with fewer than
        ``least_links``."""
        csi, valid = usable(received.csi.flatten(0, 1), received.valid.flatten(0, 1))
        users = received.csi.shape[1]
        parts = []
        for rows in torch.arange(len(csi), device=csi.device).split(_CHUNK_SNAPSHOTS):
            episodes = rows // users
            parts.append(self._answers(csi[rows], valid[rows], received.select(episodes)))
        found = parts[0].joined(parts)
        heard = valid.any(dim=-1)
        centre = csi.real.new_tensor(received.system.centre_m)
        known = heard & torch.isfinite(found.position_m).all(dim=-1)
        position = into_box(torch.where(known[:, None], found.position_m, centre), received.system)
        few = valid.sum(dim=-1) < self.least_links
        blind = torch.full_like(few, self.needs_planes and in_one_row(received.system))
        answered = known & ~few & ~blind
        doubt = torch.zeros_like(few, dtype=torch.int8) if found.reason is None else found.reason.to(torch.int8)
        reason = first_reason(answered, (Reason.TOO_FEW_LINKS, few), (Reason.POOR_GEOMETRY, blind))
        reason = torch.where(answered, doubt, reason)
        covariance, chi_squared, freedom = found.covariance_m2, found.chi_squared, found.degrees_of_freedom
        if covariance is not None:
            covariance = torch.where(
                answered[:, None, None], covariance.to(position.dtype), anywhere(received.system).to(position)
            )
        shape = received.csi.shape[:2]

        def by_user(values: Tensor | None) -> Tensor | None:
            return None if values is None else values.unflatten(0, shape)

        return PositionEstimate(
            position.unflatten(0, shape),
            by_user(covariance),
            (reason == int(Reason.VALID)).unflatten(0, shape),
            reason.unflatten(0, shape),
            None if chi_squared is None else by_user(torch.where(answered, chi_squared, 0.0)),
            None if freedom is None else by_user(torch.where(answered, freedom, 0)),
            by_user(found.radii),
        )

    def _answers(
        self, csi: Complex[Tensor, "S L T A N"], valid: Bool[Tensor, "S L"], of: CsiMeasurements
    ) -> CsiAnswers:
        """Answers to S snapshots, with what the method knows of their errors; see ``_positions``."""
        return CsiAnswers(self._positions(csi, valid, of))

    @abstractmethod
    def _positions(
        self, csi: Complex[Tensor, "S L T A N"], valid: Bool[Tensor, "S L"], of: CsiMeasurements
    ) -> Float[Tensor, "S 3"]:
        """Positions of S snapshots, metres.

        Args:
            csi: zero on invalid links.
            valid: links that hold something.
            of: one episode per snapshot, for the base stations' places; its users are not to be looked at.
        """


def usable(
    csi: Complex[Tensor, "S L T A N"], valid: Bool[Tensor, "S L"]
) -> tuple[Complex[Tensor, "S L T A N"], Bool[Tensor, "S L"]]:
    """CSI with zeros in place of what is not finite, and the links that hold something."""
    parts = torch.view_as_real(csi).flatten(2)
    holds = valid & torch.isfinite(parts).all(dim=-1) & (parts != 0).any(dim=-1)
    return torch.where(holds[..., None, None, None], csi, torch.zeros_like(csi)), holds


def in_one_row(system: CsiSystem) -> bool:
    """Whether the antennas of an array stand in one line: it sees the angle to it only, no direction in space."""
    if system.element_positions_m is None:
        return min(system.array_shape) == 1
    elements = torch.tensor(system.element_positions_m, dtype=torch.float64)
    return int(torch.linalg.matrix_rank(elements - elements.mean(dim=0), rtol=1e-6)) < 2


def into_box(position_m: Float[Tensor, "*batch 3"], system: CsiSystem) -> Float[Tensor, "*batch 3"]:
    """The nearest point of the area."""
    low, high = position_m.new_tensor(system.area_min_m), position_m.new_tensor(system.area_max_m)
    return torch.minimum(torch.maximum(position_m, low), high)


def same_network(there: CsiSystem, here: CsiSystem) -> str:
    """Why what was learned in one network cannot serve another; empty if it can."""
    compared = ("num_bs", "array_shape", "num_subcarriers", "num_slots", "area_min_m", "area_max_m")
    for name in (*compared, "element_positions_m"):
        if getattr(there, name) != getattr(here, name):
            return f"{name}={getattr(there, name)}, not {getattr(here, name)}"
    return ""
