"""Recompute the figures and tables of the documentation: NAME.png, NAME.json and a printed table for each.

``python scripts/reproduce.py bounds --out outputs/reproduce``; ``--quick`` only shows that everything runs.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from cfpos.scripts import reports
from cfpos.scripts.cli import Parser, user_errors
from cfpos.scripts.experiments import EXPERIMENTS, experiment
from cfpos.scripts.experiments.common import Effort
from cfpos_envs.drawing.figures import save_figure


def parser() -> argparse.ArgumentParser:
    """The command line."""
    arguments = Parser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("names", nargs="+", choices=list(EXPERIMENTS), metavar="NAME", help=", ".join(EXPERIMENTS))
    arguments.add_argument("--quick", action="store_true", help="tiny networks and few drops; the numbers mean nothing")
    arguments.add_argument("--seeds", type=int, help="trained agents per setting")
    arguments.add_argument("--episodes", type=int, help="evaluation episodes")
    arguments.add_argument("--steps", type=int, dest="train_steps", help="environment steps per trained agent")
    arguments.add_argument("--out", type=Path, default=Path("outputs/reproduce"), help="folder for PNG and JSON")
    arguments.add_argument("--workers", type=int, default=1, help="agents trained at the same time, one core each")
    arguments.add_argument("--debug", action="store_true", help="show tracebacks")
    return arguments


def effort(arguments: argparse.Namespace) -> Effort:
    """The chosen effort.

    Raises:
        ValueError: a count below 1.
    """
    base = Effort.quick() if arguments.quick else Effort()
    changes = {name: getattr(arguments, name) for name in ("seeds", "episodes", "train_steps", "workers")}
    for name, value in changes.items():
        if value is not None and value < 1:
            raise ValueError(f"--{name.removeprefix('train_')}={value} must be at least 1")
    # Quick agents are worthless: nothing to keep.
    folder = None if arguments.quick else str(arguments.out / "agents")
    base = dataclasses.replace(base, agents_folder=folder)
    return dataclasses.replace(base, **{name: value for name, value in changes.items() if value is not None})


def main(argv: Sequence[str] | None = None) -> None:
    """Run the named experiments one after another."""
    arguments = parser().parse_args(argv)
    torch.set_num_threads(1)
    with user_errors(arguments.debug):
        chosen = effort(arguments)
        reports.check_writable(arguments.out)
        for name in arguments.names:
            outcome = experiment(name)(chosen)
            spent = dataclasses.asdict(chosen)
            # Where agents are kept and how many train at once changes no result.
            del spent["agents_folder"], spent["workers"]
            settings = {"experiment": name, "effort": spent}
            written = [
                reports.write_json(
                    arguments.out / f"{name}.json", {**settings, "rows": outcome.rows, "remarks": outcome.remarks}
                ),
                save_figure(outcome.figure, arguments.out / f"{name}.png"),
            ]
            plt.close(outcome.figure)  # pyplot would keep the figures of all experiments
            print(reports.table(outcome.rows))
            print("\n".join([*outcome.remarks, *(f"wrote {path}" for path in written), ""]))


if __name__ == "__main__":
    main()
