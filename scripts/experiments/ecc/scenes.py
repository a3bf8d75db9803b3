"""What the ray tracer finds in each of its city models: lines of sight, links without a path, base stations.

Needs small data sets in the folders ``scenes/NAME`` beside the results, made by ``scripts/make_dataset.py --scene``
(quick mode takes the one that comes with the package).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from cfpos.scripts.experiments.common import Effort, Outcome
from cfpos_envs.channels.tracing.generate import statistics
from cfpos_envs.channels.tracing.recipe import PLACES
from cfpos_envs.channels.tracing.source import demo_dataset
from cfpos_envs.channels.tracing.storage import DatasetError, Header, load_users
from cfpos_envs.drawing.figures import OKABE_ITO


def run(effort: Effort) -> Outcome:
    """Read the data sets and picture where their base stations and users are."""
    folders = _folders(effort)
    figure, axes = plt.subplots(1, len(folders), figsize=(3.2 * len(folders), 4), layout="constrained", squeeze=False)
    rows: list[dict[str, Any]] = []
    for (name, folder), part in zip(folders.items(), axes[0], strict=True):
        header, found = Header.read(folder), statistics(folder)["train"]
        heights = header.bs_positions_m[:, 2]
        rows.append(
            {
                "scene": name,
                **found,
                "lowest_bs_m": float(heights.min()),
                "highest_bs_m": float(heights.max()),
                "users_from_m": float(header.low_m[2]),
                "users_to_m": float(header.high_m[2]),
            }
        )
        positions = load_users(folder, "train")[1].positions_m
        part.scatter(positions[:, 0], positions[:, 1], s=4, color="#9A9A9A", label="users")
        part.scatter(*header.bs_positions_m[:, :2].T, marker="^", color=OKABE_ITO[1], label="base stations")
        for x, y, z in header.bs_positions_m:
            part.annotate(f"{z:.0f} m", (x, y), fontsize=7, xytext=(3, 3), textcoords="offset points")
        part.set(title=name, xlabel="x [m]", aspect="equal")
    axes[0, 0].set(ylabel="y [m]")
    axes[0, 0].legend(fontsize=7, loc="upper left")
    remark = (
        "Outdoor users of one shard per scene, default recipe otherwise; shares are of links, 6 per user; heights in "
        "the scene's own coordinates, base stations 3 m above their roofs."
    )
    return Outcome(rows, figure, [remark])


def _folders(effort: Effort) -> dict[str, Path]:
    if effort.is_quick or effort.agents_folder is None:
        return {"munich": demo_dataset()}
    parent = Path(effort.agents_folder).parent / "scenes"
    found = {name: parent / name for name in PLACES if (parent / name / "recipe.json").is_file()}
    if not found:
        raise DatasetError(
            f"no data sets in {parent}; make them: cfpos make-dataset --scene florence "
            f"--out {parent / 'florence'} --train 100 --test 0 --shard-users 100"
        )
    return found
