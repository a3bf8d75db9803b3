"""What all pictures share: figures with several panels, colours, the marks of APs and users, halos, file formats."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from cfpos.scripts.plots.sites import Site
from cfpos_envs.drawing.figures import OKABE_ITO, new_figure, save_figure

FORMATS = (".png", ".svg", ".pdf")
BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION = OKABE_ITO[:6]
INK, QUIET, PALE = "#222222", "#8A8A8A", "#D9D9D9"
DPI = 200
LABEL, SMALL = 10, 9
_MARGIN = 0.04


def map_colours() -> ListedColormap:
    """Colours of maps, from dark blue (small errors) to light green (large ones).

    Viridis, even in brightness, so that it survives every colour blindness and grey print; without its yellow end, on
    which white contour lines cannot be seen.
    """
    return ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0.0, 0.9, 256)), "viridis-90")


@contextmanager
def panels(columns: int, width_in: float, height_in: float, **options: Any) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure with panels side by side in the house style.

    Args:
        columns: number of panels.
        width_in, height_in: size of the whole in inches.
        options: for ``Figure.subplots``, e.g. ``width_ratios`` or ``sharey``.
    """
    with new_figure(width_in, height_in) as (figure, axes):
        axes.remove()
        yield figure, list(figure.subplots(1, columns, squeeze=False, **options)[0])


def halo(width: float = 2.5, colour: str = "white") -> list[Any]:
    """Path effect that keeps lines and letters readable on any background."""
    return [patheffects.Stroke(linewidth=width, foreground=colour), patheffects.Normal()]


def draw_aps(axes: Axes, aps: np.ndarray, size: float = 46, label: str | None = None) -> None:
    """APs as white triangles with a dark rim, on maps and on paper alike."""
    axes.scatter(
        aps[:, 0], aps[:, 1], marker="^", s=size, color="white", edgecolor=INK, linewidth=1.0, zorder=6, label=label
    )


def draw_user(axes: Axes, point: np.ndarray, label: str | None = "user") -> None:
    """The user as a cross."""
    x, y = (float(value) for value in point)
    axes.plot([x], [y], "x", color=INK, markersize=9, markeredgewidth=2.2, zorder=8, label=label, path_effects=halo(4))


def name_aps(axes: Axes, aps: np.ndarray, names: Sequence[str]) -> None:
    """Write the name of every AP above its mark."""
    for name, (x, y) in zip(names, aps):
        axes.annotate(
            name,
            (x, y),
            (0, 9),
            textcoords="offset points",
            ha="center",
            fontsize=SMALL,
            path_effects=halo(3),
            zorder=9,
        )


def name_axes(axes: Axes, site: Site) -> None:
    """Units on both axes, and what a map's coordinates lack in the picture."""
    x, y = (
        f"{name} {'-' if shift > 0 else '+'} {abs(shift):.0f} [m]" if shift else f"{name} [m]"
        for name, shift in zip("xy", site.origin_m)
    )
    axes.set(xlabel=x, ylabel=y)


def ground(axes: Axes, site: Site, title: str = "") -> None:
    """The area with equal scales and units on both axes; of a person's own site with its outline and a margin."""
    low, high = (corner.numpy() for corner in site.area.bounds_m)
    if site.own is not None:
        aps = site.ap_positions_m.numpy()
        margin = _MARGIN * site.extent_m
        low, high = np.minimum(low, aps.min(axis=0)) - margin, np.maximum(high, aps.max(axis=0)) + margin
        axes.add_patch(Polygon(site.area.corners.numpy(), facecolor="none", edgecolor=INK, linewidth=1.2, zorder=4))
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
    name_axes(axes, site)
    axes.set_title(title, fontsize=LABEL + 1)


def metres(value: float) -> str:
    """A length as a person writes it: "0.3 m", "12 mm"."""
    if not np.isfinite(value):
        return "infinite"
    return f"{value * 1000:.3g} mm" if value < 0.01 else f"{value:.3g} m"


def coordinate(value: float) -> str:
    """A coordinate to the centimetre, in full also where it is a map's: "5411012.25"."""
    return f"{round(value, 2):.12g}"


def check_target(path: Path) -> Path:
    """The path of a picture, refused before anything is computed if it cannot be written in a known format.

    Raises:
        ValueError: for another ending than .png, .svg or .pdf.
        OSError: the folder cannot be written.
    """
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"--out={path} must end in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    if path.is_dir():
        raise OSError(f"--out={path} is a folder; give the name of a file")
    # Nothing is made yet: a command that is refused later leaves no empty folders behind.
    there = next(folder for folder in (path.absolute().parent, *path.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        why = "it may not be written" if there.is_dir() else "it is a file"
        raise OSError(f"cannot write {path}: {there} is no folder for it, {why}; choose a folder you may write to")
    return path


def save(figure: Figure, path: Path) -> Path:
    """Write a figure in the resolution of print; in SVG and PDF letters stay letters that can be searched.

    Raises:
        OSError: the folder is not writable.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Type 3 fonts are refused by some publishers, and paths instead of letters cannot be searched.
    with matplotlib.rc_context({"savefig.dpi": DPI, "svg.fonttype": "none", "pdf.fonttype": 42}):
        return save_figure(figure, path)
