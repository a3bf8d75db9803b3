"""Links that come one by one to positions, each at its own time: ``cfpos locate --filter``."""

from __future__ import annotations

import argparse

import numpy as np

from cfpos.baselines.toa.following import follow_ranges
from cfpos.scripts.cli import UsageError
from cfpos.scripts.locating.calibrating import corrected, stored
from cfpos.scripts.locating.common import Located, checked_names, drawn_site
from cfpos.scripts.locating.links import as_table, heights_of, read, std_of
from cfpos_envs.checks import number
from cfpos_envs.files.epochs import read_links

NAME = "filter"


def located(arguments: argparse.Namespace) -> Located:
    """Read site and links, and follow every user; one position per link.

    Raises:
        UsageError: options that do not fit a filter.
        ValueError: whatever the site, the measurements or the options have that cannot be.
        OSError: a file cannot be read.
    """
    number("--filter", arguments.filter, 0.0, above=True)
    if arguments.window is not None:
        raise UsageError("--filter takes every link at its own time; leave --window out")
    site, links, known = read(arguments, read_links)
    if "range" not in links.links:
        raise UsageError(f"{arguments.measurements.name} has no column range_m; --filter takes ranges")
    checked_names(known, follow_ranges, ("user", "height_diff_m", "ap_height_m"), "--known")
    heights, notes = heights_of(site, arguments.user_height)
    found, lines = stored(arguments, site, "--filter")
    std_m, told = std_of(links, "range", arguments, needed=found is None)
    ranges = links.links["range"]
    if found is not None:
        ranges, std_m = corrected(found, ranges, std_m, links.user)
    rows, aps = np.nonzero(np.isfinite(ranges))
    assert links.time_s is not None
    chosen = links.select(rows)
    assert chosen.time_s is not None
    estimate = follow_ranges(
        site.ap_positions_m.numpy(),
        aps,
        ranges[rows, aps],
        np.asarray(std_m)[rows, aps],
        chosen.time_s,
        user=np.char.add(chosen.user.astype(str), np.char.add("/", chosen.episode.astype(str))),
        acceleration_m_s2=arguments.filter,
        **({} if arguments.policy is None else {"policy": arguments.policy}),
        **{name: value.numpy() if hasattr(value, "numpy") else value for name, value in heights.items()},
        **known,
    )
    table = as_table(estimate, chosen, site, NAME)
    return Located(table, NAME, **drawn_site(site), notes=(*links.notes, *lines, *told, *notes))
