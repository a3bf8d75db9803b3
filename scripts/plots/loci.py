"""Hyperbolae of constant time difference, where they meet, and how well: the picture behind TDOA."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cfpos.scripts.plots.curves import Points, ellipse_points, hyperbola_points, range_difference_m, tdoa_fixes
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
    draw_aps,
    draw_user,
    ground,
    halo,
    metres,
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


def tdoa_loci_figure(settings: DrawnSiteConfig, user: Points, reference: int) -> tuple[Figure, list[str]]:
    """One hyperbola per AP and reference, the positions where all meet, and a close-up with the 95 % ellipse.

    Args:
        settings: the site; its family should be "tdoa".
        user: [2] position inside the area, metres.
        reference: index of the AP that is subtracted, from 0.

    Returns:
        The figure, and what it shows in words.

    Raises:
        ValueError: for fewer than 2 or more than ``MOST_APS`` APs, an unknown reference, a user outside the area.
    """
    if not 2 <= settings.aps <= MOST_APS:
        raise ValueError(f"tdoa-loci draws 2 to {MOST_APS} APs, got --aps={settings.aps}; peb-map shows more")
    if not 0 <= reference < settings.aps:
        raise ValueError(f"--reference={reference} must be an AP index in [0, {settings.aps - 1}]")
    if not bool(((user >= 0) & (user <= settings.side_m)).all()):
        raise ValueError(f"--ue must lie in the area [0, {settings.side_m:g}] m, got {user[0]:g} {user[1]:g}")
    site = make_site(settings)
    positions = site.ap_positions_m.numpy()
    # The reference goes first, as the curves have it.
    order = [reference, *(index for index in range(len(positions)) if index != reference)]
    aps = positions[order]
    height = settings.ap_height_m
    differences = np.array([float(range_difference_m(user, aps[0], other, height)) for other in aps[1:]])
    fixes = tdoa_fixes(aps, differences, height)
    fisher = user_fisher(site, user)
    bound = bound_at(fisher)
    with panels(2, 10.6, 6.0, width_ratios=(1.45, 1)) as (figure, (axes, close)):
        ground(axes, settings.side_m, f"TDOA, {settings.aps} APs ({settings.layout}), reference AP {reference}")
        _draw_curves(axes, aps, order, differences, height, settings.side_m)
        draw_aps(axes, aps, size=70)
        _name_aps(axes, aps, order)
        _draw_other_fixes(axes, fixes, user)
        draw_user(axes, user)
        figure.legend(loc="outside lower center", ncol=4, fontsize=SMALL)
        _draw_close_up(close, site, aps, order, differences, user, fisher, bound)
        figure.suptitle(settings.words(), fontsize=SMALL, color=QUIET)
    return figure, _verdict(fixes, bound, user)


def _draw_curves(
    axes: Axes,
    aps: Points,
    order: list[int],
    differences: Points,
    height: float,
    side_m: float,
) -> None:
    for index, (other, difference) in enumerate(zip(aps[1:], differences)):
        if np.array_equal(other, aps[0]):
            continue  # two APs at one place see no difference and have no curve
        curve = hyperbola_points(aps[0], other, float(difference), height, 3 * side_m)
        look: dict[str, Any] = {"linewidth": 1.7, "linestyle": _STYLES[index // len(_COLOURS) % len(_STYLES)]}
        label = f"same TDOA, AP {order[index + 1]} and {order[0]}"
        look = {**look, "color": _COLOURS[index % len(_COLOURS)], "label": label}
        axes.plot(curve[:, 0], curve[:, 1], zorder=3, **look)


def _name_aps(axes: Axes, aps: Points, order: list[int]) -> None:
    for index, (x, y) in zip(order, aps):
        name = f"AP {index}" + (" (reference)" if index == order[0] else "")
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


def _draw_other_fixes(axes: Axes, fixes: Points, user: Points) -> None:
    for index, fix in enumerate(_others(fixes, user)):
        label = "fits as well" if index == 0 else None
        axes.plot(
            *fix, "o", markersize=11, markerfacecolor="none", color=INK, markeredgewidth=1.8, label=label, zorder=7
        )


def _draw_close_up(
    axes: Axes, site: Site, aps: Points, order: list[int], differences: Points, user: Points, fisher: Points,
    bound: float,
) -> None:  # fmt: skip
    """A few standard deviations around the user: the curves, each with its one-sigma neighbours, and the ellipse."""
    if not np.isfinite(bound):
        axes.set_axis_off()
        text = "The position is not determined:\nthe bound is infinite."
        text += "\nEvery point of the curve fits." if len(aps) == 2 else ""
        axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=LABEL, transform=axes.transAxes)
        return
    outline = ellipse_points(fisher, user)
    half = 1.5 * float(np.abs(outline - user).max())
    slant = np.hypot(np.hypot(*(aps - user).T), float(site.height_diff_m[0]))
    sync = site.sync_std_s[order]
    variance = site.model.range_variance_m2(site.model.snr_linear(torch.from_numpy(slant)), sync).numpy()
    std = np.sqrt(variance[1:] + variance[0])
    _draw_local(axes, aps, differences, float(site.height_diff_m[0]), user, half, std)
    axes.fill(*outline.T, color=QUIET, alpha=0.22, zorder=1)
    axes.plot(*outline.T, color=INK, linewidth=1.2, zorder=4)
    draw_user(axes, user, label=None)
    axes.set(xlim=(user[0] - half, user[0] + half), ylim=(user[1] - half, user[1] + half), aspect="equal")
    axes.set(xlabel="x [m]", ylabel="y [m]")
    axes.locator_params(nbins=5)
    axes.ticklabel_format(useOffset=False)
    axes.set_title(
        f"close-up: 95 % ellipse, bound (RMS) {metres(bound)}\ndotted: one standard deviation", fontsize=LABEL
    )
    axes.tick_params(labelsize=SMALL)


def _draw_local(
    axes: Axes, aps: Points, differences: Points, height: float, user: Points, half: float, std: Points
) -> None:
    """The part of every hyperbola in the close-up, and of those one standard deviation away."""
    for index, other in enumerate(aps[1:]):
        colour = _COLOURS[index % len(_COLOURS)]
        for shift, look in ((0.0, "-"), (-std[index], ":"), (std[index], ":")):
            difference = float(differences[index] + shift)
            if abs(difference) < np.hypot(*(other - aps[0])):
                curve = hyperbola_points(aps[0], other, difference, height, 2 * half, near=user)
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
