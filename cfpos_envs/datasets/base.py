"""What a measured data set is made of: recordings with true places, split by place or by walk, and where it is from."""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Complex, Float, Shaped

from cfpos_envs.files.epochs import Epochs
from cfpos_envs.files.surveys import SurveyTable
from cfpos_envs.importers.arrays import scaled_to_rssi
from cfpos_envs.measurements.arrays import std_table
from cfpos_envs.measurements.dcp import RadioMeasurements
from cfpos_envs.measurements.ecc import CsiMeasurements
from cfpos_envs.measurements.toa import TimingMeasurements

REPORTED = "reported"
"""In place of a standard deviation: the one that the devices have reported with every range."""
_AROUND_M = 0.5
# Direction of arrays of one antenna.
_BROADSIDE = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Source:
    """Where a set comes from.

    Attributes:
        title: of the set.
        url: where it is published.
        licence: as stated there.
        truth: how the true places are known.
    """

    title: str
    url: str
    licence: str
    truth: str


@dataclass(frozen=True)
class Recording:
    """n epochs (or scans) at known places; NaN where a link was not measured, None where the set has no such quantity.

    Attributes:
        truth_m: [n, 2] true places.
        group: [n] what belongs together and is never split: a place, a lap of a walk, a drive.
        user: [n] which tag or phone.
        range_m: [n, M] measured distances, as the devices gave them: near an AP they may be negative.
        std_m: [n, M] standard deviations that the devices reported; NaN where they reported none.
        rss_dbm: [n, M] received powers.
        csi: [n, M, N] channel frequency responses, subcarriers ascending.
        time_s: [n].
        floors, buildings: [n] labels.
    """

    truth_m: Float[np.ndarray, "n 2"]
    group: Shaped[np.ndarray, " n"]
    user: Shaped[np.ndarray, " n"]
    range_m: Float[np.ndarray, "n M"] | None = None
    std_m: Float[np.ndarray, "n M"] | None = None
    rss_dbm: Float[np.ndarray, "n M"] | None = None
    csi: Complex[np.ndarray, "n M N"] | None = None
    time_s: Float[np.ndarray, " n"] | None = None
    floors: Shaped[np.ndarray, " n"] | None = None
    buildings: Shaped[np.ndarray, " n"] | None = None

    def __len__(self) -> int:
        """Number of epochs."""
        return len(self.truth_m)

    def select(self, rows: np.ndarray | slice) -> Recording:
        """Some epochs only."""
        kept: dict[str, Any] = {name: None if value is None else value[rows] for name, value in vars(self).items()}
        return Recording(**kept)

    def joined(self, other: Recording) -> Recording:
        """Both, one after the other; what one of them lacks is left out."""
        pairs = {name: (value, getattr(other, name)) for name, value in vars(self).items()}
        both: dict[str, Any] = {
            name: None if one is None or two is None else np.concatenate((one, two))
            for name, (one, two) in pairs.items()
        }
        return Recording(**both)

    def places(self) -> tuple[Recording, Shaped[np.ndarray, " n"]]:
        """One epoch per true place (and floor), each number the mean over those measured there, and [n] which place.

        CSI is not averaged: phases of packets do not belong together.
        """
        keys = [self.truth_m, *([] if self.floors is None else [_numbered(self.floors)[:, None]])]
        _, first, which = np.unique(np.concatenate(keys, axis=1), axis=0, return_index=True, return_inverse=True)
        which = which.ravel()
        means: dict[str, Any] = {}
        for name in ("range_m", "std_m", "rss_dbm"):
            values = getattr(self, name)
            means[name] = None if values is None else _group_means(values, which, len(first))
        kept = dataclasses.replace(self, range_m=None, std_m=None, rss_dbm=None, csi=None, time_s=None).select(first)
        return dataclasses.replace(kept, **means), which

    def epochs(self) -> Epochs:
        """As ``read_epochs`` gives them: groups are the recordings."""
        links = {"range": self.range_m, "std": self.std_m, "rss": self.rss_dbm}
        return Epochs(
            user=self.user,
            epoch=np.arange(len(self)).astype(str),
            episode=_numbered(self.group),
            time_s=self.time_s,
            links={name: values for name, values in links.items() if values is not None},
            truth_m=self.truth_m,
            notes=(),
        )


@dataclass(frozen=True)
class MeasuredSet:
    """One scene of a measured data set: training and test share no place (or no walk).

    Attributes:
        name: layout and scene, ``feng/office``.
        source: where it comes from.
        ap_names: M names.
        ap_positions_m: [M, 2], or [M, 3] with heights; None: the set does not say.
        user_height_m: of tag or phone, where APs have heights.
        range_std_m: what ranges of this kind scatter by in line of sight, for estimators that must be told.
        train, test: the two parts.
        csi_hz: carrier and spacing of the subcarriers of ``csi``.
        notes: what was left out or assumed, for people.
    """

    name: str
    source: Source
    ap_names: tuple[str, ...]
    ap_positions_m: Float[np.ndarray, "M D"] | None
    user_height_m: float | None
    range_std_m: float | None
    train: Recording
    test: Recording
    csi_hz: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()

    @property
    def surveyed_area_m(self) -> tuple[tuple[float, float], ...]:
        """Corners of the rectangle around the places of the training part, half a metre wider on every side."""
        low, high = self.train.truth_m.min(axis=0) - _AROUND_M, self.train.truth_m.max(axis=0) + _AROUND_M
        corners = ((low[0], low[1]), (high[0], low[1]), (high[0], high[1]), (low[0], high[1]))
        return tuple((float(x), float(y)) for x, y in corners)

    def std_m(self, part: Recording, std_m: float | str | None = None) -> Float[np.ndarray, "n M"]:
        """[n, M] standard deviations of the ranges of a part.

        Args:
            part: ``train`` or ``test``, or some epochs of them.
            std_m: a number for all, None for ``range_std_m``, ``"reported"`` for what the devices reported; where they
                reported none, or zero, ``range_std_m``.

        Raises:
            ValueError: the set has no ranges, or nothing was reported.
        """
        ranges = self._ranges(part)
        usual = self.range_std_m
        assert usual is not None
        if isinstance(std_m, str):
            if std_m != REPORTED or part.std_m is None:
                raise ValueError(
                    f"std_m={std_m!r}: {self.name} "
                    + ("reports no standard deviations" if std_m == REPORTED else f"takes a number or {REPORTED!r}")
                )
            return np.where(part.std_m > 0, part.std_m, usual)
        return std_table("std_m", usual if std_m is None else std_m, torch.from_numpy(ranges)).numpy()

    def ranges(
        self, part: Recording, std_m: float | str | None = None, family: str = "rtt", **known: Any
    ) -> TimingMeasurements:
        """Ranges of a part as the estimators take them; such as are not positive are left out.

        Args:
            part, std_m: as in ``std_m``.
            family, known: see ``TimingMeasurements.from_arrays``.

        Raises:
            ValueError: the set has no ranges, or as there.
        """
        known = {"on_bad": "drop", "user_height_m": self.user_height_m, **known}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "range_m: left out")
            return TimingMeasurements.from_arrays(
                self.ap_positions_m, self._ranges(part), self.std_m(part, std_m), family=family, **known
            )

    def powers(self, part: Recording, **known: Any) -> RadioMeasurements:
        """Powers of a part as the estimators take them; ``known`` as in ``RadioMeasurements.from_arrays``.

        Raises:
            ValueError: the set has no powers or no places of its access points.
        """
        if part.rss_dbm is None or self.ap_positions_m is None:
            raise ValueError(f"{self.name} has no powers of access points at known places; use survey()")
        known = {"user_height_m": self.user_height_m, **known}
        return RadioMeasurements.from_arrays(self.ap_positions_m, part.rss_dbm, **known)

    def survey(self, part: Recording) -> SurveyTable:
        """Powers of a part with their places, for fingerprints.

        Raises:
            ValueError: the set has no powers.
        """
        if part.rss_dbm is None:
            raise ValueError(f"{self.name} has no powers; fingerprints of them need some")
        return SurveyTable(
            file=self.name,
            where=tuple(f"{self.name}, epoch {row}" for row in range(len(part))),
            ap_names=self.ap_names,
            rss_dbm=part.rss_dbm,
            positions_m=part.truth_m,
            floors=None if part.floors is None else tuple(part.floors.tolist()),
            buildings=None if part.buildings is None else tuple(part.buildings.tolist()),
            ids=tuple(part.user.tolist()),
            time_s=part.time_s,
        )

    def snapshots(self, part: Recording, **known: Any) -> CsiMeasurements:
        """CSI of a part, scaled to the received powers; access points whose places the set does not tell are at zero.

        Raises:
            ValueError: the set has no CSI.
        """
        if part.csi is None or self.csi_hz is None:
            raise ValueError(f"{self.name} has no CSI")
        count = len(self.ap_names)
        places = np.zeros((count, 3)) if self.ap_positions_m is None else self.ap_positions_m
        corners = np.concatenate((self.train.truth_m, self.test.truth_m))
        area = [(*(corners.min(axis=0) - 1.0), 0.0), (*(corners.max(axis=0) + 1.0), 2.0)]
        known = {"carrier_hz": self.csi_hz[0], "subcarrier_spacing_hz": self.csi_hz[1], "area_m": area, **known}
        csi = part.csi[:, :, None, :]
        if part.rss_dbm is not None:
            heard = np.isfinite(csi).all(axis=(-2, -1)) & np.isfinite(part.rss_dbm)
            csi = scaled_to_rssi(csi[:, :, None], heard, part.rss_dbm)[:, :, 0]
        return CsiMeasurements.from_arrays(csi, places, [_BROADSIDE] * count, **known)

    def _ranges(self, part: Recording) -> np.ndarray:
        if part.range_m is None or self.ap_positions_m is None or self.range_std_m is None:
            raise ValueError(f"{self.name} has no ranges to access points at known places")
        return part.range_m


def distances_m(
    ap_positions_m: Float[np.ndarray, "M D"], truth_m: Float[np.ndarray, "n 2"], user_height_m: float | None = None
) -> Float[np.ndarray, "n M"]:
    """True distances, in space where the heights of APs and users are known."""
    flat = np.linalg.norm(truth_m[:, None] - ap_positions_m[None, :, :2], axis=2)
    if ap_positions_m.shape[1] == 2 or user_height_m is None:
        return flat
    return np.hypot(flat, ap_positions_m[:, 2] - user_height_m)


def _numbered(labels: np.ndarray) -> np.ndarray:
    """Labels as numbers by their first appearance."""
    order = {label: number for number, label in enumerate(dict.fromkeys(labels.tolist()))}
    return np.array([order[label] for label in labels.tolist()], dtype=np.int64)


def _group_means(values: np.ndarray, which: np.ndarray, count: int) -> np.ndarray:
    """Means by group of what is not NaN."""
    there = np.isfinite(values)
    total, number = np.zeros((count, values.shape[1])), np.zeros((count, values.shape[1]))
    np.add.at(total, which, np.where(there, values, 0.0))
    np.add.at(number, which, there)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)
