"""How well a survey locates where it was not taken: every scan from the scans of other places and other devices.

Options are chosen by this on the survey alone, and never on the scans that are to be located. Random neighbours would
not do: scans of one place lie in both parts then, and every option that finds a scan's twin looks good.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import torch

from cfpos_envs.checks import whole
from cfpos_envs.files.surveys import SurveyTable
from cfpos_envs.measurements.base import Reason

from .fingerprint_options import FingerprintOptions
from .floors import FingerprintEstimate
from .own_survey import OwnSurvey, natural_feature
from .survey import Survey, survey_from_table


def held_out(table: SurveyTable, folds: int = 5, seed: int = 0, **options: Any) -> FingerprintEstimate:
    """Positions of a survey's own scans, each from scans of other places and, where devices are known, other devices.

    The places are drawn into ``folds`` parts, the devices into as many (or one each). A scan is located by the survey
    without all places of its part and without all devices of its part.

    Args:
        table: from ``read_survey``.
        folds: parts, 2 or more; at most as many as there are places.
        seed: of the draw.
        options: of ``fingerprint``.

    Returns:
        Answers in the order of the table.

    Raises:
        ValueError: fewer places than parts, or whatever ``Fingerprint.from_survey`` refuses.
    """
    whole("folds", folds, 2)
    natural: dict[str, Any] = {"feature": "powed", **options}
    survey = survey_from_table(table, FingerprintOptions(**natural).bad)
    chosen = FingerprintOptions(**{"feature": natural_feature(survey), **options})
    if len(survey.positions_m) != len(table):
        raise ValueError(f"{table.file}: rows without a place cannot be held out; leave them out of the file")
    rng = np.random.default_rng(seed)
    places = parts_of(survey.positions_m.numpy(), folds, rng)
    if places is None:
        raise ValueError(f"{table.file} has fewer than {folds} places; hold out fewer parts")
    devices = None if table.devices is None else parts_of(np.array(table.devices), folds, rng)
    found = _Answers(len(table))
    for place, device in itertools.product(range(folds), range(1 if devices is None else int(devices.max()) + 1)):
        asked = places == place if devices is None else (places == place) & (devices == device)
        known = places != place if devices is None else (places != place) & (devices != device)
        if not asked.any():
            continue
        if not known.any():
            raise ValueError(f"{table.file}: the places of one device have no other; hold out fewer parts")
        found.add(asked, OwnSurvey(_part(survey, known), chosen), survey)
    return found.estimate(labelled=survey.floors is not None or survey.buildings is not None)


def parts_of(values: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray | None:
    """Part of every row, the same for equal rows; None where there are fewer different rows than parts.

    One part a value where there are fewer than twice as many values as parts.
    """
    different, member = np.unique(values, axis=0, return_inverse=True)
    if len(different) < 2 or (values.ndim > 1 and len(different) < folds):
        return None
    part = np.arange(len(different)) % min(folds, len(different))
    return rng.permutation(part)[member.ravel()]


class _Answers:
    """Answers to some rows after the other."""

    def __init__(self, count: int) -> None:
        self._position = torch.full((count, 2), torch.nan, dtype=torch.float64)
        self._valid = torch.zeros(count, dtype=torch.bool)
        self._reason = torch.full((count,), int(Reason.TOO_FEW_LINKS))
        self._place = torch.full((count,), -1)
        self._number: dict[tuple[str | None, str | None], int] = {}

    def add(self, asked: np.ndarray, own: OwnSurvey, survey: Survey) -> None:
        rows = torch.from_numpy(np.flatnonzero(asked))
        part = _part(survey, asked)
        answer = own.locate(part.rss_dbm, part.unknown, None, part.angular_power, range_m=part.range_m)
        self._position[rows], self._valid[rows] = answer.position, answer.valid
        if answer.reason is not None:
            self._reason[rows] = answer.reason.long()
        if answer.place is not None:
            numbers = [self._number.setdefault(pair, len(self._number)) for pair in answer.places]
            self._place[rows] = torch.tensor([*numbers, -1])[answer.place]

    def estimate(self, labelled: bool) -> FingerprintEstimate:
        return FingerprintEstimate(
            self._position,
            None,
            self._valid,
            self._reason,
            place=self._place if labelled else None,
            places=tuple(self._number),
        )


def _part(survey: Survey, rows: np.ndarray) -> Survey:
    """Some of the scans."""
    chosen = torch.from_numpy(np.flatnonzero(rows))
    values: dict[str, Any] = {}
    for entry in dataclasses.fields(Survey):
        value = getattr(survey, entry.name)
        if isinstance(value, torch.Tensor):
            values[entry.name] = value[chosen]
        elif entry.name in ("floors", "buildings") and value is not None:
            values[entry.name] = tuple(value[row] for row in chosen.tolist())
    return dataclasses.replace(survey, **values)
