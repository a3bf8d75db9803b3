"""Give a trained network of base stations an uncertainty: learn its errors at places that its training has not seen.

``cfpos calibrate outputs/train/RUN`` adds it to the run's best.pt; with ``--out NEW.pt`` it writes a new file. Weights
stay as they are, to the last bit. ``cfpos train`` does the same at its end.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from cfpos.agents import load_agent
from cfpos.scripts.cli import UsageError, user_errors
from cfpos.scripts.plot import Parser
from cfpos.scripts.runs import CONFIG_FILE, saved_config
from cfpos.scripts.settings import plain
from cfpos_envs import make_env
from cfpos_envs.checkpoints import checkpoint_path, read_checkpoint, write_checkpoint


def parser() -> Parser:
    """The command line."""
    top = Parser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    top.add_argument("policy", type=Path, metavar="RUN", help="folder of a run of ecc or ecc-fast, or its file")
    top.add_argument("--env", metavar="ID", help="where it was trained (what the run or the file says)")
    top.add_argument("--places", type=int, metavar="N", help="to set aside (set_aside of the run, else 6000)")
    top.add_argument("--out", type=Path, metavar="FILE", help="file to write (RUN itself)")
    top.add_argument("--debug", action="store_true", help="show tracebacks")
    return top


def calibrate(arguments: argparse.Namespace) -> list[str]:
    """Calibrate, write, and say what was learned.

    Raises:
        UsageError: a policy that locates no CSI.
        ValueError: too few places, or none that training has not seen.
        OSError: a file cannot be read or written.
    """
    path = checkpoint_path(arguments.policy)
    content = read_checkpoint(path)
    agent: Any = load_agent(path, _env(arguments, path, content))
    if not hasattr(agent, "calibrate"):
        raise UsageError(f"{path} is of {agent.name}, which does not locate by CSI; train agent=ecc-fast")
    began = time.process_time()
    found = agent.calibrate(arguments.places)
    # Only this entry is new: half-precision weights stay what they are.
    target = arguments.out or path
    write_checkpoint(target, {**content, "agent": {**content["agent"], "calibration": found.state()}})
    half, most = found.radii
    return [
        f"{found.places} places set aside, {time.process_time() - began:.0f} s of processor time; regions of 50 % and "
        f"90 % reach {half:.3g} and {most:.3g} standard deviations",
        f"wrote {target}",
    ]


def _env(arguments: argparse.Namespace, path: Path, content: dict[str, Any]) -> Any:
    """The environment of the training: of the run's folder if it has its settings, else by its id."""
    settings = path.parent / CONFIG_FILE
    if arguments.env is None and settings.is_file():
        config = saved_config(settings)
        return make_env(str(config.env.id), num_envs=1, seed=0, **plain(config.env, "id"))
    named = arguments.env or content["agent"].get("env_id")
    if named is None:
        raise UsageError(f"{path} does not say where it was trained; name it by --env")
    return make_env(str(named), num_envs=1, seed=0)


def main(argv: Sequence[str] | None = None) -> None:
    """Calibrate one network."""
    torch.set_num_threads(1)
    with user_errors("--debug" in (sys.argv[1:] if argv is None else argv)):
        print("\n".join(calibrate(parser().parse_args(argv))))


if __name__ == "__main__":
    main()
