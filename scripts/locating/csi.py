"""Channel state information of a person's own network to positions: by a training run, or by MUSIC."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from cfpos.agents import load_agent
from cfpos.baselines.direct import Locator, snapshots_located
from cfpos.baselines.ecc.music import Music3d
from cfpos.scripts.cli import UsageError
from cfpos.scripts.locating.common import Located, pairs
from cfpos.scripts.runs import CONFIG_FILE, saved_config
from cfpos.scripts.settings import plain
from cfpos_envs import make_env
from cfpos_envs.files.positions import Positions
from cfpos_envs.importers.arrays import read_csi
from cfpos_envs.scenarios.ecc.game import EccScenario

MUSIC = "music"
_CONVENTIONS = ("antenna_order", "phase", "subcarrier_order")


def located(arguments: argparse.Namespace) -> Located:
    """Read snapshots, and locate.

    Raises:
        ValueError: whatever the file, the run or the options have that cannot be; a run of another network.
        OSError: a file cannot be read.
    """
    said = pairs(arguments.known, "--known")
    unknown = [name for name in said if name not in _CONVENTIONS]
    if unknown:
        raise UsageError(f"--known {unknown[0]} is unknown for CSI; allowed: {', '.join(_CONVENTIONS)}")
    policy, system, name = _policy(arguments.policy, pairs(arguments.option, "--option"))
    file = read_csi(arguments.measurements, **said)
    estimate = snapshots_located(policy, file.measurements(system))
    rows = np.arange(len(file))
    table = Positions.from_estimate(
        estimate,
        user=np.full(len(rows), "0"),
        epoch=rows,
        time_s=file.time_s,
        policy=name,
        truth_m=file.positions_m,
    )
    return Located(table, name, ap_names=file.names, aps_m=file.bs_positions_m[:, :2])


def _policy(entry: str | None, options: dict[str, Any]) -> tuple[Locator, Any, str]:
    """What locates, the network it was trained in (None: any), and its name."""
    if entry in (None, MUSIC):
        return Music3d(None, Music3d.options_class(**options)), None, MUSIC
    run = Path(str(entry))
    folder = run if run.is_dir() else run.parent
    if not run.exists() or not (folder / CONFIG_FILE).is_file():
        raise UsageError(
            f"--policy {entry} is no training run; CSI is located by {MUSIC}, or by the folder of a run of "
            "cfpos train env=ecc-csi env.data=FILE agent=ecc-fast"
        )
    config = saved_config(folder / CONFIG_FILE)
    env = make_env(str(config.env.id), num_envs=1, seed=0, **plain(config.env, "id"))
    agent = load_agent(run, env)
    if not (isinstance(agent, Locator) and isinstance(env.scenario, EccScenario)):
        raise UsageError(f"--policy {entry} is a run of {agent.name}, which plays games; train agent=ecc-fast")
    return agent, env.scenario.system, f"{agent.name} ({run.name})"
