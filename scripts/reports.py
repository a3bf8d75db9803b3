"""What a command leaves behind: tables, JSON, pictures. Every file is written beside its place, then renamed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from cfpos_envs.evaluation import METRICS, EvaluationResult
from cfpos_envs.files.writing import replacing
from cfpos_envs.front_ends.parallel import ParallelEnv


def check_writable(folder: Path) -> Path:
    """Fail now rather than after the computation.

    Raises:
        OSError: nothing can be written into ``folder``.
    """
    with replacing(folder / ".writable") as probe:
        probe.touch()
    (folder / ".writable").unlink()
    return folder


def write_text(path: Path, text: str) -> Path:
    """Write a text file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def write_json(path: Path, content: Any) -> Path:
    """Write JSON with numpy numbers turned into plain ones."""
    return write_text(path, json.dumps(content, indent=2, default=_plain_number) + "\n")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of equal keys as aligned text; numbers with three significant digits, missing values as a dash."""
    header = list(rows[0])
    cells = [header] + [[_cell(row.get(key)) for key in header] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        )
        for row in cells
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def result_row(label: str, result: EvaluationResult) -> dict[str, Any]:
    """The figures of one evaluation for a results file; lengths in metres."""
    return {
        "policy": label,
        **{f"{name}_m": getattr(result, name) for name in METRICS},
        "rmse_interval_95_m": list(result.ci("rmse")),
        "bound_m": result.bound_rmse,
        "bound_of": result.bound_of,
        "rmse_over_bound": result.efficiency,
        "valid_share": result.valid_share,
        "valid_rmse_m": result.valid_rmse,
        "ms_per_user": result.latency_ms,
        "fronthaul_bits_per_ap": result.fronthaul_bits,
        "rmse_by_round_m": result.rmse_by_round,
    }


def episode_frame(env: ParallelEnv, policy: Any) -> np.ndarray:
    """Play one episode and return the environment's own picture of its last round, [height, width, 3] bytes.

    Args:
        env: with ``render_mode="rgb_array"``; closed afterwards.
        policy: anything with ``act`` and ``reset``, made for an environment like ``env``.
    """
    # Agents that look at more than the observations must look at this environment.
    playing = getattr(policy, "playing", None)
    with nullcontext() if playing is None else playing(env):
        observations, _ = env.reset()
        policy.reset()
        while env.agents:
            observations, *_ = env.step(policy.act(observations))
    frame = np.asarray(env.render())
    env.close()
    return frame


def save_image(path: Path, pixels: np.ndarray) -> Path:
    """Write an RGB array as PNG."""
    with replacing(path) as temporary:
        plt.imsave(temporary, pixels)
    return path


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float | np.floating) else str(value)


def _plain_number(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no JSON form")
