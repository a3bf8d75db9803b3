"""The picture of an episode in space: from above, from the side, and the error of every user by round."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from torch import Tensor

from cfpos_envs.drawing.figures import OKABE_ITO, plain_numbers

_INK, _QUIET = "#222222", "#8A8A8A"
_MARGIN_M = 2.0
_SMALLEST_M = 1e-4
# Left edge, width of the three panels as shares of the given axes.
_PANELS = ((0.0, 0.31), (0.38, 0.31), (0.76, 0.24))
Beams = Sequence[tuple[np.ndarray, np.ndarray]]


def draw_scene_3d(
    axes: Axes,
    bs_m: Tensor | np.ndarray,
    ris_m: Tensor | np.ndarray,
    true_position_m: Tensor | np.ndarray,
    estimates_m: Sequence[Tensor | np.ndarray],
    beams_m: Beams = (),
) -> None:
    """Draw base stations, surfaces, users and the way of the estimates in three panels that take the place of ``axes``.

    Squares are base stations, diamonds surfaces, crosses true positions; a line with dots leads from the first estimate
    to the last one, one colour per user. The third panel has the error in metres by round, on a logarithmic axis.

    Args:
        axes: matplotlib axes; its place in the figure is used.
        bs_m: [I, 3] metres.
        ris_m: [R, 3] metres.
        true_position_m: [J, 3] metres.
        estimates_m: joint estimates [J, 3], round by round, the start first; may be empty.
        beams_m: beams, each a place [3] and points [P, 3] that it lights.
    """
    bs, ris, truth = _array(bs_m), _array(ris_m), _array(true_position_m)
    path = np.stack([_array(estimate) for estimate in estimates_m]) if len(estimates_m) else None
    axes.set_axis_off()
    for (left, width), (across, up) in zip(_PANELS[:2], ((0, 1), (0, 2))):
        panel = axes.inset_axes((left, 0.08, width, 0.84))
        _draw_plane(panel, (across, up), bs, ris, truth, path, beams_m)
    left, width = _PANELS[2]
    _draw_errors(axes.inset_axes((left, 0.08, width, 0.84)), truth, path)
    axes.legend(handles=_legend(bool(beams_m)), loc="upper center", bbox_to_anchor=(0.5, -0.06), ncol=5)


def _draw_plane(
    panel: Axes,
    plane: tuple[int, int],
    bs: np.ndarray,
    ris: np.ndarray,
    truth: np.ndarray,
    path: np.ndarray | None,
    beams: Beams,
) -> None:
    first, second = plane
    for index, (place, lit) in enumerate(beams):
        outline = _wedge(place[[first, second]], lit[:, [first, second]])
        panel.fill(outline[:, 0], outline[:, 1], color=OKABE_ITO[5 - index % 2], alpha=0.2, zorder=1)
    panel.scatter(bs[:, first], bs[:, second], marker="s", s=60, color=_INK, zorder=4)
    panel.scatter(ris[:, first], ris[:, second], marker="D", s=50, color=_QUIET, edgecolor=_INK, zorder=4)
    for user, point in enumerate(truth):
        colour = user_colour(user)
        if path is not None:
            panel.plot(path[:, user, first], path[:, user, second], "-o", color=colour, markersize=3, zorder=3)
            panel.plot(*path[-1, user, list(plane)], "o", color=colour, markersize=7, markeredgecolor="white", zorder=5)
        panel.plot(*point[list(plane)], "x", color=colour, markersize=10, markeredgewidth=2.5, zorder=6)
    known = np.concatenate((bs, ris, truth))
    low, high = known.min(axis=0) - _MARGIN_M, known.max(axis=0) + _MARGIN_M
    names = "xyz"
    panel.set(
        xlim=(low[first], high[first]),
        ylim=(low[second], high[second]),
        aspect="equal",
        xlabel=f"{names[first]} [m]",
        ylabel=f"{names[second]} [m]",
        title="from above" if second == 1 else "from the side",
    )


def _wedge(place: np.ndarray, lit: np.ndarray) -> np.ndarray:
    """[3, 2] corners of the wedge from ``place`` [2] that holds the points ``lit`` [P, 2]."""
    towards = lit - place
    middle = towards.mean(axis=0)
    aside = np.arctan2(middle[0] * towards[:, 1] - middle[1] * towards[:, 0], towards @ middle)
    return np.stack((place, lit[aside.argmin()], lit[aside.argmax()]))


def _draw_errors(panel: Axes, truth: np.ndarray, path: np.ndarray | None) -> None:
    panel.set(xlabel="round", ylabel="error [m]", yscale="log", title="position error")
    if path is None:
        return
    errors = np.linalg.norm(path - truth, axis=-1)
    for user in range(len(truth)):
        panel.plot(np.maximum(errors[:, user], _SMALLEST_M), "-o", color=user_colour(user), markersize=4)
    panel.set_title(f"RMSE {np.sqrt((errors[-1] ** 2).mean()):.3g} m")
    panel.set_xlim(-0.3, max(len(path) - 0.7, 1.3))
    plain_numbers(panel.yaxis)
    panel.grid(True)


def _legend(with_beams: bool) -> list[Line2D]:
    handles = [
        Line2D([], [], linestyle="", marker="s", color=_INK, markersize=8, label="base station"),
        Line2D([], [], linestyle="", marker="D", color=_QUIET, markersize=7, label="surface"),
        Line2D([], [], linestyle="", marker="x", color=_INK, markersize=8, markeredgewidth=2, label="user"),
        Line2D([], [], marker="o", color=_INK, linewidth=1, markersize=4, label="estimates by round"),
    ]
    if with_beams:
        handles.append(Line2D([], [], color=OKABE_ITO[5], alpha=0.3, linewidth=8, label="beam (-3 dB)"))
    return handles


def user_colour(user: int) -> str:
    """The colour of a user in every picture."""
    return OKABE_ITO[user % (len(OKABE_ITO) - 2)]


def _array(values: Tensor | np.ndarray) -> np.ndarray:
    plain = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    return np.asarray(plain, dtype=float)
