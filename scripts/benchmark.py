"""Measure the speed of environments, estimators and trainers in CPU time, beside other people's, in one run.

``python scripts/benchmark.py --out outputs/benchmark.json``; ``--parts environments,yardsticks`` measures only these;
``--yardstick vmas=/path/to/python`` names an interpreter that has a package we lack; ``--quick`` only shows that
everything runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from cfpos.scripts import reports
from cfpos.scripts.benchmarks import PARTS, measure
from cfpos.scripts.benchmarks.common import Options, readable
from cfpos.scripts.benchmarks.ratios import ratios, reset_ratios
from cfpos.scripts.benchmarks.yardsticks import PACKAGES
from cfpos.scripts.cli import ROOT, UsageError, suggest, user_errors, words


def parser() -> argparse.ArgumentParser:
    """The command line."""
    base = Options()
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    arguments.add_argument(
        "--parts", type=words, default=PARTS, help=f"comma-separated; default all: {','.join(PARTS)}"
    )
    arguments.add_argument("--threads", type=int, help=f"arithmetic threads ({base.threads})")
    arguments.add_argument(
        "--repeats", type=int, help=f"timings of each piece of work, the best counts ({base.repeats})"
    )
    arguments.add_argument("--seconds", type=float, help=f"CPU seconds that a timing lasts at least ({base.seconds})")
    arguments.add_argument("--batches", type=_numbers, help=f"episodes played at once ({_joined(base.batches)})")
    arguments.add_argument("--modes", type=words, help=f"execution of our environments ({','.join(base.modes)})")
    arguments.add_argument("--scenarios", type=words, help=f"of VMAS ({','.join(base.scenarios)})")
    arguments.add_argument("--num-aps", type=int, help=f"M ({base.num_aps})")
    arguments.add_argument("--num-ues", type=int, help=f"K ({base.num_ues})")
    arguments.add_argument("--num-antennas", type=int, help=f"L ({base.num_antennas})")
    arguments.add_argument(
        "--yardstick",
        action="append",
        default=[],
        metavar="NAME=PYTHON",
        help="interpreter that has a package we lack; may be repeated",
    )
    arguments.add_argument(
        "--reference", type=Path, metavar="FOLDER", help="checkout of an older commit that policies are measured beside"
    )
    arguments.add_argument("--quick", action="store_true", help="tiny sizes; the numbers mean nothing")
    arguments.add_argument("--out", type=Path, help="JSON file")
    arguments.add_argument("--debug", action="store_true", help="show tracebacks")
    return arguments


def chosen_options(arguments: argparse.Namespace) -> Options:
    """How to measure.

    Raises:
        ValueError: a value out of range, an unknown yardstick, an interpreter or a checkout that is not there.
    """
    base = Options.tiny() if arguments.quick else Options()
    names = ("threads", "repeats", "seconds", "batches", "scenarios", "modes", "num_aps", "num_ues", "num_antennas")
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    if arguments.reference is not None:
        given["reference"] = _checkout(arguments.reference)
    return dataclasses.replace(base, **given, yardsticks=_interpreters(arguments.yardstick))


def report(parts: Sequence[str], options: Options) -> dict[str, Any]:
    """Everything that was measured and on what, ready for JSON.

    Args:
        parts: names from ``PARTS``, measured in this order.
        options: see there.
    """
    torch.set_num_threads(options.threads)
    measured: dict[str, Any] = {}
    for part in parts:
        print(f"{part} ...", file=sys.stderr, flush=True)
        began = time.process_time()
        measured[part] = measure(part, options)
        measured[part]["spent_cpu_s"] = time.process_time() - began
    paths = ("yardsticks", "reference")
    settings = {key: value for key, value in dataclasses.asdict(options).items() if key not in paths}
    return {
        "commit": commit(),
        **({"reference": commit(Path(options.reference))} if options.reference else {}),
        "machine": machine(),
        "options": settings,
        "parts": measured,
        "ratios": ratios(measured),
        "reset ratios": reset_ratios(measured),
    }


def text(content: Mapping[str, Any]) -> str:
    """The report as tables."""
    lines = []
    for part in content["parts"].values():
        for name, rows in part["tables"].items():
            if rows:
                lines += [name, reports.table(readable(rows)), ""]
        lines += [*part.get("remarks", []), ""]
    for name, title in (("ratios", "ours over theirs"), ("reset ratios", "ours over theirs, resets included")):
        if content.get(name):
            lines += [title, reports.table(readable(content[name])), ""]
    return "\n".join(lines).rstrip()


def commit(folder: Path = ROOT) -> str:
    """The revision of a checkout, with ``-dirty`` if files differ from it; ``unknown`` outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def machine() -> dict[str, Any]:
    """What the figures depend on besides the code."""
    model = platform.processor() or platform.machine()
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        names = [line.partition(":")[2].strip() for line in listing.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {"cpu": model, "python": platform.python_version(), "torch": torch.__version__}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    arguments = parser().parse_args(argv)
    with user_errors(arguments.debug):
        for part in arguments.parts:
            if part not in PARTS:
                raise UsageError(f"--parts names {part!r}: {suggest(part, PARTS)}")
        if not arguments.parts:
            raise UsageError(f"--parts names none; choose some of {', '.join(PARTS)}")
        options = chosen_options(arguments)
        if arguments.out is not None:
            reports.check_writable(arguments.out.parent)
        content = report(arguments.parts, options)
        print(text(content))
        if arguments.out is not None:
            print(f"wrote {reports.write_json(arguments.out, content)}")


def _interpreters(entries: Sequence[str]) -> dict[str, str]:
    found = {}
    for entry in entries:
        name, _, python = entry.partition("=")
        if name not in PACKAGES:
            raise UsageError(f"--yardstick names {name!r}: {suggest(name, PACKAGES)}")
        if not Path(python).is_file():
            raise UsageError(f"--yardstick {entry}: no such file; give NAME=PYTHON")
        found[name] = python
    return found


def _checkout(folder: Path) -> str:
    if not (folder / "cfpos_envs").is_dir():
        raise UsageError(f"--reference {folder}: no checkout of cfpos; give the folder of one")
    return str(folder.resolve())


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in words(text))


def _joined(values: Sequence[int]) -> str:
    return ",".join(map(str, values))


if __name__ == "__main__":
    main()
