"""Kill trainings, damage their files, fill their disk, spoil measurements: tables of what is lost and what is not told.

``python scripts/faults.py`` does all of it in about half an hour of CPU time; ``--quick`` does a little of it.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from cfpos.scripts import reports
from cfpos.scripts.cli import Parser, UsageError, suggest, user_errors, words
from cfpos.scripts.faulty import commands, damage, growth, kills, measured
from cfpos.scripts.faulty.subjects import subjects

Row = dict[str, Any]
PARTS = ("kills", "damage", "full disk", "commands", "growth", "measurements")
_QUICK = {"kills": 1, "command_kills": 1, "flips": 40, "steps": 2_000, "updates": 100, "users": 20}
_LABELS = ("run", "file", "harm", "what is wrong", "game", "policy")
"""Columns that say what a row is about."""


def report(parts: Sequence[str], names: Sequence[str], options: argparse.Namespace) -> dict[str, list[Row]]:
    """Do what is asked, and the rows of every part.

    Args:
        parts: some of ``PARTS``.
        names: kinds of training.
        options: of the command line.
    """
    chosen = [subjects()[name] for name in names]
    tables: dict[str, list[Row]] = {}
    for part in parts:
        began = time.perf_counter()
        if part == "kills":
            tables["kills"] = [timed(kills.killed_runs, subject, options.kills, options.seed) for subject in chosen]
        elif part == "damage":
            rows = [timed(damage.flipped_bits, subject, options.flips, options.seed) for subject in chosen]
            harms = damage.FEW_HARMS if options.quick else damage.HARMS
            tables["flipped bits"] = rows
            tables["damaged files"] = [row for subject in chosen for row in damage.damaged_files(subject, harms)]
        elif part == "full disk":
            tables["full disk"] = [timed(damage.full_disk, subject) for subject in chosen]
        elif part == "commands":
            work, count = commands.killed_commands, options.command_kills
            tables["commands"] = [timed(work, kind, count, options.seed) for kind in options.commands]
        elif part == "growth":
            tables["growth"] = [timed(growth.growth, options.steps, options.updates)]
        else:
            cases = measured.asking(options.policies)[: 1 if options.quick else None]
            tables["measurements"] = list(measured.rows(cases, options.users, options.seed))
        print(f"{part}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    return tables


def timed(work: Callable[..., Row], *what: Any) -> Row:
    """The row that some work gives, and the processor time of it and of its processes."""
    before = _cpu_s()
    row = work(*what)
    return {**row, "CPU-s": round(_cpu_s() - before)}


def merged(old: dict[str, list[Row]], new: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """Tables in which rows about the same thing are replaced and others stay: a run may do a part of everything."""
    tables = dict(old)
    for name, rows in new.items():
        done = {_label(row) for row in rows}
        tables[name] = [row for row in old.get(name, []) if _label(row) not in done] + rows
    return tables


def lost(tables: dict[str, list[Row]]) -> list[str]:
    """A line for everything in the tables that should not be."""
    lines = []
    for row in [*tables.get("kills", []), *tables.get("commands", [])]:
        if row["errors"] not in ("", "not installed") or row["equal"] != row["runs"]:
            lines.append(f"{row['run']}: {row['runs'] - row['equal']} other weights, {row['errors'] or 'no error'}")
    for row in tables.get("flipped bits", []):
        if row["found"] != row["flipped bits"]:
            lines.append(f"{row['run']}: {row['flipped bits'] - row['found']} flipped bits were not found")
    for row in tables.get("damaged files", []):
        if row["outcome"] != "the same weights":
            lines.append(f"{row['run']}: {row['file']}, {row['harm']}: {row['outcome']}")
    for row in tables.get("full disk", []):
        if row["afterwards"] != "the same weights" or row["left over"] or "go on with resume=RUN" not in row["said"]:
            lines.append(f"{row['run']}, full disk: {row['said']}; {row['afterwards']}")
    for row in tables.get("growth", []):
        if row["growth, MB"] > growth.MOST_GROWTH * row["at a quarter, MB"]:
            lines.append(f"memory grew by {row['growth, MB']} MB in {row['steps']} steps")
    for row in tables.get("measurements", []):
        if measured.too_confident(row):
            lines.append(
                f"{row['what is wrong']}, {row['game']}, {row['policy']}: {row['valid']:.0%} valid, of these "
                f"{row['beyond 5 std']:.1%} off by more than five standard deviations"
            )
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Do it, print the tables, end with exit code 1 if anything was lost."""
    arguments = parser().parse_args(argv)
    with user_errors(arguments.debug):
        for name, given, allowed in (
            ("parts", arguments.parts, PARTS),
            ("runs", arguments.runs, tuple(subjects())),
            ("commands", arguments.commands, commands.KINDS),
            ("policies", arguments.policies, measured.asked()),
        ):
            for word in given:
                if word not in allowed:
                    raise UsageError(f"--{name} names {word!r}: {suggest(word, allowed)}")
        if arguments.quick:
            vars(arguments).update(_QUICK)
        torch.set_num_threads(1)
        tables = report(arguments.parts, arguments.runs, arguments)
        for name, rows in tables.items():
            print(f"{name}\n{reports.table(rows)}\n")
        if arguments.out is not None:
            before = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.exists() else {}
            print(f"wrote {reports.write_json(arguments.out, merged(before, tables))}")
        found = lost(tables)
        print("\n".join(found) if found else "nothing was lost")
        if found:
            raise SystemExit(1)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    arguments = Parser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    arguments.add_argument(
        "--parts", type=words, default=PARTS, help=f"comma-separated; default all: {','.join(PARTS)}"
    )
    arguments.add_argument("--runs", type=words, default=tuple(subjects()), help="kinds of training; default all")
    arguments.add_argument("--commands", type=words, default=commands.KINDS, help="of several processes; default all")
    arguments.add_argument("--policies", type=words, default=(), help="that are asked; default all")
    arguments.add_argument("--kills", type=int, default=50, help="of every kind of training")
    arguments.add_argument("--command-kills", type=int, default=20, help="of every command of several processes")
    arguments.add_argument("--flips", type=int, default=300, help="bits flipped in a checkpoint, one at a time")
    arguments.add_argument("--steps", type=int, default=1_000_000, help="environment steps of the long training")
    arguments.add_argument("--updates", type=int, default=100_000, help="updates of the long training")
    arguments.add_argument("--users", type=int, default=300, help="located in every case of wrong measurements")
    arguments.add_argument("--seed", type=int, default=0, help="of moments, bits, what is killed and what is measured")
    arguments.add_argument("--quick", action="store_true", help="a little of everything")
    arguments.add_argument("--out", type=Path, help="JSON file; rows that are not made anew stay in it")
    arguments.add_argument("--debug", action="store_true", help="show tracebacks")
    return arguments


def _label(row: Row) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in _LABELS)


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in used)


if __name__ == "__main__":
    main()
