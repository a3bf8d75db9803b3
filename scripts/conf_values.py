"""The values in ``conf/agent`` and ``conf/env``, written from the dataclasses that hold the defaults.

``python scripts/check_docs.py --write`` writes them anew; a file keeps its head (comments and defaults list).
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from cfpos.agents.registry import config_class
from cfpos.scripts.docs_blocks import meanings
from cfpos.scripts.settings import CONF, GIVEN_BY_THE_RUN, ROOT, agent_preset, shown
from cfpos_envs.registry import make_config
from cfpos_envs.scenarios.site_config import SiteOptions

_WIDTH = 100
_OF_THE_SITE = "Fields of the site, put over it; null leaves the site's own value."


def stale_files(write: bool) -> Iterator[str]:
    """Files whose values are not those of the dataclasses; with ``write`` they are corrected."""
    for path in sorted([*(CONF / "agent").glob("*.yaml"), *(CONF / "env").glob("*.yaml")]):
        text = path.read_text(encoding="utf-8")
        fresh = written(path, text)
        if fresh != text and write:
            path.write_text(fresh, encoding="utf-8")
        elif fresh != text:
            yield f"{path.relative_to(ROOT)}: values are stale; run python scripts/check_docs.py --write"


def written(path: Path, text: str) -> str:
    """The text of a file with the values that its schema has."""
    head, found, _ = text.partition("  - _self_\n")
    if path.parent.name == "agent":
        agent, preset = agent_preset(path)
        return f"{head}{found}{values(config_class(agent).preset(preset))}"
    return f"{head}{found}{values(make_config(f'{path.stem}-v0'))}"


def values(config: Any) -> str:
    """All fields of a config as YAML, each meaning above the fields that it is of."""
    meaning_of, last = meanings(type(config)), ""
    lines = [f"# Written from {type(config).__name__} by python scripts/check_docs.py --write"]
    of_the_site = _OF_THE_SITE if isinstance(config, SiteOptions) else ""
    for name in (entry.name for entry in dataclasses.fields(config)):
        meaning = meaning_of.get(name, of_the_site)
        if meaning != last:
            lines += textwrap.wrap(meaning, _WIDTH, initial_indent="# ", subsequent_indent="# ")
        last = meaning
        run = name in GIVEN_BY_THE_RUN and not isinstance(config, SiteOptions)
        lines.append(f"{name}: " + (f"${{{name}}}" if run else _flow(shown(config, name))))
    return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    return (
        str(yaml.safe_dump(value, default_flow_style=True, width=1000, sort_keys=False)).removesuffix("...\n").strip()
    )
