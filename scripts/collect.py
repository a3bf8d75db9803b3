"""One table of the runs below some folders: means over seeds with 95 % intervals, and what is missing.

``python scripts/collect.py outputs/multirun/2026-01-01_12-00-00``; ``--metric score`` for another figure than the RMSE.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from scipy import stats

from cfpos.scripts import reports
from cfpos.scripts.cli import Parser, UsageError, suggest, user_errors
from cfpos.scripts.runs import run_config
from cfpos.scripts.sweeps import STATUS, status, unfinished
from cfpos.scripts.train import CONFIG_FILE, RESULTS_FILE

# What may differ between runs of one line: the seed, and where or how fast they were computed.
_REPEATS = ("seed", "agent.seed", "device", "agent.device", "threads", "agent.threads", "resume", "debug")


@dataclass(frozen=True)
class Run:
    """A finished training run.

    Attributes:
        folder: where it is.
        settings: flat, ``group.key`` -> value.
        results: figure by name.
    """

    folder: Path
    settings: Mapping[str, Any]
    results: Mapping[str, float]


def find_runs(folders: Sequence[Path]) -> list[Run]:
    """All finished training runs below the folders, each once.

    Raises:
        FileNotFoundError: a folder that is not there.
    """
    runs: dict[Path, Run] = {}
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder {folder}; give folders of runs or of sweeps")
        for path in sorted(folder.rglob(RESULTS_FILE)):
            place = path.parent.resolve()
            run_status = status(place)
            if (place / CONFIG_FILE).is_file() and (run_status is None or run_status["status"] == "finished"):
                settings = OmegaConf.to_container(run_config(place))
                results = json.loads(path.read_text(encoding="utf-8"))
                runs[place] = Run(place, dict(_flat(settings)), results)
    return list(runs.values())


def differing(runs: Sequence[Run]) -> list[str]:
    """Names of the settings, apart from seeds and the like, that are not the same in all runs."""
    names = dict.fromkeys(name for run in runs for name in run.settings if name not in _REPEATS)
    return [name for name in names if len({str(run.settings.get(name)) for run in runs}) > 1]


def mean_interval(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Mean and 95 % interval for it: mean -+ t_{0.975, n-1} s / sqrt(n) (Student 1908); no interval for n = 1."""
    count, mean = len(values), float(np.mean(values))
    if count < 2:
        return mean, None, None
    half = float(stats.t.ppf(0.975, count - 1) * np.std(values, ddof=1) / math.sqrt(count))
    return mean, mean - half, mean + half


def rows(runs: Sequence[Run], metric: str, by: Sequence[str]) -> list[dict[str, Any]]:
    """One line per combination of the settings ``by``.

    Args:
        runs: finished runs.
        metric: name in their results.
        by: names of settings.

    Raises:
        UsageError: no run has such a figure or setting.
    """
    known = {name for run in runs for name in run.results}
    if metric not in known:
        raise UsageError(f"--metric={metric} is unknown: {suggest(metric, known)}")
    settings = {name for run in runs for name in run.settings}
    for name in by:
        if name not in settings:
            raise UsageError(f"--by={name} is unknown: {suggest(name, settings)}")
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        if metric in run.results:
            groups.setdefault(tuple(str(run.settings.get(name, "-")) for name in by), []).append(run)
    table = []
    for key, members in groups.items():
        mean, low, high = mean_interval([run.results[metric] for run in members])
        counted = {metric: mean, "low_95": low, "high_95": high, "runs": len(members)}
        seeds = [run.settings.get("seed") for run in members]
        table.append({**dict(zip(by, key)), **counted, "equal_seeds": len(seeds) - len(set(seeds))})
    return table


def parser() -> argparse.ArgumentParser:
    """The command line."""
    arguments = Parser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("folders", nargs="+", type=Path, help="folders of runs or sweeps, searched with all below")
    arguments.add_argument("--metric", default="rmse_m", help="figure of results.json (default: rmse_m)")
    arguments.add_argument("--by", nargs="*", help="settings that make a line; default: all that differ but seeds")
    arguments.add_argument("--out", type=Path, help="also write the lines to this JSON file")
    arguments.add_argument("--debug", action="store_true", help="show tracebacks")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table and what is missing."""
    arguments = parser().parse_args(argv)
    with user_errors(arguments.debug):
        runs = find_runs(arguments.folders)
        missing = [line for folder in arguments.folders for line in unfinished(folder)]
        if not runs:
            unfinished_runs = f"; unfinished: {'; '.join(missing)}" if missing else f" ({RESULTS_FILE}, {STATUS})"
            raise UsageError(
                f"no finished training run below {', '.join(map(str, arguments.folders))}{unfinished_runs}"
            )
        table = rows(runs, arguments.metric, differing(runs) if arguments.by is None else arguments.by)
        print(reports.table(table))
        if missing:
            print("\n".join(["unfinished:", *(f"  {line}" for line in missing)]))
        if arguments.out is not None:
            reports.write_json(arguments.out, {"metric": arguments.metric, "rows": table, "unfinished": missing})


def _flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


if __name__ == "__main__":
    main()
