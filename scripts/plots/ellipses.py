"""Error ellipses on a lattice of positions, the measurement families side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cfpos.scripts.plots.curves import Points, ellipse_points
from cfpos.scripts.plots.sites import DrawnSiteConfig, Site, make_site
from cfpos.scripts.plots.style import BLUE, LABEL, VERMILION, draw_aps, ground, name_aps, panels
from cfpos_envs.physics.toa.maps import timing_fisher_map

# Ellipses longer than this many lattice spacings would hide their neighbours: drawn as a line in their direction.
_LONGEST_SPACINGS = 1.2
_PROBABILITY = 0.95


def lattice_fisher(site: Site, spacing_m: float) -> tuple[Points, Points]:
    """Positions [P, 2] in the area, metres, on a lattice, and their information matrices [P, 2, 2], 1/m^2."""
    points = site.lattice_m(spacing_m)
    fisher = timing_fisher_map(site.model, site.ap_positions_m, site.height_diff_m, points, sync_std_s=site.sync_std_s)
    return points.numpy(), fisher.numpy()


def enlargement(long_axes_m: Points, spacing_m: float) -> float:
    """A round factor that makes the middle one of these half axes a third of a lattice spacing.

    Args:
        long_axes_m: long half axes; infinite ones do not count.
        spacing_m: of the lattice.
    """
    finite = long_axes_m[np.isfinite(long_axes_m)]
    if finite.size == 0:
        return 1.0
    wanted = spacing_m / 3 / float(np.median(finite))
    power = 10.0 ** math.floor(math.log10(wanted))
    return float(f"{max(step * power for step in (1, 2, 5) if step * power <= wanted):.3g}")


def ellipses_figure(
    settings: DrawnSiteConfig, families: Sequence[str], spacing_m: float | None, enlarged: float | None
) -> tuple[Figure, float]:
    """95 % ellipses of every family on the same site, all enlarged by the same factor.

    Args:
        settings: the site; its family is not used.
        families: one panel each.
        spacing_m: of the lattice, 0 < spacing <= the longer side of the area; None: a tenth of it.
        enlarged: factor on all ellipses; None: a round one that fills the lattice.

    Returns:
        The figure and the factor.

    Raises:
        ValueError: for no family, a spacing outside its range or a factor that is not positive.
    """
    if not families:
        raise ValueError("--families names none; give some of toa, tdoa, rtt")
    if enlarged is not None and not 0 < enlarged < 1e9:
        raise ValueError(f"--enlarged={enlarged} must be a positive factor")
    sites = [make_site(replace(settings, family=family)) for family in families]
    extent = sites[0].extent_m
    spacing_m = extent / 10 if spacing_m is None else spacing_m
    if not extent / 100 <= spacing_m <= extent:
        raise ValueError(f"--spacing={spacing_m:g} must lie in [{extent / 100:g}, {extent:g}] m")
    fields = [lattice_fisher(site, spacing_m) for site in sites]
    factor = enlarged or enlargement(np.concatenate([_long_axes(fisher) for _, fisher in fields]), spacing_m)
    with panels(len(sites), max(4.6 * len(sites) + 0.4, 6.6), sites[0].height_in, sharey=True) as (figure, axes):
        for panel, site, (points, fisher) in zip(axes, sites, fields):
            ground(panel, site, f"{site.model.family.upper()}, {site.title}")
            outside = sum(not _draw_ellipse(panel, p, j, factor, spacing_m) for p, j in zip(points, fisher))
            draw_aps(panel, site.ap_positions_m.numpy(), size=40)
            if site.own is not None:
                name_aps(panel, site.ap_positions_m.numpy(), site.names)
            note = f"\ndashes: not determined or too uncertain to draw ({outside})" if outside else ""
            panel.set_xlabel(f"{panel.get_xlabel()}{note}")
        for panel in axes[1:]:
            panel.set_ylabel("")
        scale = f"95 % ellipses, drawn {factor:g} times enlarged" if factor != 1 else "95 % ellipses"
        figure.suptitle(f"{scale}\n{settings.words(sites[0])}", fontsize=LABEL)
    return figure, factor


def _draw_ellipse(axes: Axes, point: Points, fisher: Points, factor: float, spacing_m: float) -> bool:
    """Whether it could be drawn at its size; otherwise a dash shows in which direction nothing is known."""
    outline = ellipse_points(fisher, point, _PROBABILITY, factor)
    reach = float(np.abs(outline - point).max(initial=0.0))
    if len(outline) and reach <= _LONGEST_SPACINGS * spacing_m:
        axes.fill(*outline.T, facecolor=BLUE, alpha=0.25, zorder=2)
        axes.plot(*outline.T, color=BLUE, linewidth=1.0, zorder=3)
        return True
    values, vectors = np.linalg.eigh(fisher)
    if values[1] > 0:
        half = 0.35 * spacing_m * vectors[:, 0]
        axes.plot(*np.column_stack((point - half, point + half)), color=VERMILION, linewidth=1.6, zorder=3)
    else:
        axes.plot(*point, "x", color=VERMILION, markersize=6, zorder=3)
    return False


def _long_axes(fisher: Points) -> Points:
    smallest = np.linalg.eigvalsh(fisher)[:, 0]
    long: Points = np.where(smallest > 0, 1 / np.sqrt(np.where(smallest > 0, smallest, 1.0)), np.inf)
    return long * math.sqrt(-2 * math.log1p(-_PROBABILITY))
