"""Simulate what sample covariances say of single links and save the table: ``python scripts/link_information.py``.

Those in ``cfpos_envs/physics/dcp/covariance/trained`` come along and were made so, with the defaults here.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

from cfpos.scripts.cli import Parser, user_errors
from cfpos.scripts.reports import check_writable, write_text
from cfpos_envs.physics.dcp.covariance.information import TableSettings, information_path, simulate_information
from cfpos_envs.physics.dcp.covariance.network import ArrayLaw


def main(argv: Sequence[str] | None = None) -> None:
    """Simulate and save."""
    parser = Parser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--antennas", type=int, default=8)
    parser.add_argument("--spacing", type=float, default=0.5, help="wavelengths between antennas")
    parser.add_argument("--spread", type=float, default=10.0, help="standard deviation of the path angles, degrees")
    parser.add_argument("--paths", type=int, default=20)
    parser.add_argument("--snapshots", type=int, default=100)
    parser.add_argument("--links", type=int, default=TableSettings.links, help="simulated links per angle and SNR")
    parser.add_argument("--sweeps", type=int, default=TableSettings.sweeps, help="of the chain over a link's paths")
    parser.add_argument("--seed", type=int, default=TableSettings.seed)
    parser.add_argument("--out", type=Path, default=Path("outputs/links"), help="folder")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    chosen = parser.parse_args(argv)
    with user_errors(chosen.debug):
        chosen.out.mkdir(parents=True, exist_ok=True)
        check_writable(chosen.out)
        law = ArrayLaw(chosen.antennas, chosen.spacing, math.radians(chosen.spread), chosen.paths, chosen.snapshots)
        began = time.process_time()
        table = simulate_information(law, TableSettings(chosen.links, chosen.sweeps, chosen.seed))
        path = write_text(chosen.out / information_path(law).name, json.dumps(table.content()) + "\n")
        print(f"wrote {path} ({path.stat().st_size / 1e3:.0f} kB) after {time.process_time() - began:.0f} s of a core")


if __name__ == "__main__":
    main()
