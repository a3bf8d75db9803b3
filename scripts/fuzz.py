"""Tries what nobody should: random options, files and command lines, and counts how the suite takes them.

``python scripts/fuzz.py`` draws 10 000 cases over every registered environment, policy and agent, every file format and
every command, and tries each in a child process. It ends with code 1 if one crashes its process, hangs, gives NaN
without a word, or is refused otherwise than in one line that names what was wrong.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy
from tqdm import tqdm

from cfpos.scripts.cli import Parser, user_errors
from cfpos.scripts.fuzzing import commands, files, games
from cfpos.scripts.fuzzing.cases import BAD, GOOD, Case, Outcome
from cfpos.scripts.fuzzing.watched import HANG_S, watch
from cfpos_envs.checks import whole

SHARES = {"environments": 0.42, "policies": 0.2, "agents": 0.1, "files": 0.2, "commands": 0.06, "processes": 0.02}
"""Part of the cases that each area gets."""


def strategy(area: str) -> SearchStrategy[Case]:
    """What the cases of an area are drawn from."""
    made = {
        "environments": games.environments,
        "policies": games.policies,
        "agents": games.agents,
        "files": files.files,
    }
    return made[area]() if area in made else commands.commands(area == "processes")


def drawn(area: str, count: int, number: int) -> list[Case]:
    """So many cases of an area, always the same for one number."""
    cases: list[Case] = []
    while len(cases) < count:

        @seed(number + len(cases))
        @settings(
            max_examples=count - len(cases),
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy(area))
        def keep(case: Case) -> None:
            if len(cases) < count:
                cases.append(case)

        keep()
    return cases


def table(cases: Sequence[Case], outcomes: Sequence[Outcome]) -> list[str]:
    """How many cases of every area ended how."""
    counts = Counter((case.area, outcome.kind) for case, outcome in zip(cases, outcomes, strict=True))
    kinds = (*GOOD, *BAD)
    rows = {area: [counts[area, kind] for kind in kinds] for area in SHARES}
    rows["all"] = [sum(counts[area, kind] for area in SHARES) for kind in kinds]
    lines = [f"{'':<14}{'cases':>8}" + "".join(f"{kind:>12}" for kind in kinds)]
    return lines + [f"{area:<14}{sum(row):>8}" + "".join(f"{n:>12}" for n in row) for area, row in rows.items()]


def findings(cases: Sequence[Case], outcomes: Sequence[Outcome]) -> list[dict[str, str]]:
    """The cases that ended badly."""
    return [
        {"area": case.area, "target": case.target, "said": case.said, "kind": outcome.kind, "detail": outcome.detail}
        for case, outcome in zip(cases, outcomes, strict=True)
        if outcome.kind in BAD
    ]


def fuzz(
    count: int, number: int, workers: int, areas: Sequence[str] = tuple(SHARES)
) -> tuple[list[Case], list[Outcome]]:
    """Draw and try.

    Args:
        count: cases in all areas together; each gets its share.
        number: seed.
        workers: processes at a time.
        areas: which ones.
    """
    torch.set_num_threads(1)
    cases = [case for area in areas for case in drawn(area, max(1, round(count * SHARES[area])), number)]
    with tqdm(total=len(cases), disable=not sys.stderr.isatty(), unit="case") as bar:

        def told(index: int, outcome: Outcome) -> None:
            bar.update()
            if outcome.kind in BAD:
                tqdm.write(line_of(cases[index], outcome))

        return cases, watch(cases, workers, told)


def line_of(case: Case, outcome: Outcome) -> str:
    """A finding in one line."""
    return f"{outcome.kind}: {case.area} {case.target} {case.said[:200]} -> {outcome.detail[:240]}"


def main(argv: Sequence[str] | None = None) -> None:
    """Fuzz, print the table, and list what was found."""
    top = Parser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    top.add_argument("--cases", type=int, default=10_000, help="in all (10000)")
    top.add_argument("--seed", type=int, default=0, help="other cases (0)")
    top.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes at a time (one a core)")
    top.add_argument("--areas", nargs="+", choices=list(SHARES), default=list(SHARES), help="only these")
    top.add_argument("--out", type=Path, help="also write the findings to this JSON file")
    top.add_argument("--debug", action="store_true", help="show tracebacks")
    with user_errors("--debug" in (sys.argv[1:] if argv is None else argv)):
        arguments = top.parse_args(argv)
        whole("--cases", arguments.cases, 1, 10**7)
        whole("--workers", arguments.workers, 1, 1024)
    began = time.monotonic()
    cases, outcomes = fuzz(arguments.cases, arguments.seed, arguments.workers, arguments.areas)
    used = sum(
        resource.getrusage(who).ru_utime + resource.getrusage(who).ru_stime
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    found = findings(cases, outcomes)
    print("\n".join(table(cases, outcomes)))
    print(
        f"{time.monotonic() - began:.0f} s, {used:.0f} CPU-seconds; a case hangs after {HANG_S:g} s of processor time"
    )
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    raise SystemExit(int(bool(found)))


if __name__ == "__main__":
    main()
