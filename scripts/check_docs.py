"""Check the documentation against the code: links, a section for every name, made blocks, the equation index.

``python scripts/check_docs.py --write`` makes the marked blocks anew instead of reporting them as stale.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cfpos.agents import list_agents
from cfpos.baselines import list_policies
from cfpos.scripts.cli import ROOT
from cfpos.scripts.conf_values import stale_files
from cfpos.scripts.docs_blocks import INDEX, load_index, refreshed
from cfpos.scripts.docs_usage import used_names
from cfpos.scripts.experiments import EXPERIMENTS
from cfpos_envs import list_envs

# page or folder -> the names that must have a heading or the first cell of a table row there
SECTIONS: dict[str, Callable[[], list[str]]] = {
    "docs/envs": list_envs,
    "docs/policies": list_policies,
    "docs/agents": list_agents,
    "docs/experiments.md": lambda: list(EXPERIMENTS),
}
_LINK = re.compile(r"\[[^\]]*\]\((?!https?:|mailto:)([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def pages() -> list[Path]:
    """All Markdown files of the project."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def broken_links(page: Path) -> Iterator[str]:
    """Relative links to files or headings that are not there."""
    for target in _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        file, _, anchor = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        if not linked.exists():
            yield f"{page.relative_to(ROOT)}: link to {target}, but there is no such file"
        elif anchor and anchor not in anchors(linked):
            yield f"{page.relative_to(ROOT)}: link to {target}, but there is no such heading"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as code hosting sites make them."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def missing_sections() -> Iterator[str]:
    """Registered names without a place on their page."""
    for name, registered in SECTIONS.items():
        place = ROOT / name
        files = [place] if place.is_file() else sorted(place.glob("*.md"))
        text = "\n".join(file.read_text(encoding="utf-8") for file in files)
        for entry in registered():
            if not re.search(rf"^(#+ .*|\| )`{re.escape(entry)}`", text, re.MULTILINE):
                yield f"{name}: `{entry}` is registered but has neither a heading nor a table row"


def stale_blocks(page: Path, write: bool) -> Iterator[str]:
    """Made blocks that no longer say what the code says; with ``write`` they are corrected."""
    text = page.read_text(encoding="utf-8")
    fresh = refreshed(text)
    if fresh != text:
        if write:
            page.write_text(fresh, encoding="utf-8")
        else:
            yield f"{page.relative_to(ROOT)}: made blocks are stale; run python scripts/check_docs.py --write"


def index_errors() -> Iterator[str]:
    """Entries of the equation index whose function or test does not exist, or whose function only tests call."""
    used = used_names(ROOT)
    for entry in load_index(INDEX):
        label = f"docs/equations.yml: {entry['equation']}"
        module, _, function = entry["function"].partition(":")
        try:
            found = hasattr(importlib.import_module(module), function)
        except ModuleNotFoundError:
            found = False
        if not found:
            yield f"{label}: no function {entry['function']}"
        elif entry["function"].removeprefix("cfpos.") not in used:
            yield f"{label}: only tests call {entry['function']}; name the function that computes it, or remove it"
        file, _, test = entry["test"].partition("::")
        path = ROOT / file
        if not path.is_file() or test not in _functions(path):
            yield f"{label}: no test {entry['test']}"


def problems(write: bool = False) -> list[str]:
    """Everything that is wrong, one line each."""
    found = [*stale_files(write), *(line for page in pages() for line in stale_blocks(page, write))]
    found += [line for page in pages() for line in broken_links(page)]
    return [*found, *missing_sections(), *index_errors()]


def main(argv: Sequence[str] | None = None) -> None:
    """Print the problems; exit code 1 if there are any."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="make the marked blocks anew")
    found = problems(parser.parse_args(argv).write)
    for line in found:
        print(line, file=sys.stderr)
    if found:
        raise SystemExit(1)
    print(f"docs: {len(pages())} pages, {len(load_index(INDEX))} equations, no problems")


def _functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


if __name__ == "__main__":
    main()
