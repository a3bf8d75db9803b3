"""Put the tables of a demo run into the README, between its results marks; no number is typed by hand.

``python scripts/update_results.py outputs/demo/RUN/results.json``
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cfpos.scripts.cli import ROOT, UsageError, user_errors
from cfpos.scripts.docs_blocks import markdown_table
from cfpos.scripts.reports import write_text

_MARKS = re.compile(r"(<!-- results -->\n).*?(<!-- end of results -->)", re.DOTALL)
_COLUMNS = {"RMSE": "rmse_m", "median": "median_m", "p99": "p99_m", "RMSE / bound": "rmse_over_bound"}


def tables(content: dict[str, Any]) -> str:
    """One Markdown table per site preset, best RMSE first.

    Args:
        content: of a ``results.json`` written by ``scripts/demo.py``.
    """
    scene = ", ".join(f"`{key}={value}`" for key, value in content["overrides"].items())
    parts = [
        f"Measured by `make demo` (`{content['env']}`, {scene}, {content['training_steps']} training steps), metres:"
    ]
    for site, entries in content["sites"].items():
        rows = [
            {site: entry["policy"], **{column: f"{entry[key]:.3f}" for column, key in _COLUMNS.items()}}
            for entry in sorted(entries, key=lambda entry: float(entry["rmse_m"]))
        ]
        parts.append(markdown_table(rows))
    return "\n\n".join(parts)


def inserted(page: str, text: str) -> str:
    """The page with ``text`` between its results marks.

    Raises:
        UsageError: the page has no such marks.
    """
    if not _MARKS.search(page):
        raise UsageError("the page has no lines <!-- results --> and <!-- end of results -->; put them back")
    return _MARKS.sub(lambda marks: f"{marks[1]}{text}\n{marks[2]}", page)


def main(argv: Sequence[str] | None = None) -> None:
    """Rewrite the results section of the README."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path, help="results.json of a demo run")
    parser.add_argument("--page", type=Path, default=ROOT / "README.md", help="page to rewrite")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    arguments = parser.parse_args(argv)
    with user_errors(arguments.debug):
        try:
            text = tables(json.loads(arguments.results.read_text(encoding="utf-8")))
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise UsageError(f"{arguments.results} is not a results.json of scripts/demo.py ({error!r})") from error
        write_text(arguments.page, inserted(arguments.page.read_text(encoding="utf-8"), text))
        print(f"wrote {arguments.page}")


if __name__ == "__main__":
    main()
