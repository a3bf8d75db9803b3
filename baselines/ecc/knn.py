"""Fingerprints of CSI: the nearest labelled snapshots in angle-delay amplitude and gain."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from cfpos_envs.checks import SEEDS
from cfpos_envs.fields import Declared, Range
from cfpos_envs.measurements.base import Reason, first_reason
from cfpos_envs.measurements.ecc import CsiMeasurements, CsiSystem
from cfpos_envs.physics.ecc.csi import side_gain
from cfpos_envs.physics.ecc.features import angle_delay_amplitude

from ..neighbour_errors import LEAST_PLACES, SEEN, ErrorModel, Neighbourhood, nearest_spacing_m, probes, spread_m2
from .common import FLAG_BITS, FLOAT_BITS, CsiAnswers, CsiEstimator, same_network
from .surveys import held_apart_m, system_of, training_snapshots

if TYPE_CHECKING:
    from ..base import Env

GAIN_WEIGHTS = (0.01, 0.05, 0.2, 1.0, 5.0)
"""Tried where nobody says which."""

_TINY = 1e-9
_MOST_PROBES = 2048


@dataclass(frozen=True)
class KnnOptions(Declared):
    """Options of ``csi-knn``.

    Attributes:
        references: labelled snapshots of the training split.
        neighbours: k, nearest references that are averaged, with weights 1 / distance.
        gain_weight: of a squared standard deviation of log gain beside the squared distance of two amplitude vectors
            of unit length. None: the one of ``GAIN_WEIGHTS`` that locates the references best from other places.
        seed: of the references.
    """

    ranges: ClassVar[Mapping[str, Range]] = {
        "references": (1, 1 << 31),
        "neighbours": (1, 1 << 31),
        "gain_weight": (1e-12, 1e12),
        "seed": SEEDS,
    }

    references: int = 8192
    neighbours: int = 4
    gain_weight: float | None = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.neighbours > self.references:
            raise ValueError(f"neighbours is {self.neighbours}; it must not exceed references={self.references}")


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
        self.gain_weight = self.options.gain_weight
        self._errors: ErrorModel | None = None

    @property
    def fronthaul_bits(self) -> float:
        """A N amplitudes and the gain as 32-bit floats, and the flag; of the default network where none is known."""
        entries = 8 * 24 if self.system is None else self.system.num_antennas * self.system.num_subcarriers
        return float(FLOAT_BITS * (entries + 1) + FLAG_BITS)

    def survey(self, csi: Tensor, valid: Tensor, position_m: Tensor, system: CsiSystem, apart_m: float = 0.0) -> None:
        """Take labelled snapshots as references, instead of those of an environment.

        Args:
            csi: complex [S, L, T, A, N].
            valid: [S, L].
            position_m: [S, 3].
            system: the network that measured them.
            apart_m: how far from all of them users are; 0: anywhere between them. Errors are learned from references
                that are located without those so near.
        """
        self.system = system
        self._remember(csi, valid, position_m, apart_m)

    def _positions(
        self, csi: Complex[Tensor, "S L T A N"], valid: Bool[Tensor, "S L"], of: CsiMeasurements
    ) -> Float[Tensor, "S 3"]:
        return self._answers(csi, valid, of).position_m

    def _answers(
        self, csi: Complex[Tensor, "S L T A N"], valid: Bool[Tensor, "S L"], of: CsiMeasurements
    ) -> CsiAnswers:
        if self._prints is None or self._places_m is None:
            self._learn()
        assert self.system is not None
        assert self._prints is not None
        assert self._places_m is not None
        differs = same_network(self.system, of.system)
        if differs:
            raise ValueError(f"{self.name} has references with {differs}; survey this network")
        assert self.gain_weight is not None
        asked = fingerprints(csi, valid, self.system, self.gain_weight)
        position, made_of = neighbours_of(asked, self._prints, self._places_m, self.options.neighbours)
        if self._errors is None:
            return CsiAnswers(position)
        strange = self._errors.strange(made_of)
        reason = first_reason(~strange, (Reason.UNFAMILIAR, strange))
        return CsiAnswers(position, self._errors.covariance_m2(made_of).to(position.dtype), reason)

    def _own_errors(self, apart_m: float) -> ErrorModel | None:
        """What the references say about errors, each located without those within ``apart_m``."""
        prints, places = self._prints, self._places_m
        assert prints is not None
        assert places is not None
        asked = probes(len(prints)).to(places.device)
        position, made_of = neighbours_of(
            prints[asked], prints, places, self.options.neighbours, (places[asked], apart_m)
        )
        counts = torch.isfinite(made_of.strangeness)
        different = places.unique(dim=0)
        if len(different) < LEAST_PLACES + 1:
            return None
        error = position[counts] - places[asked][counts]
        return ErrorModel.of(made_of.select(counts.nonzero().squeeze(-1)), error, nearest_spacing_m(different))

    def _learn(self) -> None:
        snapshots = training_snapshots(self.env, self.name, self.options.references, self.options.seed)
        parts = [(part.csi, part.valid, part.position_m) for part in snapshots]
        csi, valid, places = (torch.cat(column) for column in zip(*parts))
        self._remember(csi, valid, places, held_apart_m(self.env))

    def _remember(self, csi: Tensor, valid: Tensor, position_m: Tensor, apart_m: float) -> None:
        assert self.system is not None
        weight = self.options.gain_weight
        if weight is None:
            weight = best_gain_weight(csi, valid, position_m, self.system, self.options.neighbours)
        self.gain_weight = weight
        self._prints, self._places_m = fingerprints(csi, valid, self.system, weight), position_m
        self._errors = self._own_errors(apart_m)


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


def best_gain_weight(
    csi: Complex[Tensor, "S L T A N"],
    valid: Bool[Tensor, "S L"],
    position_m: Float[Tensor, "S 3"],
    system: CsiSystem,
    neighbours: int,
) -> float:
    """Of ``GAIN_WEIGHTS`` the one with the least mean error of references located from other places.

    Snapshots of one place are left out together: they would find each other whatever the weight.

    Args:
        csi, valid, position_m, system: references, see ``CsiKnn.survey``.
        neighbours: k.
    """
    place = position_m.unique(dim=0, return_inverse=True)[1]
    if int(place.max()) < 1:
        return KnnOptions.gain_weight or GAIN_WEIGHTS[0]
    probes = torch.arange(0, len(csi), max(1, -(-len(csi) // _MOST_PROBES)))
    same = place[probes, None] == place[None]
    count = min(neighbours, int((~same).sum(dim=1).min()))
    errors = {}
    for weight in GAIN_WEIGHTS:
        prints = fingerprints(csi, valid, system, weight)
        distance, index = torch.cdist(prints[probes], prints).masked_fill(same, torch.inf).topk(count, largest=False)
        located = _mean_of(distance, position_m[index])
        errors[weight] = float((located - position_m[probes]).norm(dim=1).mean())
    return min(errors, key=lambda weight: errors[weight])


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
    return neighbours_of(asked, known, places_m, neighbours)[0]


def neighbours_of(
    asked: Float[Tensor, "S F"],
    known: Float[Tensor, "R F"],
    places_m: Float[Tensor, "R 3"],
    neighbours: int,
    without: tuple[Float[Tensor, "S 3"], float] | None = None,
) -> tuple[Float[Tensor, "S 3"], Neighbourhood]:
    """``nearest_mean``, and what it was made of.

    Args:
        asked, known, places_m, neighbours: see there; fewer references are fewer neighbours.
        without: places, and how far around them references do not count; None: all count.
    """
    distance = torch.cdist(asked, known)
    if without is not None:
        near_by = torch.cdist(without[0], places_m, compute_mode="donot_use_mm_for_euclid_dist") <= without[1]
        distance = torch.where(near_by, torch.inf, distance)
    distance, index = distance.topk(min(max(neighbours, SEEN), len(known)), dim=1, largest=False)
    near, share = places_m[index], _shares(distance[:, :neighbours])
    position = (share.unsqueeze(-1) * near[:, :neighbours]).sum(dim=1)
    shares = torch.nn.functional.pad(share, (0, near.shape[1] - share.shape[1]))
    return position, Neighbourhood(spread_m2(near - position.unsqueeze(1), shares), distance[:, 0])


def _mean_of(distance: Float[Tensor, "S k"], places_m: Float[Tensor, "S k 3"]) -> Float[Tensor, "S 3"]:
    return (_shares(distance).unsqueeze(-1) * places_m).sum(dim=1)


def _shares(distance: Float[Tensor, "S k"]) -> Float[Tensor, "S k"]:
    """1 / distance, of a sum of 1."""
    weight = 1 / (distance + _TINY)
    return weight / weight.sum(dim=1, keepdim=True)
