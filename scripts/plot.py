"""Pictures for people: maps of the position error bound, TDOA hyperbolae, error ellipses, distributions, episodes.

``python scripts/plot.py peb-map --aps 16 --family tdoa --out map.png``; the ending chooses PNG, SVG or PDF.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from cfpos.scripts.cli import Parser, UsageError, suggest, user_errors
from cfpos.scripts.plots import ellipses, loci, maps, results
from cfpos.scripts.plots.sites import LAYOUTS, DrawnSiteConfig, Site, make_site
from cfpos.scripts.plots.style import check_target, coordinate, metres, save
from cfpos_envs.files.site_formats import SITE_SUFFIXES
from cfpos_envs.files.sites import load_site
from cfpos_envs.physics.toa.ranging import FAMILIES, SYNC_PRESETS
from cfpos_envs.results import ANSWERS

PRESETS: dict[str, DrawnSiteConfig] = {"site": DrawnSiteConfig(), "ring": maps.RING}
_LOCI = DrawnSiteConfig(family="tdoa", layout="circle", aps=3)
_FEWEST_STEPS, _MOST_STEPS = 4, 4000
_DRAWN_ONLY = ("layout", "aps", "side_m", "radius_m", "seed")


def one_of(names: Sequence[str]) -> Callable[[str], str]:
    """A type for argparse that refuses other names with the nearest of these."""

    def check(value: str) -> str:
        if value not in names:
            raise argparse.ArgumentTypeError(f"{value!r} is unknown: {suggest(value, names)}")
        return value

    return check


def number_or_name(value: str) -> int | str:
    """A type for argparse: an index if it is a whole number, else a name."""
    return int(value) if value.removeprefix("-").isdecimal() else value


def parser() -> Parser:
    """The command line."""
    top = Parser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    top.add_argument("--debug", action="store_true", help="show tracebacks")
    kinds = top.add_subparsers(dest="kind", required=True, metavar="KIND", parser_class=Parser)

    def kind(name: str, text: str) -> Parser:
        made: Parser = kinds.add_parser(name, help=text, description=text, allow_abbrev=False)
        made.add_argument("--out", type=Path, default=Path(f"outputs/plots/{name}.png"), help="FILE.png, .svg or .pdf")
        made.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")
        return made

    peb = kind("peb-map", "heat map of the position error bound with contour lines")
    peb.add_argument("--preset", type=one_of([*PRESETS]), default="site", help=f"start from: {', '.join(PRESETS)}")
    peb.add_argument("--resolution", type=float, metavar="M", help="distance of points, metres (a 250th of the side)")
    peb.add_argument("--time", action="store_true", help="print computing time and memory of the map")
    _site_options(peb)
    tdoa = kind("tdoa-loci", "hyperbolae of constant time difference, where they meet, and how well")
    tdoa.add_argument("--ue", type=float, nargs=2, metavar=("X", "Y"), help="user, metres (0.62 and 0.36 of the sides)")
    tdoa.add_argument(
        "--reference",
        type=number_or_name,
        default=0,
        metavar="AP",
        help="AP that is subtracted: its index, or name with --site (0)",
    )
    _site_options(tdoa, without=("family",), defaults=_LOCI)
    shapes = kind("ellipses", "error ellipses on a lattice of positions, families side by side")
    shapes.add_argument(
        "--families", type=one_of(FAMILIES), nargs="+", default=list(FAMILIES), help=f"of {', '.join(FAMILIES)} (all)"
    )
    shapes.add_argument("--spacing", type=float, metavar="M", help="of the lattice, metres (a tenth of the side)")
    shapes.add_argument("--enlarged", type=float, metavar="FACTOR", help="on all ellipses (one that fills the lattice)")
    _site_options(shapes, without=("family",))
    cdf = kind("cdf", "error distributions of evaluations")
    cdf.add_argument("files", type=Path, nargs="+", metavar="FILE", help="positions.csv and the like, or results.json")
    cdf.add_argument(
        "--answers", type=one_of(ANSWERS), help="valid or all: which to draw (valid of tables, all of evaluations)"
    )
    stated = kind("coverage", "what stated uncertainties hold: calibration curve, stated against actual error")
    stated.add_argument("files", type=Path, nargs="+", metavar="FILE", help="as of cdf")
    episode = kind("episode", "one episode of an environment, as it draws itself")
    episode.add_argument("--env", required=True, metavar="ID", help="a registered environment, e.g. dcp-jar-v0")
    episode.add_argument("--policy", required=True, help="a registered policy, a run's folder or a checkpoint")
    episode.add_argument("--seed", type=int, default=0, help="of the drop (0)")
    episode.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings of the environment")
    return top


def _site_options(to: Parser, without: Sequence[str] = (), defaults: DrawnSiteConfig | None = None) -> None:
    """One option per field of ``DrawnSiteConfig``; only what was typed replaces a preset's value."""
    base = defaults or DrawnSiteConfig()
    names: dict[str, tuple[str, Any, str]] = {
        "family": ("--family", one_of(FAMILIES), f"{', '.join(FAMILIES)}"),
        "layout": ("--layout", one_of(LAYOUTS), f"{', '.join(LAYOUTS)}"),
        "aps": ("--aps", int, "number of APs"),
        "side_m": ("--side", float, "side of the area, metres"),
        "radius_m": ("--radius", float, "of the circle, metres (two fifths of the side)"),
        "ap_height_m": ("--ap-height", float, "APs over the user, metres (10; 0 for a --site without heights)"),
        "bandwidth_mhz": ("--bandwidth", float, "MHz"),
        "snr_db": ("--snr", float, "SNR of the whole pilot on a link of 100 m, dB"),
        "tx_power_dbm": ("--tx-power", float, "instead of --snr: transmit power at 3.5 GHz, dBm"),
        "equal_snr": ("--equal-snr", None, "no path loss: --snr on every link"),
        "sync": ("--sync", one_of([*SYNC_PRESETS]), f"clocks of the APs: {', '.join(SYNC_PRESETS)}"),
        "processing_error_ns": ("--processing-error", float, "RTT: error of the reported processing time, ns"),
        "seed": ("--seed", int, "of the uniform layout"),
        "site": ("--site", str, f"your own site, FILE{', '.join(SITE_SUFFIXES)}: places, names, heights and area"),
        "ue_height_m": (
            "--ue-height",
            float,
            "of the user, with AP heights of --site, metres (what the site says, else 1.5)",
        ),
    }
    for field in dataclasses.fields(DrawnSiteConfig):
        if field.name in without:
            continue
        option, kind, text = names[field.name]
        shared: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS}
        if kind is None:
            to.add_argument(option, action="store_true", help=text, **shared)
        else:
            value = getattr(base, field.name)
            shown = (
                text if value is None else f"{text} ({value:g})" if isinstance(value, float) else f"{text} ({value})"
            )
            to.add_argument(option, type=kind, metavar=option.strip("-").upper(), help=shown, **shared)


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments, unknown options refused with the nearest known ones.

    Raises:
        UsageError: for anything that is not understood.
    """
    top = parser()
    arguments, unknown = top.parse_known_args(argv)
    if unknown:
        kinds = next(action for action in top._actions if isinstance(action, argparse._SubParsersAction))
        options = [name for name in kinds.choices[arguments.kind]._option_string_actions if name.startswith("--")]
        typed = unknown[0].split("=")[0]
        raise UsageError(f"{arguments.kind}: {typed} is unknown: {suggest(typed, options)}")
    return arguments


def site_settings(arguments: argparse.Namespace, base: DrawnSiteConfig) -> DrawnSiteConfig:
    """The site that was asked for: what was typed, else what ``base`` says."""
    fields = {field.name for field in dataclasses.fields(DrawnSiteConfig)}
    typed = {name: value for name, value in vars(arguments).items() if name in fields}
    said = [name for name in _DRAWN_ONLY if name in typed]
    if "site" in typed and said:
        raise UsageError(f"--site says where the APs stand; leave --{said[0].removesuffix('_m')} out")
    if "site" in typed and "ap_height_m" in typed and load_site(typed["site"]).ap_height_m is not None:
        raise UsageError("--site has the heights of its APs; leave --ap-height out (--ue-height is that of the user)")
    return dataclasses.replace(base, **typed)


def draw_peb_map(arguments: argparse.Namespace, out: Path) -> list[str]:
    """Draw a map, or the two of the ring."""
    settings = site_settings(arguments, PRESETS[arguments.preset])
    if arguments.preset == "ring" and settings.equal_snr:
        raise UsageError("--preset ring shows both, equal SNR and path loss; leave --equal-snr out")
    if arguments.preset == "ring" and settings.site is not None:
        raise UsageError("--preset ring draws its own APs; leave --site or --preset out")
    site = make_site(settings)
    resolution = arguments.resolution if arguments.resolution is not None else site.extent_m / 250
    smallest, largest = site.extent_m / _MOST_STEPS, site.extent_m / _FEWEST_STEPS
    if not smallest <= resolution <= largest:
        raise UsageError(f"--resolution={resolution:g} must lie in [{smallest:g}, {largest:g}] m")
    lines = [_timed(site, resolution)] if arguments.time else []
    if arguments.preset == "ring":
        figure, bounds = maps.ring_figure(settings, resolution)
        names = ["equal SNR", "path loss"]
    else:
        figure, bound = maps.peb_map_figure(settings, resolution)
        bounds, names = [bound], [settings.family]
    save(figure, out)
    for name, drawn in zip(names, bounds):
        x, y, value = drawn.best
        x, y = np.array((x, y)) + site.origin_m
        finite = drawn.values_m[np.isfinite(drawn.values_m)]
        middle = metres(float(np.median(finite))) if finite.size else "infinite"
        lines.append(f"{name}: smallest bound {metres(value)} at ({coordinate(x)}, {coordinate(y)}) m, median {middle}")
    return lines


def _timed(site: Site, resolution_m: float) -> str:
    """Computing time (one thread) and growth of the peak memory of one map."""
    before, began = _peak_mb(), time.process_time()
    bound = maps.peb_map(site, resolution_m)
    spent, after = time.process_time() - began, _peak_mb()
    return (
        f"{bound.values_m.size} points x {len(site.names)} APs: {spent:.2f} s of CPU time, "
        f"peak memory {after - before:.0f} MB above the {before:.0f} MB of the program itself"
    )


def _peak_mb() -> float:
    import resource  # not on Windows, where all but --time works

    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e6 / 1024)


def draw_tdoa_loci(arguments: argparse.Namespace, out: Path) -> list[str]:
    """Draw the hyperbolae of one user."""
    settings = site_settings(arguments, _LOCI)
    user = None if arguments.ue is None else np.array(arguments.ue)
    figure, lines = loci.tdoa_loci_figure(settings, user, arguments.reference)
    save(figure, out)
    return lines


def draw_ellipses(arguments: argparse.Namespace, out: Path) -> list[str]:
    """Draw a field of ellipses per family."""
    settings = site_settings(arguments, DrawnSiteConfig())
    figure, factor = ellipses.ellipses_figure(settings, arguments.families, arguments.spacing, arguments.enlarged)
    save(figure, out)
    return [f"95 % ellipses, {factor:g} times enlarged"]


def draw_cdf(arguments: argparse.Namespace, out: Path) -> list[str]:
    """Draw error distributions from files."""
    figure, found = results.cdf_figure(arguments.files, arguments.answers)
    save(figure, out)
    return [result.summary() for result in found]


def draw_coverage(arguments: argparse.Namespace, out: Path) -> list[str]:
    """Draw what stated uncertainties hold, from files."""
    figure, table = results.stated_figure(arguments.files)
    save(figure, out)
    return [table]


def draw_episode(arguments: argparse.Namespace, out: Path) -> list[str]:
    """Play and draw an episode."""
    overrides = dict(_setting(entry) for entry in arguments.set)
    figure, rmse_m = results.played_episode(arguments.env, arguments.policy, arguments.seed, overrides)
    save(figure, out)
    return [f"{arguments.policy} on {arguments.env}, seed {arguments.seed}: RMSE {rmse_m:.3f} m"]


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"--set {text} must look like num_aps=16")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UsageError(f"--set {text}: the value is not readable; write num_aps=16 or site=hard") from error


DRAW: dict[str, Callable[[argparse.Namespace, Path], list[str]]] = {
    "peb-map": draw_peb_map,
    "tdoa-loci": draw_tdoa_loci,
    "ellipses": draw_ellipses,
    "cdf": draw_cdf,
    "coverage": draw_coverage,
    "episode": draw_episode,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Draw one picture and say what it shows."""
    torch.set_num_threads(1)
    with user_errors("--debug" in (sys.argv[1:] if argv is None else argv)):
        arguments = parsed(argv)
        out = check_target(arguments.out)
        lines = DRAW[arguments.kind](arguments, out)
        print("\n".join([*lines, f"wrote {out}"]))


if __name__ == "__main__":
    main()
