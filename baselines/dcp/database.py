"""Fingerprints at reference points: predicted from a radio map, or surveyed."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfpos_envs.physics.geometry import lattice

from .radio_map import RadioMap, spectrum_table

GRIDS = ("cells", "border")
"""Where reference points lie: at the centres of square cells, or on a grid that reaches the border."""

_EXPONENTIAL_DB = 24.0
"""Alpha of the exponential map, the source's value."""


class Database(ABC):
    """P reference points with their fingerprints over M APs.

    Attributes:
        positions_m: [P, 2] metres.
        rss_dbm: [P, M] dBm.
        has_spectra: whether angular spectra are known too.
        zero_dbm: RSS that counts as nothing for maps from zero (``powed``, ...): 1 dB below the weakest, or what
            the maker says.
        limits_dbm: [M] detection limits; ``zero_dbm`` where nothing else is known.
    """

    has_spectra: bool

    def __init__(
        self,
        positions_m: Float[Tensor, "P 2"],
        rss_dbm: Float[Tensor, "P M"],
        zero_dbm: float | None = None,
        limits_dbm: Float[Tensor, " M"] | None = None,
    ) -> None:
        self.positions_m = positions_m
        self.rss_dbm = rss_dbm
        self.zero_dbm = float(rss_dbm.min()) - 1.0 if zero_dbm is None else zero_dbm
        self.limits_dbm = rss_dbm.new_full((rss_dbm.shape[-1],), self.zero_dbm) if limits_dbm is None else limits_dbm
        self._reference_dbm = float(rss_dbm.max())

    def __len__(self) -> int:
        return len(self.positions_m)

    @abstractmethod
    def unit_spectra(self) -> Float[Tensor, "P M L"]:
        """Unit-norm angular power of every reference and AP."""

    @abstractmethod
    def aoa_similarities(self, spectra: Float[Tensor, "Q M L"], columns: Int[Tensor, " C"]) -> Float[Tensor, "Q P"]:
        """Xi^a, eq. (8) with 1/M, of queries and all references, over the APs in ``columns``."""

    def above_limit_db(
        self, rss_dbm: Float[Tensor, "*batch C"], columns: Int[Tensor, " C"]
    ) -> Float[Tensor, "*batch C"]:
        """How far above the detection limits of the APs in ``columns`` powers are; 0 for weaker ones."""
        return (rss_dbm - self.limits_dbm[columns]).clamp(min=0.0)

    def features(self, kind: str, columns: Int[Tensor, " C"]) -> Float[Tensor, "P F"]:
        """Vectors of the references whose distance is the criterion.

        ``rss-db``, ``rss-linear``, ``aoa``, or with p = RSS - zero, 0 below zero (Torres-Sospedra et al. 2015,
        doi:10.1016/j.eswa.2015.08.013): ``positive`` p, ``powed`` (p / -zero)^e, ``exponential``
        exp(p / 24) / exp(-zero / 24). In the last two differences count more where the signal is strong.
        """
        spectra = self.unit_spectra() if kind == "aoa" else None
        return self.query_features(kind, self.rss_dbm, spectra, columns)

    def query_features(
        self,
        kind: str,
        rss_dbm: Float[Tensor, "Q M"],
        spectra: Float[Tensor, "Q M L"] | None,
        columns: Int[Tensor, " C"],
    ) -> Float[Tensor, "Q F"]:
        """The same vectors for measured fingerprints."""
        if kind == "rss-db":
            return rss_dbm[:, columns]
        if kind == "rss-linear":
            # Powers relative to the strongest reference: watts would be lost in single precision.
            return torch.pow(10.0, (rss_dbm[:, columns] - self._reference_dbm) / 10.0)
        if kind in ("positive", "powed", "exponential"):
            positive = (rss_dbm[:, columns] - self.zero_dbm).clamp(min=0.0)
            if kind == "powed":
                return (positive / -self.zero_dbm) ** math.e
            return positive if kind == "positive" else torch.exp((positive + self.zero_dbm) / _EXPONENTIAL_DB)
        if spectra is None:
            raise ValueError("feature 'aoa' needs angular power spectra; give aoa, or choose feature='rss-db'")
        unit = torch.nn.functional.normalize(spectra[:, columns], dim=-1)
        return unit.flatten(1) / math.sqrt(len(columns))


class PredictedDatabase(Database):
    """Fingerprints that the path loss, the known shadowing map and the angular table predict.

    Only the index of each direction in the table is kept: 4 bytes per AP and reference instead of a spectrum.

    Args:
        site: one site, without batch dimensions.
        positions_m: [P, 2] reference points, metres.
    """

    has_spectra = True

    def __init__(self, site: RadioMap, positions_m: Float[Tensor, "P 2"]) -> None:
        links = site.links(positions_m)
        super().__init__(positions_m, site.rss_dbm(positions_m, links).T.contiguous())
        self._table = spectrum_table(site.radio)
        steps = (len(self._table) - 1) / math.pi
        direction = (links.angle_rad.abs() * steps).round().to(torch.int32).T
        # Rows of all APs' tables, one table after the other.
        self._row = direction + torch.arange(direction.shape[1], dtype=torch.int32) * len(self._table)
        self._row = self._row.contiguous()

    def unit_spectra(self) -> Float[Tensor, "P M L"]:
        """Unit-norm angular power of every reference and AP."""
        return self._table[self._row.long() % len(self._table)]

    def aoa_similarities(self, spectra: Float[Tensor, "Q M L"], columns: Int[Tensor, " C"]) -> Float[Tensor, "Q P"]:
        """Xi^a by look-up in the queries' angle profiles: the factor L is paid per query, not per pair."""
        profiles = torch.nn.functional.normalize(spectra, dim=-1) @ self._table.T
        # One row per AP and direction holds all queries: a reference is the mean of one row per AP.
        chosen = self._row if len(columns) == self._row.shape[1] else self._row[:, columns].contiguous()
        return torch.nn.functional.embedding_bag(chosen, profiles.flatten(1).T.contiguous(), mode="mean").T


class SurveyedDatabase(Database):
    """Measured fingerprints at surveyed points.

    Args:
        positions_m: [P, 2] surveyed points, metres.
        rss_dbm: [P, M] measured RSS.
        spectra: [P, M, L] measured angular power, or None.
        zero_dbm, limits_dbm: see ``Database``.
    """

    def __init__(
        self,
        positions_m: Float[Tensor, "P 2"],
        rss_dbm: Float[Tensor, "P M"],
        spectra: Float[Tensor, "P M L"] | None,
        zero_dbm: float | None = None,
        limits_dbm: Float[Tensor, " M"] | None = None,
    ) -> None:
        super().__init__(positions_m, rss_dbm, zero_dbm, limits_dbm)
        self.has_spectra = spectra is not None
        self._unit = None if spectra is None else torch.nn.functional.normalize(spectra, dim=-1)

    def unit_spectra(self) -> Float[Tensor, "P M L"]:
        """Unit-norm angular power of every reference and AP."""
        if self._unit is None:
            raise ValueError("the survey has no angular spectra; survey them too, or choose feature='rss-db'")
        return self._unit

    def aoa_similarities(self, spectra: Float[Tensor, "Q M L"], columns: Int[Tensor, " C"]) -> Float[Tensor, "Q P"]:
        """Xi^a from the surveyed spectra."""
        measured = torch.nn.functional.normalize(spectra[:, columns], dim=-1)
        unit = self.unit_spectra()
        surveyed = unit if len(columns) == unit.shape[1] else unit[:, columns]
        return measured.flatten(1) @ surveyed.flatten(1).T / len(columns)


def reference_points(side_m: float, spacing_m: float, grid: str) -> Float[Tensor, "P 2"]:
    """Lattice of reference points: ``cells`` puts them at cell centres, ``border`` lets the grid reach the border."""
    return lattice(side_m, spacing_m, to_border=grid == "border")
