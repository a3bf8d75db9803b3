"""The trainers' benchmark runs, tells what is missing, and compares equals; never how fast anything is."""

from __future__ import annotations

import math
from typing import Any

import pytest

from scripts.benchmarks import trainers, yardsticks
from scripts.benchmarks.common import Options
from scripts.benchmarks.trainer_sizes import Size, sizes


def test_a_quick_run_measures_ours_and_names_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(name: str, options: Options) -> dict[str, Any] | None:
        return {"XuanCe 1": [1e-9]} if name == "xuance" else None

    monkeypatch.setattr(trainers, "answer", answer)
    told = trainers.run(Options.tiny())
    tables = told["tables"]
    assert [row["critic"] for row in tables["updates"]] == list(trainers.SETTINGS)
    for name in ("updates", "trainer growth", "replay", "products"):
        times = [value for row in tables[name] for value in row.values() if isinstance(value, float)]
        assert times
        assert all(math.isfinite(value) and value > 0 for value in times), name
    rows = {row["trainer"]: row for row in tables["trainers"]}
    assert rows["ours"]["x ours"] == 1.0
    assert rows["XuanCe 1"]["ms/update"] == pytest.approx(1e-6)
    assert rows["XuanCe 1"]["x ours"] == pytest.approx(1e-6 / rows["ours"]["ms/update"])
    for name in ("agilerl", "torchrl"):
        assert rows[name]["status"] == yardsticks.NOT_INSTALLED
        assert rows[name]["ms/update"] is None
    assert any("agilerl, torchrl" in remark for remark in told["remarks"])


def test_everybody_is_measured_at_the_sizes_of_the_comparison() -> None:
    assert sizes(Options()) == [Size(agents, 256, 64) for agents in (3, 6, 12, 36)]
    assert set(sizes(Options())) <= set(trainers._grid(Options()))


def test_the_work_of_one_agent_by_hand() -> None:
    # One sample, one hidden unit per layer: 24 + 1 + 12 weights of the actor, 36 + 1 + 1 of the critic.
    actor, critic_behind = 37, 2
    wanted = 2 * (3 * actor + 13 + 4 * 36 + 6 * critic_behind + 2 * 12)
    assert trainers.concatenated_flops(Size(1, 1, 1)) == wanted
