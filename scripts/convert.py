"""Channels of other tools into what the suite plays: ``cfpos convert deepmimo SCENARIO_FOLDER --out city/``.

A folder as --out gets paths, which ``ecc-raytraced-v0`` plays; a file FILE.npz gets frequency responses.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cfpos.scripts.cli import Parser, UsageError, user_errors
from cfpos_envs.channels.tracing.imported import HOLD_OUT, imported_summary, write_imported
from cfpos_envs.files.tables import read_table
from cfpos_envs.importers.arrays import read_csi
from cfpos_envs.importers.csi import ImportedCsi
from cfpos_envs.importers.deepmimo import read_deepmimo
from cfpos_envs.importers.paths import CARRIER_PHASES, ImportedPaths
from cfpos_envs.importers.quadriga import DELAYS, csi_from_quadriga, paths_from_quadriga, read_quadriga
from cfpos_envs.importers.sionna import SIDES, read_sionna, read_sionna_csi
from cfpos_envs.physics.ecc.conventions import PHASES, SUBCARRIER_ORDERS

RESPONSES = ".npz"
"""An --out with this ending gets frequency responses instead of paths."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Convert what the first argument names; errors in one line with exit code 2."""
    chosen = parser().parse_args(arguments)
    with user_errors(debug=False):
        chosen.convert(chosen)


def parser() -> argparse.ArgumentParser:
    """The options of every tool."""
    top = Parser(prog="cfpos convert", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tools = top.add_subparsers(metavar="TOOL", required=True)
    deepmimo = _tool(tools, "deepmimo", "folder of a DeepMIMO 4 scenario (params.json and array files)", _deepmimo)
    deepmimo.add_argument(
        "--carrier-phase",
        choices=CARRIER_PHASES,
        default="auto",
        help="whether phases hold exp(-j 2 pi f_c tau); auto: told from the direct paths",
    )
    sionna = _tool(tools, "sionna", "npz file that importers.sionna.save_sionna wrote", _sionna)
    quadriga = _tool(tools, "quadriga", "HDF5 file of QuaDRiGa channels (extra quadriga)", _quadriga)
    for tool in (sionna, quadriga):
        tool.add_argument("--side", choices=SIDES, default=SIDES[0], help="which end is the base stations")
    quadriga.add_argument("--delays", choices=DELAYS, default=DELAYS[0], help="relative: to the straight line")
    quadriga.add_argument("--array", default="1x1", help="rows x columns of the base stations' arrays, e.g. 2x4")
    quadriga.add_argument("--subcarriers", type=int, default=64, help="of --out FILE.npz")
    quadriga.add_argument("--spacing-hz", type=float, default=240e3, help="between them")
    own = tools.add_parser("csi", help="npz, HDF5 or MATLAB file of CSI (docs/data/csi.md) into --out FILE.npz")
    own.set_defaults(convert=_own)
    own.add_argument("source", type=Path, help="npz, HDF5 or MATLAB file")
    own.add_argument("--out", type=Path, required=True, help="FILE.npz in this suite's conventions")
    own.add_argument("--antenna-order", help="a name, or numbers with commas; instead of what the file says")
    own.add_argument("--phase", choices=PHASES, help="instead of what the file says")
    own.add_argument("--subcarrier-order", choices=SUBCARRIER_ORDERS, help="instead of what the file says")
    return top


def _tool(
    tools: "argparse._SubParsersAction[Parser]",
    name: str,
    what: str,
    convert: Callable[[argparse.Namespace], None],
) -> argparse.ArgumentParser:
    made = tools.add_parser(name, help=what, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    made.set_defaults(convert=convert)
    made.add_argument("source", type=Path, help=what)
    made.add_argument("--out", type=Path, required=True, help="folder for paths, or FILE.npz for frequency responses")
    made.add_argument("--stations", type=Path, help="CSV with name,x,y,z in metres: names and order of base stations")
    made.add_argument("--test-share", type=float, default=0.1, help="share of users held out for testing")
    made.add_argument("--hold-out", choices=HOLD_OUT, default=HOLD_OUT[0], help="whole squares of the area, or any")
    made.add_argument("--block-m", type=float, help="side of those squares; by default a twelfth of the area")
    made.add_argument("--seed", type=int, default=0, help="which users are held out")
    return made


def _deepmimo(chosen: argparse.Namespace) -> None:
    if chosen.out.suffix == RESPONSES:
        raise UsageError(f"DeepMIMO scenarios hold paths; --out {chosen.out} must be a folder")
    _write(read_deepmimo(chosen.source, chosen.carrier_phase, _stations(chosen.stations)), chosen)


def _sionna(chosen: argparse.Namespace) -> None:
    if chosen.out.suffix == RESPONSES:
        _write_responses(read_sionna_csi(chosen.source, chosen.side), chosen)
    else:
        _write(read_sionna(chosen.source, chosen.side, _stations(chosen.stations)), chosen)


def _quadriga(chosen: argparse.Namespace) -> None:
    channels, name, ends = read_quadriga(chosen.source), chosen.source.name, (chosen.side, chosen.delays)
    if chosen.out.suffix == RESPONSES:
        shape = _shape(chosen.array)
        found = csi_from_quadriga(channels, shape, chosen.subcarriers, chosen.spacing_hz, name, *ends)
        _write_responses(found, chosen)
    else:
        _write(paths_from_quadriga(channels, name, *ends, _stations(chosen.stations)), chosen)


def _own(chosen: argparse.Namespace) -> None:
    named: str | None = chosen.antenna_order
    numbers = named is not None and named.replace(",", "").replace(" ", "").isdigit()
    order = [int(part) for part in named.split(",")] if named is not None and numbers else named
    file = read_csi(chosen.source, antenna_order=order, phase=chosen.phase, subcarrier_order=chosen.subcarrier_order)
    if chosen.out.suffix != RESPONSES:
        raise UsageError(f"--out {chosen.out} must end in {RESPONSES}")
    file.write(chosen.out)
    print(f"{chosen.out} written, {len(file)} snapshots; play it: cfpos evaluate env=ecc-csi env.data={chosen.out}")


def _write_responses(csi: ImportedCsi, chosen: argparse.Namespace) -> None:
    stations = _stations(chosen.stations)
    (csi if stations is None else csi.with_stations(stations)).write(chosen.out)
    print(f"{chosen.out} written; check it: cfpos check-csi {chosen.out}; play it: env=ecc-csi env.data={chosen.out}")


def _write(paths: ImportedPaths, chosen: argparse.Namespace) -> None:
    heard = paths.heard()
    write_imported(heard, chosen.out, chosen.test_share, chosen.hold_out, chosen.block_m, chosen.seed)
    print(imported_summary(chosen.out))
    lit = heard.line_of_sight
    print(f"  {lit.mean():.1%} of the links in line of sight, {(~heard.valid.any(axis=-1)).mean():.1%} without a path")
    for note in heard.notes:
        print(f"  note: {note}")


def _stations(path: Path | None) -> Mapping[str, Sequence[float]] | None:
    if path is None:
        return None
    table = read_table(path)
    table.require(("name", "x", "y", "z"), "names and places of base stations")
    return dict(zip(table.texts("name"), table.numbers(("x", "y", "z")).tolist()))


def _shape(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.strip().isdigit() for part in parts):
        raise UsageError(f"--array {text} must be rows x columns, e.g. 2x4")
    return int(parts[0]), int(parts[1])


if __name__ == "__main__":
    main()
