"""A map of located users: the site, its access points by name, positions with their 95 % ellipses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from cfpos.scripts.plots.curves import ellipse_points
from cfpos.scripts.plots.style import BLUE, GREEN, INK, LABEL, PALE, QUIET, SMALL, VERMILION, draw_aps, halo, panels
from cfpos_envs.files.positions import Positions

_MOST_ELLIPSES, _MOST_TRUTHS = 60, 300
_LEVEL = 0.95
_MARGIN = 0.06


def positions_figure(
    table: Positions,
    aps_m: np.ndarray | None = None,
    names: Sequence[str] = (),
    outline_m: np.ndarray | None = None,
    title: str = "",
) -> Figure:
    """Draw positions in the plane. Answers that are not valid are marked and do not decide how much is shown.

    Args:
        table: what was located; of more than ``_MOST_ELLIPSES`` positions no ellipses are drawn.
        aps_m: [M, 2] metres, or None.
        names: of the APs.
        outline_m: [C, 2] corners of the area, or None.
        title: text above.
    """
    places, valid = table.position_m[:, :2], table.valid
    shown = [part for part in (aps_m, outline_m, places[valid], _truth(table)) if part is not None and len(part)]
    low, high = _window(np.concatenate(shown) if shown else places)
    width_in = 7.5
    height_in = float(np.clip(0.9 + 5.6 * (high[1] - low[1]) / (high[0] - low[0]), 3.6, 9.5))
    with panels(1, width_in, height_in) as (figure, (axes,)):
        if outline_m is not None:
            axes.add_patch(Polygon(outline_m, closed=True, facecolor="#F6F6F6", edgecolor=QUIET, linewidth=1, zorder=0))
        _draw_truth(axes, table)
        _draw_ellipses(axes, table)
        size = float(np.clip(6000 / max(len(table), 1), 3, 16))
        axes.scatter(
            places[valid, 0], places[valid, 1], s=size, color=BLUE, zorder=5, label=f"located ({int(valid.sum())})"
        )
        if not valid.all():
            lost = places[~valid]
            label = f"not valid ({len(lost)})"
            axes.scatter(
                lost[:, 0], lost[:, 1], marker="x", s=28, color=VERMILION, linewidth=1.2, zorder=4, label=label
            )
        if aps_m is not None:
            draw_aps(axes, aps_m, label="access point")
            for name, (x, y) in zip(names, aps_m):
                axes.annotate(
                    name, (x, y), xytext=(5, 5), textcoords="offset points", fontsize=SMALL, color=INK,
                    path_effects=halo(), zorder=7, annotation_clip=True,
                )  # fmt: skip
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal", xlabel="x [m]", ylabel="y [m]")
        axes.set_title(title, fontsize=LABEL + 1)
        figure.legend(loc="outside lower center", ncol=4, fontsize=SMALL)
    return figure


def _truth(table: Positions) -> np.ndarray | None:
    if table.truth_m is None:
        return None
    return table.truth_m[np.isfinite(table.truth_m).all(axis=1), :2]


def _window(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower left and upper right corner around points, with a margin; never without extent."""
    low, high = points.min(axis=0), points.max(axis=0)
    margin = max(_MARGIN * float((high - low).max()), 0.5)
    # A long corridor still gets some room across.
    across = np.maximum(0.25 * float((high - low).max()) - (high - low), 0.0) / 2
    return low - margin - across, high + margin + across


def _draw_truth(axes: Axes, table: Positions) -> None:
    truth = _truth(table)
    if truth is None or not len(truth):
        return
    if len(table) <= _MOST_TRUTHS:
        for place, true in zip(table.position_m[table.valid, :2], np.asarray(table.truth_m)[table.valid, :2]):
            axes.plot([place[0], true[0]], [place[1], true[1]], color=PALE, linewidth=0.8, zorder=1)
    axes.scatter(
        truth[:, 0],
        truth[:, 1],
        marker="+",
        s=14,
        color=GREEN,
        linewidth=0.8,
        zorder=6 if len(table) > _MOST_TRUTHS else 3,
        label="truth",
    )


def _draw_ellipses(axes: Axes, table: Positions) -> None:
    if table.covariance_m2 is None or int(table.valid.sum()) > _MOST_ELLIPSES:
        return
    label = f"{100 * _LEVEL:.0f} % as stated"
    for place, covariance in zip(table.position_m[table.valid, :2], table.covariance_m2[table.valid, :2, :2]):
        if not np.isfinite(covariance).all() or np.linalg.det(covariance) <= 0:
            continue
        outline = ellipse_points(np.linalg.inv(covariance), place, _LEVEL)
        axes.fill(*outline.T, facecolor=BLUE, alpha=0.15, zorder=2)
        axes.plot(*outline.T, color=BLUE, linewidth=0.8, zorder=2, label=label)
        label = "_"
