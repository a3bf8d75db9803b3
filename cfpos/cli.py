"""The console command ``cfpos``: ``cfpos train env=dcp-jar agent=maddpg`` is ``python scripts/train.py ...``."""

from __future__ import annotations

import importlib.util
import runpy
import sys

COMMANDS = {
    "train": "train an agent (Hydra)",
    "evaluate": "score policies and trained agents on the same drops (Hydra)",
    "calibrate": "give a trained network of base stations an uncertainty",
    "locate": "positions, and a map, from measurements of your own",
    "plot": "pictures of bounds, loci, error distributions and episodes",
    "reproduce": "the experiments of the documentation",
    "explorer": "a page of bounds to play with in a browser",
    "make-dataset": "trace a data set of a real city (extra raytracing)",
    "convert": "channels of DeepMIMO, Sionna RT and QuaDRiGa into data sets",
    "check-csi": "antenna order and sign of the phase of a file of CSI, from known places",
    "collect": "one table from the runs of a sweep",
    "demo": "train and compare MADDPG, in about two minutes",
    "ecc-demo": "train and compare positioning over a thin fronthaul, in about four minutes",
}
"""Name -> what it does; ``scripts/NAME.py`` with underscores is the module."""


def main() -> None:
    """Run the command that the first argument names."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        raise SystemExit(0 if arguments else 2)
    name, *rest = arguments
    if name == "--version":
        from cfpos_envs import __version__

        print(__version__)
        return
    if name not in COMMANDS:
        from cfpos_envs.checks import unknown_name

        print(f"error: {unknown_name('command', name, COMMANDS, 'Commands')}", file=sys.stderr)
        raise SystemExit(2)
    module = f"cfpos.scripts.{name.replace('-', '_')}"
    spec = importlib.util.find_spec(module)
    assert spec is not None
    sys.argv = [f"cfpos {name}", *rest]
    runpy.run_module(module, run_name="__main__")


def usage() -> str:
    """All commands, one line each."""
    lines = [f"  {name:<14}{what}" for name, what in COMMANDS.items()]
    return "\n".join(["usage: cfpos COMMAND [ARGUMENTS]", "", *lines, "", "cfpos COMMAND --help shows its options."])
