"""From what a person types to policies: a registered name, a name with options, or a training run on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cfpos.agents import load_agent
from cfpos.baselines import list_policies, make_policy
from cfpos.scripts.cli import UsageError


def labelled(entries: Any) -> dict[str, Any]:
    """Entries by the name under which reports list them.

    Args:
        entries: one entry or a list: a name from ``list_policies()``, a run folder or checkpoint file, or a mapping
            with ``name`` and the policy's options.

    Raises:
        UsageError: no entry, or an entry without a name.
    """
    listed = list(entries) if isinstance(entries, Sequence) and not isinstance(entries, str) else [entries]
    if not listed:
        raise UsageError(f"policy=[] names no policy; give a run's folder or some of {', '.join(list_policies())}")
    result: dict[str, Any] = {}
    for entry in listed:
        label = _label(entry)
        count = 1 + sum(key == label or key.startswith(f"{label} #") for key in result)
        result[label if count == 1 else f"{label} #{count}"] = entry
    return result


def build_policy(entry: Any, env: Any) -> Any:
    """The policy meant by one entry (see ``labelled``), made for ``env``.

    Raises:
        ValueError: unknown name or option, or a checkpoint of another environment or shape.
        FileNotFoundError: a path that is not there.
    """
    if isinstance(entry, Mapping):
        options = {str(key): value for key, value in entry.items() if key != "name"}
        return make_policy(str(entry["name"]), env, **options)
    name = str(entry)
    if name not in list_policies() and ("/" in name or Path(name).exists()):
        return load_agent(name, env)
    return make_policy(name, env)


def _label(entry: Any) -> str:
    if not isinstance(entry, Mapping):
        return str(entry) if str(entry) in list_policies() else Path(str(entry)).name
    if "name" not in entry:
        raise UsageError(f"policy={dict(entry)} has no name; write {{name:fingerprint,spacing:0.5}}")
    options = ", ".join(f"{key}={value}" for key, value in entry.items() if key != "name")
    return f"{entry['name']} ({options})" if options else str(entry["name"])
