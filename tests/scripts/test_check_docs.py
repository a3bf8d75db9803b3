"""The documentation check finds what it is there to find, and finds nothing in the project's own pages."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import check_docs, docs_blocks
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


def test_a_name_without_a_section_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_docs, "SECTIONS", {"docs/policies": lambda: ["music", "no-such-policy"]})
    assert ["no-such-policy" in line for line in check_docs.missing_sections()] == [True]
