"""The demo of positioning over a thin fronthaul runs through in quick mode and leaves what it promises."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from scripts import ecc_demo
from tests.scripts.commands import files_below


def test_demo_trains_compares_and_leaves_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ecc_demo.main(["--quick", "--workers", "1", "--out", str(tmp_path)])
    names = files_below(tmp_path)
    assert {"results.json", "cdf.png", "spiral.png", "ecc-fast/best.pt", "csi-scalar-q.pt"} <= names
    assert any(name.startswith("ecc-fast/events.out.tfevents") for name in names)
    rows = {row["policy"]: row for row in json.loads((tmp_path / "results.json").read_text())["rows"]}
    assert {"ecc-fast", "csi-scalar-q", "music"} <= set(rows)
    assert all(np.isfinite(row["mean_m"]) for row in rows.values())
    assert float(rows["ecc-fast"]["bits"]) == 1 + 8 + 24 * 4 * 4
    assert "unseen users" in capsys.readouterr().out


def test_wrong_numbers_of_workers_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        ecc_demo.main(["--quick", "--workers", "0"])
    assert "--workers=0 must be at least 1" in capsys.readouterr().err
