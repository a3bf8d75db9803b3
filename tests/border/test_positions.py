"""Tables of positions: every format gives back every bit, ``evaluate`` writes them, ``plot cdf`` reads them."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from cfpos_envs.evaluation import evaluate, evaluate_many
from cfpos_envs.extras import install_command
from cfpos_envs.files.positions import Positions
from cfpos_envs.front_ends.vector import VectorEnv
from cfpos_envs.measurements.base import PositionEstimate, Reason
from cfpos_envs.results import Answers, EvaluationResult
from scripts import evaluate as evaluate_command
from scripts import plot
from scripts.plots.results import cdf_figure
from scripts.settings import EvaluateSettings
from tests.front_ends.toy import Greedy, OneShot, ToyConfig, ToyScenario, register_toy

TOY = register_toy()
HAS_ARROW = importlib.util.find_spec("pyarrow") is not None
FORMATS = [
    ".csv",
    ".geojson",
    ".npz",
    pytest.param(".parquet", marks=pytest.mark.skipif(not HAS_ARROW, reason="pyarrow, the extra parquet, is missing")),
]


def assert_same(one: Positions, other: Positions) -> None:
    mine, theirs = one.columns(), other.columns()
    assert list(mine) == list(theirs)
    for name, column in mine.items():
        assert column.dtype.kind == theirs[name].dtype.kind, name
        np.testing.assert_array_equal(column, theirs[name], err_msg=name)


def estimate(axes: int = 2) -> PositionEstimate:
    """Two users in two episodes, of which one is lost; coordinates that single precision cannot hold."""
    position = 5_411_000 + torch.rand(2, 2, axes, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    root = torch.rand(2, 2, axes, axes, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    valid = torch.tensor([[True, True], [False, True]])
    reason = torch.tensor([[0, 0], [int(Reason.TOO_FEW_LINKS), 0]], dtype=torch.int8)
    chi = torch.tensor([[1.5, 0.1], [torch.nan, 7.25]], dtype=torch.float64)
    return PositionEstimate(position, root @ root.mT, valid, reason, chi, torch.tensor([[3, 3], [-1, 2]]))


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("axes", [2, 3])
def test_every_format_gives_back_every_bit(tmp_path: Path, ending: str, axes: int) -> None:
    table = Positions.from_estimate(
        estimate(axes),
        user=["Zoë, the 2nd", '"tag"'],
        time_s=[0.1, 0.1, 0.2, np.nan],
        epoch=[7, 7, 8, 8],
        policy="toa-em",
        floor=["EG", "EG", "", "1"],
        truth_m=np.full((4, axes), 5_411_000.1),
        bound_m=0.1,
    )
    back = Positions.read(table.write(tmp_path / f"positions{ending}"))
    assert_same(table, back)
    assert [path.name for path in tmp_path.iterdir()] == [f"positions{ending}"]
    assert back.reason.tolist() == ["valid", "valid", "too_few_links", "valid"]
    assert back.episode.tolist() == [0, 0, 1, 1]
    assert back.position_m.dtype == np.float64
    assert back.covariance_m2 is not None
    np.testing.assert_array_equal(back.covariance_m2, estimate(axes).covariance.reshape(4, axes, axes).numpy())


@settings(max_examples=30)
@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=2, max_size=8), st.sampled_from(FORMATS[:3]))
def test_any_number_survives(tmp_path_factory: pytest.TempPathFactory, numbers: list[float], ending: str) -> None:
    rows = len(numbers) // 2
    position = torch.tensor(numbers[: 2 * rows], dtype=torch.float64).reshape(rows, 2)
    table = Positions.from_estimate(PositionEstimate(position, None, torch.ones(rows, dtype=torch.bool)))
    assert_same(table, Positions.read(table.write(tmp_path_factory.mktemp("any") / f"a{ending}")))


def test_columns_that_nobody_knows_are_absent_and_reasons_may_be_unknown(tmp_path: Path) -> None:
    table = Positions.from_estimate(PositionEstimate(torch.zeros(2, 2), None, torch.tensor([True, False])))
    assert list(table.columns()) == ["episode", "user", "x_m", "y_m", "valid", "reason"]
    assert table.reason.tolist() == ["valid", ""]
    text = table.write(tmp_path / "a.csv").read_text()
    assert text == "episode,user,x_m,y_m,valid,reason\n0,0,0.0,0.0,true,valid\n0,1,0.0,0.0,false,\n"
    # A column that a colleague adds does no harm.
    (tmp_path / "a.csv").write_text(
        text.replace("reason\n", "reason,remark\n", 1).replace("d\n", "d,x\n").replace(",\n", ",,y\n")
    )
    assert_same(table, Positions.read(tmp_path / "a.csv"))


def test_tables_join_and_what_one_lacks_is_empty() -> None:
    plain = PositionEstimate(torch.zeros(1, 2), None, torch.tensor([True]))
    one, other = Positions.from_estimate(plain, time_s=3.0, floor="2"), Positions.from_estimate(plain, policy="music")
    both = Positions.joined([one, other])
    assert both.floor is not None
    assert both.policy is not None
    assert both.floor.tolist() == ["2", ""]
    assert both.policy.tolist() == ["", "music"]
    np.testing.assert_array_equal(both.time_s, [3.0, np.nan])
    assert_same(both.select(np.array([1])), Positions.joined([other, one]).select(np.array([0])))
    with pytest.raises(ValueError, match="give some of one kind"):
        Positions.joined(
            [one, Positions.from_estimate(PositionEstimate(torch.zeros(1, 3), None, torch.tensor([True])))]
        )


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    answer = estimate()
    with pytest.raises(ValueError, match="time_s has 3 entries; 4 positions need 4"):
        Positions.from_estimate(answer, time_s=[1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="did you mean time_s"):
        Positions.from_estimate(answer, times=1.0)
    with pytest.raises(ValueError, match="line break"):
        Positions.from_estimate(answer, user=["a\nb", "c"])
    table = Positions.from_estimate(answer)
    with pytest.raises(ValueError, match=r"a\.xlsx must end in one of \.csv, \.geojson"):
        table.write(tmp_path / "a.xlsx")
    with pytest.raises(ValueError, match="no positions"):
        table.select(np.zeros(4, dtype=bool)).write(tmp_path / "a.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"x_m,y_m\n1,2\n", r"a\.csv.*no column valid and user"),
        ("a.csv", b"episode,user,x_m,y_m,valid,reason\n0,0,1,2,maybe,\n", r"a\.csv, line 2: valid='maybe'"),
        ("a.geojson", b'{"type": "FeatureCollection", "features": []}', r"a\.geojson is no GeoJSON of positions"),
        ("a.geojson", b"[1", r"a\.geojson is no GeoJSON of positions"),
        ("a.npz", b"PK", r"a\.npz is no npz of positions"),
        ("a.npz", b"\x80\x04N.", r"a\.npz is no npz of positions"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=said):
        Positions.read(tmp_path / name)


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", format=np.array("cfpos-positions-1"), user=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match=r"a\.npz is no npz of positions"):
        Positions.read(tmp_path / "a.npz")


def test_parquet_without_its_package_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match="need pyarrow") as refused:
        Positions.from_estimate(estimate()).write(tmp_path / "a.parquet")
    assert install_command("parquet") in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_geojson_without_an_origin_has_no_geometry_and_says_why(tmp_path: Path) -> None:
    content = json.loads(Positions.from_estimate(estimate()).write(tmp_path / "a.geojson").read_text())
    assert content["type"] == "FeatureCollection"
    assert len(content["features"]) == 4
    assert all(feature["geometry"] is None for feature in content["features"])
    assert "RFC 7946" in content["note"]
    assert content["features"][0]["properties"]["x_m"] == float(estimate().position[0, 0, 0])


@pytest.mark.parametrize("policy", [OneShot(lost_value=5.0), Greedy()], ids=["locates", "plays"])
def test_an_evaluation_keeps_what_its_errors_came_from(policy: object, tmp_path: Path) -> None:
    result = evaluate(TOY, policy, episodes=60)
    assert result.positions_m is not None
    assert result.truth_m is not None
    assert result.valid is not None
    np.testing.assert_allclose(np.linalg.norm(result.positions_m - result.truth_m, axis=-1), result.errors, atol=1e-5)
    assert result.valid.mean() == result.valid_share
    back = EvaluationResult.from_json(result.to_json(tmp_path / "a.json"))
    assert_same(Positions.from_evaluation(result), Positions.from_evaluation(back))
    # A file of the version before has no positions; its errors are read all the same.
    content = json.loads((tmp_path / "a.json").read_text())
    for name in ("positions_m", "covariance_m2", "valid", "reason", "truth_m"):
        del content[name]
    (tmp_path / "old.json").write_text(json.dumps({**content, "format": "cfpos-evaluation-1"}))
    old = EvaluationResult.from_json(tmp_path / "old.json")
    np.testing.assert_array_equal(old.errors, result.errors)
    with pytest.raises(ValueError, match="no positions; evaluate it again"):
        Positions.from_evaluation(old)
    (tmp_path / "old.json").write_text(json.dumps({**content, "format": "cfpos-evaluation-2"}))
    with pytest.raises(ValueError, match="is not an evaluation result"):
        EvaluationResult.from_json(tmp_path / "old.json")


def test_covariance_and_reason_of_an_estimator_are_kept() -> None:
    class Lost(OneShot):
        def locate(self, measurements: object) -> PositionEstimate:
            found = super().locate(measurements)
            valid = torch.zeros_like(found.valid)
            covariance = torch.eye(2).expand(*valid.shape, 2, 2) * 0.25
            return PositionEstimate(found.position, covariance, valid, torch.full_like(valid, 3, dtype=torch.int8))

    table = Positions.from_evaluation(evaluate(TOY, Lost(), episodes=2))
    assert table.reason.tolist() == ["poor_geometry"] * 4
    assert not table.valid.any()
    np.testing.assert_array_equal(table.covariance_m2, np.broadcast_to(np.eye(2) / 4, (4, 2, 2)))


class Torus(ToyScenario):
    """The toy on a square whose edges meet."""

    def displacement_m(self, start_m: torch.Tensor, end_m: torch.Tensor) -> torch.Tensor:
        gap = end_m - start_m
        return gap - self.config.side_m * torch.round(gap / self.config.side_m)


def test_errors_around_the_edges_are_kept_as_they_are() -> None:
    corner = OneShot()
    corner.locate = (
        lambda m: PositionEstimate(  # type: ignore[method-assign]
            torch.zeros_like(m.measured_m), None, torch.ones(m.measured_m.shape[:-1], dtype=torch.bool)
        )
    )
    result = evaluate(VectorEnv(Torus(ToyConfig()), num_envs=1, seed=0), corner, episodes=20)
    table = Positions.from_evaluation(result)
    assert table.error_m is not None
    np.testing.assert_array_equal(table.error_m, result.errors.ravel())
    assert table.error_m.max() <= np.sqrt(50)
    assert np.linalg.norm(table.truth_m, axis=1).max() > 10


def labels(*files: Path, answers: str | None = None) -> list[str]:
    return [text.get_text() for text in cdf_figure(files, answers)[0].axes[0].get_legend().get_texts()]


def test_distributions_are_drawn_from_tables_as_from_json(tmp_path: Path) -> None:
    both = evaluate_many(TOY, [OneShot(), Greedy()], episodes=5)
    table = Positions.joined([Positions.from_evaluation(result) for result in both]).write(tmp_path / "positions.csv")
    assert labels(table) == ["one-shot", "greedy", "bound (RMSE)"]
    for entry, result in zip(cdf_figure([table])[1], both):
        np.testing.assert_array_equal(entry.errors, result.errors.ravel())
        assert f"RMSE {result.rmse:.3f} m, median {result.median:.3f} m" in entry.summary()
        assert "of 10 valid answers, answered 10 of 10" in entry.summary()
    other = Positions.from_evaluation(evaluate(TOY, OneShot(), episodes=5, seed=9)).write(tmp_path / "other.npz")
    assert labels(table, other) == ["one-shot", "greedy", "one-shot (other)"]
    bare = Positions.from_estimate(estimate()).write(tmp_path / "bare.csv")
    with pytest.raises(ValueError, match="no truth"):
        cdf_figure([bare])
    known = Positions.from_estimate(estimate(), truth_m=estimate().position + 1.0).write(tmp_path / "walk.csv")
    assert labels(known) == ["walk (answered 3 of 4)"]


def test_evaluate_writes_a_table_that_plot_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # What Hydra would know: where to write, and that nothing was said about the environment beside the game.
    monkeypatch.setattr(evaluate_command, "output_folder", lambda: tmp_path)
    monkeypatch.setattr(evaluate_command, "overrides_typed", list)
    defaults = OmegaConf.structured(EvaluateSettings)
    chosen = {"env": {"id": "toa-v0", "num_aps": 6, "num_ues": 2}, "policy": ["toa-wls", "toa-huber"], "episodes": 3}
    with pytest.raises(ValueError, match="positions='xls' is not one of csv"):
        evaluate_command.main(OmegaConf.merge(defaults, {**chosen, "positions": "xls"}))
    evaluate_command.main(OmegaConf.merge(defaults, {**chosen, "positions": "npz"}))
    report = json.loads((tmp_path / "results.json").read_text())
    assert report["positions"] == "positions.npz"
    table = Positions.read(tmp_path / report["positions"])
    assert table.policy is not None
    assert table.error_m is not None
    for row in report["policies"]:
        errors = table.error_m[table.policy == row["policy"]]
        assert np.sqrt(np.mean(errors**2)) == pytest.approx(row["rmse_m"])
    # An evaluation compares policies on the same users; a table counts what the method stands by.
    huber = report["policies"][1]
    assert 0 < huber["valid_share"] < 1
    everybody = f"toa-huber: RMSE {huber['rmse_m']:.3f} m"
    stood_by = f"toa-huber: RMSE {huber['valid_rmse_m']:.3f} m"
    for source, words, said in (
        (tmp_path, [], everybody),
        (tmp_path / "results.json", [], everybody),
        (tmp_path / "positions.npz", [], stood_by),
        (tmp_path, ["--answers", "valid"], stood_by),
        (tmp_path / "positions.npz", ["--answers", "all"], everybody),
    ):
        capsys.readouterr()
        plot.main(["cdf", str(source), *words, "--out", str(tmp_path / "curves.png")])
        assert said in capsys.readouterr().out


def test_answers_that_are_not_valid_have_no_part_in_the_figures_unless_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    errors, valid = np.array([3.0, 4.0, 100.0]), np.array([True, True, False])
    answers = Answers(errors, valid)
    # sqrt((9 + 16) / 2) = 3.536; sqrt((25 + 1e4) / 3) = 57.807
    stood_by = "RMSE 3.536 m, median 3.500 m, p95 3.950 m of 2 valid answers, answered 2 of 3"
    assert answers.line("valid") == stood_by
    assert answers.line("all").startswith("RMSE 57.807 m, median 4.000 m")
    assert Answers(errors, ~np.ones(3, dtype=bool)).line("valid") == "no valid answers, answered 0 of 3"
    with pytest.raises(ValueError, match="answers='best' is not one of valid, all"):
        answers.counted("best")
    place = torch.tensor([[3.0, 0.0], [0.0, 4.0], [100.0, 0.0], [1.0, 1.0]])
    truth = np.array([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [np.nan, np.nan]])
    found = PositionEstimate(place, None, torch.tensor([True, True, False, True]))
    table = Positions.from_estimate(found, truth_m=truth)
    assert table.answers.share == "answered 2 of 3"
    one = table.write(tmp_path / "walk.csv")
    assert labels(one) == ["walk (answered 2 of 3)"]
    assert labels(one, answers="all") == ["walk (answered 2 of 3)"]
    (drawn,) = cdf_figure([one])[0].axes[0].get_lines()
    np.testing.assert_allclose(drawn.get_xdata(), [3.0, 4.0])
    (drawn,) = cdf_figure([one], "all")[0].axes[0].get_lines()
    np.testing.assert_allclose(drawn.get_xdata(), [3.0, 4.0, 100.0])
    lost = table.select(~table.valid).write(tmp_path / "lost.csv")
    with pytest.raises(SystemExit):
        plot.main(["cdf", str(lost), "--out", str(tmp_path / "none.png")])
    assert "no answer is valid (answered 0 of 1)" in (said := capsys.readouterr().err)
    assert "--answers all" in said
