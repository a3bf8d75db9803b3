"""Parts of the documentation that are made from the code, so that they cannot contradict it."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from cfpos.agents.maddpg.config import PRESETS
from cfpos.agents.metrics import SCALARS
from cfpos.baselines import list_policies, make_policy
from cfpos.scripts.benchmarks.changes import benchmark_tables, changes
from cfpos.scripts.benchmarks.common import readable
from cfpos.scripts.check_csi import report
from cfpos.scripts.claims.page import claim_rows, counted
from cfpos.scripts.cli import ROOT
from cfpos.scripts.experiments.measured.sets import FOLDERS
from cfpos_envs import list_envs, make_scenario
from cfpos_envs.datasets import LAYOUTS
from cfpos_envs.importers.arrays import read_csi
from cfpos_envs.importers.csi_check import find_conventions
from cfpos_envs.scenarios.ecc.stored import sample_file
from cfpos_envs.scenarios.measured.game import MeasuredScenario

INDEX = ROOT / "docs" / "equations.yml"
RESULTS = ROOT / "docs" / "results"
MARKER = re.compile(r"(<!-- made from the code: (?P<name>[^>]+?) -->\n)(?P<body>.*?)(<!-- end -->)", re.DOTALL)


def refreshed(text: str) -> str:
    """The page with every marked block made anew.

    Raises:
        ValueError: a marker names a block that is not made here.
    """

    def replace(match: re.Match[str]) -> str:
        name, _, argument = match["name"].partition(" ")
        if name not in BLOCKS:
            raise ValueError(f"no block called {name!r}; known: {', '.join(sorted(BLOCKS))}")
        return f"{match[1]}{BLOCKS[name](argument).strip()}\n{match[4]}"

    return MARKER.sub(replace, text)


def environment(env_id: str) -> str:
    """What an environment says about its observations, actions and rewards."""
    return f"```text\n{make_scenario(env_id).describe()}\n```"


def environments(families: str) -> str:
    """The environments of some families (``dcp``, ``toa tdoa rtt``) with the settings in which they differ."""
    made = {env_id: make_scenario(env_id) for env_id in list_envs()}
    # Measured epochs are played by the rules of others, with options of their own.
    wanted = {
        env_id: scenario
        for env_id, scenario in made.items()
        if scenario.family in families.split() and not isinstance(scenario, MeasuredScenario)
    }
    configs = {env_id: dataclasses.asdict(scenario.config) for env_id, scenario in wanted.items()}
    names = [name for name in next(iter(configs.values())) if len({str(c.get(name)) for c in configs.values()}) > 1]
    rows = [{"id": f"`{env_id}`", **{name: config.get(name) for name in names}} for env_id, config in configs.items()]
    return markdown_table(rows)


def check_csi(_: str) -> str:
    """What the self-check of CSI says of the sample file."""
    return f"```text\n{report(Path(sample_file().name), find_conventions(read_csi(sample_file())))}\n```"


def settings(path: str) -> str:
    """Fields and defaults of a config dataclass, ``module:Class``."""
    module, _, name = path.partition(":")
    return _fields(getattr(importlib.import_module(module), name))


def measured_sets(_: str) -> str:
    """Every public set that can be read: its name, where it is from, its licence, how the truth is known."""
    rows = [
        {
            "set": f"`{name}`",
            "what": f"[{layout.source.title}]({layout.source.url})",
            "licence": layout.source.licence,
            "truth": layout.source.truth,
            "folder": f"`{folder}`",
        }
        for name, layout in LAYOUTS.items()
        for folder in dict.fromkeys(below for scene, below in FOLDERS.items() if scene.startswith(f"{name}/"))
    ]
    return markdown_table(rows)


def policies(_: str) -> str:
    """Every policy with the first line of its docstring and its options."""
    rows = []
    for name in list_policies():
        found = type(make_policy(name))
        options = ", ".join(f"`{entry.name}={entry.default}`" for entry in dataclasses.fields(found.options_class))
        rows.append({"policy": f"`{name}`", "what it does": _first_line(found), "options": options or "none"})
    return markdown_table(rows)


def presets(_: str) -> str:
    """The trainer's named settings."""
    rows = [
        {
            "preset": f"`{name}`",
            "differs from the defaults by": ", ".join(f"`{k}={v}`" for k, v in values.items()) or "-",
        }
        for name, values in PRESETS.items()
    ]
    return markdown_table(rows)


def scalars(_: str) -> str:
    """Everything that a run writes to TensorBoard."""
    return markdown_table([{"scalar": f"`{name}`", "meaning": meaning} for name, meaning in SCALARS.items()])


def equations(_: str) -> str:
    """The equation index as a table."""
    entries = load_index(INDEX)
    rows = [
        {
            "equation": entry["equation"],
            "what": entry["what"],
            "function": f"`{entry['function'].replace(':', '.')}`",
            "test": f"`{entry['test'].split('::')[-1]}`",
        }
        for entry in entries
    ]
    return markdown_table(rows)


def result(name: str) -> str:
    """The rows of ``docs/results/NAME.json``, written by ``scripts/reproduce.py NAME``."""
    content = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    effort = content["effort"]
    rows = [{key: _figure(value) for key, value in row.items()} for row in content["rows"]]
    remarks = " ".join(content["remarks"])
    spent = f"{effort['episodes']} episodes, {effort['train_steps']} training steps"
    return f"`python scripts/reproduce.py {name}` ({spent}). {remarks}\n\n{markdown_table(rows)}"


def collected(name: str) -> str:
    """The lines of ``docs/results/NAME.json``, written by ``scripts/collect.py --out``."""
    content = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return markdown_table([{key: _figure(value) for key, value in row.items()} for row in content["rows"]])


def benchmark(argument: str) -> str:
    """One table of a benchmark: ``NAME TABLE`` of ``docs/results/NAME.json``, ``ratios`` among them."""
    name, _, table = argument.partition(" ")
    tables = benchmark_tables(_benchmark(name))
    if table not in tables:
        raise ValueError(f"docs/results/{name}.json has no table {table!r}; it has {', '.join(tables)}")
    return markdown_table(readable(tables[table]))


def benchmark_change(table: str) -> str:
    """What a figure was in ``benchmark-before.json`` and is in ``benchmark.json``."""
    return markdown_table(readable(changes(table, _benchmark("benchmark-before"), _benchmark("benchmark"))))


def benchmark_origin(name: str) -> str:
    """What a benchmark ran on: revision, machine, settings."""
    content = _benchmark(name)
    listed = {"revision": content["commit"], **content["machine"], **content["options"]}
    return ", ".join(f"{key} {value}" for key, value in listed.items())


def claims(source: str) -> str:
    """What a source claims beside the kept results; without a name, how many of each verdict there are."""
    return markdown_table(claim_rows(source) if source else counted())


def kept_table(argument: str) -> str:
    """One table of ``docs/results/FILE.json``, which holds several by name: ``FILE TABLE``."""
    name, _, table = argument.partition(" ")
    rows = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))[table]
    return markdown_table([{key: _figure(value) for key, value in row.items()} for row in rows])


def _benchmark(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return content


def _figure(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def load_index(path: Path) -> list[dict[str, str]]:
    """Entries of an equation index: ``equation``, ``what``, ``function`` (module:name) and ``test`` (file::name)."""
    entries: list[dict[str, str]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return entries


def markdown_table(rows: list[dict[str, Any]]) -> str:
    """Rows of equal keys as a Markdown table; vertical bars are escaped."""
    header = list(rows[0])
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for row in rows:
        lines.append("| " + " | ".join(str(row[key]).replace("|", "\\|").replace("\n", " ") for key in header) + " |")
    return "\n".join(lines)


def meanings(config_class: type) -> dict[str, str]:
    """What the docstrings of a config dataclass and of its parents say of every field."""
    found: dict[str, str] = {}
    for parent in reversed(config_class.__mro__):
        found.update(_attribute_docs(parent))
    return found


def _fields(config_class: Any) -> str:
    meaning_of = meanings(config_class)
    rows = [
        {
            "name": f"`{entry.name}`",
            "default": f"`{entry.default}`",
            "meaning": meaning_of.get(entry.name, "as in the table of the site"),
        }
        for entry in dataclasses.fields(config_class)
    ]
    return markdown_table(rows)


def _attribute_docs(config_class: Any) -> dict[str, str]:
    """The ``Attributes:`` section of a Google-style docstring: name -> meaning; names may share a line."""
    _, _, section = (config_class.__doc__ or "").partition("Attributes:\n")
    found: dict[str, str] = {}
    current: list[str] = []
    for line in section.splitlines():
        if match := re.match(r"        (\w[\w, ]*): (.*)", line):
            current = [name.strip() for name in match[1].split(",")]
            found.update(dict.fromkeys(current, match[2].strip()))
        elif line.startswith("            ") and current:
            found.update({name: f"{found[name]} {line.strip()}" for name in current})
        elif line.strip():
            break
    return {name: meaning.replace("``", "`") for name, meaning in found.items()}


def _first_line(thing: Any) -> str:
    return (thing.__doc__ or "").strip().splitlines()[0]


BLOCKS: dict[str, Callable[[str], str]] = {
    "environment": environment,
    "environments": environments,
    "check-csi": check_csi,
    "settings": settings,
    "measured-sets": measured_sets,
    "policies": policies,
    "presets": presets,
    "scalars": scalars,
    "equations": equations,
    "result": result,
    "collected": collected,
    "table": kept_table,
    "claims": claims,
    "benchmark": benchmark,
    "benchmark-change": benchmark_change,
    "benchmark-origin": benchmark_origin,
}
