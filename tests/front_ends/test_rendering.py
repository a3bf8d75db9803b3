from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch

from cfpos_envs.drawing import figures as rendering
from cfpos_envs.evaluation import evaluate_many
from tests.front_ends.toy import Greedy, OneShot, register_toy

TOY = register_toy()


def drawn(**changes: object) -> np.ndarray:
    arguments = {
        "ap_positions": torch.tensor([[2.0, 2.0], [8.0, 3.0]]),
        "ap_orientation": torch.tensor([0.0, 1.0]),
        "true_position": torch.tensor([[5.0, 5.0]]),
        "estimates": [torch.tensor([[3.0, 3.0]]), torch.tensor([[4.5, 5.0]])],
        "side_m": 10.0,
        "wrap": False,
    }
    with rendering.new_figure(4.0, 4.0) as (figure, axes):
        rendering.draw_episode(axes, **{**arguments, **changes})
    return rendering.figure_to_rgb(figure)


def test_pictures_are_rgb_bytes_and_leave_matplotlib_as_it_was() -> None:
    before = dict(matplotlib.rcParams)
    picture = drawn()
    assert picture.shape == (400, 400, 3)
    assert picture.dtype == np.uint8
    assert picture.min() < 100
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"ap_orientation": torch.tensor([1.5, 1.0])},
        {"true_position": torch.tensor([[6.0, 5.0]])},
        {"estimates": []},
        {"covariance": torch.eye(2)[None]},
        {"title": "named"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_everything_given_is_seen(changes: dict) -> None:
    assert not np.array_equal(drawn(), drawn(**changes))


def test_paths_take_the_short_way_round() -> None:
    path = np.array([[[9.5, 5.0]], [[0.5, 5.0]]])
    np.testing.assert_allclose(rendering._unwrapped(path, 10.0), [[[-0.5, 5.0]], [[0.5, 5.0]]])
    np.testing.assert_array_equal(rendering._unwrapped(path, None), path)


def test_ellipse_has_the_axes_of_the_covariance() -> None:
    # Standard deviations 2 m along the diagonal and 1 m across.
    turn = np.array([[1, -1], [1, 1]]) / np.sqrt(2)
    ellipse = rendering._ellipse(np.zeros(2), turn @ np.diag([4.0, 1.0]) @ turn.T, "k")
    assert ellipse.width == pytest.approx(2 * np.sqrt(5.991))
    assert ellipse.height == pytest.approx(4 * np.sqrt(5.991))
    assert (ellipse.angle + 90) % 180 == pytest.approx(45)


def test_figures_of_results(tmp_path: Path) -> None:
    results = evaluate_many(TOY, [OneShot(), Greedy()], episodes=5)
    cdf = rendering.cdf_figure(results, "toy")
    labels = [text.get_text() for text in cdf.axes[0].get_legend().get_texts()]
    assert labels == ["one-shot", "greedy", "bound (RMSE)"]
    assert "[m]" in cdf.axes[0].get_xlabel()
    path = rendering.save_figure(cdf, tmp_path / "cdf.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == [path]


def test_cdf_reaches_one_at_the_largest_error() -> None:
    with rendering.new_figure() as (_, axes):
        rendering.draw_cdf(axes, {"a": np.array([[3.0, 1.0], [2.0, 4.0]])})
    line = axes.get_lines()[0]
    np.testing.assert_allclose(line.get_xdata(), [1, 2, 3, 4])
    np.testing.assert_allclose(line.get_ydata(), [0.25, 0.5, 0.75, 1.0])


def test_nothing_to_draw_is_said() -> None:
    with pytest.raises(ValueError, match="no results"):
        rendering.cdf_figure([])
    with rendering.new_figure() as (_, axes):
        with pytest.raises(ValueError, match="no errors"):
            rendering.draw_cdf(axes, {})
        with pytest.raises(ValueError, match="no curves"):
            rendering.draw_convergence(axes, {})


def test_a_failed_save_leaves_nothing(tmp_path: Path) -> None:
    with rendering.new_figure() as (figure, _):
        pass
    with pytest.raises(OSError, match="missing"):
        rendering.save_figure(figure, tmp_path / "missing" / "a.png")
    with pytest.raises(ValueError, match="nonsense"):
        rendering.save_figure(figure, tmp_path / "a.nonsense")
    assert list(tmp_path.iterdir()) == []
