"""Find the antenna order and the sign of the phase of a file of CSI: ``cfpos check-csi own.npz``.

From snapshots at known places (``positions_m`` in the file) the phases between antennas are predicted for every known
order and sign, and compared with the measured ones. What fits is printed as it is passed on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cfpos.scripts.cli import Parser, UsageError, user_errors
from cfpos_envs.importers.arrays import read_csi
from cfpos_envs.importers.csi_check import Convention, Findings, find_conventions
from cfpos_envs.physics.ecc.conventions import PHASES, SUBCARRIER_ORDERS

UNDECIDED = 1
"""Exit code where nothing is decided."""

_LEAST_WIDTH = 36


def main(argv: Sequence[str] | None = None) -> None:
    """Print how well every convention fits, and what to pass on."""
    parser = Parser(prog="cfpos check-csi", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path, help="npz, HDF5 or MATLAB file, see docs/data/csi.md")
    parser.add_argument("--snapshots", help="numbers of the snapshots to look at, 0,4,7; best in line of sight")
    parser.add_argument("--subcarrier-order", choices=SUBCARRIER_ORDERS, help="instead of what the file says")
    chosen = parser.parse_args(argv)
    with user_errors(debug=False):
        # As if it were ours, whatever the file says: its own statement is what is checked.
        file = read_csi(
            chosen.file,
            antenna_order="rows",
            phase=PHASES[0],
            subcarrier_order=chosen.subcarrier_order,
            labelled=True,
        )
        found = find_conventions(file, _numbers(chosen.snapshots))
    print(report(chosen.file, found))
    if found.verdict:
        raise SystemExit(UNDECIDED)


def report(path: Path, found: Findings) -> str:
    """The table of all conventions, and the verdict."""
    wide = max(_LEAST_WIDTH, *(len(_orders(entry)) + 2 for entry in found.conventions))
    rows = [f"{path}: {found.links} links", f"{'antenna_order':<{wide}}{'phase':<20}correlation"]
    rows += [f"{_orders(entry):<{wide}}{entry.phase:<20}{entry.correlation:+.3f}" for entry in found.conventions]
    doubt = [f"but {found.doubt}"] if found.doubt and not found.verdict else []
    return "\n".join([*rows, "", found.verdict or _decision(path, found), *doubt])


def _decision(path: Path, found: Findings) -> str:
    best = found.best
    python = [f'phase="{best.phase}"']
    typed = ["env.phase=conjugated"] if best.phase != PHASES[0] else []
    if best.antenna_orders:
        python.insert(0, f'antenna_order="{best.antenna_orders[0]}"')
        typed.insert(0, f"env.antenna_order={best.antenna_orders[0]}")
    command = " ".join(["cfpos train env=ecc-csi", f"env.data={path}", *typed, "agent=ecc-fast"])
    return (
        f"decided, {found.margin:.1f} times as good as the next: {', '.join(python)}\n"
        f"in Python: read_csi({str(path)!r}, {', '.join(python)})\non the command line: {command}"
    )


def _orders(entry: Convention) -> str:
    return " = ".join(entry.antenna_orders) or "(element_positions_m)"


def _numbers(text: str | None) -> list[int] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() for part in parts):
        raise UsageError(f"--snapshots {text} must be whole numbers with commas, e.g. 0,4,7")
    return [int(part) for part in parts]


if __name__ == "__main__":
    main()
