"""Positions from a person's own measurements: a table, a map, and how far the answers can be trusted.

``cfpos locate --site hall.yaml --measurements ranges.csv --policy toa-em --out positions.csv --picture map.png``
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from cfpos.baselines.toa.spatial import SIDES
from cfpos.scripts.cli import Parser, UsageError, user_errors
from cfpos.scripts.locating import csi, following, links, spatial, surveys
from cfpos.scripts.locating.common import Located, in_our_words, spoken
from cfpos.scripts.locating.summary import failure, summary
from cfpos.scripts.plots.positions import positions_figure
from cfpos.scripts.plots.style import check_target, save
from cfpos.scripts.runs import warn
from cfpos_envs.checks import ON_BAD
from cfpos_envs.files.epochs import METRES
from cfpos_envs.files.position_formats import check_format
from cfpos_envs.results import ANSWERS

NO_ANSWER = 1
"""Exit code if no position is valid, or the measurements say that the files cannot be right."""
CSI_SUFFIXES = (".npz", ".h5", ".hdf5", ".mat")


def parser() -> Parser:
    """The command line."""
    top = Parser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    add = top.add_argument
    add("--measurements", type=Path, metavar="FILE", help="table of links, or CSI (.npz, .h5, .mat)")
    add("--site", type=Path, metavar="FILE", help="access points and area: .yaml, .csv or .geojson")
    add("--survey", type=Path, nargs="+", metavar="FILE", help="powers at known places, for --policy fingerprint")
    add("--held-out", type=int, metavar="PARTS", help="locate the scans of --survey, each without its place and device")
    add("--policy", metavar="NAME", help="what locates (by what the file holds); for CSI the folder of a training run")
    add("--out", type=Path, default=Path("positions.csv"), metavar="FILE", help=".csv, .geojson, .npz or .parquet")
    add("--picture", type=Path, metavar="FILE", help="a map: .png, .svg or .pdf")
    add(
        "--columns",
        nargs="+",
        default=[],
        metavar="THEIRS=OURS",
        help="names in the files -> ours; THEIRS= passes over",
    )
    add("--unit", default="m", help=f"of ranges in columns without one: {', '.join(METRES)} (m)")
    add("--missing", type=float, nargs="+", default=[], metavar="NUMBER", help="numbers that mean: not measured")
    add("--sigma", type=float, metavar="M", help="standard deviation of a link in line of sight, metres")
    add("--user-height", type=float, metavar="M", help="of all users, where the site has heights (1.5)")
    add("--without", nargs="+", default=[], metavar="AP", help="access points to leave out")
    add("--window", type=float, metavar="S", help="one line per link: lines within so many seconds are one epoch")
    add("--filter", type=float, metavar="A", help="one line per link: a filter takes each; typical acceleration, m/s^2")
    add("--height", choices=SIDES, help="of users unknown: a fix in space; below or above the APs, if that is known")
    add("--on-bad", default="refuse", choices=ON_BAD, help="ranges that cannot be right: refuse (default) or drop")
    add(
        "--calibrate", metavar="HOW", help="offsets of APs: none, self, labelled, or a calibrated site (the site's own)"
    )
    add("--per-device", action="store_true", help="--calibrate: every user's device has an offset of its own")
    add("--store-site", type=Path, metavar="FILE", help="--calibrate: write the site with what was found, .yaml")
    add("--option", nargs="+", default=[], metavar="KEY=VALUE", help="options of the policy")
    add("--known", nargs="+", default=[], metavar="KEY=VALUE", help="what else is known, e.g. nlos_mean_m=2")
    add("--answers", choices=ANSWERS, default="valid", help="whose errors the summary has: valid (default) or all")
    add("--debug", action="store_true", help="show tracebacks")
    return top


def located(arguments: argparse.Namespace) -> Located:
    """Positions by the kind of the measurements.

    Raises:
        UsageError: neither measurements nor a survey to be held out.
    """
    if arguments.held_out is not None:
        return surveys.held_out_located(arguments)
    if arguments.measurements is None:
        raise UsageError("nothing to locate: say --measurements FILE")
    if arguments.measurements.suffix.lower() in CSI_SUFFIXES:
        return csi.located(arguments)
    if arguments.survey is not None or arguments.policy == "fingerprint":
        return surveys.located(arguments)
    if arguments.filter is not None:
        return following.located(arguments)
    if arguments.height is not None:
        return spatial.located(arguments)
    return links.located(arguments)


def main(argv: Sequence[str] | None = None) -> None:
    """Locate, write, draw, and say how well it went."""
    torch.set_num_threads(1)
    with user_errors("--debug" in (sys.argv[1:] if argv is None else argv)):
        arguments = parser().parse_args(argv)
        check_format(arguments.out)
        if arguments.picture is not None:
            check_target(arguments.picture)
        with warnings.catch_warnings(record=True) as heard, in_our_words():
            warnings.simplefilter("always", UserWarning)
            found = located(arguments)
        notes = dict.fromkeys(f"note: {spoken(str(warning.message))}" for warning in heard)
        lines = [*summary(found, arguments.answers), *notes]
        written = [found.table.write(arguments.out)]
        if arguments.picture is not None:
            title = f"{(arguments.measurements or arguments.survey[0]).name}, {found.method}"
            figure = positions_figure(found.table, found.aps_m, found.ap_names, found.outline_m, title)
            written.append(save(figure, arguments.picture))
        print("\n".join([*lines, *(f"wrote {path}" for path in written)]), flush=True)
        if found.seen is not None and found.seen.any():
            warn(
                f"{found.method} was trained on {int(found.seen.sum())} of the {len(found.seen)} snapshots of "
                f"{arguments.measurements.name}: their errors say nothing of other places; score it by cfpos evaluate"
            )
        if failed := failure(found):
            # The table is there all the same: it says of every row why, and nobody takes an older one for its answer.
            print(f"error: {failed}", file=sys.stderr)
            raise SystemExit(NO_ANSWER)


if __name__ == "__main__":
    main()
