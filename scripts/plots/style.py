"""What all pictures share: figures with several panels, colours, the marks of APs and users, halos, file formats."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from cfpos_envs.drawing.figures import OKABE_ITO, new_figure, save_figure

FORMATS = (".png", ".svg", ".pdf")
BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION = OKABE_ITO[:6]
INK, QUIET, PALE = "#222222", "#8A8A8A", "#D9D9D9"
DPI = 200
LABEL, SMALL = 10, 9


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


def ground(axes: Axes, side_m: float, title: str = "") -> None:
    """The area with equal scales and units on both axes."""
    axes.set(xlim=(0, side_m), ylim=(0, side_m), aspect="equal", xlabel="x [m]", ylabel="y [m]")
    axes.set_title(title, fontsize=LABEL + 1)


def metres(value: float) -> str:
    """A length as a person writes it: "0.3 m", "12 mm"."""
    if not np.isfinite(value):
        return "infinite"
    return f"{value * 1000:.3g} mm" if value < 0.01 else f"{value:.3g} m"


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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror}; choose a folder you may write to") from error
    return path


def save(figure: Figure, path: Path) -> Path:
    """Write a figure in the resolution of print; in SVG and PDF letters stay letters that can be searched.

    Raises:
        OSError: the folder is missing or not writable.
    """
    # Type 3 fonts are refused by some publishers, and paths instead of letters cannot be searched.
    with matplotlib.rc_context({"savefig.dpi": DPI, "svg.fonttype": "none", "pdf.fonttype": 42}):
        return save_figure(figure, path)
