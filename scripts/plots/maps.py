"""Maps of the position error bound: the values over the area, their colour range and contour levels, the picture."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Polygon
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from cfpos.scripts.plots.sites import DrawnSiteConfig, Site, equal_range_std_m, make_site
from cfpos.scripts.plots.style import LABEL, PALE, SMALL, draw_aps, ground, halo, map_colours, metres, name_aps, panels
from cfpos_envs.physics.toa.maps import timing_peb_map

# Contours within a decade: 0.1, 0.3, 1, 3, 10 m and so on; finer ones for a map in which few of these occur.
_STEPS = ((1.0, 3.0), (1.0, 2.0, 3.0, 5.0), (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0))
_MOST_LEVELS = 9
_MOST_LABELS = 4
_MOST_NAMES = 36
_COLOUR_STEPS = (1.0, 2.0, 3.0, 5.0)
_ENDS = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
RING = DrawnSiteConfig(layout="circle", aps=20, radius_m=200.0, ap_height_m=0.0, bandwidth_mhz=100.0, sync="perfect")
"""The textbook's ring: 20 APs on a circle of 200 m, everything in one plane, perfect clocks."""


@dataclass(frozen=True)
class PebMap:
    """A map of the bound.

    Attributes:
        x_m: [nx] coordinates of columns, borders included.
        y_m: [ny] of rows.
        values_m: [ny, nx] bound in metres, entry [i, j] at x = x_m[j], y = y_m[i]; inf where undetermined, NaN outside
            the area.
    """

    x_m: np.ndarray
    y_m: np.ndarray
    values_m: np.ndarray

    @property
    def best(self) -> tuple[float, float, float]:
        """x, y and value of the smallest bound; of equal ones (to 1e-6) that nearest to the centre."""
        from_centre = (np.abs(axis - axis.mean()) for axis in (self.x_m, self.y_m))
        equal = self.values_m <= np.nanmin(self.values_m) * (1 + 1e-6)
        distance = np.where(equal, np.hypot(*np.meshgrid(*from_centre)), np.inf)
        row, column = np.unravel_index(np.argmin(distance), distance.shape)
        return float(self.x_m[column]), float(self.y_m[row]), float(self.values_m[row, column])


def peb_map(site: Site, resolution_m: float) -> PebMap:
    """The bound over the whole area of a site.

    Args:
        site: APs and links.
        resolution_m: distance of neighbouring points, rounded to divide the sides evenly.

    Raises:
        ValueError: for a resolution outside (0, longer side].
    """
    if not 0.0 < resolution_m <= site.extent_m:
        raise ValueError(f"resolution_m must lie in (0, {site.extent_m}], got {resolution_m}")
    x, y = (_axis(float(low), float(high), resolution_m) for low, high in zip(*site.area.bounds_m))
    points = torch.cartesian_prod(x, y)
    inside = torch.ones(len(points), dtype=torch.bool) if site.area.is_rectangle else site.area.contains(points)
    values = torch.full((len(points),), torch.nan, dtype=torch.float64)
    values[inside] = timing_peb_map(
        site.model, site.ap_positions_m, site.height_diff_m, points[inside], sync_std_s=site.sync_std_s
    )
    return PebMap(x.numpy(), y.numpy(), values.reshape(len(x), len(y)).T.numpy())


def _axis(low_m: float, high_m: float, resolution_m: float) -> torch.Tensor:
    count = max(1, round((high_m - low_m) / resolution_m)) + 1
    return torch.linspace(low_m, high_m, count, dtype=torch.float64)


def colour_range(values_m: np.ndarray) -> tuple[float, float]:
    """Round ends of the colour scale, metres, that hold 98 % of the finite values and span at least a factor 2."""
    finite = values_m[np.isfinite(values_m)]
    if finite.size == 0:
        return 0.1, 10.0
    low, high = (float(value) for value in np.quantile(finite, [0.01, 0.99]))
    low, high = _rounded(low, up=False), _rounded(high, up=True)
    return low, max(high, 2 * low)


def contour_levels(low_m: float, high_m: float) -> list[float]:
    """Levels to draw between two values, metres: 0.1, 0.3, 1, 3, 10 and further decades, finer where few lie between.

    Args:
        low_m, high_m: range of the map, 0 < low < high.
    """
    for steps in _STEPS:
        power = math.floor(math.log10(low_m))
        levels = [float(f"{s * 10.0**p:.3g}") for p in range(power, power + 12) for s in steps]
        levels = [level for level in levels if low_m < level < high_m]
        if len(levels) >= 3:
            break
    return levels[:_MOST_LEVELS]


def draw_peb_map(axes: Axes, site: Site, bound: PebMap, limits_m: tuple[float, float] | None = None) -> AxesImage:
    """Heat map with labelled contours and APs; grey where the position is not determined.

    Args:
        axes: matplotlib axes.
        site: whose APs are drawn.
        bound: the map.
        limits_m: ends of the colour scale, metres; None: by ``colour_range``.

    Returns:
        The image, for a colour bar.
    """
    low, high = limits_m or colour_range(bound.values_m)
    half_x, half_y = ((axis[1] - axis[0]) / 2 for axis in (bound.x_m, bound.y_m))
    shown = np.ma.masked_invalid(bound.values_m)
    ground(axes, site)
    outline = Polygon(site.area.corners.numpy(), facecolor=PALE, zorder=0)
    axes.add_patch(outline)
    limits = axes.get_xlim(), axes.get_ylim()
    image = axes.imshow(
        shown,
        origin="lower",
        extent=(bound.x_m[0] - half_x, bound.x_m[-1] + half_x, bound.y_m[0] - half_y, bound.y_m[-1] + half_y),
        norm=LogNorm(low, high),
        cmap=map_colours(),
        interpolation="nearest",
        aspect="equal",
    )
    axes.set(xlim=limits[0], ylim=limits[1])
    image.set_clip_path(outline)
    if shown.count() and float(shown.max()) > float(shown.min()):
        levels = contour_levels(max(low, float(shown.min())), min(high, float(shown.max())) * (1 + 1e-9))
        if levels:
            lines = axes.contour(bound.x_m, bound.y_m, shown, levels=levels, colors="white", linewidths=1.0)
            _label_contours(axes, lines, site)
    aps = site.ap_positions_m.numpy()
    draw_aps(axes, aps, size=46 if len(aps) <= _MOST_NAMES else 18)
    if site.own is not None and len(aps) <= _MOST_NAMES:
        heights = () if site.own.ap_height_m is None else site.own.ap_height_m.tolist()
        name_aps(axes, aps, [f"{name}, {height:g} m" for name, height in zip(site.names, heights)] or site.names)
    return image


def peb_map_figure(settings: DrawnSiteConfig, resolution_m: float) -> tuple[Figure, PebMap]:
    """The picture of one site."""
    site = make_site(settings)
    bound = peb_map(site, resolution_m)
    with panels(1, 6.6, site.height_in) as (figure, (axes,)):
        image = draw_peb_map(axes, site, bound)
        title = f"Position error bound, {settings.family.upper()}, {site.title}"
        axes.set_title(f"{title}\n", fontsize=LABEL + 1)
        axes.text(0.5, 1.02, settings.words(site), transform=axes.transAxes, ha="center", fontsize=SMALL)
        if not np.isfinite(bound.values_m).any():
            axes.text(
                0.5, 0.35, "no position is determined anywhere", transform=axes.transAxes, ha="center", fontsize=LABEL
            )
        _colour_bar(figure, image, [axes])
    return figure, bound


def ring_figure(settings: DrawnSiteConfig, resolution_m: float) -> tuple[Figure, list[PebMap]]:
    """Two maps of a ring of APs: every link equally good, and with path loss.

    With equal links the bound is all but flat inside, 2 / sqrt(M) standard deviations of a range; with path loss places
    near the ring are best.

    Args:
        settings: usually ``RING``; its ``equal_snr`` is not used.
        resolution_m: see ``peb_map``.
    """
    sites = [make_site(replace(settings, equal_snr=equal)) for equal in (True, False)]
    bounds = [peb_map(site, resolution_m) for site in sites]
    limits = colour_range(np.stack([bound.values_m for bound in bounds]))
    unit = equal_range_std_m(settings)
    with panels(2, 10.6, 5.3, sharey=True) as (figure, axes):
        for panel, site, bound, name in zip(axes, sites, bounds, ("equal SNR on every link", "with path loss")):
            image = draw_peb_map(panel, site, bound, limits)
            x, y, value = bound.best
            panel.set_title(f"{settings.aps} APs, {settings.family.upper()}, {name}", fontsize=LABEL + 1)
            panel.plot(x, y, "o", color="white", markeredgecolor="black", markersize=7, zorder=7)
            note = f"best: {metres(value)}"
            if name.startswith("equal") and settings.sync == "perfect":
                note += f" = {value / unit:.3f} cσ"
            panel.annotate(
                note, (x, y), (0, -16), textcoords="offset points", ha="center", fontsize=SMALL,
                path_effects=halo(3), zorder=9,
            )  # fmt: skip
        axes[1].set_ylabel("")
        _colour_bar(figure, image, axes)
        figure.supxlabel(
            settings.words(sites[0]).replace(" at 100 m", " (left: every link, right: at 100 m)"), fontsize=SMALL
        )
    return figure, bounds


def _label_contours(axes: Axes, lines: ContourSet, site: Site) -> None:
    """Write every level on its longest lines, as far as possible from APs, other labels and the border."""
    aps, side_m = site.ap_positions_m.numpy(), site.extent_m
    taken = [*aps] if len(aps) <= _MOST_NAMES else []
    gaps = [(0.045 if site.own is None else 0.1) * side_m] * len(taken)  # names stand there too
    for level, segments in zip(lines.levels, lines.allsegs):
        for segment in sorted((np.asarray(s) for s in segments), key=_length, reverse=True)[:_MOST_LABELS]:
            places = segment[(site.area.border_distance_m(torch.from_numpy(segment)) > 0.05 * side_m).numpy()]
            room = np.full(len(places), np.inf)
            for other, gap in zip(taken, gaps):
                room = np.minimum(room, np.hypot(*(places - other).T) / gap)
            if len(places) == 0 or room.max() < 1.0 or _length(segment) < 0.1 * side_m:
                continue
            # Where nothing is near, the middle of the line.
            place = places[len(places) // 2] if np.isinf(room).all() else places[np.argmax(room)]
            axes.text(
                float(place[0]),
                float(place[1]),
                f"{level:g} m",
                ha="center",
                va="center",
                fontsize=SMALL,
                path_effects=halo(2.5),
                zorder=5,
            )
            taken.append(place)
            gaps.append(0.13 * side_m)


def _length(segment: np.ndarray) -> float:
    return float(np.hypot(*np.diff(segment, axis=0).T).sum())


def _colour_bar(figure: Figure, image: AxesImage, axes: list[Axes]) -> None:
    bar = figure.colorbar(image, ax=axes, label="position error bound [m]", extend="both", shrink=0.9, pad=0.02)
    bar.ax.yaxis.set_major_locator(LogLocator(subs=_COLOUR_STEPS))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())


def _rounded(value: float, up: bool) -> float:
    """The next round number."""
    power = math.floor(math.log10(value))
    steps = [float(f"{step * 10.0**exponent:.6g}") for exponent in (power - 1, power, power + 1) for step in _ENDS]
    return min(s for s in steps if s >= value) if up else max(s for s in steps if s <= value)
