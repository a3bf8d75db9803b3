"""Channel state information of a person's own network to positions: by a training run, or by MUSIC."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial import KDTree

from cfpos.agents import load_agent
from cfpos.baselines.direct import Locator, snapshots_located
from cfpos.baselines.ecc.common import in_one_row
from cfpos.baselines.ecc.knn import CsiKnn, KnnOptions
from cfpos.baselines.ecc.music import Music3d
from cfpos.scripts.cli import UsageError
from cfpos.scripts.locating.common import Located, pairs
from cfpos.scripts.runs import CONFIG_FILE, saved_config
from cfpos.scripts.settings import plain
from cfpos_envs import make_env
from cfpos_envs.datasets.epic import csi_files, holds_captures
from cfpos_envs.files.positions import Positions
from cfpos_envs.importers.arrays import CsiFile, read_csi
from cfpos_envs.scenarios.ecc.csi_config import EccCsiConfig
from cfpos_envs.scenarios.ecc.game import EccScenario
from cfpos_envs.scenarios.ecc.stored import sample_file, split_rows

MUSIC = "music"
_SAME_PLACE_M = 1e-3
_PART = 1 << 20
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
    if arguments.survey is not None:
        return located_by_survey(arguments, said)
    policy, system, name, trained = _policy(arguments.policy, pairs(arguments.option, "--option"))
    file = read_csi(arguments.measurements, **said)
    received = file.measurements(system)
    if name == MUSIC and in_one_row(received.system):
        raise ValueError(
            f"{file.path}: its arrays are lines of antennas, which see the angle to their line only; {MUSIC} needs "
            "directions in space: compare with known places (--survey KNOWN.npz --policy csi-knn), or train a network "
            "(cfpos train env=ecc-csi env.data=FILE agent=ecc-fast) and name its run by --policy"
        )
    seen = None if trained is None else trained_on(file, trained)
    estimate = snapshots_located(policy, received)
    rows = np.arange(len(file))
    table = Positions.from_estimate(
        estimate,
        user=np.full(len(rows), "0"),
        epoch=rows,
        time_s=file.time_s,
        policy=name,
        truth_m=file.positions_m,
    )
    return Located(table, name, ap_names=file.names, aps_m=file.bs_positions_m[:, :2], seen=seen)


def located_by_survey(arguments: argparse.Namespace, said: dict[str, Any]) -> Located:
    """Nearest fingerprints among the labelled snapshots of another file.

    Args:
        arguments: of the command.
        said: conventions of both files.

    Raises:
        ValueError: whatever the files or the options have that cannot be.
        OSError: a file cannot be read.
    """
    if arguments.policy not in (None, CsiKnn.name) or len(arguments.survey) != 1:
        raise UsageError(f"--survey of CSI is one file with positions_m, for --policy {CsiKnn.name}")
    paths = (arguments.survey[0], arguments.measurements)
    if all(holds_captures(path) for path in paths):
        known, file = csi_files(*paths)
    else:
        known, file = read_csi(paths[0], **said, labelled=True), read_csi(paths[1], **said)
    options = {"gain_weight": None, **pairs(arguments.option, "--option")}
    policy = CsiKnn(None, KnnOptions(**options))
    surveyed = known.measurements()
    origin = np.array(surveyed.origin_m or (0.0, 0.0, 0.0))
    assert known.positions_m is not None
    places = torch.from_numpy(known.positions_m - origin).float()
    policy.survey(surveyed.csi[:, 0], surveyed.valid[:, 0], places, surveyed.system)
    estimate = snapshots_located(policy, file.measurements(surveyed.system))
    rows = np.arange(len(file))
    table = Positions.from_estimate(
        estimate,
        user=np.full(len(rows), "0"),
        epoch=rows,
        time_s=file.time_s,
        policy=CsiKnn.name,
        truth_m=file.positions_m,
    )
    note = f"gain_weight {policy.gain_weight:g}" + (
        ", chosen on references left out by place" if options["gain_weight"] is None else ""
    )
    return Located(table, CsiKnn.name, notes=(note,))


def trained_on(file: CsiFile, config: EccCsiConfig) -> np.ndarray | None:
    """Which snapshots of a file a network was trained or chosen on.

    A file with the bytes of the training data has its blocks or groups; in any other, snapshots at the very places of
    training count as trained on.

    Args:
        file: what is located.
        config: of the game that the network was trained in.

    Returns:
        [n] for training and validation; None: the file does not say where its snapshots were taken.
    """
    data = sample_file() if config.data is None else Path(config.data)
    conventions = {name: getattr(config, name) for name in _CONVENTIONS}
    training = read_csi(data, **conventions, labelled=True)
    rows = np.setdiff1d(np.arange(len(training)), split_rows(training, config)["test"])
    if _digest(data) == _digest(Path(file.path)):
        return np.isin(np.arange(len(file)), rows)
    if file.positions_m is None or training.positions_m is None:
        return None
    distance_m, _ = KDTree(training.positions_m[rows]).query(file.positions_m)
    return np.asarray(distance_m) < _SAME_PLACE_M


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        found = hashlib.sha256()
        while part := stream.read(_PART):
            found.update(part)
    return found.hexdigest()


def _policy(entry: str | None, options: dict[str, Any]) -> tuple[Locator, Any, str, EccCsiConfig | None]:
    """What locates, the network it was trained in (None: any), its name, and the game of its training data."""
    if entry in (None, MUSIC):
        return Music3d(None, Music3d.options_class(**options)), None, MUSIC, None
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
    game = env.scenario.config
    name = f"{agent.name} ({run.name})"
    return agent, env.scenario.system, name, game if isinstance(game, EccCsiConfig) else None
