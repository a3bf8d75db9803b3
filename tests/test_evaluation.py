from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cfpos_envs import evaluate, make_env
from cfpos_envs.evaluation import CHUNK_EPISODES, EvaluationResult, evaluate_many, format_table
from tests.front_ends.toy import ActOnlyGreedy, Greedy, OneShot, ToyScenario, register_toy

TOY = register_toy()


def result_of(
    errors: Any, bounds: Any = None, rounds: list[float] | None = None, sites: Any = None
) -> EvaluationResult:
    return EvaluationResult(
        policy="p",
        env_id="e",
        config={"side_m": 1.0},
        seed=7,
        errors=np.asarray(errors, dtype=float),
        bounds=None if bounds is None else np.asarray(bounds, dtype=float),
        sites=None if sites is None else np.asarray(sites),
        valid_share=1.0,
        rmse_by_round=rounds,
        latency_ms=0.5,
        policy_ms=0.25,
        fronthaul_bits=64.0,
    )


class Recorder:
    """Remembers what it was shown and answers like its base policy."""

    name = "recorder"

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def locate(self, measurements: Any) -> Any:
        self.seen.append(measurements.measured_m)
        return OneShot().locate(measurements)


def test_every_kind_of_policy_meets_the_same_drops() -> None:
    one_shot, batch, dicts = evaluate_many(TOY, [OneShot(), Greedy(), ActOnlyGreedy()], episodes=60, rounds=9)
    np.testing.assert_allclose(one_shot.errors, batch.errors, atol=1e-5)
    np.testing.assert_array_equal(batch.errors, dicts.errors)
    np.testing.assert_allclose(batch.rmse_by_round, dicts.rmse_by_round)
    alone = evaluate(TOY, ActOnlyGreedy(), episodes=60, rounds=9)
    np.testing.assert_array_equal(alone.errors, dicts.errors)
    assert one_shot.rmse_by_round is None
    assert len(batch.rmse_by_round) == 10
    assert batch.rmse_by_round[-1] == pytest.approx(batch.rmse)


def test_a_short_run_is_the_beginning_of_a_long_one() -> None:
    long, short = (evaluate(TOY, OneShot(), episodes=n) for n in (2 * CHUNK_EPISODES, CHUNK_EPISODES + 3))
    np.testing.assert_array_equal(long.errors[: CHUNK_EPISODES + 3], short.errors)


def test_seeds_choose_the_drops() -> None:
    first, again, other = (evaluate(TOY, OneShot(), episodes=5, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.errors, again.errors)
    assert not np.array_equal(first.errors, other.errors)


def test_evaluation_never_sees_training_drops_and_takes_the_config_of_the_env() -> None:
    recorder = Recorder()
    env = make_env(TOY, num_envs=CHUNK_EPISODES, seed=7, num_ues=3)
    env.reset()
    result = evaluate(env, recorder, episodes=CHUNK_EPISODES, seed=7, rounds=2)
    assert result.config["split"] == "test"
    assert result.config["num_ues"] == 3
    assert result.config["rounds"] == 2
    assert env.config.split == "train"
    assert not torch.isin(recorder.seen[0], env.measurements.measured_m).any()


@pytest.mark.parametrize("kind", ["id", "parallel", "vector"])
def test_every_form_of_environment(kind: str) -> None:
    env = {"id": TOY, "parallel": make_env(TOY), "vector": make_env(TOY, num_envs=3)}[kind]
    result = evaluate(env, OneShot(), episodes=3)
    assert result.env_id == TOY
    np.testing.assert_array_equal(result.errors, evaluate(TOY, OneShot(), episodes=3).errors)


def test_invalid_answers_are_counted_and_not_dropped() -> None:
    honest = evaluate(TOY, OneShot(), episodes=10)
    finite = evaluate(TOY, OneShot(lost_value=0.0), episodes=10)
    lost = evaluate(TOY, OneShot(lost_value=float("nan")), episodes=10)
    assert honest.valid_share == 1
    assert finite.valid_share == lost.valid_share == 19 / 20
    np.testing.assert_array_equal(honest.errors.flat[:-1], lost.errors.flat[:-1])
    start = evaluate(TOY, OneShot(lost_value=5.0), episodes=10)
    assert lost.errors[-1, -1] == start.errors[-1, -1], "the centre of the area stands in for NaN"
    assert finite.errors[-1, -1] != lost.errors[-1, -1]


def test_statistics_of_known_errors() -> None:
    result = result_of([[3.0, 4.0], [0.0, 5.0]], bounds=[[1.0, 1.0], [1.0, 1.0]])
    assert result.rmse == pytest.approx(np.sqrt(12.5))
    assert (result.mean, result.median) == (3.0, 3.5)
    assert result.p90 == pytest.approx(4.7)
    assert result.bound_rmse == 1
    assert result.efficiency == pytest.approx(np.sqrt(12.5))
    assert result_of([[1.0]]).efficiency is None


def test_converged_round_is_the_first_that_stays_near_the_end() -> None:
    assert result_of([[1.0]], rounds=[5.0, 1.02, 1.3, 1.01, 1.0]).converged_round == 3
    assert result_of([[1.0]], rounds=[1.0, 1.0]).converged_round == 0
    assert result_of([[1.0]]).converged_round is None


def test_interval_resamples_episodes_not_users() -> None:
    # Users of one episode agree perfectly: the interval must be that of 50 numbers, not of 5000.
    values = np.random.default_rng(0).normal(10.0, 1.0, size=50)
    low, high = result_of(np.repeat(values[:, None], 100, axis=1)).ci("mean")
    deviation = values.std() / np.sqrt(50)
    assert (high - low) / 2 == pytest.approx(1.96 * deviation, rel=0.1)
    assert low < values.mean() < high


def test_interval_over_sites_is_that_of_the_sites() -> None:
    # All episodes of a site agree: 20 numbers, not 400.
    values = np.random.default_rng(3).normal(10.0, 1.0, size=20)
    result = result_of(np.tile(values, 20)[:, None], sites=np.tile(np.arange(20), 20))
    low, high = result.ci("mean", unit="site")
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / np.sqrt(20), rel=0.15)
    narrow = result.ci("mean")
    assert narrow[1] - narrow[0] < (high - low) / 3
    for wrong, unit in ((result, "user"), (result_of([[1.0]]), "site")):
        with pytest.raises(ValueError, match="unit"):
            wrong.ci("mean", unit=unit)


def test_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    trials = [result_of(generator.normal(5.0, 1.0, (40, 1))).ci("mean", 0.9, 300) for _ in range(200)]
    covered = np.mean([low < 5.0 < high for low, high in trials])
    assert 0.82 < covered < 0.96


def test_interval_of_the_efficiency_pairs_errors_with_bounds() -> None:
    bounds = np.random.default_rng(2).uniform(1, 5, (30, 2))
    low, high = result_of(2 * bounds, bounds).ci("efficiency")
    assert low == pytest.approx(2)
    assert high == pytest.approx(2)


def test_interval_refuses_nonsense() -> None:
    result = result_of([[1.0], [2.0]])
    with pytest.raises(ValueError, match=r"unknown metric 'rms'.*rmse"):
        result.ci("rms")
    with pytest.raises(ValueError, match="no position error bound"):
        result.ci("efficiency")
    with pytest.raises(ValueError, match="level"):
        result.ci("rmse", level=95.0)
    with pytest.raises(ValueError, match="resamples"):
        result.ci("rmse", resamples=0)


def test_json_keeps_every_bit_and_leaves_no_partial_file(tmp_path: Path) -> None:
    result = evaluate(TOY, Greedy(), episodes=4)
    path = result.to_json(tmp_path / "result.json")
    assert list(tmp_path.iterdir()) == [path]
    back = EvaluationResult.from_json(path)
    np.testing.assert_array_equal(back.errors, result.errors)
    np.testing.assert_array_equal(back.bounds, result.bounds)
    assert (back.rmse, back.rmse_by_round, back.config) == (result.rmse, result.rmse_by_round, result.config)
    content = json.loads(path.read_text())
    assert content["rmse"] == result.rmse
    assert content["rmse_ci95"] == list(result.ci("rmse"))


def test_json_has_no_nan(tmp_path: Path) -> None:
    path = result_of([[1.0, np.nan]]).to_json(tmp_path / "a.json")
    assert "NaN" not in path.read_text()
    assert np.isnan(EvaluationResult.from_json(path).errors[0, 1])


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"format": "other"}', '{"format": "cfpos-evaluation-1"}'])
def test_damaged_json_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"bad\.json is not an evaluation result"):
        EvaluationResult.from_json(path)


def test_unwritable_place(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="missing"):
        result_of([[1.0]]).to_json(tmp_path / "missing" / "a.json")


def test_table_and_summary_show_the_best_first() -> None:
    table = format_table(evaluate_many(TOY, [Greedy(), OneShot()], episodes=5, rounds=1)).splitlines()
    assert table[0].split()[:2] == ["policy", "RMSE"]
    assert [line.split()[0] for line in table[2:4]] == ["one-shot", "greedy"]
    assert "position error bound" in table[-1]
    assert "RMSE 1.000 m" in result_of([[1.0], [1.0]]).summary()


def test_a_table_shows_the_error_of_all_and_of_those_that_a_policy_stands_by() -> None:
    half = dataclasses.replace(result_of([[1.0], [7.0]]), valid=np.array([[True], [False]]), valid_share=0.5)
    none = dataclasses.replace(half, valid=np.zeros((2, 1), dtype=bool), valid_share=0.0)
    assert half.valid_rmse == 1.0
    assert none.valid_rmse is None
    for result, shown in ((half, ["50.0%", "1.000"]), (none, ["0.0%", "-"])):
        row = format_table([result]).splitlines()[2].split()
        assert row[1] == "5.000"  # sqrt((1 + 49) / 2)
        assert row[-3:-1] == shown
    assert half.summary().endswith("answered 1 of 2")


def test_bad_requests_are_refused() -> None:
    for episodes in (0, -1, True):
        with pytest.raises(ValueError, match="episodes"):
            evaluate(TOY, OneShot(), episodes=episodes)
    with pytest.raises(TypeError, match="locate, act_batch or act"):
        evaluate(TOY, object())
    with pytest.raises(TypeError, match="must be an id"):
        evaluate(object(), OneShot())
    with pytest.raises(ValueError, match=r"num_ue.*did you mean num_ues"):
        evaluate(make_env(TOY), OneShot(), num_ue=3)


def test_answers_of_the_wrong_shape_are_refused() -> None:
    class Short(OneShot):
        def locate(self, measurements: Any) -> Any:
            answer = super().locate(measurements)
            return type(answer)(answer.position[:, :1], None, answer.valid[:, :1])

    with pytest.raises(ValueError, match=r"one-shot\.locate answered position"):
        evaluate(TOY, Short(), episodes=2)


def test_fronthaul_is_the_scenarios() -> None:
    result = evaluate(TOY, OneShot(), episodes=1)
    assert result.fronthaul_bits == ToyScenario(ToyScenario.config_class()).fronthaul_bits()
    assert result.latency_ms >= result.policy_ms > 0
