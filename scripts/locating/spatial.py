"""Ranges to positions in space, where nobody knows the height of the users: ``cfpos locate --height``."""

from __future__ import annotations

import argparse

import numpy as np

from cfpos.baselines.toa.spatial import locate_ranges_in_space
from cfpos.scripts.cli import UsageError
from cfpos.scripts.locating.calibrating import corrected, stored
from cfpos.scripts.locating.common import Located, checked_names, drawn_site
from cfpos.scripts.locating.links import as_table, read, std_of

NAME = "ranges in space"


def located(arguments: argparse.Namespace) -> Located:
    """Read site and ranges, and locate in space; heights are in the frame of the site's.

    Raises:
        UsageError: a site without heights, a height that is said twice.
        ValueError: whatever the site, the measurements or the options have that cannot be.
        OSError: a file cannot be read.
    """
    if arguments.user_height is not None:
        raise UsageError(f"--user-height {arguments.user_height:g} is known; leave --height {arguments.height} out")
    if arguments.policy is not None:
        raise UsageError(f"--policy {arguments.policy} answers in the plane; leave it or --height out")
    site, epochs, known = read(arguments)
    if "range" not in epochs.links:
        raise UsageError(f"{arguments.measurements.name} has no ranges, which --height needs")
    if site.ap_height_m is None:
        raise UsageError(f"--height needs heights of the APs; {site.path} has none (height_m)")
    checked_names(known, locate_ranges_in_space, ("side",), "--known")
    found, lines = stored(arguments, site, "--height")
    std_m, told = std_of(epochs, "range", arguments, needed=found is None)
    ranges = epochs.links["range"]
    if found is not None:
        ranges, std_m = corrected(found, ranges, std_m, epochs.user)
    places = np.column_stack((site.ap_positions_m.numpy(), site.ap_height_m.numpy()))
    estimate = locate_ranges_in_space(places, ranges, std_m, side=arguments.height, **known)
    table = as_table(estimate, epochs, site, NAME)
    assert estimate.mirror_m is not None
    beyond = np.nanmedian(estimate.mirror_m[:, 2].numpy())
    notes = [f"the other side of the APs explains the ranges best at a height of {beyond:.2f} m (median)"]
    return Located(table, NAME, **drawn_site(site), notes=(*epochs.notes, *lines, *told, *notes))
