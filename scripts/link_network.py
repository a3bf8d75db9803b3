"""Learn the link network of an array and its scattering and save it: ``python scripts/link_network.py --out FOLDER``.

Those in ``cfpos_envs/physics/dcp/covariance/trained`` come along and were made so, with the defaults here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from cfpos.scripts.cli import Parser, user_errors
from cfpos.scripts.reports import check_writable
from cfpos_envs.files.writing import replacing
from cfpos_envs.physics.dcp.covariance.network import ArrayLaw, LearningSettings, learn_links, shipped_path

LINKS, EPOCHS = 120_000, 20


def main(argv: Sequence[str] | None = None) -> None:
    """Learn and save."""
    parser = Parser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--antennas", type=int, default=8)
    parser.add_argument("--spacing", type=float, default=0.5, help="wavelengths between antennas")
    parser.add_argument("--spread", type=float, default=10.0, help="standard deviation of the path angles, degrees")
    parser.add_argument("--paths", type=int, default=20)
    parser.add_argument("--snapshots", type=int, default=100)
    parser.add_argument("--links", type=int, default=LINKS, help="simulated links to learn from")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="passes over them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("outputs/links"), help="folder")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    chosen = parser.parse_args(argv)
    with user_errors(chosen.debug):
        chosen.out.mkdir(parents=True, exist_ok=True)
        check_writable(chosen.out)
        law = ArrayLaw(chosen.antennas, chosen.spacing, math.radians(chosen.spread), chosen.paths, chosen.snapshots)
        began = time.process_time()
        network = learn_links(law, LearningSettings(links=chosen.links, epochs=chosen.epochs, seed=chosen.seed))
        path = chosen.out / shipped_path(law).name
        with replacing(path) as temporary:
            torch.save(network.state(), temporary)
        print(f"wrote {path} ({path.stat().st_size / 1e3:.0f} kB) after {time.process_time() - began:.0f} s of a core")


if __name__ == "__main__":
    main()
