"""The benchmark's arithmetic against hand counts, its bookkeeping, and that every part runs; never how fast it is."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any

import pytest

from cfpos_envs.scenarios.dcp.config import DcpConfig
from cfpos_envs.scenarios.dcp.similarity import rss_law
from scripts import benchmark, docs_blocks
from scripts.benchmarks import PARTS, changes, common, growth, phases, policies, ratios, resets, roofline, yardsticks
from scripts.benchmarks.common import Options, Played
from tests.scripts.commands import error_line, files_below, run

TINY = Options.tiny()
OURS = tuple(part for part in PARTS if part not in ("yardsticks", "trainers", "data-parallel"))
Content = dict[str, Any]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Content:
    """What a quick run of all our parts and the one yardstick that is always there writes."""
    folder = tmp_path_factory.mktemp("measured")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yardsticks, "ENVIRONMENTS", ("mpe2", "vmas"))
        patch.setitem(yardsticks.PACKAGES, "vmas", "no_such_package")
        benchmark.main(["--quick", "--parts", ",".join((*OURS, "yardsticks")), "--out", str(folder / "here.json")])
    assert files_below(folder) == {"here.json"}
    content: Content = json.loads((folder / "here.json").read_text())
    return content


def _tables(content: Content) -> dict[str, list[dict[str, Any]]]:
    return changes.benchmark_tables(content)


def test_a_quick_run_fills_every_table_with_positive_finite_figures(measured: Content) -> None:
    assert list(measured["parts"]) == [*OURS, "yardsticks"]
    assert measured["options"]["quick"] is True
    assert {"cpu", "python", "torch"} == set(measured["machine"])
    assert "yardsticks" not in measured["options"], "interpreters are paths of one machine"
    positive = {
        "environments": ("step ms", "reset ms", "agent-steps/s", "with resets", "reset share"),
        "growth": ("ms/episode",),
        "contention": ("alone, per CPU-s", "beside, per CPU-s", "kept"),
        "memory": ("reset peak MiB", "peak MiB"),
        "csi": ("samples/s", "with stabilised", "with cov", "with acf"),
        "locating": ("us/user", "policy alone us/user", "fingerprint 0.5 m over it"),
        "bounds": ("CPU s per million",),
        "policies": ("CPU s",),
        "ris": ("ms/estimate", "estimates/s"),
        "ris stages": ("ms/estimate", "share"),
        "rates": ("giga/s",),
        "work": ("flops", "logs", "exps", "bytes"),
        "resets": ("reset us/episode", "round us/episode", "agent-steps/s", "times"),
        "links": ("reset us/episode", "round us/episode", "times dft"),
        "reset roofline": ("measured us/reset", "times fused", "times eager"),
        "roofline": ("measured us/round", "times fused", "times eager"),
        "ratios": ("ratio", "ratio with resets"),
        "reset ratios": ("ours/s", "theirs/s", "ratio with resets"),
        "imports": ("CPU s", "over import torch"),
    }
    tables = _tables(measured)
    assert {"phases", "exponents", "yardsticks", *positive} == set(tables)
    for name, columns in positive.items():
        assert tables[name], name
        for row in tables[name]:
            assert all(math.isfinite(row[column]) and row[column] > 0 for column in columns), (name, row)
    for row in tables["roofline"]:
        assert row["fused limit us"] < row["eager limit us"] < row["measured us/round"]
    for row in tables["memory"]:
        assert row["peak MiB"] >= row["reset peak MiB"]


def test_phases_add_up_to_the_whole(measured: Content) -> None:
    rows = _tables(measured)["phases"]
    sizes = {(row["environment"], row["B"]) for row in rows}
    assert len(sizes) > 1
    for size in sizes:
        shares = {row["phase"]: row["share"] for row in rows if (row["environment"], row["B"]) == size}
        assert set(shares) == {*phases.PHASES, phases.FRONT_END} - {phases.COMPILED}
        assert sum(shares.values()) == pytest.approx(1.0)
        # An empty phase would be a function that the game does not call any more.
        assert min(shares.values()) > 0.0, shares


def test_a_missing_package_has_a_row_that_says_so(measured: Content) -> None:
    rows = {row["yardstick"].split()[0]: row for row in _tables(measured)["yardsticks"]}
    assert rows["mpe2"]["status"] == "measured"
    assert rows["mpe2"]["agent-steps/s"] > 0
    assert rows["vmas"]["status"] == yardsticks.NOT_INSTALLED
    assert rows["vmas"]["agent-steps/s"] is None
    assert any("vmas" in remark for remark in measured["parts"]["yardsticks"]["remarks"])
    assert {row["against"] for row in measured["ratios"]} == {"mpe2 simple_spread"}


def test_a_yardstick_that_fails_is_an_error_not_a_missing_row(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'broken for a test' >&2\nexit 3\n")
    python.chmod(0o755)
    with pytest.raises(RuntimeError, match=r"mpe2 failed .*: broken for a test"):
        yardsticks.answer("mpe2", dataclasses.replace(TINY, yardsticks={"mpe2": str(python)}))


def test_exponent_is_the_slope_of_a_power_law() -> None:
    sizes = [64.0, 128.0, 256.0]
    assert growth.exponent(sizes, [3e-9 * size**1.7 for size in sizes]) == pytest.approx(1.7)
    # Least squares by hand: log2 costs 0, 1, 4 over log2 sizes 0, 1, 2 have the slope 2.
    assert growth.exponent([1, 2, 4], [1, 2, 16]) == pytest.approx(2.0)
    with pytest.raises(ValueError, match="two different positive sizes"):
        growth.exponent([64, 64], [1.0, 2.0])
    with pytest.raises(ValueError, match="two different positive sizes"):
        growth.exponent([64, 128], [1.0, 0.0])


def test_exponents_leave_out_small_networks_and_further_users() -> None:
    def row(num_aps: int, num_ues: int, cost: float) -> dict[str, Any]:
        return {"environment": "e", "reward": "local", "M": num_aps, "K": num_ues, "ms/episode": cost}

    rows = [row(16, 6, 999.0), row(64, 6, 1.0), row(256, 6, 64.0), row(256, 32, 1e9)]
    (found,) = growth.exponents(rows, 64)
    assert found["exponent in M"] == pytest.approx(3.0)
    assert (found["M from"], found["M to"], found["K"], found["goal"]) == (64, 256, 6, 2.0)
    (small,) = growth.exponents(rows[:2], 64)
    assert (small["M from"], small["M to"]) == (16, 64)


def test_counted_work_of_a_small_round_agrees_with_a_hand_count() -> None:
    # Two APs, one user: 2 * 2 reports and 6 * 2 candidates of the line search are judged, 16 links of 23 flops and
    # a logarithm; 8 points end in a square root, a division, a logarithm and four flops; 2 links of
    # reporting (50 flops, 4 divisions, 1 exponential, 2 angles) and of 14 features (4 flops, .35 logs, .2 angles).
    work = roofline.round_work("rss", 2, 1)
    assert work.flops == 16 * 23 + 8 * 4 + 2 * 50 + 2 * 14 * 4
    assert work.logs == pytest.approx(16 + 8 + 2 * 14 * 0.35)
    assert work.exps == 2
    assert work.divisions == 8 * 2 + 2 * 4
    assert work.angles == pytest.approx(2 * 2 + 2 * 14 * 0.2)
    assert work.gathers == 0
    joint = roofline.round_work("joint", 2, 1)
    assert joint.gathers == 16 * 2
    assert joint.flops == work.flops + 16 * 13 + 8 * 4
    # Reading 2 links of 4.25 numbers, 2 APs of 4, a user of 3; writing 2 links of 15, two rewards, a user of 3.
    assert roofline.round_bytes("rss", 2, 1, 181) == 4 * (2 * 4.25 + 8 + 3 + 30 + 2 + 3)
    assert roofline.round_bytes("joint", 2, 1, 181) - roofline.round_bytes("rss", 2, 1, 181) == 4 * 2 * 181


def test_the_counted_law_of_the_rss_is_the_one_that_is_used() -> None:
    config = DcpConfig(stage="rss")
    law = rss_law(config, config.radio)
    assert law.coefficients is not None
    assert len(law.coefficients) == 3


def test_counted_work_grows_with_the_square_of_the_aps() -> None:
    flops = [roofline.round_work("rss", count, 6).flops for count in (256, 512)]
    assert 1.9 < growth.exponent([256, 512], flops) < 2.0


def test_limits_are_arithmetic_or_memory_whichever_takes_longer() -> None:
    rates = {
        "matmul flops": 100.0,
        "flops": 10.0,
        "bytes": 4.0,
        "divisions": 1.0,
        "logs": 2.0,
        "exps": 4.0,
        "angles": 5.0,
        "gathers": 8.0,
    }
    work = roofline.Work(flops=100.0, divisions=1.0, logs=2.0, exps=4.0, angles=5.0, gathers=8.0)
    assert roofline.limits(work, 1.0, rates) == {"fused": 1.0 + 5.0, "eager": 10.0 + 5.0}
    assert roofline.limits(work, 400.0, rates) == {"fused": 100.0, "eager": 100.0}


def test_watching_counts_a_functions_own_time_and_restores_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    monkeypatch.setattr(time, "process_time", lambda: float(next(clock)))
    outer, inner = Played.episode, Played.__init__
    where = f"{Played.__module__}:Played"
    with phases.watched({"inner": (f"{where}.__init__",), "outer": (f"{where}.episode",)}) as spent:
        # The clock is read: begin, outer begins, inside it (began, ready, the step makes a Played: 2, end), outer ends.
        Played.episode(_Bare(), lambda: None, Played, 1)
    assert (Played.episode, Played.__init__) == (outer, inner)
    # Readings: 0 watch begins, 1 outer, 2 began, 3 ready, 4 and 5 around inner, 6 end of steps, 7 outer ends, 8 watch.
    assert spent == {"inner": 1.0, "outer": 6.0 - 1.0, phases.FRONT_END: 8.0 - 6.0}


class _Bare:
    reset_s = steps_s = 0.0
    resets = steps = 0


def test_a_function_that_is_gone_is_named() -> None:
    with pytest.raises(AttributeError, match="gone"), phases.watched({"x": (f"{Played.__module__}:Played.gone",)}):
        pass


def test_the_fastest_repeat_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    # Begin and end of two repeats of one call each: 9 s and 2 s.
    clock = iter([0.0, 9.0, 10.0, 12.0])
    monkeypatch.setattr(common.time, "process_time", lambda: next(clock))
    assert common.cpu_s(lambda: None, Options(repeats=2, seconds=1.0)) == 2.0


def test_an_episode_counts_reset_and_steps_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 3.0, 11.0])
    monkeypatch.setattr(common.time, "process_time", lambda: next(clock))
    found = common.episode_s(
        lambda spent: spent.episode(lambda: None, lambda: None, 4), Options(repeats=1, seconds=1.0)
    )
    assert found == (3.0, 2.0)


def test_ratios_take_the_best_size_and_the_most_agents() -> None:
    def ours(batch: int, speed: float) -> dict[str, Any]:
        size = {"environment": "dcp-rss-v0", "front end": "vector", "B": batch, "mode": "torch"}
        return {**size, "agent-steps/s": speed, "with resets": speed / 2}

    def theirs(agents: int, worlds: int, speed: float | None) -> dict[str, Any]:
        size = {"yardstick": "vmas 1.5", "environment": "dispersion", "agents": agents, "worlds": worlds}
        return {**size, "agent-steps/s": speed, "with resets": speed, "status": "measured" if speed else "absent"}

    parts = {
        "environments": {"tables": {"environments": [ours(32, 50.0), ours(256, 80.0), ours(2048, 60.0)]}},
        "yardsticks": {"tables": {"yardsticks": [theirs(3, 32, 999.0), theirs(36, 32, 10.0), theirs(36, 256, 20.0)]}},
    }
    (row,) = ratios.ratios(parts)
    assert (row["B"], row["worlds"], row["agents"]) == (256, 256, 36)
    assert (row["ratio"], row["ratio with resets"], row["goal"]) == (4.0, 2.0, 3.0)
    parts["yardsticks"]["tables"]["yardsticks"] = [theirs(36, 32, None)]
    assert ratios.ratios(parts) == []
    assert ratios.ratios({}) == []


def test_whole_episodes_of_either_rng_are_compared_with_whole_episodes() -> None:
    def ours(rng: str, batch: int, speed: float) -> dict[str, Any]:
        game = {"environment": "dcp-jar-v0", "front end": "vector", "mode": "native"}
        return {**game, "rng": rng, "B": batch, "agent-steps/s": speed}

    def theirs(agents: int, worlds: int, without: float, resets: float) -> dict[str, Any]:
        size = {"yardstick": "vmas 1.5", "environment": "dispersion", "agents": agents, "worlds": worlds}
        return {**size, "agent-steps/s": without, "with resets": resets, "status": "measured"}

    rows = [ours("stream", 32, 30.0), ours("counter", 32, 90.0), ours("counter", 256, 60.0)]
    others = [theirs(3, 32, 999.0, 999.0), theirs(36, 32, 50.0, 10.0), theirs(36, 256, 40.0, 20.0)]
    parts = {"resets": {"tables": {"resets": rows}}, "yardsticks": {"tables": {"yardsticks": others}}}
    found = ratios.reset_ratios(parts)
    assert [(row["rng"], row["B"], row["worlds"]) for row in found] == [("stream", 32, 256), ("counter", 32, 256)]
    assert [row["ratio with resets"] for row in found] == [1.5, 4.5]
    assert ratios.reset_ratios({"resets": parts["resets"]}) == []
    content = {"parts": parts, "ratios": [], "reset ratios": found}
    assert changes.benchmark_tables(content)["reset ratios"] == found


def test_changes_compare_the_best_mode_and_mark_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def content(*rows: tuple[str, int, str, float]) -> Content:
        names = ("environment", "B", "mode", "agent-steps/s")
        table = [{**dict(zip(names, row)), "front end": "vector"} for row in rows]
        return {"parts": {"environments": {"tables": {"environments": table}}}, "ratios": []}

    before = content(("a", 1, "torch", 100.0))
    after = content(("a", 1, "torch", 300.0), ("a", 1, "native", 800.0), ("b", 1, "torch", 5.0))
    rows = changes.changes("environments", before, after)
    assert [(row["environment"], row["after"], row["times"]) for row in rows] == [("a", 800.0, 8.0), ("b", 5.0, None)]
    with pytest.raises(ValueError, match="'nothing' is not compared; choose one of environments"):
        changes.changes("nothing", before, after)
    for name, values in {"benchmark-before": before, "benchmark": after}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(values))
    monkeypatch.setattr(docs_blocks, "RESULTS", tmp_path)
    assert "| a | vector | 1 | 100 | 800 | 8.00 |" in docs_blocks.benchmark_change("environments")
    assert "| b | 1 | torch | 5.00 | vector |" in docs_blocks.benchmark("benchmark environments")
    with pytest.raises(ValueError, match=r"no table 'nothing'; it has environments, ratios"):
        docs_blocks.benchmark("benchmark nothing")


def test_policies_are_compared_with_those_that_the_reference_has() -> None:
    def build(cpu_s: float | None, rmse_m: float | None) -> dict[str, Any]:
        return {"cpu_s": cpu_s, "rmse_m": rmse_m}

    rows = policies.table({"old": [build(1.0, 2.0), build(4.0, 2.5)], "new": [build(9.0, 1.0), build(None, None)]})
    assert [row["policy"] for row in rows] == ["old", "new", "all"]
    assert [row["share"] for row in rows] == [0.25, None, 0.25]
    assert [row["RMSE apart m"] for row in rows] == [0.5, None, None]
    assert [row["CPU s"] for row in rows] == [1.0, 9.0, 1.0]
    (_, total) = policies.table({"old": [build(3.0, 2.0)]})
    assert (total["CPU s"], total["reference CPU s"], total["share"]) == (3.0, None, None)


def test_a_checkout_is_measured_beside_ours(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    benchmark.main(["--quick", "--parts", "policies", "--reference", str(benchmark.ROOT), "--out", str(out)])
    content = json.loads(out.read_text())
    rows = {row["policy"]: row for row in content["parts"]["policies"]["tables"]["policies"]}
    assert rows["all"]["share"] > 0
    assert rows["joint-gn"]["RMSE apart m"] == 0
    assert content["reference"] == content["commit"]
    assert str(benchmark.ROOT) not in out.read_text(), "a path of one machine"


def test_readable_numbers_have_three_digits_and_no_exponent() -> None:
    row = {"a": 123456.7, "b": 0.012345, "c": None, "d": 36, "e": 999.9, "f": 0.0, "g": "x", "h": 5.0}
    assert list(common.readable([row])[0].values()) == ["123 000", "0.0123", "-", "36", "1 000", "0", "x", "5.00"]


def test_options_survive_the_way_to_another_process() -> None:
    options = dataclasses.replace(TINY, yardsticks={"mpe2": "python"}, seconds=0.25)
    assert Options.from_json(options.to_json()) == options


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"threads": 0}, "--threads=0 must be at least 1"),
        ({"repeats": 0}, "--repeats=0"),
        ({"num_aps": -1}, "--num-aps=-1"),
        ({"batches": (32, 0)}, "--batches=0"),
        ({"batches": ()}, "--batches names no size"),
        ({"modes": ("torch", "fast")}, "--modes=torch,fast must be one or both of torch, native"),
        ({"modes": ()}, "--modes= must be"),
        ({"seconds": math.nan}, "--seconds=nan must be finite"),
    ],
)
def test_impossible_options_are_refused_by_name(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **changed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--parts", "enviroments"], "did you mean environments?"),
        (["--parts", ""], "--parts names none"),
        (["--yardstick", "wmas=python"], "did you mean vmas?"),
        (["--yardstick", "vmas=nowhere"], "--yardstick vmas=nowhere: no such file"),
        (["--reference", "nowhere"], "--reference nowhere: no checkout of cfpos"),
        (["--batches", "0"], "--batches=0 must be at least 1"),
        (["--out", "file/x.json"], "cannot write"),
        (["--scenarios", "balance"], "--scenarios=balance must be one or both of simple_spread, dispersion"),
    ],
)
def test_wrong_command_lines_are_refused_before_anything_is_measured(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        benchmark.main(["--quick", *arguments])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert files_below(tmp_path) == {"file"}


def test_the_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "old.json"
    target.write_text("kept")
    monkeypatch.setattr(benchmark, "measure", lambda part, options: {"tables": {"t": [{"x": {1j}}]}})
    with pytest.raises(TypeError):
        benchmark.main(["--quick", "--parts", "environments", "--out", str(target)])
    assert target.read_text() == "kept"
    assert files_below(tmp_path) == {"old.json"}


def test_the_command_runs_from_outside(tmp_path: Path) -> None:
    done = run("benchmark", "--quick", "--parts", "roofline", "--out", "x/y.json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "wrote x/y.json" in done.stdout
    assert "times fused" in done.stdout
    assert "--threads=0" in error_line(run("benchmark", "--threads", "0", folder=tmp_path))


def test_the_work_of_a_reset_is_that_counted_by_hand() -> None:
    # One AP, one user, two antennas, one path: 2 + 3 uniform numbers of a link and a path, 1 + 2 normal, 2 gamma.
    config = DcpConfig(
        stage="rss", num_aps=1, num_ues=1, num_antennas=2, num_paths=1, num_angles=19, split="test", start="centroid"
    )
    work = resets.reset_work(1, 1, config, 0)
    assert work.logs == pytest.approx(1 + 1 + 3 * 0.5 + 2 * 2.5 + 1)
    assert work.angles == pytest.approx(1 + 3 + 3 + 2)
    assert work.gathers == 4
    words = 25 * (2 + 3 + 1 + 3 + 2 * 2)
    numbers = 3 * 6 + 6 * 3 + 2 * (6 + 16)
    matrices = 8 * (2 + 1 + 2 * 4)
    assert work.flops == pytest.approx(words + numbers + 40 + 12 + matrices + 4 * 4 + 2 * 2 * 19 + 19)
    assert resets.reset_bytes(1, 1, 2) == 4 * (8 + 2 + 3.25 + 4 + 8)
