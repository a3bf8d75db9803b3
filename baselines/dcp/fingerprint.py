"""Fingerprint positioning: which reference point's fingerprint is most like the measured one?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from cfpos_envs.files.coordinates import GeoOrigin
from cfpos_envs.files.surveys import SurveyTable, ap_number
from cfpos_envs.measurements.base import Measurements, PositionEstimate, Reason
from cfpos_envs.measurements.dcp import RadioMeasurements

from ..base import Estimator
from ..neighbour_errors import ErrorModel
from .database import Database, PredictedDatabase, SurveyedDatabase, reference_points
from .fingerprint_options import FingerprintOptions
from .floors import FingerprintEstimate, SurveyScore, score
from .front_end import read_links
from .gauss_newton import link_observations, unknown_shadowing_db
from .judging import judged_by_powers
from .links import cleaned, finished, require_arrays, usable_links
from .matching import locate_by_matching
from .nearest import Queries, needs_spectra
from .own_survey import OwnSurvey, natural_feature
from .radio_map import RadioMap, SiteCache, measured_profiles, sites_with_rows
from .simulated_errors import SimulatedErrors, simulated_errors
from .survey import (
    Survey,
    check_ranges,
    checked_rss,
    powers_and_ranges,
    real_array,
    simulate_survey,
    survey_from_arrays,
    survey_from_csv,
)

if TYPE_CHECKING:
    from ..base import Env


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
        self._errors = SimulatedErrors(self._simulated)
        if survey is None and self.options.survey is not None:
            survey = _read(self.options.survey, self.options)
        self._own = None if survey is None else OwnSurvey(survey, self.options)

    @classmethod
    def from_survey(
        cls,
        positions: ArrayLike | Tensor,
        rss: ArrayLike | Tensor | None = None,
        aoa: ArrayLike | Tensor | None = None,
        *,
        ranges: ArrayLike | Tensor | None = None,
        ap_names: Sequence[str] | None = None,
        floors: Sequence[object] | None = None,
        buildings: Sequence[object] | None = None,
        **options: object,
    ) -> Fingerprint:
        """Estimator over measured fingerprints.

        Args:
            positions: [P, 2] metres in any frame, kept in double precision; several scans of one place are averaged.
            rss: [P, M] dBm of any real type; NaN, masked entries and the option ``not_heard`` mark APs that were not
                heard. None: only ranges were measured.
            aoa: [P, M, L] linear angular power per AP and beam, or None.
            ranges: [P, M] measured distances, metres (Wi-Fi FTM, UWB), or None; NaN where there is none.
            ap_names: M names; queries may then name their columns.
            floors, buildings: P labels; answers then have them too.
            options: see ``FingerprintOptions``; ``feature`` defaults to ``joint-db`` with aoa, to
                ``rss-range`` or ``range`` with ranges, and to ``rss-db`` else.

        Raises:
            ValueError: readings of 0 dBm and more, positions that are not finite, wrong shapes or options.
        """
        chosen = _checked_options(options)
        survey = survey_from_arrays(
            positions,
            rss,
            aoa,
            ranges,
            not_heard=chosen.marks,
            on_bad=chosen.bad,
            ap_names=ap_names,
            floors=floors,
            buildings=buildings,
        )
        return cls._over(survey, options)

    @classmethod
    def from_csv(cls, path: str | PathLike[str] | Sequence[str | PathLike[str]], **options: object) -> Fingerprint:
        """Estimator over a survey file: columns ``x_m,y_m,rss_<ap>...``, or as ``layout`` and ``columns`` say.

        Optional are ``range_<ap>...``, ``aoa_<ap>_<beam>...``, ``floor``, ``building``, ``time_s``, ``id`` and
        ``device``; blank cells mean that an AP was not heard. The order of the columns does not matter: ``ap_names`` is
        the order of the APs.

        Args:
            path: the file, or several of one kind.
            options: as for ``from_survey``; ``layout``, ``columns`` and ``not_heard`` say how to read the file.

        Raises:
            ValueError: wrong columns, cells or options; names file and line.
            OSError: no such file.
        """
        return cls._over(_read(path, _checked_options(options)), options)

    @property
    def ap_names(self) -> tuple[str, ...] | None:
        """Names of the surveyed APs in the order of the columns that ``locate`` takes; None if they have none."""
        return None if self._own is None else self._own.ap_names

    @property
    def geo_origin(self) -> GeoOrigin | None:
        """Where (0, 0) of the answers lies, if the survey had latitudes and longitudes; read scans with it."""
        return None if self._own is None else self._own.survey.geo_origin

    def locate(
        self,
        measurements: object,
        aoa: ArrayLike | Tensor | None = None,
        ap_names: Sequence[str] | None = None,
        ranges: ArrayLike | Tensor | None = None,
    ) -> PositionEstimate:
        """Positions of all users.

        Args:
            measurements: ``RadioMeasurements`` of B episodes; or, over a survey, RSS [K, M] (or [M]) in dBm, a
                mapping with ``"rss"`` and optionally ``"aoa"`` and ``"ranges"``, or the table of ``read_survey``, whose
                APs are found by name; None: only ranges. NaN, masks and ``not_heard`` mark an AP that did not hear
                the user.
            aoa: [K, M, L] linear angular power that goes with a plain RSS array.
            ap_names: M names of the columns of a plain RSS array, in any order; unknown APs are passed over, surveyed
                ones without column are not compared.
            ranges: [K, M] (or [M]) measured distances that go with a plain RSS array, metres.

        Returns:
            Positions [B, K, 2], or [K, 2] (a ``FingerprintEstimate``, double precision) for own data, with covariances
            that the survey's own places teach (None with fewer than nine); invalid where no AP heard the user, or
            nothing in the survey is like the measurement.

        Raises:
            ValueError: own data without a survey, of a shape or of APs that do not fit it, or that cannot be.
            TypeError: measurements of another kind of scenario.
        """
        if not isinstance(measurements, (Mapping, Sequence, np.ndarray, Tensor, SurveyTable)) and ranges is None:
            return super().locate(measurements)
        if self._own is None:
            raise ValueError("this fingerprint has no survey to compare own data with; use Fingerprint.from_survey")
        if isinstance(measurements, SurveyTable):
            return self._locate_table(self._own, measurements)
        if isinstance(measurements, Mapping):
            measurements, aoa, ranges = _unpacked(measurements)
        rss, distance = powers_and_ranges(measurements, ranges)
        rss = rss[None] if rss.ndim == 1 else rss
        if distance is not None:
            distance = distance[None] if distance.ndim == 1 else distance
            check_ranges(distance, rss.shape)
        looked_for = np.ones(self._own.num_aps, dtype=bool)
        if ap_names is not None:
            if rss.ndim != 2 or rss.shape[1] != len(ap_names):
                raise ValueError(
                    f"rss has shape {rss.shape}; with {len(ap_names)} ap_names it must be [K, {len(ap_names)}]"
                )
            names = tuple(str(name) for name in ap_names)
            table = SurveyTable("rss", tuple(f"row {row}" for row in range(len(rss))), names, rss, range_m=distance)
            rss, looked_for, distance = _matched(self._own, table)
        return self._locate_own(self._own, rss, looked_for, aoa, range_m=distance)

    def score(self, scans: SurveyTable) -> SurveyScore:
        """Locate scans whose places are known, and compare: errors, and how often floor and building are right.

        Args:
            scans: from ``read_survey``.

        Raises:
            ValueError: scans without positions, or what ``locate`` refuses.
        """
        if scans.positions_m is None:
            raise ValueError(f"{scans.file} has no positions to compare with; it needs the columns x_m and y_m")
        if scans.geo_origin != self.geo_origin:
            raise ValueError(
                f"{scans.file} has another origin than the survey; read it with geo_origin=estimator.geo_origin"
            )
        return score(self.locate(scans), scans.positions_m, scans.floors, scans.buildings)

    @classmethod
    def _over(cls, survey: Survey, options: dict[str, Any]) -> Fingerprint:
        return cls(None, FingerprintOptions(**{"feature": natural_feature(survey), **options}), survey)

    def _locate(self, measurements: RadioMeasurements) -> PositionEstimate:
        with_spectra = self.options.compares_spectra
        if with_spectra:
            require_arrays(self.name, measurements)
        if self._own is not None:
            return self._locate_by_survey(self._own, measurements)
        usable = usable_links(measurements, aoa=with_spectra)
        clean = cleaned(measurements, usable)
        radio, spectra, shadowing_db = measurements.radio, measurements.angular_power, unknown_shadowing_db(clean)
        episodes, _, num_ues = measurements.rss_dbm.shape
        positions = torch.full((episodes, num_ues, 2), radio.side_m / 2)
        covariance = torch.zeros(episodes, num_ues, 2, 2)
        for site, rows in sites_with_rows(measurements):
            database = self._cache.get(site, self._database)
            queries = Queries(
                measurements.rss_dbm[rows].transpose(1, 2).flatten(0, 1).cpu(),
                None if spectra is None else spectra[rows].transpose(1, 2).flatten(0, 1).cpu(),
            )
            heard = usable[rows].transpose(1, 2).flatten(0, 1).cpu()
            found = locate_by_matching(database, queries, heard, self.options, radio.side_m, radio.wrap)
            positions[rows.cpu()] = found.position_m.reshape(len(rows), num_ues, 2)
            spread = self._errors.covariance_m2(site, shadowing_db, heard, found.made_of)
            covariance[rows.cpu()] = spread.float().reshape(len(rows), num_ues, 2, 2)
        device = measurements.rss_dbm.device
        powers = told = link_observations(clean, usable, shadowing_db, None)
        if with_spectra:
            told = link_observations(clean, usable, shadowing_db, read_links(clean, "dft", measured_profiles(clean)))
        site_map, placed = RadioMap.of(clean), positions.to(device)
        return judged_by_powers(measurements, site_map, powers, placed, covariance.to(device), told)

    def _locate_by_survey(self, own: OwnSurvey, measurements: RadioMeasurements) -> PositionEstimate:
        """Match with the survey, whose coordinates and APs are those of whoever made it."""
        radio, rss = measurements.radio, measurements.rss_dbm
        episodes, num_aps, num_ues = rss.shape
        site = getattr(getattr(getattr(self.env, "scenario", None), "config", None), "site_file", None)
        chosen = torch.tensor(_columns_of_game(own, num_aps, () if site is None else site.ap_names))
        usable = usable_links(measurements, aoa=self.options.compares_spectra)
        spectra = measurements.angular_power if self.options.compares_spectra else None

        def of_users(values: Tensor) -> Tensor:
            return values.transpose(1, 2).flatten(0, 1)[:, chosen].cpu()

        estimate = own.locate(
            of_users(rss).double(),
            left_out=of_users(~usable & torch.isfinite(rss)),
            spectra=None if spectra is None else of_users(spectra).double(),
            side_m=radio.side_m,
            wrap=radio.wrap,
        )
        away = measurements.origin_m[:2] if any(measurements.origin_m) or site is None else site.origin_m
        origin = torch.tensor(away, dtype=torch.float64)
        _check_places(own.database.positions_m - origin, radio.side_m)
        assert estimate.reason is not None
        position = (estimate.position - origin).to(rss.dtype).reshape(episodes, num_ues, 2).to(rss.device)
        reason = estimate.reason.reshape(episodes, num_ues).to(rss.device)
        strange = reason == int(Reason.UNFAMILIAR)
        covariance = estimate.covariance
        if covariance is not None:
            covariance = covariance.to(rss.dtype).reshape(episodes, num_ues, 2, 2).to(rss.device)
        answered = (reason == int(Reason.VALID)) | strange
        inside = finished(measurements, position, covariance, answered, (Reason.UNFAMILIAR, strange))
        place = None if estimate.place is None else estimate.place.reshape(episodes, num_ues)
        return FingerprintEstimate(
            inside.position, inside.covariance, inside.valid, inside.reason, place=place, places=estimate.places
        )

    def _locate_table(self, own: OwnSurvey, table: SurveyTable) -> FingerprintEstimate:
        rss, looked_for, ranges = _matched(own, table)
        if ranges is not None:
            check_ranges(ranges, rss.shape)
        spectra = None
        if self.options.compares_spectra and table.angular_power is not None:
            if own.ap_names != table.ap_names:
                raise ValueError(f"{table.file}: with spectra the scans must have the APs of the survey")
            spectra = table.angular_power
        return self._locate_own(own, rss, looked_for, spectra, table.where, ranges)

    def _locate_own(
        self,
        own: OwnSurvey,
        rss: np.ndarray,
        looked_for: np.ndarray,
        aoa: ArrayLike | Tensor | None,
        where: Sequence[str] | None = None,
        range_m: np.ndarray | None = None,
    ) -> FingerprintEstimate:
        if rss.ndim != 2 or rss.shape[1] != own.num_aps:
            raise ValueError(f"rss has shape {rss.shape}; it must be [K, {own.num_aps}], one column per surveyed AP")
        power, left_out = checked_rss(rss, self.options.marks, self.options.bad, where, own.ap_names)
        spectra = _spectra(aoa, len(rss), own.database) if self.options.compares_spectra else None
        return own.locate(
            torch.from_numpy(power),
            torch.from_numpy(left_out),
            torch.from_numpy(looked_for),
            spectra,
            range_m=None if range_m is None else torch.from_numpy(range_m),
        )

    def _database(self, site: RadioMap) -> Database:
        points = reference_points(site.radio.side_m, self.options.spacing, self.options.grid)
        if self.options.database == "model":
            return self._fitting(PredictedDatabase(site, points))
        survey = simulate_survey(site, points, self.options.survey_seed)
        return self._fitting(SurveyedDatabase(survey.positions_m, survey.rss_dbm, survey.angular_power))

    def _simulated(self, site: RadioMap, shadowing_db: float, heard_by: int) -> ErrorModel:
        return simulated_errors(site, self._cache.get(site, self._database), self.options, shadowing_db, heard_by)

    def _fitting(self, database: Database) -> Database:
        options = self.options
        if needs_spectra(options.feature) and not database.has_spectra:
            raise ValueError(f"feature {options.feature!r} needs spectra but the survey has none; use feature='rss-db'")
        if options.matching == "gpr":
            raise ValueError("matching='gpr' is for an own survey; in a game use the policy gpr")
        if options.matching == "wknn" and options.neighbours > len(database):
            raise ValueError(
                f"{options.neighbours} neighbours from {len(database)} points; lower neighbours or spacing"
            )
        return database


def _unpacked(
    measurements: Mapping[str, ArrayLike],
) -> tuple[ArrayLike | None, ArrayLike | None, ArrayLike | None]:
    """Powers, spectra and ranges; None where there are none."""
    unknown = sorted(set(measurements) - {"rss", "aoa", "ranges"})
    if unknown or not {"rss", "ranges"} & set(measurements):
        raise ValueError(
            f"measurements has keys {sorted(measurements)}; it must have 'rss' or 'ranges' and may have 'aoa'"
        )
    return measurements.get("rss"), measurements.get("aoa"), measurements.get("ranges")


def _spectra(aoa: ArrayLike | Tensor | None, users: int, database: Database) -> Tensor:
    surveyed = database.unit_spectra()
    if aoa is None:
        raise ValueError("this estimator compares angular spectra; give aoa, or make it with feature='rss-db'")
    spectra = torch.from_numpy(real_array(aoa, "aoa"))
    spectra = spectra[None] if spectra.ndim == 2 else spectra
    wanted = (users, *surveyed.shape[1:])
    if tuple(spectra.shape) != wanted:
        raise ValueError(f"aoa has shape {tuple(spectra.shape)}; it must be {wanted} (users, APs, beams)")
    return spectra


def _checked_options(options: Mapping[str, Any]) -> FingerprintOptions:
    """Options for reading a survey; if the feature is not given, one that fits all others stands in for it."""
    from ..registry import check_options

    check_options(Fingerprint.name, FingerprintOptions, options)
    return FingerprintOptions(**{"feature": "powed", **options})


def _read(path: str | PathLike[str] | Sequence[str | PathLike[str]], options: FingerprintOptions) -> Survey:
    return survey_from_csv(path, options.layout, options.columns, options.marks, options.bad, options.range_unit)


def _matched(own: OwnSurvey, table: SurveyTable) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """RSS in the order of the survey, found by the names of the APs, which APs were looked for, and ranges."""
    if own.ap_names is None:
        raise ValueError(f"{table.file} names its APs, the survey does not; give the survey ap_names, or arrays only")
    if not set(own.ap_names) & set(table.ap_names):
        raise ValueError(
            f"{table.file} has no AP of the survey: it has {table.ap_names[0]}, ..., the survey {own.ap_names[0]}, "
            f"...; columns={{'rss_{table.ap_names[0]}': ...}} gives it another name"
        )
    return *table.rows_with(own.ap_names), table.ranges_with(own.ap_names)


def _columns_of_game(own: OwnSurvey, num_aps: int, site_names: Sequence[str]) -> list[int]:
    """Which AP of the game every surveyed AP is: that of its name, or of its number.

    Raises:
        ValueError: names that are neither, or numbers that the game has not.
    """
    names = own.ap_names
    if names is None:
        if own.num_aps != num_aps:
            raise ValueError(f"the survey has {own.num_aps} APs, the measurements {num_aps}")
        return list(range(num_aps))
    if site_names and set(names) <= set(site_names):
        return [list(site_names).index(name) for name in names]
    numbers = [ap_number(name) for name in names]
    known = f"0 to {num_aps - 1}" + (f" or {', '.join(site_names)}" if site_names else "")
    if len(set(numbers)) != len(numbers) or min(numbers) < 0 or max(numbers) >= num_aps:
        wrong = next((name for name, number in zip(names, numbers) if not 0 <= number < num_aps), names[0])
        raise ValueError(f"the survey's AP {wrong!r} is none of the game's, which are {known}; rename its column")
    return numbers


def _check_places(positions_m: Tensor, side_m: float) -> None:
    low, high = positions_m.amin(dim=0), positions_m.amax(dim=0)
    if bool((low < -1e-6 * side_m).any() or (high > side_m * (1 + 1e-6)).any()):
        raise ValueError(
            f"the survey's places reach from ({low[0]:.1f}, {low[1]:.1f}) to ({high[0]:.1f}, {high[1]:.1f}) m, the "
            f"area is [0, {side_m:g}] m; shift the survey into the site's coordinates"
        )
