"""Options of ``fingerprint``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import ClassVar

from cfpos_envs.checks import ON_BAD, SEEDS, number
from cfpos_envs.fields import Declared, Range
from cfpos_envs.files.epochs import METRES
from cfpos_envs.files.surveys import LAYOUTS

from .database import GRIDS
from .nearest import DISTANCES, FEATURES, FROM_ZERO, OF_NOT_NEGATIVE, needs_spectra

_MATCHING = ("nn", "wknn", "gpr")
_DATABASES = ("model", "surveyed")
_FUSIONS = ("central", "median")
_MISSING = ("information", "ignored")
_REPEATED = ("average", "keep")
_NOT_NEGATIVE = ("rss-linear", *FROM_ZERO)
"""Features that are never negative, which some distances need."""

_OF_RANGES = ("range", "rss-range")

_WEAKEST_DBM = -200.0


@dataclass(frozen=True)
class FingerprintOptions(Declared):
    """Options of ``fingerprint``.

    Attributes:
        feature: ``rss-db`` or ``rss-linear`` (RSS in dBm or watts); ``positive`` (p = RSS - zero with zero 1 dB below
            the weakest reading), ``powed`` ((p / -zero)^e) or ``exponential`` (exp(p / 24) up to a factor); ``aoa``
            (Xi^a, eq. 8), ``eq7`` (Xi^a / Xi^r, RSS in watts as printed) or ``joint-db`` (the same with RSS in dB);
            over a survey with ranges ``range`` (measured distances) or ``rss-range`` (both, see ``db_per_m``).
        distance: ``euclidean`` or ``manhattan``; for features that are never negative (``rss-linear``, ``positive``,
            ``powed``, ``exponential``) also ``cosine``, ``sorensen``, ``canberra``, ``chi-squared`` or
            ``squared-chord``. None: ``manhattan`` for features with ranges, in which a late first path must not decide
            alone, else ``euclidean``.
        matching: ``nn`` nearest reference, ``wknn`` mean of the ``neighbours`` nearest with weights 1 / distance; over
            an own survey also ``gpr``, Gaussian-process regression of the features, with a covariance.
        neighbours: k of ``wknn``, >= 1.
        spacing: distance eta of neighbouring reference points, metres.
        grid: ``cells`` puts them at cell centres, ``border`` lets the outermost ones lie on the border.
        database: ``model`` predicts the fingerprints from path loss and, where known, the shadowing map;
            ``surveyed`` simulates one noisy measurement per reference point. Neither contains shadowing whose map
            is unknown: a fair survey of a shadowed site needs ``shadowing_known=True`` in the environment.
        survey: file (see ``Fingerprint.from_csv``) to use at every site instead of a database of its own. The number
            in the name of an AP is its index in the game, or the name is that in the site's file.
        survey_seed: seed of the surveyed database.
        fusion: ``central`` compares the fingerprints of all APs at once; ``median`` lets every AP match its own and
            takes the median of their answers.
        layout: of survey files: ``plain``, ``uji`` (UJIIndoorLoc), ``ipin`` (log files of the IPIN competition) or
            ``ftm-feng`` (the Wi-Fi FTM rooms of Feng et al.).
        columns: names in the survey file -> ours, None to pass a column over; one ``*`` in both stands for any text.
        not_heard: numbers in survey and queries that mean that an AP was not heard, besides those of the layout.
        detection_limit_dbm: what is not heard is weaker than this; None: than the AP's weakest reading in the survey.
        missing: ``information``: an AP that was not heard counts as one at its detection limit, in survey and query;
            ``ignored``: it is not compared, as always where ranges are: an exchange that failed says nothing.
        repeated: several scans at one place: ``average`` them or ``keep`` each as a reference.
        db_per_m: dB of power that count as much as a metre of range, for ``rss-range``.
        range_unit: of the ranges in survey files: ``m``, ``cm``, ``mm``, ...; a layout knows its own.
        on_bad: readings that cannot be (0 dBm and more, infinite): ``refuse``, or ``drop`` leaves them out with a
            warning that counts them; None: as the layout says.
    """

    ranges: ClassVar[Mapping[str, Range]] = {
        "neighbours": (1, 1_000_000),
        "spacing": (0.001, 1e5),
        "survey_seed": SEEDS,
        "not_heard": (-1e9, 1e9),
        "detection_limit_dbm": (_WEAKEST_DBM, 0),
        "db_per_m": (1e-6, 1e6),
    }
    choices: ClassVar[Mapping[str, Collection[str]]] = {
        "feature": FEATURES,
        "matching": _MATCHING,
        "grid": GRIDS,
        "database": _DATABASES,
        "fusion": _FUSIONS,
        "layout": tuple(LAYOUTS),
        "missing": _MISSING,
        "repeated": _REPEATED,
        "range_unit": tuple(METRES),
        "distance": DISTANCES,
        "on_bad": ON_BAD,
    }

    feature: str = "joint-db"
    distance: str | None = None
    matching: str = "wknn"
    neighbours: int = 4
    spacing: float = 0.5
    grid: str = "cells"
    database: str = "model"
    survey: str | PathLike[str] | None = None
    survey_seed: int = 0
    fusion: str = "central"
    layout: str = "plain"
    columns: Mapping[str, str | None] | None = None
    not_heard: float | Collection[float] = ()
    detection_limit_dbm: float | None = None
    missing: str = "information"
    repeated: str = "average"
    db_per_m: float = 8.0
    range_unit: str = "m"
    on_bad: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.distance in OF_NOT_NEGATIVE and self.feature not in _NOT_NEGATIVE:
            raise ValueError(
                f"distance={self.distance!r} compares numbers that are not negative; take feature="
                f"{' or '.join(_NOT_NEGATIVE)}"
            )
        if self.distance == "manhattan" and self.compares_spectra:
            raise ValueError(f"feature={self.feature!r} has its own criterion, see there; leave distance out")
        if self.matching == "gpr" and (self.compares_spectra or self.fusion == "median"):
            raise ValueError(
                f"matching='gpr' regresses powers and ranges of all APs at once, not feature={self.feature!r} with "
                f"fusion={self.fusion!r}; use feature='rss-db' and fusion='central'"
            )
        if self.compares_ranges and self.fusion == "median":
            raise ValueError(
                f"fusion='median' takes one reading per AP; feature={self.feature!r} needs fusion='central'"
            )
        columns = self.columns if self.columns is not None else {}
        if not isinstance(columns, Mapping) or any(
            not isinstance(old, str) or not isinstance(new, (str, type(None))) for old, new in columns.items()
        ):
            raise ValueError(f"columns={columns!r} must map names in the file to ours or None, e.g. {{'X': 'x_m'}}")
        marks = self.not_heard if isinstance(self.not_heard, Collection) else (self.not_heard,)
        if isinstance(marks, (str, bytes)):
            raise ValueError(f"not_heard={marks!r} must be a number or several, e.g. 100")
        object.__setattr__(self, "not_heard", tuple(number("not_heard", mark, finite=False) for mark in marks))

    @property
    def marks(self) -> tuple[float, ...]:
        """All numbers that mean that an AP was not heard."""
        assert isinstance(self.not_heard, tuple)
        return (*LAYOUTS[self.layout].not_heard, *self.not_heard)

    @property
    def bad(self) -> str:
        """``on_bad``, or what the layout says."""
        return self.on_bad or LAYOUTS[self.layout].on_bad

    @property
    def metric(self) -> str:
        """``distance``, or what suits the feature."""
        return self.distance or ("manhattan" if self.compares_ranges else "euclidean")

    @property
    def compares_ranges(self) -> bool:
        """Whether the feature uses measured distances."""
        return self.feature in _OF_RANGES

    @property
    def compares_spectra(self) -> bool:
        """Whether the feature uses the angular power."""
        return needs_spectra(self.feature)
