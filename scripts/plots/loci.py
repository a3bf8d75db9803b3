"""Hyperbolae of constant time difference, where they meet, and how well: the picture behind TDOA."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from cfpos.scripts.plots.curves import (
    Points,
    ellipse_points,
    hyperbola_points,
    locus_points,
    range_difference_m,
    tdoa_fixes,
)
from cfpos.scripts.plots.sites import DrawnSiteConfig, Site, make_site
from cfpos.scripts.plots.style import (
    BLUE,
    GREEN,
    INK,
    LABEL,
    ORANGE,
    PURPLE,
    QUIET,
    SKY,
    SMALL,
    VERMILION,
    coordinate,
    draw_aps,
    draw_user,
    ground,
    metres,
    name_aps,
    name_axes,
    panels,
)
from cfpos_envs.physics.toa.bounds import peb
from cfpos_envs.physics.toa.maps import timing_drop_fisher

MOST_APS = 12
_COLOURS = (BLUE, VERMILION, GREEN, PURPLE, SKY, ORANGE)
_STYLES = ("-", "--", "-.")


def user_fisher(site: Site, user: Points) -> Points:
    """Information on one ground position, [2, 2], 1/m^2."""
    fisher = timing_drop_fisher(
        site.model,
        site.ap_positions_m,
        site.height_diff_m,
        torch.from_numpy(np.asarray(user, dtype=float))[None],
        sync_std_s=site.sync_std_s,
    )
    return fisher[0].numpy()


def bound_at(fisher: Points) -> float:
    """Position error bound of one matrix, metres; inf where undetermined."""
    return float(peb(torch.from_numpy(fisher)))


def tdoa_loci_figure(
    settings: DrawnSiteConfig, user: Points | None = None, reference: int | str = 0
) -> tuple[Figure, list[str]]:
    """One hyperbola per AP and reference, the positions where all meet, and a close-up with the 95 % ellipse.

    Args:
        settings: the site; its family should be "tdoa".
        user: [2] position inside the area, metres, in the person's own coordinates; None: a place off the middle.
        reference: number (from 0) or name of the AP that is subtracted.

    Returns:
        The figure, and what it shows in words.

    Raises:
        ValueError: for fewer than 2 or more than ``MOST_APS`` APs, an unknown reference, a user outside the area.
    """
    site = make_site(settings)
    count = len(site.names)
    if not 2 <= count <= MOST_APS:
        given = f"--aps={count}" if site.own is None else f"{count} in {site.own.path}"
        raise ValueError(f"tdoa-loci draws 2 to {MOST_APS} APs, got {given}; peb-map shows more")
    first = site.index_of(reference, "--reference")
    user = _usual_user(site) if user is None else user - site.origin_m
    if not bool(site.area.contains(torch.from_numpy(user))):
        low, high = ([coordinate(value) for value in corner.numpy() + site.origin_m] for corner in site.area.bounds_m)
        x, y = (coordinate(value) for value in user + site.origin_m)
        area = f"[0, {high[0]}] m"
        if site.own is not None:
            area = f"of {site.own.path} (x {low[0]} to {high[0]} m, y {low[1]} to {high[1]} m)"
        raise ValueError(f"--ue must lie in the area {area}, got {x} {y}")
    # The reference goes first, as the curves have it.
    order = [first, *(index for index in range(count) if index != first)]
    view = _View(
        site=site,
        aps=site.ap_positions_m.numpy()[order],
        heights=site.height_diff_m.numpy()[order],
        names=[site.names[index] for index in order],
        sync_std_s=site.sync_std_s[order],
        user=user,
    )
    fixes = tdoa_fixes(view.aps, view.differences, view.heights)
    fisher = user_fisher(site, user)
    bound = bound_at(fisher)
    with panels(2, 10.6, 6.0, width_ratios=(1.45, 1)) as (figure, (axes, close)):
        ground(axes, site, f"TDOA, {site.title}, reference {view.names[0]}")
        _draw_curves(axes, view)
        draw_aps(axes, view.aps, size=70)
        name_aps(axes, view.aps, [f"{view.names[0]} (reference)", *view.names[1:]])
        _draw_other_fixes(axes, fixes, user)
        draw_user(axes, user)
        figure.legend(loc="outside lower center", ncol=4, fontsize=SMALL)
        _draw_close_up(close, view, fisher, bound)
        figure.suptitle(settings.words(site), fontsize=SMALL, color=QUIET)
    return figure, _verdict(fixes + site.origin_m, bound, user + site.origin_m)


@dataclass(frozen=True)
class _View:
    """APs with the reference first, and the user."""

    site: Site
    aps: Points
    heights: Points
    names: list[str]
    sync_std_s: Tensor
    user: Points

    @property
    def differences(self) -> Points:
        """Range differences of the user, [M - 1] metres."""
        others = zip(self.aps[1:], self.heights[1:])
        return np.array([float(range_difference_m(self.user, self.aps[0], q, self.heights[0], h)) for q, h in others])

    def curve(self, other: int, difference_m: float, half_m: float | None = None) -> Points:
        """Where the difference of AP ``other`` is the same: over the area, or within ``half_m`` of the user."""
        reference, ap = self.aps[0], self.aps[other]
        heights = float(self.heights[0]), float(self.heights[other])
        if heights[0] == heights[1]:
            if half_m is None:
                return hyperbola_points(reference, ap, difference_m, heights[0], 3 * self.site.extent_m)
            return hyperbola_points(reference, ap, difference_m, heights[0], 2 * half_m, near=self.user)
        if half_m is not None:
            return locus_points(reference, ap, difference_m, heights, self.user - half_m, self.user + half_m)
        low, high = (corner.numpy() for corner in self.site.area.bounds_m)
        margin = 0.5 * self.site.extent_m
        return locus_points(reference, ap, difference_m, heights, low - margin, high + margin, count=801)


def _usual_user(site: Site) -> Points:
    """0.62 and 0.36 of the way through the area, or its lattice point farthest from the border."""
    low, high = site.area.bounds_m
    point = low + torch.tensor([0.62, 0.36], dtype=torch.float64) * (high - low)
    if not bool(site.area.contains(point)):
        points = site.lattice_m(site.extent_m / 40)
        point = points[site.area.border_distance_m(points).argmax()]
    return np.asarray(point.numpy())


def _draw_curves(axes: Axes, view: _View) -> None:
    for index, difference in enumerate(view.differences):
        if np.array_equal(view.aps[index + 1], view.aps[0]):
            continue  # two APs at one place see no difference that tells where the user is
        curve = view.curve(index + 1, float(difference))
        look: dict[str, Any] = {"linewidth": 1.7, "linestyle": _STYLES[index // len(_COLOURS) % len(_STYLES)]}
        label = f"same TDOA, {view.names[index + 1]} and {view.names[0].removeprefix('AP ')}"
        look = {**look, "color": _COLOURS[index % len(_COLOURS)], "label": label}
        axes.plot(curve[:, 0], curve[:, 1], zorder=3, **look)


def _draw_other_fixes(axes: Axes, fixes: Points, user: Points) -> None:
    for index, fix in enumerate(_others(fixes, user)):
        label = "fits as well" if index == 0 else None
        axes.plot(
            *fix, "o", markersize=11, markerfacecolor="none", color=INK, markeredgewidth=1.8, label=label, zorder=7
        )


def _draw_close_up(axes: Axes, view: _View, fisher: Points, bound: float) -> None:
    """A few standard deviations around the user: the curves, each with its one-sigma neighbours, and the ellipse."""
    user = view.user
    if not np.isfinite(bound):
        axes.set_axis_off()
        text = "The position is not determined:\nthe bound is infinite."
        text += "\nEvery point of the curve fits." if len(view.aps) == 2 else ""
        axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=LABEL, transform=axes.transAxes)
        return
    outline = ellipse_points(fisher, user)
    half = 1.5 * float(np.abs(outline - user).max())
    slant = np.hypot(np.hypot(*(view.aps - user).T), view.heights)
    model = view.site.model
    variance = model.range_variance_m2(model.snr_linear(torch.from_numpy(slant)), view.sync_std_s).numpy()
    _draw_local(axes, view, half, np.sqrt(variance[1:] + variance[0]))
    axes.fill(*outline.T, color=QUIET, alpha=0.22, zorder=1)
    axes.plot(*outline.T, color=INK, linewidth=1.2, zorder=4)
    draw_user(axes, user, label=None)
    axes.set(xlim=(user[0] - half, user[0] + half), ylim=(user[1] - half, user[1] + half), aspect="equal")
    name_axes(axes, view.site)
    axes.locator_params(nbins=5)
    axes.ticklabel_format(useOffset=False)
    axes.set_title(
        f"close-up: 95 % ellipse, bound (RMS) {metres(bound)}\ndotted: one standard deviation", fontsize=LABEL
    )
    axes.tick_params(labelsize=SMALL)


def _draw_local(axes: Axes, view: _View, half: float, std: Points) -> None:
    """The part of every hyperbola in the close-up, and of those one standard deviation away."""
    for index, seen in enumerate(view.differences):
        colour = _COLOURS[index % len(_COLOURS)]
        for shift, look in ((0.0, "-"), (-std[index], ":"), (std[index], ":")):
            difference = float(seen + shift)
            if abs(difference) < np.hypot(*(view.aps[index + 1] - view.aps[0])):
                curve = view.curve(index + 1, difference, half)
                axes.plot(*curve.T, look, color=colour, linewidth=1.7 if shift == 0 else 1.1, zorder=3)


def _others(fixes: Points, user: Points) -> list[Points]:
    return [fix for fix in fixes if np.hypot(*(fix - user)) > 1e-3]


def _verdict(fixes: Points, bound: float, user: Points) -> list[str]:
    if len(fixes) == 0:
        return ["every point of a curve fits: two APs, or all in one place, do not determine a position"]
    lines = [f"bound at the user: {metres(bound)}"]
    for other in _others(fixes, user):
        lines.append(f"fits as well: x = {other[0]:.1f} m, y = {other[1]:.1f} m")
    return lines
