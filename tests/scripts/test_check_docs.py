"""The documentation check finds what it is there to find, and finds nothing in the project's own pages."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import check_docs, docs_blocks
from scripts.docs_usage import used_names
from tests.scripts.commands import run


def test_the_projects_pages_have_no_problems(tmp_path: Path) -> None:
    # In a process of its own, because other tests register toys that have no page.
    done = run("check_docs", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "no problems" in done.stdout


def test_broken_links_and_anchors_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_docs, "ROOT", tmp_path)
    page = tmp_path / "a.md"
    page.write_text("# One `two`\n[x](#one-two) [y](#three) [z](b.md) [w](https://x)\n```\n[no](link)\n```\n")
    found = list(check_docs.broken_links(page))
    assert len(found) == 2
    assert "#three" in found[0]
    assert "b.md" in found[1]


def test_stale_blocks_are_reported_and_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_docs, "ROOT", tmp_path)
    page = tmp_path / "a.md"
    page.write_text("before\n<!-- made from the code: scalars -->\nold\n<!-- end -->\nafter\n")
    assert "stale" in next(check_docs.stale_blocks(page, write=False))
    assert list(check_docs.stale_blocks(page, write=True)) == []
    assert list(check_docs.stale_blocks(page, write=False)) == []
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "test/rmse_m" in text
    with pytest.raises(ValueError, match="no block called 'nothing'"):
        docs_blocks.refreshed("<!-- made from the code: nothing -->\n<!-- end -->")


def test_missing_functions_and_tests_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = tmp_path / "equations.yml"
    entry = (
        "- {equation: E, what: w, function: 'cfpos_envs.streams:nothing', test: 'tests/conftest.py::test_nothing'}\n"
    )
    index.write_text(entry)
    monkeypatch.setattr(check_docs, "INDEX", index)
    assert [line.split(": ")[2] for line in check_docs.index_errors()] == [
        "no function cfpos_envs.streams:nothing",
        "no test tests/conftest.py::test_nothing",
    ]


def test_functions_that_only_tests_call_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = tmp_path / "equations.yml"
    function = "tests.scripts.commands:run"  # no folder of production code
    test = "tests/scripts/test_check_docs.py::test_functions_that_only_tests_call_are_found"
    index.write_text(f"- {{equation: E, what: w, function: '{function}', test: '{test}'}}\n")
    monkeypatch.setattr(check_docs, "INDEX", index)
    (line,) = check_docs.index_errors()
    wanted = f"docs/equations.yml: E: only tests call {function}; name the function that computes it, or remove it"
    assert line == wanted


def test_a_use_is_a_reference_outside_the_own_definition(tmp_path: Path) -> None:
    (tmp_path / "agents" / "deep").mkdir(parents=True)
    (tmp_path / "agents" / "deep" / "__init__.py").write_text("from .core import handed_on, shown_only\n")
    (tmp_path / "agents" / "deep" / "core.py").write_text(
        "def handed_on(): ...\ndef shown_only(): ...\ndef recursive(): recursive()\ndef inner(): ...\n"
        "def outer(): inner()\ndef by_module(): ...\ndef by_path(): ...\nclass Idle: ...\n"
    )
    (tmp_path / "agents" / "user.py").write_text(
        "from cfpos.agents.deep import core as c, handed_on as h, shown_only\n"
        "def use():\n    'shown_only'\n    h()\n    c.by_module()\n    return '.deep.core:by_path'\n"
    )
    used = used_names(tmp_path, ["agents"])
    names = ("handed_on", "shown_only", "recursive", "inner", "outer", "by_module", "by_path", "Idle")
    found = {name for name in names if f"agents.deep.core:{name}" in used}
    assert found == {"handed_on", "inner", "by_module", "by_path"}


def test_a_name_without_a_section_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_docs, "SECTIONS", {"docs/policies": lambda: ["music", "no-such-policy"]})
    assert ["no-such-policy" in line for line in check_docs.missing_sections()] == [True]
