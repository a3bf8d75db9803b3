"""Pictures of a scene from above and from the side, with true and estimated ways of its users."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from cfpos_envs.channels.sources import UserSource
from cfpos_envs.drawing.figures import new_figure
from cfpos_envs.drawing.space import user_colour

_BUILDING, _BUILDING_EDGE = "#DCDCDC", "#B0B0B0"
_STATION, _INK = "#8A8A8A", "#222222"
_WIDTH_IN, _TOP_IN, _MARGIN_IN = 6.4, 5.6, 0.65


def scene_figure(
    source: UserSource, truth_m: np.ndarray, now_m: np.ndarray, estimates_m: Sequence[np.ndarray], title: str = ""
) -> Figure:
    """The scene from above (x, y) and from the south (x, z), one colour per user.

    A thin line is the true way, a cross where the user is now, dots lead from the first estimate to the last one.

    Args:
        source: buildings and base stations.
        truth_m: [S, J, 3] true ways.
        now_m: [J, 3] true positions now.
        estimates_m: estimates [J, 3] so far, the start first; may be empty.
        title: text above; empty writes the root mean square error of the last estimate.
    """
    low, high = np.asarray(source.area_min_m), np.asarray(source.area_max_m)
    extent = high - low
    # The area's aspect decides the sizes of the panels; the side view is shown twice as high as it is.
    scale_in = min((_WIDTH_IN - 2 * _MARGIN_IN) / extent[0], _TOP_IN / extent[1])
    side_in = 2 * scale_in * 1.4 * extent[2]
    height_in = scale_in * extent[1] + side_in + 3 * _MARGIN_IN
    path = np.stack([np.asarray(e, dtype=float) for e in estimates_m]) if len(estimates_m) else None
    if not title and path is not None:
        rmse = float(np.sqrt(((path[-1] - now_m) ** 2).sum(-1).mean()))
        title = f"round {len(path) - 1}: RMSE {rmse:.2f} m"
    with new_figure(_WIDTH_IN, height_in) as (figure, axes):
        wide = scale_in * extent[0] / _WIDTH_IN
        left = 0.5 * (1 - wide)
        figure.set_layout_engine("none")
        axes.set_position((left, (side_in + 2 * _MARGIN_IN) / height_in, wide, scale_in * extent[1] / height_in))
        below = figure.add_axes((left, 1.1 * _MARGIN_IN / height_in, wide, side_in / height_in))
        for panel, across in ((axes, 1), (below, 2)):
            _draw_boxes(panel, source, across)
            _draw_ways(panel, truth_m, now_m, path, across)
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), ylabel="y [m]", title=title)
        below.set(xlim=(low[0], high[0]), ylim=(low[2], low[2] + 1.4 * extent[2]), xlabel="x [m]", ylabel="z [m]")
        figure.legend(handles=_legend(), loc="lower center", ncol=4, fontsize=8)
    return figure


def _draw_boxes(panel: Axes, source: UserSource, across: int) -> None:
    for lowest, highest in zip(source.box_min_m.cpu().numpy(), source.box_max_m.cpu().numpy()):
        size = highest - lowest
        see_through = 1.0 if across == 1 else 0.45
        panel.add_patch(
            Rectangle(
                (lowest[0], lowest[across]), size[0], size[across],
                facecolor=_BUILDING, edgecolor=_BUILDING_EDGE, linewidth=0.6, alpha=see_through, zorder=0,
            )
        )  # fmt: skip
    stations = source.bs_positions_m.cpu().numpy()
    panel.scatter(stations[:, 0], stations[:, across], marker="^", s=40, color=_STATION, edgecolor="white", zorder=2)


def _draw_ways(panel: Axes, truth_m: np.ndarray, now_m: np.ndarray, path: np.ndarray | None, across: int) -> None:
    for user, point in enumerate(now_m):
        colour = user_colour(user)
        if len(truth_m) > 1:
            panel.plot(truth_m[:, user, 0], truth_m[:, user, across], color=colour, linewidth=0.9, zorder=3)
        if path is not None:
            panel.plot(path[:, user, 0], path[:, user, across], "-o", color=colour, linewidth=0.6, markersize=2.5,
                       alpha=0.6, zorder=3)  # fmt: skip
            panel.plot(path[-1, user, 0], path[-1, user, across], "o", color=colour, markersize=7,
                       markeredgecolor="white", zorder=4)  # fmt: skip
        panel.plot(point[0], point[across], "x", color=colour, markersize=9, markeredgewidth=2.2, zorder=5)


def _legend() -> list[Line2D]:
    return [
        Line2D([], [], linestyle="", marker="^", color=_STATION, markersize=7, label="base station"),
        Line2D([], [], linestyle="", marker="x", color=_INK, markersize=8, markeredgewidth=2, label="user"),
        Line2D([], [], color=_INK, linewidth=0.9, label="true way"),
        Line2D([], [], marker="o", color=_INK, linewidth=0.6, markersize=4, label="estimates by round"),
    ]
