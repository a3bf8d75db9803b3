"""Every measured set: the suite's estimators beside scipy and scikit-learn, on the same epochs in the same run."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.patches import Patch

from cfpos.baselines import Fingerprint, calibrate_ranges, locate_ranges, make_policy
from cfpos.baselines.direct import Locator, snapshots_located
from cfpos.baselines.ecc.knn import CsiKnn, KnnOptions
from cfpos.baselines.toa.following import follow_ranges
from cfpos.scripts.cli import UsageError
from cfpos.scripts.experiments.common import Effort, Outcome, progress
from cfpos.scripts.experiments.measured import references
from cfpos_envs.datasets import MeasuredSet, Recording, load_dataset
from cfpos_envs.datasets.base import distances_m
from cfpos_envs.datasets.path_loss import fitted_path_loss
from cfpos_envs.datasets.sample import sample
from cfpos_envs.drawing.figures import OKABE_ITO
from cfpos_envs.measurements.base import PositionEstimate
from cfpos_envs.measurements.calibration import RangeCalibration
from cfpos_envs.measurements.dcp import RadioMeasurements

VARIABLE = "CFPOS_MEASURED"
"""Environment variable with the folder that holds the sets' folders."""
FOLDERS = {
    "feng/lecture_theatre": "ftm_feng",
    "feng/office": "ftm_feng",
    "feng/corridor": "ftm_feng",
    "haiyao/CarPark": "ftm_haiyao",
    "haiyao/Library_every3rd": "ftm_haiyao",
    "lias/8_14": "uwb_lias",
    "lias/8_20": "uwb_lias",
    "hanyang/LOS/Trajectory_B/Case_4": "uwb_hanyang",
    "hanyang/NLOS/Trajectory_B/Case_3": "uwb_hanyang",
    "tetam/set1": "ble_tetam",
    "uji/all": "uji",
    "epic/all": "csi_epic",
}
"""Set -> folder below ``CFPOS_MEASURED``."""
MOST_EPOCHS = 1000
"""Longer test parts of ranges are thinned evenly."""
ROOMS = ("feng/", "haiyao/")
_WALL_M = 1.0
POLICIES = ("rtt-wls", "toa-huber", "toa-em")
COVERED = (0.5, 0.9)
_NOT_HEARD_DBM, _NOT_RANGED_M = -105.0, 60.0


@dataclass(frozen=True)
class Answers:
    """Positions [n, 2] of one method, which it stands by, and their covariances or None."""

    position_m: np.ndarray
    valid: np.ndarray
    covariance_m2: np.ndarray | None = None

    @classmethod
    def of(cls, estimate: PositionEstimate) -> Answers:
        """Of an estimator without the axis of the episode."""
        covariance = estimate.covariance
        return cls(
            estimate.position[..., :2].double().numpy(),
            estimate.valid.numpy(),
            None if covariance is None else covariance[..., :2, :2].double().numpy(),
        )

    def select(self, rows: np.ndarray) -> Answers:
        """Some of them."""
        covariance = None if self.covariance_m2 is None else self.covariance_m2[rows]
        return Answers(self.position_m[rows], self.valid[rows], covariance)

    @classmethod
    def plain(cls, position_m: np.ndarray) -> Answers:
        """Of a library that says nothing about its answers."""
        return cls(position_m, np.isfinite(position_m).all(axis=1))


Method = tuple[str, str, Callable[[], Answers]]
"""Who (``cfpos``, ``scipy``, ``scikit-learn``), what, and how."""


def run(effort: Effort) -> Outcome:
    """All methods on all sets that lie in ``CFPOS_MEASURED``; in quick mode on the made-up sample."""
    rows = []
    for measured in progress(list(sets_of(effort)), "sets"):
        for who, label, answer in methods(measured):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                answers = answer()
            rows.append({"set": measured.name, "by": who, "method": label, **scores(answers, measured)})
    remark = (
        "Metres over all test epochs with three or more links, whether the method stands by its answer or not; "
        "`answered`: share that it calls valid; `in 50 %`, `in 90 %`: share of the valid answers whose stated region "
        f"of that probability holds the truth. At most {MOST_EPOCHS} epochs of a set of ranges, evenly chosen."
    )
    return Outcome(rows, _picture(rows), [remark])


def sets_of(effort: Effort) -> Iterator[MeasuredSet]:
    """The sets with thinned test parts.

    Raises:
        UsageError: nobody says where they are.
    """
    if effort.is_quick:
        yield sample()
        return
    for name, path in found_sets().items():
        yield thinned(load_dataset(name, path))


def found_sets() -> dict[str, Path]:
    """Name -> folder of the sets that are there.

    Raises:
        UsageError: none is.
    """
    folder = Path(os.environ.get(VARIABLE, "measured"))
    found = {name: folder / below for name, below in FOLDERS.items() if (folder / below).is_dir()}
    if not found:
        raise UsageError(
            f"{folder} holds no measured set; get them as docs/measured.md says and set {VARIABLE} to the folder with "
            f"{', '.join(dict.fromkeys(FOLDERS.values()))}"
        )
    return found


def thinned(measured: MeasuredSet) -> MeasuredSet:
    """Of sets with ranges at most ``MOST_EPOCHS`` test epochs, those with enough links."""
    part = measured.test
    if part.range_m is None:
        return measured
    part = part.select((part.range_m > 0).sum(axis=1) >= references.LEAST_LINKS)
    return replace(measured, test=part.select(slice(None, None, -(-len(part) // MOST_EPOCHS))))


def methods(measured: MeasuredSet) -> Iterator[Method]:
    """Everything that can be done with a set."""
    test = measured.test
    if test.range_m is not None:
        yield from _by_ranges(measured)
    if test.csi is not None:
        yield from _by_csi(measured)
    elif test.rss_dbm is not None and measured.range_std_m is None:
        yield from _by_powers(measured)


def scores(answers: Answers, measured: MeasuredSet) -> dict[str, Any]:
    """Errors of all epochs, the share answered, and how often the truth lies where the method says."""
    off = answers.position_m - measured.test.truth_m
    error = np.linalg.norm(off, axis=1)
    error = error[np.isfinite(error)]
    found: dict[str, Any] = {
        "median": float(np.median(error)),
        "mean": float(error.mean()),
        "RMSE": float(np.sqrt((error**2).mean())),
        "p90": float(np.percentile(error, 90)),
        "answered": float(answers.valid.mean()),
    }
    regions = {f"in {100 * share:.0f} %": None for share in COVERED}
    if answers.covariance_m2 is None or not answers.valid.any():
        return {**found, **regions}
    covariance, distance = answers.covariance_m2[answers.valid], off[answers.valid]
    squared = np.einsum("ni,ni->n", distance, np.linalg.solve(covariance, distance[..., None])[..., 0])
    # Chi squared of two degrees of freedom.
    return {
        **found,
        **{f"in {100 * p:.0f} %": float((squared <= -2 * np.log(1 - p)).mean()) for p in COVERED},
    }


def _by_ranges(measured: MeasuredSet) -> Iterator[Method]:
    aps, height, test, train = measured.ap_positions_m, measured.user_height_m, measured.test, measured.train
    assert aps is not None
    assert test.range_m is not None
    assert train.range_m is not None
    for name in POLICIES:
        yield "cfpos", name, partial(_located, measured, name, "none")
    for name in ("rtt-wls", "toa-em"):
        yield "cfpos", f"{name}, calibrate=self", partial(_located, measured, name, "self")
    yield "cfpos", "toa-em, calibrate=labelled on the training part", partial(_labelled, measured)
    area = walls(measured)
    if area is not None:
        room: dict[str, Any] = {"area_m": area, "hold_inside": True}
        for name in ("rtt-wls", "toa-em"):
            yield "cfpos", f"{name} in the room", partial(_located, measured, name, "none", **room)
        yield "cfpos", "toa-em in the room, calibrate=self", partial(_located, measured, "toa-em", "self", **room)
    if test.time_s is not None:
        yield "cfpos", "filter, one range at a time", partial(_followed, measured)
    if area is not None:
        for how in ("none", "self"):
            label = "toa-mmse in the room" + (", calibrate=self" if how == "self" else "")
            yield "cfpos", label, partial(_located, measured, "toa-mmse", how, area_m=area)
    if len({*train.group}) > 1 and measured.name != "sample":
        yield from _by_survey_of_ranges(measured)
    scale_m = 1.0 if measured.range_std_m is None else measured.range_std_m

    def scipy(loss: str, offset_m: np.ndarray | float, within: np.ndarray | None = None) -> Answers:
        assert test.range_m is not None
        ranges = test.range_m - offset_m
        return Answers.plain(references.least_squares_fixes(aps, ranges, height, loss, scale_m, within))

    yield "scipy", "least squares", partial(scipy, "linear", 0.0)
    if area is not None:
        yield "scipy", "least squares in the room", partial(scipy, "linear", 0.0, area)
    yield "scipy", "least squares, soft_l1", partial(scipy, "soft_l1", 0.0)
    labels = np.nanmedian(train.range_m - distances_m(aps, train.truth_m, height), axis=0)
    yield "scipy", "least squares, offsets of the training part's labels", partial(scipy, "linear", labels)


def walls(measured: MeasuredSet) -> np.ndarray | None:
    """Opposite corners of a room: the rectangle around the training places and a metre around it; None out of doors."""
    if not measured.name.startswith(ROOMS):
        return None
    places = measured.train.truth_m
    return np.array([places.min(axis=0) - _WALL_M, places.max(axis=0) + _WALL_M])


def _followed(measured: MeasuredSet) -> Answers:
    """Where the filter sees the user at the last link of every epoch."""
    test = measured.test
    assert measured.ap_positions_m is not None
    assert test.range_m is not None
    assert test.time_s is not None
    rows, aps = np.nonzero(test.range_m > 0)
    found = follow_ranges(
        measured.ap_positions_m,
        aps,
        test.range_m[rows, aps],
        measured.std_m(test)[rows, aps],
        test.time_s[rows],
        user=test.user[rows],
        policy="toa-huber",
        user_height_m=measured.user_height_m,
    )
    last = np.flatnonzero(np.diff(rows, append=-1))
    return Answers.of(found).select(last)


def _located(measured: MeasuredSet, policy: str, calibrate: str | RangeCalibration, **known: Any) -> Answers:
    test = measured.test
    devices = None if calibrate == "none" else test.user.tolist()
    return Answers.of(
        locate_ranges(
            measured.ap_positions_m,
            test.range_m,
            measured.std_m(test),
            policy=policy,
            calibrate=calibrate,
            devices=devices,
            user_height_m=measured.user_height_m,
            on_bad="drop",
            **known,
        )
    )


def _labelled(measured: MeasuredSet) -> Answers:
    train = measured.train
    found = calibrate_ranges(
        measured.ap_positions_m,
        train.range_m,
        measured.std_m(train),
        method="labelled",
        truth_m=train.truth_m,
        devices=train.user.tolist(),
        user_height_m=measured.user_height_m,
        on_bad="drop",
    )
    return _located(measured, "toa-em", found)


def _by_survey_of_ranges(measured: MeasuredSet) -> Iterator[Method]:
    test, train = measured.test, measured.train
    places, _ = train.places()

    def fingerprint(powers: bool, options: dict[str, Any]) -> Answers:
        known, asked = (train.rss_dbm, test.rss_dbm) if powers else (None, None)
        survey = Fingerprint.from_survey(train.truth_m, known, ranges=_positive(train.range_m), **options)
        return Answers.of(survey.locate(asked, ranges=_positive(test.range_m)))

    yield "cfpos", "fingerprint, range", partial(fingerprint, False, {})
    yield "cfpos", "fingerprint, rss-range", partial(fingerprint, True, {})
    yield "cfpos", "gpr, range", partial(fingerprint, False, {"matching": "gpr"})

    def nearest() -> Answers:
        known, asked = _positive(places.range_m), _positive(test.range_m)
        return Answers.plain(references.neighbours(places.truth_m, known, asked, _NOT_RANGED_M))

    yield "scikit-learn", "k nearest ranges", nearest


def _by_powers(measured: MeasuredSet) -> Iterator[Method]:
    test, train = measured.test, measured.train
    rss_dbm = test.rss_dbm
    assert rss_dbm is not None
    assert train.rss_dbm is not None
    labels: dict[str, Any] = {"floors": train.floors, "buildings": train.buildings}
    labels = {name: None if value is None else value.tolist() for name, value in labels.items()}

    def fingerprint(options: dict[str, Any]) -> Answers:
        survey = Fingerprint.from_survey(train.truth_m, train.rss_dbm, on_bad="drop", **labels, **options)
        return Answers.of(survey.locate(rss_dbm))

    yield "cfpos", "fingerprint", partial(fingerprint, {})
    yield "cfpos", "fingerprint, powed, sorensen", partial(fingerprint, {"feature": "powed", "distance": "sorensen"})
    if measured.ap_positions_m is not None:
        away = distances_m(measured.ap_positions_m, train.truth_m, measured.user_height_m)
        law = fitted_path_loss(train.rss_dbm, away)
        powers = measured.powers(
            test,
            rss_at_1m_dbm=law.at_1m_dbm,
            path_loss_slope_db=law.slope_db,
            shadowing_std_db=law.std_db,
            area_m=measured.surveyed_area_m,
        )
        for name in ("rss-mmse", "rss-gn", "centroid"):
            yield "cfpos", name, partial(_of_powers, name, powers)
    places, _ = _heard(train).places()

    def nearest() -> Answers:
        # Coordinates of a map are moved near zero.
        origin = np.floor(places.truth_m.min(axis=0))
        assert places.rss_dbm is not None
        found = references.neighbours(places.truth_m - origin, places.rss_dbm, rss_dbm, _NOT_HEARD_DBM)
        return Answers.plain(origin + found)

    yield "scikit-learn", "k nearest", nearest


def _of_powers(name: str, powers: RadioMeasurements) -> Answers:
    policy = make_policy(name)
    assert isinstance(policy, Locator)
    found = Answers.of(policy.locate(powers))
    covariance = None if found.covariance_m2 is None else found.covariance_m2[0]
    return Answers(found.position_m[0], found.valid[0], covariance)


def _by_csi(measured: MeasuredSet) -> Iterator[Method]:
    test, train = measured.test, measured.train

    def nearest() -> Answers:
        known = measured.snapshots(train)
        policy = CsiKnn(None, KnnOptions(gain_weight=None))
        places = torch.from_numpy(np.pad(train.truth_m, ((0, 0), (0, 1)), constant_values=1.0)).float()
        policy.survey(known.csi[:, 0], known.valid[:, 0], places, known.system)
        return Answers.of(snapshots_located(policy, measured.snapshots(test, system=known.system)))

    yield "cfpos", "csi-knn", nearest
    assert test.csi is not None
    assert train.csi is not None
    known, asked = _features(train), _features(test)
    yield (
        "scikit-learn",
        "k nearest amplitudes and power",
        lambda: Answers.plain(references.neighbours(train.truth_m, known, asked, 0.0)),
    )


def _features(part: Recording) -> np.ndarray:
    assert part.csi is not None
    assert part.rss_dbm is not None
    return references.csi_features(part.csi, part.rss_dbm)


def _positive(range_m: np.ndarray | None) -> np.ndarray:
    assert range_m is not None
    return np.where(range_m > 0, range_m, np.nan)


def _heard(part: Recording) -> Recording:
    """Readings of 0 dBm and more cannot be."""
    assert part.rss_dbm is not None
    return replace(part, rss_dbm=np.where(part.rss_dbm < 0, part.rss_dbm, np.nan))


def _picture(rows: list[dict[str, Any]]) -> Any:
    """Median and 90 % error of every method, one panel per set."""
    names = list(dict.fromkeys(line["set"] for line in rows))
    across = min(3, len(names))
    figure, panels = plt.subplots(
        -(-len(names) // across), across, squeeze=False, figsize=(5.2 * across, 3.1 * -(-len(names) // across)),
        layout="constrained",
    )  # fmt: skip
    colours = {"cfpos": OKABE_ITO[0], "scipy": OKABE_ITO[1], "scikit-learn": OKABE_ITO[1]}
    for axes, name in zip(panels.flat, names):
        lines = [line for line in rows if line["set"] == name]
        places = np.arange(len(lines))
        axes.barh(places, [line["median"] for line in lines], color=[colours[line["by"]] for line in lines])
        axes.plot([line["p90"] for line in lines], places, "k|", markersize=8)
        axes.set_yticks(places, [line["method"] for line in lines], fontsize=6)
        axes.set(title=name, xlabel="median, tick: 90 % [m]")
        axes.title.set_fontsize(8)
        axes.invert_yaxis()
    for axes in panels.flat[len(names) :]:
        axes.axis("off")
    keys = [Patch(color=OKABE_ITO[0], label="cfpos"), Patch(color=OKABE_ITO[1], label="scipy, scikit-learn")]
    figure.legend(handles=keys, loc="outside upper left", ncols=2, fontsize=8)
    return figure
