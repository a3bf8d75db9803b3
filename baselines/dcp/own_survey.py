"""A person's own survey as a database, and the answers to own scans.

What was not heard is information: the reading lies below the AP's detection limit. An AP that was not heard counts, in
survey and query alike, as one that was heard at that limit. The Euclidean distance between two fingerprints is then the
smallest that the true readings can have. The limit of an AP is its weakest reading in the survey, unless it is told;
an AP that was heard at every place says nothing about its limit, and is left out for users who did not hear it.
"""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs.measurements.base import Reason, first_reason
from cfpos_envs.physics.geometry import nearest_image

from ..neighbour_errors import LEAST_PLACES, ErrorModel, nearest_spacing_m, probes
from .database import SurveyedDatabase
from .fingerprint_options import FingerprintOptions
from .floors import FingerprintEstimate, grouped
from .matching import Labels, LeftOut, Matched, locate_by_matching
from .nearest import FROM_ZERO, Queries
from .ranged import doubled, ranged, readings
from .survey import Survey
from .survey_regression import SurveyRegression


class OwnSurvey:
    """References made from a survey.

    Args:
        survey: several scans per place are averaged or kept, see ``FingerprintOptions.repeated``.
        options: of the estimator.

    Raises:
        ValueError: no spectra, ranges or powers although the feature needs them, or fewer points than ``neighbours``.
    """

    def __init__(self, survey: Survey, options: FingerprintOptions) -> None:
        self.options, self.ap_names = options, survey.ap_names
        if options.compares_spectra and survey.angular_power is None:
            raise ValueError(f"feature {options.feature!r} needs spectra but the survey has none; use feature='rss-db'")
        self.num_aps = survey.rss_dbm.shape[1]
        if options.compares_ranges:
            survey = ranged(survey, options)
        elif not torch.isfinite(survey.rss_dbm).any():
            raise ValueError(
                f"feature {options.feature!r} compares powers but the survey has none; use feature='range'"
            )
        limit_dbm = None if options.compares_ranges else options.detection_limit_dbm
        self.limits_dbm = detection_limits_dbm(survey, limit_dbm)
        heard = survey.rss_dbm[torch.isfinite(survey.rss_dbm)]
        zero_dbm = float(heard.min()) - 1.0
        if options.feature in FROM_ZERO:
            # Not heard is the zero of this scale.
            self.limits_dbm = torch.where(torch.isfinite(self.limits_dbm), zero_dbm, self.limits_dbm)
        self._known = torch.isfinite(survey.rss_dbm).any(dim=0)
        silent = torch.full_like(self.limits_dbm, torch.nan) if options.compares_ranges else self.limits_dbm
        points = averaged(survey, silent) if options.repeated == "average" else survey
        # Users send single scans: what these differ by tells errors, not what averages do.
        self.survey, self._scans = points, survey
        if options.matching == "wknn" and options.neighbours > len(points.positions_m):
            raise ValueError(
                f"{options.neighbours} neighbours from {len(points.positions_m)} points; lower neighbours or spacing"
            )
        rss = torch.where(torch.isfinite(points.rss_dbm), points.rss_dbm, self.limits_dbm)
        # An AP nobody heard is never compared; any number will do.
        rss = torch.where(self._known, rss, zero_dbm)
        limits = torch.where(torch.isfinite(self.limits_dbm), self.limits_dbm, zero_dbm)
        self.database = SurveyedDatabase(points.positions_m, rss, points.angular_power, zero_dbm, limits)
        self._regression = None
        if options.matching == "gpr":
            self._regression = SurveyRegression(self.database, self._known, options)
        groups = grouped(points.buildings, points.floors)
        self._labels = None if groups is None else Labels(groups[0], len(groups[1]))
        self._places = () if groups is None else groups[1]
        self._errors: dict[tuple[float, bool], ErrorModel | None] = {}

    def locate(
        self,
        rss_dbm: Float[Tensor, "Q M"],
        left_out: Bool[Tensor, "Q M"] | None = None,
        looked_for: Bool[Tensor, " M"] | None = None,
        spectra: Float[Tensor, "Q M L"] | None = None,
        side_m: float = 1.0,
        wrap: bool = False,
        range_m: Float[Tensor, "Q M"] | None = None,
    ) -> FingerprintEstimate:
        """Positions of Q users, in double precision; invalid where no surveyed AP was heard, or nothing is alike.

        Args:
            rss_dbm: NaN where an AP was not heard.
            left_out: readings that cannot be and are not compared.
            looked_for: APs that the users could have heard; the others are not compared. None: all.
            spectra: for features that need them.
            side_m, wrap: the torus, if the positions lie on one.
            range_m: measured distances, for features that need them.

        Raises:
            ValueError: a feature of ranges, but no ranges.
        """
        if self.options.compares_ranges:
            if range_m is None:
                raise ValueError("this estimator compares ranges; give ranges, or make it with feature='rss-db'")
            rss_dbm = readings(rss_dbm, range_m, self.options)
            left_out = None if left_out is None else doubled(left_out, self.options)
            looked_for = None if looked_for is None else doubled(looked_for, self.options)
        usable = self._known if looked_for is None else self._known & looked_for
        usable = usable.expand(rss_dbm.shape) if left_out is None else usable & ~left_out
        compared, valid = self._compared(rss_dbm, usable, spectra)
        found = self._match(rss_dbm, compared, spectra, side_m, wrap)
        errors = self.errors(side_m, wrap)
        position, covariance, strange = found.position_m, None, torch.zeros_like(valid)
        if errors is not None:
            covariance = errors.covariance_m2(found.made_of)
            strange = errors.strange(found.made_of) & valid
        if self._regression is not None:
            # Floors are voted on by the nearest places as ever.
            position, covariance = self._regression.predict(self._filled(rss_dbm), compared)
        if covariance is not None:
            # Nobody knows more about those whom no AP heard than where the survey is.
            covariance[~valid] = torch.cov(self.database.positions_m.double().mT, correction=0)
        spoilt = torch.zeros_like(valid) if left_out is None else left_out.any(dim=-1)
        reason = first_reason(
            valid & ~strange,
            (Reason.BAD_INPUT, spoilt),
            (Reason.TOO_FEW_LINKS, ~valid),
            (Reason.UNFAMILIAR, strange),
        )
        return FingerprintEstimate(
            position,
            covariance,
            valid & ~strange,
            reason,
            place=None if self._labels is None else found.group,
            places=self._places,
        )

    def errors(self, side_m: float = 1.0, wrap: bool = False) -> ErrorModel | None:
        """What the survey's own scans say about errors, each located from other places; computed once.

        None: too few places to say anything.

        Args:
            side_m, wrap: the torus, if the positions lie on one.
        """
        key = (side_m if wrap else 1.0, wrap)
        if key not in self._errors:
            self._errors[key] = self._learn_errors(side_m, wrap)
        return self._errors[key]

    def _learn_errors(self, side_m: float, wrap: bool) -> ErrorModel | None:
        scans, references = self._scans, self.database.positions_m
        places, member = torch.cat((references, scans.positions_m)).unique(dim=0, return_inverse=True)
        if len(places) < LEAST_PLACES + 1:
            return None
        known, asked = member[: len(references)], probes(len(scans.positions_m))
        usable = self._known.expand(scans.rss_dbm.shape)
        if scans.unknown is not None:
            usable = usable & ~scans.unknown
        rss, spectra = scans.rss_dbm[asked], scans.angular_power
        chosen = None if spectra is None or not self.options.compares_spectra else spectra[asked]
        compared, heard = self._compared(rss, usable[asked], chosen)
        barred = LeftOut(known, member[len(references) :][asked], int(known.bincount().max()))
        found = self._match(rss, compared, chosen, side_m, wrap, barred)
        counts = heard & torch.isfinite(found.position_m).all(dim=-1) & torch.isfinite(found.made_of.strangeness)
        error = nearest_image(found.position_m - scans.positions_m[asked], side_m, wrap)
        spacing = nearest_spacing_m(places, side_m, wrap)
        return ErrorModel.of(found.made_of.select(counts.nonzero().squeeze(-1)), error[counts], spacing)

    def _compared(self, rss_dbm: Tensor, usable: Tensor, spectra: Tensor | None) -> tuple[Tensor, Tensor]:
        """APs to compare [Q, M], and users whom at least one heard."""
        heard = torch.isfinite(rss_dbm) & usable
        compared = heard.clone()
        says_something = self.options.missing == "information" and not self.options.compares_ranges
        if says_something and not self.options.compares_spectra:
            compared |= ~torch.isfinite(rss_dbm) & usable & torch.isfinite(self.limits_dbm)
        if spectra is not None:
            compared &= torch.isfinite(spectra).all(dim=-1) & (spectra.sum(dim=-1) > 0)
            heard &= compared
        valid = heard.any(dim=-1)
        # Silence of every AP is no fingerprint: it is everywhere outside, too.
        return compared & valid[:, None], valid

    def _filled(self, rss_dbm: Tensor) -> Tensor:
        """With detection limits where nothing was heard."""
        return torch.where(torch.isfinite(rss_dbm), rss_dbm, self.limits_dbm).to(self.database.rss_dbm.dtype)

    def _match(
        self,
        rss_dbm: Tensor,
        compared: Tensor,
        spectra: Tensor | None,
        side_m: float,
        wrap: bool,
        left_out: LeftOut | None = None,
    ) -> Matched:
        queries = Queries(self._filled(rss_dbm), spectra)
        return locate_by_matching(self.database, queries, compared, self.options, side_m, wrap, self._labels, left_out)


def natural_feature(survey: Survey) -> str:
    """The feature that compares all that a survey has: spectra and powers, powers and ranges, or what there is."""
    if survey.angular_power is not None:
        return "joint-db"
    if survey.range_m is None:
        return "rss-db"
    return "rss-range" if bool(torch.isfinite(survey.rss_dbm).any()) else "range"


def detection_limits_dbm(survey: Survey, limit_dbm: float | None = None) -> Float[Tensor, " M"]:
    """What an AP that was not heard is weaker than; NaN for APs that were heard at every place.

    Args:
        survey: scans before any averaging.
        limit_dbm: the limit of all APs if it is known; None takes the weakest reading of each.
    """
    heard = torch.isfinite(survey.rss_dbm)
    if limit_dbm is not None:
        return torch.full((heard.shape[1],), limit_dbm, dtype=survey.rss_dbm.dtype)
    weakest = torch.where(heard, survey.rss_dbm, torch.inf).amin(dim=0)
    known = heard if survey.unknown is None else heard | survey.unknown
    return torch.where(known.all(dim=0) | ~heard.any(dim=0), torch.nan, weakest)


def averaged(survey: Survey, limits_dbm: Float[Tensor, " M"]) -> Survey:
    """One row per place (and floor and building): the mean over its scans.

    Where some scans heard an AP and some did not, the latter count with its limit: the mean of those that heard it
    would make a place at the edge of coverage look like one inside.

    Args:
        survey: scans.
        limits_dbm: of every AP.
    """
    groups = grouped(survey.buildings, survey.floors)
    label = survey.positions_m.new_zeros(len(survey.positions_m)) if groups is None else groups[0].double()
    key = torch.cat([survey.positions_m.double(), label[:, None]], dim=-1)
    unique, member = key.unique(dim=0, return_inverse=True)
    if len(unique) == len(key):
        return survey
    count, first = len(unique), torch.full((len(unique),), len(key), dtype=torch.long)
    first = first.scatter_reduce(0, member, torch.arange(len(key)), "amin")
    # Places keep the order of their first scans.
    order = first.argsort()
    rank = torch.empty_like(order)
    rank[order] = torch.arange(count)
    member, first = rank[member], first[order]

    def summed(values: Tensor) -> Tensor:
        return values.new_zeros(count, *values.shape[1:]).index_add_(0, member, values)

    heard = torch.isfinite(survey.rss_dbm)
    silent = ~heard & torch.isfinite(limits_dbm)
    if survey.unknown is not None:
        silent &= ~survey.unknown
    ever = summed(heard.double()) > 0
    value = torch.where(heard, survey.rss_dbm, torch.where(silent, limits_dbm, 0.0))
    rss = summed(value) / summed((heard | silent).to(value.dtype)).clamp(min=1.0)
    spectra = survey.angular_power
    if spectra is not None:
        spectra = summed(torch.nn.functional.normalize(spectra, dim=-1))

    def labels(column: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if column is None else tuple(column[row] for row in first.tolist())

    return dataclasses.replace(
        survey,
        positions_m=survey.positions_m[first],
        rss_dbm=torch.where(ever, rss, torch.nan),
        angular_power=spectra,
        unknown=None,
        floors=labels(survey.floors),
        buildings=labels(survey.buildings),
    )
