"""``--calibrate``: offsets of a site's access points, from its file, from labels, or from the ranges alone."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

import numpy as np
import torch

from cfpos.baselines import calibrate_ranges
from cfpos.scripts.cli import UsageError
from cfpos_envs.files.calibrated_sites import write_calibrated_site
from cfpos_envs.files.epochs import Epochs
from cfpos_envs.files.sites import SiteFile, load_site
from cfpos_envs.measurements.calibration import METHODS, RangeCalibration


def asked_for(arguments: argparse.Namespace, site: SiteFile) -> bool:
    """Whether ranges will be calibrated, so that nobody has to say how accurate they are."""
    if arguments.calibrate is None:
        return site.calibration is not None
    return bool(arguments.calibrate != "none")


def calibration(
    arguments: argparse.Namespace,
    site: SiteFile,
    epochs: Epochs | None,
    std_m: np.ndarray | None,
    known: dict[str, Any],
) -> tuple[RangeCalibration | None, list[str]]:
    """The calibration of these ranges and the lines to print; None: as they come. No epochs: from a file only.

    Raises:
        UsageError: labels without true places, a file without a calibration or of other APs.
        ValueError: too few epochs.
    """
    how = arguments.calibrate
    if how is None or how == "none":
        found = None if how == "none" else site.calibration
        if arguments.store_site is not None:
            raise UsageError("--store-site keeps what --calibrate self or --calibrate labelled finds; add one of them")
        return found, [] if found is None else [f"ranges are corrected by the calibration that {site.path} holds"]
    if how not in METHODS:
        return _of_file(how, site), [f"ranges are corrected by the calibration that {how} holds"]
    assert epochs is not None
    labels = epochs.truth_m if how == "labelled" else None
    if how == "labelled" and labels is None:
        raise UsageError("--calibrate labelled needs true places: columns truth_x_m and truth_y_m; or use self")
    found = calibrate_ranges(
        site.ap_positions_m,
        epochs.links["range"],
        std_m,
        method=how,
        truth_m=None if labels is None else labels[:, :2] - np.array(site.origin_m),
        devices=epochs.user.tolist() if arguments.per_device else None,
        ap_names=site.ap_names,
        **known,
    )
    lines = found.lines()
    if how == "labelled":
        lines.append("errors are those of the places that the calibration was made from; others will be larger")
    if arguments.store_site is not None:
        lines.append(f"the calibrated site is {write_calibrated_site(site, found, arguments.store_site)}")
    return found, lines


def stored(
    arguments: argparse.Namespace, site: SiteFile, option: str
) -> tuple[RangeCalibration | None, tuple[str, ...]]:
    """The calibration that a file holds, for methods that find none themselves, and the line to print.

    Args:
        arguments, site: of the command.
        option: that chose the method, for messages.

    Raises:
        UsageError: a calibration that has to be found first.
    """
    if arguments.calibrate in METHODS[1:]:
        raise UsageError(
            f"{option} takes a calibration that is known: first --calibrate {arguments.calibrate} --store-site "
            f"FILE.yaml without {option} (links that come one by one: with --window), then --site FILE.yaml"
        )
    found, lines = calibration(arguments, site, None, None, {})
    return found, tuple(lines)


def corrected(
    found: RangeCalibration, range_m: np.ndarray, std_m: np.ndarray, devices: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """[n, M] ranges without their offsets, NaN where nothing positive is left, and [n, M] their standard deviations.

    How well each offset is known is part of these: an epoch cannot tell it from an error of the range.
    """
    told = torch.from_numpy(np.square(std_m).T.copy())
    names = devices.tolist() if found.device_offset_m else None
    ranges, variance = found.corrected(torch.from_numpy(range_m.T.copy()), told, names)
    variance = variance + (found.offset_std_m / found.scale).square()[:, None]
    return torch.where(ranges > 0, ranges, torch.nan).T.numpy(), variance.sqrt().T.numpy()


def _of_file(path: str, site: SiteFile) -> RangeCalibration:
    """The calibration of another file, its APs in the order of the site."""
    try:
        other = load_site(path)
    except ValueError as error:
        if "does not exist" in str(error) or "unknown type" in str(error):
            raise UsageError(f"--calibrate {path} is neither {', '.join(METHODS)} nor a site file") from None
        raise
    if other.calibration is None:
        raise UsageError(f"--calibrate {path}: its APs have no range_offset_m and range_std_m")
    if set(other.ap_names) != set(site.ap_names):
        raise UsageError(f"--calibrate {path} has the APs {', '.join(other.ap_names)}, not {', '.join(site.ap_names)}")
    order = [other.ap_names.index(name) for name in site.ap_names]
    kept = other.calibration
    parts = {name: getattr(kept, name)[order] for name in ("offset_m", "scale", "std_m", "epochs")}
    covariance = kept.offset_covariance_m2[order][:, order]
    return dataclasses.replace(kept, **parts, offset_covariance_m2=covariance, ap_names=site.ap_names)
