"""All pictures: one episode, error distributions, convergence. Only a window (``LiveView``) touches pyplot.

Colours are Okabe and Ito's palette, which stays distinct with every common colour blindness (https://jfly.uni-koeln.de/color/).
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from torch import Tensor

if TYPE_CHECKING:
    from cfpos_envs.results import EvaluationResult

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
"""Blue, orange, green, purple, sky, vermilion, yellow, black."""

_LINE_STYLES = ("-", "--", "-.", ":")
_MAGNIFIED, _HALF_WINDOW_M = 6, 3.0
_INK, _QUIET = "#222222", "#8A8A8A"
_STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _QUIET,
    "axes.labelcolor": _INK,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


@contextmanager
def new_figure(width_in: float = 6.0, height_in: float = 4.5, dpi: int = 100) -> Iterator[tuple[Figure, Axes]]:
    """A figure with one pair of axes in the quiet house style; the style ends with the block.

    Args:
        width_in, height_in: size in inches.
        dpi: pixels per inch.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width_in, height_in), dpi=dpi, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure, figure.add_subplot()


def figure_to_rgb(figure: Figure) -> np.ndarray:
    """The figure as uint8 [height, width, 3]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba(), dtype=np.uint8)[..., :3].copy()


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write the figure whole or not at all; the suffix of ``path`` chooses the format (png, pdf, svg).

    Raises:
        OSError: the folder is missing or not writable.
    """
    target = Path(path)
    partial = target.with_name(f".{target.stem}.{os.getpid()}.partial{target.suffix}")
    try:
        figure.savefig(partial)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return target


@runtime_checkable
class Drawable(Protocol):
    """A game that can be drawn; ``cfpos_envs.scenarios.base.Scenario`` is one."""

    def truth(self, state: Any) -> dict[str, Tensor]:
        """Hidden quantities by name, ``true_position`` [B, K, 2 or 3] among them."""

    def draw(self, axes: Axes, state: Any, history: list[Tensor]) -> None:
        """Draw episode 0 of ``state``."""


def episode_figure(scenario: Drawable, state: Any, history: list[Tensor]) -> Figure:
    """Picture of episode 0 of ``state``, as the scenario draws it; in the plane the first users are magnified beside.

    A scenario with a method ``figure(state, history)`` makes the whole picture itself.

    Args:
        scenario: the game.
        state: its present state.
        history: joint estimates [K, 2] or [K, 3] so far, the start first.
    """
    own = getattr(scenario, "figure", None)
    if own is not None:
        return own(state, history)
    truth = _array(scenario.truth(state)["true_position"][0])[:_MAGNIFIED]
    if truth.shape[-1] == 3:
        with new_figure(13.0, 5.0) as (figure, axes):
            # The panels have fixed places: computing a layout takes longer than drawing them.
            figure.set_layout_engine("none")
            axes.set_position((0.05, 0.12, 0.93, 0.86))
            scenario.draw(axes, state, history)
        return figure
    columns = (len(truth) + 1) // 2
    width_in = 7.2 + 2.6 * columns
    with new_figure(width_in, 6.4) as (figure, axes):
        axes.set_position((0.6 / width_in, 0.12, 5.9 / width_in, 0.8))
        scenario.draw(axes, state, history)
        for user, point in enumerate(truth):
            left_in = 7.2 + 2.6 * (user // 2)
            panel = figure.add_axes((left_in / width_in, 0.55 - 0.45 * (user % 2), 2.1 / width_in, 0.35))
            scenario.draw(panel, state, history)
            _magnify(panel, user, point)
    return figure


def _magnify(panel: Axes, user: int, point: np.ndarray) -> None:
    """Show a few metres around one user, without the legend."""
    legend = panel.get_legend()
    if legend is not None:
        legend.remove()
    x, y = (float(value) for value in point)
    panel.set(xlim=(x - _HALF_WINDOW_M, x + _HALF_WINDOW_M), ylim=(y - _HALF_WINDOW_M, y + _HALF_WINDOW_M))
    panel.set(xlabel="", ylabel="")
    panel.set_title(f"user {user}, {2 * _HALF_WINDOW_M:g} m across", fontsize=9)
    panel.tick_params(labelsize=8)


def draw_episode(
    axes: Axes,
    ap_positions: Tensor | np.ndarray,
    ap_orientation: Tensor | np.ndarray,
    true_position: Tensor | np.ndarray,
    estimates: Sequence[Tensor | np.ndarray],
    side_m: float,
    wrap: bool,
    covariance: Tensor | np.ndarray | None = None,
    title: str | None = None,
) -> None:
    """Draw access points, users and the way of the estimates on ``axes``.

    Triangles are access points, the tick on each shows its array axis; crosses are the true positions; a line with
    dots leads from the first estimate to the last one (large dot), one colour per user.

    Args:
        axes: matplotlib axes.
        ap_positions: [M, 2] metres.
        ap_orientation: [M] direction of the array axis, radians from the x axis.
        true_position: [K, 2] metres.
        estimates: joint estimates [K, 2] in metres, round by round; may be empty.
        side_m: side of the square area, metres.
        wrap: whether distances go around the edges; paths are then drawn the short way.
        covariance: [K, 2, 2] square metres of the position error bound, drawn as 95 % ellipses, or None.
        title: text above; None writes the root mean square error of the last estimate.
    """
    aps, angle, truth = _array(ap_positions), _array(ap_orientation), _array(true_position)
    _draw_access_points(axes, aps, angle, side_m)
    paths = _unwrapped(np.stack([_array(e) for e in estimates]), side_m if wrap else None) if estimates else None
    for user, point in enumerate(truth):
        colour = OKABE_ITO[user % (len(OKABE_ITO) - 2)]
        if paths is not None:
            _draw_path(axes, paths[:, user], colour, side_m if wrap else None)
        axes.plot(*point, "x", color=colour, markersize=10, markeredgewidth=2.5, zorder=5)
        if covariance is not None:
            axes.add_patch(_ellipse(point, _array(covariance)[user], colour))
    if paths is not None and title is None:
        title = f"round {len(paths) - 1}: RMSE {_rmse(paths[-1], truth, side_m if wrap else None):.2f} m"
    axes.set(xlim=(0, side_m), ylim=(0, side_m), aspect="equal", xlabel="x [m]", ylabel="y [m]", title=title or "")
    axes.legend(handles=_episode_legend(covariance is not None), loc="upper center", bbox_to_anchor=(0.5, -0.1), ncol=4)


def cdf_figure(results: Sequence[EvaluationResult], title: str = "", answers: str = "all") -> Figure:
    """Empirical distribution of the position error of several results, the bound as a vertical line.

    Args:
        results: evaluations over the same drops.
        title: text above.
        answers: ``all``: the same users for every result; or the ``valid`` ones of each.

    Raises:
        ValueError: no result given, or another word.
    """
    errors = {
        result.policy if result.answers.valid.all() else f"{result.policy} ({result.answers.share})": (
            result.answers.counted(answers)
        )
        for result in results
    }
    with new_figure() as (figure, axes):
        draw_cdf(axes, errors, bounds_by_name(results) if answers == "all" else {})
        axes.set_title(title)
    return figure


def bounds_by_name(results: Sequence[EvaluationResult]) -> dict[str, float]:
    """Root mean squared bounds of policies that were played on the same drops, metres, by name.

    Raises:
        ValueError: nothing given.
    """
    if not results:
        raise ValueError("no results to draw; give at least one")
    return {result.bound_name: result.bound_rmse for result in results if result.bound_rmse is not None}


def draw_cdf(axes: Axes, errors: Mapping[str, np.ndarray], bounds: Mapping[str, float] = MappingProxyType({})) -> None:
    """Draw error distributions over a logarithmic axis, so that 0.1 m and 10 m can both be read.

    Args:
        axes: matplotlib axes.
        errors: label -> errors in metres, any shape.
        bounds: label -> root mean squared error bound in metres.

    Raises:
        ValueError: nothing to draw.
    """
    if not any(np.size(values) for values in errors.values()):
        raise ValueError("no errors to draw; give at least one labelled array in metres")
    for index, (label, values) in enumerate(errors.items()):
        ordered = np.sort(np.asarray(values, dtype=float), axis=None)
        share = np.arange(1, ordered.size + 1) / ordered.size
        axes.plot(np.maximum(ordered, 1e-3), share, label=label, **_line_look(index))
    for index, (label, value) in enumerate(bounds.items()):
        axes.axvline(value, color=_QUIET, linewidth=1, linestyle=(0, (1, 1 + 2 * index)), label=f"{label} (RMSE)")
    axes.set(xscale="log", ylim=(0, 1), xlabel="position error [m]", ylabel="share of users")
    plain_numbers(axes.xaxis)
    axes.grid(True)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def draw_convergence(
    axes: Axes,
    curves: Mapping[str, Sequence[float] | tuple[Sequence[float], Sequence[float]]],
    bound_rmse: float | None = None,
    xlabel: str = "environment steps",
    ylabel: str = "RMSE [m]",
    log_scale: bool = True,
) -> None:
    """Draw how a quantity falls or rises over rounds or training steps.

    Args:
        axes: matplotlib axes.
        curves: label -> values, or label -> (steps, values); a single value is drawn as a horizontal line.
        bound_rmse: horizontal line in the unit of the values, or None.
        xlabel, ylabel: axis labels with unit.
        log_scale: logarithmic vertical axis (for errors; not for rewards).

    Raises:
        ValueError: nothing to draw.
    """
    if not curves:
        raise ValueError("no curves to draw; give at least one labelled series")
    for index, (label, curve) in enumerate(curves.items()):
        steps, values = curve if isinstance(curve, tuple) else (range(len(curve)), curve)
        if len(values) == 1:
            axes.axhline(float(values[0]), label=label, **_line_look(index))
        else:
            axes.plot(np.asarray(steps), np.asarray(values), label=label, **_line_look(index))
    if bound_rmse is not None:
        axes.axhline(bound_rmse, color=_QUIET, linewidth=1, linestyle=(0, (1, 1)), label="bound (RMSE)")
    axes.set(xlabel=xlabel, ylabel=ylabel, yscale="log" if log_scale else "linear")
    if log_scale:
        plain_numbers(axes.yaxis)
    axes.grid(True)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


class LiveView:
    """Shows pictures as they come: in a window, or without a display in an image file that is rewritten each time.

    The file lies in the folder for temporary files and its name is given once by a warning; an image viewer that
    reloads (over ssh, in an editor) then follows the episode.

    Args:
        title: title of the window and part of the file's name.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._figure: Any = None
        self._image: Any = None
        name = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in title)
        self.path = Path(tempfile.gettempdir()) / f"{name}-{os.getpid()}.png"
        self._windowed = has_display()
        if not self._windowed:
            warnings.warn(
                f"no display for render_mode='human'; the picture is kept up to date in {self.path}", stacklevel=3
            )

    def show(self, picture: np.ndarray) -> None:
        """Show uint8 [height, width, 3]."""
        if self._windowed:
            self._show_in_window(picture)
        else:
            height, width = picture.shape[:2]
            figure = Figure(figsize=(width / 100, height / 100), dpi=100)
            figure.figimage(picture)
            save_figure(figure, self.path)

    def close(self) -> None:
        """Close the window; a file stays where it is."""
        if self._figure is not None:
            from matplotlib import pyplot

            pyplot.close(self._figure)
            self._figure = None

    def _show_in_window(self, picture: np.ndarray) -> None:
        # The only use of pyplot: windows belong to it. The pictures themselves are drawn without.
        from matplotlib import pyplot

        if self._figure is None or not pyplot.fignum_exists(self._figure.number):
            self._figure = pyplot.figure(self._title, figsize=(picture.shape[1] / 100, picture.shape[0] / 100))
            axes = self._figure.add_axes((0, 0, 1, 1))
            axes.set_axis_off()
            self._image = axes.imshow(picture)
            self._figure.show()
        self._image.set_data(picture)
        self._figure.canvas.draw_idle()
        self._figure.canvas.flush_events()


def has_display() -> bool:
    """Whether matplotlib's chosen backend can open a window here."""
    from matplotlib.backends import BackendFilter, backend_registry

    return matplotlib.get_backend().lower() in {
        name.lower() for name in backend_registry.list_builtin(BackendFilter.INTERACTIVE)
    }


def _draw_access_points(axes: Axes, aps: np.ndarray, angle: np.ndarray, side_m: float) -> None:
    half = 0.02 * side_m * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    for start, end in zip(aps - half, aps + half):
        axes.plot(*zip(start, end), color=_QUIET, linewidth=1.5, solid_capstyle="round", zorder=1)
    axes.scatter(aps[:, 0], aps[:, 1], marker="^", s=40, color=_QUIET, edgecolor="white", linewidth=0.5, zorder=2)


def _draw_path(axes: Axes, path: np.ndarray, colour: str, period: float | None) -> None:
    # A path that leaves the area comes in again on the other side: draw the shifted copies, the axes clip them.
    shifts = [np.zeros(2)]
    if period is not None and (path.min() < 0 or path.max() > period):
        shifts = [period * np.array([i, j]) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    for shift in shifts:
        axes.plot(*(path + shift).T, "-o", color=colour, linewidth=1, markersize=3, alpha=0.7, zorder=3)
        axes.plot(*(path[-1] + shift), "o", color=colour, markersize=7, markeredgecolor="white", zorder=4)


def _ellipse(center: np.ndarray, covariance: np.ndarray, colour: str) -> Ellipse:
    variances, axes = np.linalg.eigh(covariance)
    # 5.991 is the 95 % point of the chi-square distribution with two degrees of freedom.
    width, height = 2 * np.sqrt(5.991 * np.maximum(variances, 0))
    tilt = np.degrees(np.arctan2(axes[1, 0], axes[0, 0]))
    return Ellipse(tuple(center), width, height, angle=tilt, facecolor=colour, alpha=0.2, edgecolor=colour, zorder=2)


def _episode_legend(with_ellipse: bool) -> list[Any]:
    handles: list[Any] = [
        Line2D([], [], linestyle="", marker="^", color=_QUIET, markersize=7, label="access point"),
        Line2D([], [], linestyle="", marker="x", color=_INK, markersize=8, markeredgewidth=2, label="user"),
        Line2D([], [], marker="o", color=_INK, linewidth=1, markersize=4, label="estimates by round"),
    ]
    if with_ellipse:
        handles.append(Ellipse((0, 0), 1, 1, facecolor=_INK, alpha=0.2, label="bound, 95 %"))
    return handles


def _unwrapped(path: np.ndarray, period: float | None) -> np.ndarray:
    """[T, K, 2] with every step taken the short way round; the last point stays where it is."""
    if period is None:
        return path
    steps = np.diff(path, axis=0)
    steps -= period * np.round(steps / period)
    backwards = np.concatenate([np.zeros_like(path[:1]), np.cumsum(steps[::-1], axis=0)])[::-1]
    return path[-1] - backwards


def _rmse(estimate: np.ndarray, truth: np.ndarray, period: float | None) -> float:
    gap = estimate - truth
    if period is not None:
        gap = gap - period * np.round(gap / period)
    return float(np.sqrt((gap**2).sum(-1).mean()))


def plain_numbers(axis: Axis, subs: Sequence[float] = (1.0, 2.0, 5.0)) -> None:
    """Write 0.2 on a logarithmic axis instead of 2 x 10^-1.

    Args:
        axis: logarithmic.
        subs: multiples of the powers of ten that are named.
    """
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _line_look(index: int) -> dict[str, Any]:
    colours = (*OKABE_ITO[:6], OKABE_ITO[7])  # yellow is too faint for a line on white
    return {
        "color": colours[index % len(colours)],
        "linestyle": _LINE_STYLES[(index // len(colours)) % len(_LINE_STYLES)],
        "linewidth": 1.6,
    }


def _array(values: Tensor | np.ndarray) -> np.ndarray:
    plain = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    return np.asarray(plain, dtype=float)
