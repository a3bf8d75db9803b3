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
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy
from tqdm import tqdm

from cfpos.scripts import reports
from cfpos.scripts.cli import Parser, user_errors
from cfpos.scripts.fuzzing import commands, files, games
from cfpos.scripts.fuzzing.cases import BAD, GOOD, Case, Outcome
from cfpos.scripts.fuzzing.watched import HANG_S, watch
from cfpos_envs.checks import whole

SHARES = {"environments": 0.42, "policies": 0.2, "agents": 0.1, "files": 0.2, "commands": 0.06, "processes": 0.02}
"""Part of the cases that each area gets."""
_SAME = ("seed", "workers")
"""Columns that are no sums."""
Row = dict[str, Any]


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


def counted(area: str, outcomes: Sequence[Outcome], **effort: int) -> Row:
    """The row of an area: how many cases ended how.

    Args:
        area: one of ``SHARES``.
        outcomes: of its cases.
        effort: further columns.
    """
    kinds = Counter(outcome.kind for outcome in outcomes)
    return {"area": area, "cases": len(outcomes), **{kind: kinds[kind] for kind in (*GOOD, *BAD)}, **effort}


def totalled(rows: Sequence[Row]) -> list[Row]:
    """The rows of areas in the order of ``SHARES``, and their sum as the row ``all``."""
    order = [row for area in SHARES for row in rows if row["area"] == area]
    summed = {name: sum(row[name] for row in order) for name in order[0] if name not in ("area", *_SAME)}
    alike = {name: order[0][name] if len({row[name] for row in order}) == 1 else None for name in _SAME}
    return [*order, {name: {"area": "all", **summed, **alike}[name] for name in order[0]}]


def findings(cases: Sequence[Case], outcomes: Sequence[Outcome]) -> list[Row]:
    """The cases that ended badly."""
    return [
        {"area": case.area, "target": case.target, "said": case.said, "kind": outcome.kind, "detail": outcome.detail}
        for case, outcome in zip(cases, outcomes, strict=True)
        if outcome.kind in BAD
    ]


def merged(old: dict[str, list[Row]], rows: Sequence[Row], found: Sequence[Row]) -> dict[str, list[Row]]:
    """A report in which the areas that were tried anew are replaced and others stay."""
    done = {row["area"] for row in rows}
    kept = {name: [row for row in old.get(name, []) if row["area"] not in done] for name in ("cases", "findings")}
    return {"cases": totalled([*kept["cases"], *rows]), "findings": [*kept["findings"], *found]}


def fuzz(count: int, number: int, workers: int, areas: Sequence[str] = tuple(SHARES)) -> tuple[list[Row], list[Row]]:
    """Draw and try.

    Args:
        count: cases in all areas together; each gets its share.
        number: seed.
        workers: processes at a time.
        areas: which ones.

    Returns:
        A row for every area, and the findings.
    """
    torch.set_num_threads(1)
    rows, found = [], []
    for area in areas:
        began, before = time.monotonic(), _cpu_s()
        cases = drawn(area, max(1, round(count * SHARES[area])), number)
        outcomes = _tried(area, cases, workers)
        effort = {"seed": number, "workers": workers, "s": round(time.monotonic() - began)}
        rows.append(counted(area, outcomes, **effort, **{"CPU-s": round(_cpu_s() - before)}))
        found += findings(cases, outcomes)
    return rows, found


def _tried(area: str, cases: Sequence[Case], workers: int) -> list[Outcome]:
    with tqdm(total=len(cases), desc=area, disable=not sys.stderr.isatty(), unit="case") as bar:

        def told(index: int, outcome: Outcome) -> None:
            bar.update()
            if outcome.kind in BAD:
                tqdm.write(line_of(cases[index], outcome))

        return watch(cases, workers, told)


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in used)


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
    top.add_argument("--out", type=Path, help="JSON file of counts and findings; areas not tried stay in it")
    top.add_argument("--debug", action="store_true", help="show tracebacks")
    with user_errors("--debug" in (sys.argv[1:] if argv is None else argv)):
        arguments = top.parse_args(argv)
        whole("--cases", arguments.cases, 1, 10**7)
        whole("--workers", arguments.workers, 1, 1024)
    rows, found = fuzz(arguments.cases, arguments.seed, arguments.workers, arguments.areas)
    print(reports.table(totalled(rows)))
    print(f"a case hangs after {HANG_S:g} s of processor time")
    if arguments.out is not None:
        before = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.exists() else {}
        print(f"wrote {reports.write_json(arguments.out, merged(before, rows, found))}")
    raise SystemExit(int(bool(found)))


if __name__ == "__main__":
    main()
