"""Fingerprints of CSI: the nearest labelled snapshots in angle-delay amplitude and gain."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from cfpos_envs.checks import number_fields, whole_fields
from cfpos_envs.measurements.ecc import CsiMeasurements, CsiSystem
from cfpos_envs.physics.ecc.csi import side_gain
from cfpos_envs.physics.ecc.features import angle_delay_amplitude

from .common import FLAG_BITS, FLOAT_BITS, CsiEstimator, same_network
from .surveys import system_of, training_snapshots

if TYPE_CHECKING:
    from ..base import Env

_TINY = 1e-9


@dataclass(frozen=True)
class KnnOptions:
    """Options of ``csi-knn``.

    Attributes:
        references: labelled snapshots of the training split.
        neighbours: k, nearest references that are averaged, with weights 1 / distance.
        gain_weight: of a squared standard deviation of log gain beside the squared distance of two amplitude vectors
            of unit length.
        seed: of the references.
    """

    references: int = 8192
    neighbours: int = 4
    gain_weight: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        whole_fields(self, 1, "references", "neighbours")
        if self.neighbours > self.references:
            raise ValueError(f"neighbours is {self.neighbours}; it must not exceed references={self.references}")
        number_fields(self, 0.0, math.inf, "gain_weight", above=True)


class CsiKnn(CsiEstimator):
    """Weighted mean of the k labelled positions whose angle-delay amplitudes and gains are most alike."""

    name: ClassVar[str] = "csi-knn"
    options_class: ClassVar[type] = KnnOptions
    options: KnnOptions

    def __init__(self, env: Env | None = None, options: object = None) -> None:
        super().__init__(env, options)
        self.system: CsiSystem | None = system_of(env)
        self._prints: Tensor | None = None
        self._places_m: Tensor | None = None

    @property
    def fronthaul_bits(self) -> float:
        """A N amplitudes and the gain as 32-bit floats, and the flag; of the default network where none is known."""
        entries = 8 * 24 if self.system is None else self.system.num_antennas * self.system.num_subcarriers
        return float(FLOAT_BITS * (entries + 1) + FLAG_BITS)

    def survey(self, csi: Tensor, valid: Tensor, position_m: Tensor, system: CsiSystem) -> None:
        """Take labelled snapshots as references, instead of those of an environment.

        Args:
            csi: complex [S, L, T, A, N].
            valid: [S, L].
            position_m: [S, 3].
            system: the network that measured them.
        """
        self.system = system
        self._prints = fingerprints(csi, valid, system, self.options.gain_weight)
        self._places_m = position_m

    def _positions(
        self, csi: Complex[Tensor, "S L T A N"], valid: Bool[Tensor, "S L"], of: CsiMeasurements
    ) -> Float[Tensor, "S 3"]:
        if self._prints is None or self._places_m is None:
            self._learn()
        assert self.system is not None
        assert self._prints is not None
        assert self._places_m is not None
        differs = same_network(self.system, of.system)
        if differs:
            raise ValueError(f"{self.name} has references with {differs}; survey this network")
        asked = fingerprints(csi, valid, self.system, self.options.gain_weight)
        return nearest_mean(asked, self._prints, self._places_m, min(self.options.neighbours, len(self._prints)))

    def _learn(self) -> None:
        snapshots = training_snapshots(self.env, self.name, self.options.references, self.options.seed)
        prints, places = [], []
        for part in snapshots:
            assert self.system is not None
            prints.append(fingerprints(part.csi, part.valid, self.system, self.options.gain_weight))
            places.append(part.position_m)
        self._prints, self._places_m = torch.cat(prints), torch.cat(places)


def fingerprints(
    csi: Complex[Tensor, "S L T A N"], valid: Bool[Tensor, "S L"], system: CsiSystem, gain_weight: float
) -> Float[Tensor, "S F"]:
    """One vector per snapshot whose squared distances are sums over the base stations of those of amplitude and gain.

    Args:
        csi: zero on invalid links: an amplitude of zero and the lowest gain mark that nothing was received.
        valid: links with a path.
        system: for its array and its averages.
        gain_weight: see ``KnnOptions``.
    """
    amplitude = angle_delay_amplitude(csi, system.array_shape)
    log_gain = system.standardise_log_gain(side_gain(csi), valid)
    return torch.cat((amplitude.flatten(1), math.sqrt(gain_weight) * log_gain), dim=1)


def nearest_mean(
    asked: Float[Tensor, "S F"], known: Float[Tensor, "R F"], places_m: Float[Tensor, "R 3"], neighbours: int
) -> Float[Tensor, "S 3"]:
    """Mean of the places of the nearest references, weighted with the inverse of their distances.

    Args:
        asked: fingerprints to be located.
        known: of the references.
        places_m: where the references are.
        neighbours: k.
    """
    distance, index = torch.cdist(asked, known).topk(neighbours, dim=1, largest=False)
    weight = 1 / (distance + _TINY)
    share = weight / weight.sum(dim=1, keepdim=True)
    return (share.unsqueeze(-1) * places_m[index]).sum(dim=1)
