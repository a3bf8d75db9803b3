"""Fingerprint positioning: which reference point's fingerprint is most like the measured one?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike
from torch import Tensor

from cfpos_envs.checks import number_fields, one_of, whole_fields
from cfpos_envs.measurements.base import Measurements, PositionEstimate
from cfpos_envs.measurements.dcp import RadioMeasurements
from cfpos_envs.physics.geometry import displacement, unit_vectors

from ..base import Estimator
from .database import GRIDS, Database, PredictedDatabase, SurveyedDatabase, reference_points
from .links import finished, require_arrays, usable_links
from .nearest import FEATURES, Queries, nearest_references, needs_spectra, weighted_position
from .radio_map import RadioMap, SiteCache, sites_with_rows
from .survey import Survey, simulate_survey, survey_from_arrays, survey_from_csv

if TYPE_CHECKING:
    from ..base import Env

_MATCHING = ("nn", "wknn")
_DATABASES = ("model", "surveyed")

_FUSIONS = ("central", "median")


@dataclass(frozen=True)
class FingerprintOptions:
    """Options of ``fingerprint``.

    Attributes:
        feature: ``rss-db`` or ``rss-linear`` (Euclidean distance), ``aoa`` (Xi^a, eq. 8), ``eq7`` (Xi^a / Xi^r, RSS in
            watts as printed) or ``joint-db`` (the same with RSS in dB).
        matching: ``nn`` nearest reference, ``wknn`` mean of the ``neighbours`` nearest with weights 1 / distance.
        neighbours: k of ``wknn``, >= 1.
        spacing: distance eta of neighbouring reference points, metres.
        grid: ``cells`` puts them at cell centres, ``border`` lets the outermost ones lie on the border.
        database: ``model`` predicts the fingerprints from path loss and, where known, the shadowing map;
            ``surveyed`` simulates one noisy measurement per reference point. Neither contains shadowing whose map
            is unknown: a fair survey of a shadowed site needs ``shadowing_known=True`` in the environment.
        survey: CSV file (see ``Fingerprint.from_csv``) to use at every site instead of a database of its own.
        survey_seed: seed of the surveyed database.
        fusion: ``central`` compares the fingerprints of all APs at once; ``median`` lets every AP match its own and
            takes the median of their answers.
    """

    feature: str = "joint-db"
    matching: str = "wknn"
    neighbours: int = 4
    spacing: float = 0.5
    grid: str = "cells"
    database: str = "model"
    survey: str | None = None
    survey_seed: int = 0
    fusion: str = "central"

    def __post_init__(self) -> None:
        allowed_values = (
            ("feature", FEATURES),
            ("matching", _MATCHING),
            ("grid", GRIDS),
            ("database", _DATABASES),
            ("fusion", _FUSIONS),
        )
        for name, allowed in allowed_values:
            one_of(name, getattr(self, name), allowed)
        whole_fields(self, 1, "neighbours")
        number_fields(self, 0.0, math.inf, "spacing", above=True)


class Fingerprint(Estimator[RadioMeasurements]):
    """Nearest or weighted k-nearest neighbours in a database of fingerprints; made once per site and kept.

    Without an environment, on a person's own data::

        estimator = Fingerprint.from_survey(positions, rss, aoa)
        estimator.locate(rss, aoa=aoa).position      # or .locate({"rss": rss, "aoa": aoa})

    Args:
        env: see ``Policy``.
        options: see ``FingerprintOptions``.
        survey: measured fingerprints to use instead of a database per site.

    Raises:
        ValueError: the survey has no spectra but the feature needs them, or fewer points than ``neighbours``.
    """

    name: ClassVar[str] = "fingerprint"
    measurement_type: ClassVar[type[Measurements]] = RadioMeasurements
    options_class: ClassVar[type] = FingerprintOptions
    options: FingerprintOptions

    def __init__(
        self, env: Env | None = None, options: FingerprintOptions | None = None, survey: Survey | None = None
    ) -> None:
        super().__init__(env, options)
        self._cache: SiteCache[Database] = SiteCache()
        self._own: Database | None = None
        if survey is None and self.options.survey is not None:
            survey = survey_from_csv(self.options.survey)
        if survey is not None:
            self._own = self._fitting(SurveyedDatabase(survey.positions_m, survey.rss_dbm, survey.angular_power))

    @classmethod
    def from_survey(
        cls, positions: ArrayLike, rss: ArrayLike, aoa: ArrayLike | None = None, **options: object
    ) -> Fingerprint:
        """Estimator over measured fingerprints.

        Args:
            positions: [P, 2] metres, each once.
            rss: [P, M] dBm.
            aoa: [P, M, L] linear angular power per AP and beam, or None.
            options: see ``FingerprintOptions``; ``feature`` defaults to ``joint-db`` with aoa and ``rss-db`` without.

        Raises:
            ValueError: NaN, duplicate positions, wrong shapes or options.
        """
        return cls._over(survey_from_arrays(positions, rss, aoa), options)

    @classmethod
    def from_csv(cls, path: str | PathLike[str], **options: object) -> Fingerprint:
        """Estimator over a CSV file with columns ``x_m,y_m,rss_<ap>...`` and optionally ``aoa_<ap>_<beam>...``.

        Args:
            path: the file.
            options: as for ``from_survey``.

        Raises:
            ValueError: wrong columns, NaN, duplicate positions or options.
            FileNotFoundError: no such file.
        """
        return cls._over(survey_from_csv(path), options)

    def locate(self, measurements: object, aoa: ArrayLike | None = None) -> PositionEstimate:
        """Positions of all users.

        Args:
            measurements: ``RadioMeasurements`` of B episodes; or, over a survey, RSS [K, M] (or [M]) in dBm, or a
                mapping with ``"rss"`` and optionally ``"aoa"``. NaN marks an AP that did not hear the user.
            aoa: [K, M, L] linear angular power that goes with a plain RSS array.

        Returns:
            Positions [B, K, 2], or [K, 2] for own data; no covariance; invalid where no AP heard the user.

        Raises:
            ValueError: own data without a survey, or of a shape that does not fit it.
            TypeError: measurements of another kind of scenario.
        """
        if not isinstance(measurements, (Mapping, Sequence, np.ndarray, Tensor)):
            return super().locate(measurements)
        if self._own is None:
            raise ValueError("this fingerprint has no survey to compare own data with; use Fingerprint.from_survey")
        if isinstance(measurements, Mapping):
            measurements, aoa = _unpacked(measurements)
        return self._locate_own(self._own, np.asarray(measurements, dtype=np.float64), aoa)

    @classmethod
    def _over(cls, survey: Survey, options: dict[str, Any]) -> Fingerprint:
        from ..registry import check_options

        check_options(cls.name, FingerprintOptions, options)
        feature = "rss-db" if survey.angular_power is None else "joint-db"
        return cls(None, FingerprintOptions(**{"feature": feature, **options}), survey)

    def _locate(self, measurements: RadioMeasurements) -> PositionEstimate:
        radio, device = measurements.radio, measurements.rss_dbm.device
        if needs_spectra(self.options.feature):
            require_arrays(self.name, measurements)
        usable = usable_links(measurements, aoa=needs_spectra(self.options.feature))
        episodes, num_aps, num_ues = measurements.rss_dbm.shape
        positions = torch.full((episodes, num_ues, 2), radio.side_m / 2)
        for site, rows in sites_with_rows(measurements):
            database = self._own or self._cache.get(site, self._database)
            if database.rss_dbm.shape[1] != num_aps:
                raise ValueError(f"the survey has {database.rss_dbm.shape[1]} APs, the measurements {num_aps}")
            spectra = measurements.angular_power
            queries = Queries(
                measurements.rss_dbm[rows].transpose(1, 2).flatten(0, 1).cpu(),
                None if spectra is None else spectra[rows].transpose(1, 2).flatten(0, 1).cpu(),
            )
            heard = usable[rows].transpose(1, 2).flatten(0, 1).cpu()
            located = locate_by_matching(database, queries, heard, self.options, radio.side_m, radio.wrap)
            positions[rows.cpu()] = located.reshape(len(rows), num_ues, 2)
        return finished(measurements, positions.to(device), None, usable.any(dim=1))

    def _locate_own(self, database: Database, rss: np.ndarray, aoa: ArrayLike | None) -> PositionEstimate:
        num_aps = database.rss_dbm.shape[1]
        rss = rss[None] if rss.ndim == 1 else rss
        if rss.ndim != 2 or rss.shape[1] != num_aps:
            raise ValueError(f"rss has shape {rss.shape}; it must be [K, {num_aps}], one column per surveyed AP")
        power = torch.from_numpy(rss).float()
        spectra = None
        heard = torch.isfinite(power)
        if needs_spectra(self.options.feature):
            spectra = _spectra(aoa, len(rss), database)
            heard &= torch.isfinite(spectra).all(dim=-1) & (spectra.sum(dim=-1) > 0)
        located = locate_by_matching(database, Queries(power, spectra), heard, self.options, side_m=1.0, wrap=False)
        return PositionEstimate(located, None, heard.any(dim=-1))

    def _database(self, site: RadioMap) -> Database:
        points = reference_points(site.radio.side_m, self.options.spacing, self.options.grid)
        if self.options.database == "model":
            return self._fitting(PredictedDatabase(site, points))
        survey = simulate_survey(site, points, self.options.survey_seed)
        return self._fitting(SurveyedDatabase(survey.positions_m, survey.rss_dbm, survey.angular_power))

    def _fitting(self, database: Database) -> Database:
        options = self.options
        if needs_spectra(options.feature) and not database.has_spectra:
            raise ValueError(f"feature {options.feature!r} needs spectra but the survey has none; use feature='rss-db'")
        if options.matching == "wknn" and options.neighbours > len(database):
            raise ValueError(
                f"{options.neighbours} neighbours from {len(database)} points; lower neighbours or spacing"
            )
        return database


def locate_by_matching(
    database: Database,
    queries: Queries,
    heard: Bool[Tensor, "Q M"],
    options: FingerprintOptions,
    side_m: float,
    wrap: bool,
) -> Float[Tensor, "Q 2"]:
    """Positions of Q users; users with the same set of APs that heard them are matched together.

    Args:
        database: the references.
        queries: measured fingerprints.
        heard: APs that count, per user; a user without any gets the mean of the reference positions.
        options: feature, matching, neighbours, fusion.
        side_m, wrap: the area; ``side_m`` matters on the torus only.
    """
    positions = database.positions_m.mean(dim=0).expand(len(heard), 2).clone()
    patterns, member = heard.unique(dim=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        columns = torch.nonzero(pattern).squeeze(-1)
        if len(columns) == 0:
            continue
        rows = torch.nonzero(member == number).squeeze(-1)
        chosen = queries.select(rows)
        if options.fusion == "central":
            positions[rows] = _match(database, chosen, columns, options, side_m, wrap)
        else:
            answers = [_match(database, chosen, columns[i : i + 1], options, side_m, wrap) for i in range(len(columns))]
            positions[rows] = median_position(torch.stack(answers), side_m, wrap)
    return positions


def median_position(positions_m: Float[Tensor, "N Q 2"], side_m: float, wrap: bool) -> Float[Tensor, "Q 2"]:
    """Coordinate-wise median of N answers per user; on the torus, unwrapped around their circular mean."""
    if not wrap:
        return positions_m.median(dim=0).values
    turns = positions_m * (2 * torch.pi / side_m)
    mean = unit_vectors(turns).mean(dim=0)
    centre = torch.atan2(mean[..., 1], mean[..., 0]) * (side_m / (2 * torch.pi))
    offsets = displacement(centre[:, None], positions_m.transpose(0, 1), side_m, wrap)[:, 0]
    return centre + offsets.median(dim=1).values


def _match(
    database: Database, queries: Queries, columns: Tensor, options: FingerprintOptions, side_m: float, wrap: bool
) -> Tensor:
    neighbours = options.neighbours if options.matching == "wknn" else 1
    distances, indices = nearest_references(database, queries, columns, options.feature, neighbours)
    return weighted_position(database.positions_m[indices], distances, side_m, wrap)


def _unpacked(measurements: Mapping[str, ArrayLike]) -> tuple[ArrayLike, ArrayLike | None]:
    unknown = sorted(set(measurements) - {"rss", "aoa"})
    if unknown or "rss" not in measurements:
        raise ValueError(f"measurements has keys {sorted(measurements)}; it must have 'rss' and may have 'aoa'")
    return measurements["rss"], measurements.get("aoa")


def _spectra(aoa: ArrayLike | None, users: int, database: Database) -> Tensor:
    surveyed = database.unit_spectra()
    if aoa is None:
        raise ValueError("this estimator compares angular spectra; give aoa, or make it with feature='rss-db'")
    spectra = torch.as_tensor(np.asarray(aoa, dtype=np.float64)).float()
    spectra = spectra[None] if spectra.ndim == 2 else spectra
    wanted = (users, *surveyed.shape[1:])
    if tuple(spectra.shape) != wanted:
        raise ValueError(f"aoa has shape {tuple(spectra.shape)}; it must be {wanted} (users, APs, beams)")
    return spectra
