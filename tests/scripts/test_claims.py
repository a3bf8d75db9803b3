"""The page of claims says what the kept results say, and changes with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.claims import common, dcp
from scripts.claims.page import CLAIMS, claim_rows, counted
from scripts.experiments import EXPERIMENTS


def _keep(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    path = folder / "docs" / "results" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"rows": rows}), encoding="utf-8")


def _grids(coarse_m: float) -> list[dict[str, Any]]:
    errors = {"fingerprint, 0.5 m": 0.3, "fingerprint, 2.5 m": coarse_m}
    return [{"num_aps": m, "policy": name, "rmse_m": error} for m in (16, 36, 64) for name, error in errors.items()]


def test_every_claim_names_experiments_that_exist_and_is_counted() -> None:
    named = {name for claims in CLAIMS.values() for claim in claims for name in claim.experiments}
    assert named <= set(EXPERIMENTS)
    verdicts = ("agrees", "in part", "differs", "not comparable")
    for line in counted():
        assert sum(int(line[name]) for name in verdicts) == len(claim_rows(line["source"]))


def test_percentages_and_verdicts_follow_the_kept_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "ROOT", tmp_path)
    claim = next(claim for claim in dcp.CLAIMS if claim.experiments == ("fig3",))
    _keep(tmp_path, "fig3", _grids(0.6))
    assert dcp.saved("fig3") == pytest.approx([50.0, 50.0, 50.0])
    assert claim.finding().verdict == "differs"
    _keep(tmp_path, "fig3", _grids(1.2))
    found = claim.finding()
    assert found.text.startswith("75 % at M = 16")
    assert "1.35, 1.35, 1.35 m^2" in found.text
    assert found.verdict == "agrees"


def test_rows_that_are_missing_or_many_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "ROOT", tmp_path)
    _keep(tmp_path, "fig3", _grids(0.6))
    with pytest.raises(ValueError, match="has no row with"):
        common.rows("fig3", {"num_aps": 5})
    with pytest.raises(ValueError, match="has 2 rows with"):
        common.value("fig3", "rmse_m", {"num_aps": 16})
    with pytest.raises(ValueError, match="known: dcp, survey, ecc, ris"):
        claim_rows("nobody")


def test_verdicts_and_figures() -> None:
    assert [common.verdict(True, True), common.verdict(True, False), common.verdict(False)] == [
        "agrees",
        "in part",
        "differs",
    ]
    assert common.figures([77946.4, 0.12345, 3.0]) == "77946, 0.123, 3"
    assert common.falling([3, 2, 1])
    assert not common.falling([3, 3])
