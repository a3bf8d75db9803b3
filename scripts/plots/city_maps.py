"""The plan of a traced map: roofs by height, base stations, and the users of a data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from cfpos.scripts.plots.style import BLUE, VERMILION, panels
from cfpos_envs.channels.tracing.recipe import Recipe
from cfpos_envs.channels.tracing.storage import SPLITS, Header, present_shards, read_shard
from cfpos_envs.files.city_maps import CityMap, read_map

_MOST_USERS = 2000


def map_figure(folder: Path) -> Figure:
    """Draw a data set that was traced in a map.

    Args:
        folder: of the data set.

    Raises:
        ValueError: it was not traced in a map, or the map is gone.
    """
    header = Header.read(folder)
    if not isinstance(header.recipe, Recipe) or not header.recipe.map_digest:
        raise ValueError(f"{folder} was not traced in a map; --picture draws buildings of a map")
    city = read_map(header.recipe.scene)
    users = [np.zeros((0, 3))]
    for split in SPLITS:
        for path in present_shards(folder, split):
            users.append(read_shard(path, header.recipe, header.bs_positions_m).positions_m)
    return plan_figure(city, header.bs_positions_m, np.concatenate(users)[:_MOST_USERS])


def plan_figure(city: CityMap, bs_positions_m: np.ndarray, users_m: np.ndarray) -> Figure:
    """Draw buildings from above.

    Args:
        city: the buildings.
        bs_positions_m: [L, 3].
        users_m: [n, 3].
    """
    corners = city.vertices_m[city.faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    roofs = corners[normal[:, 2] > 1e-3 * np.linalg.norm(normal, axis=1)]
    order = np.argsort(roofs[..., 2].max(axis=1))
    with panels(1, 7.5, 6.0) as (figure, (axes,)):
        drawn = PolyCollection(
            list(roofs[order][..., :2]),
            array=roofs[order][..., 2].max(axis=1),
            cmap="Greys",
            edgecolor="face",
            zorder=1,
        )
        drawn.set_clim(0.0, float(roofs[..., 2].max()))
        axes.add_collection(drawn)
        figure.colorbar(drawn, ax=axes, label="roof above ground, m", shrink=0.8)
        axes.scatter(users_m[:, 0], users_m[:, 1], s=6, color=BLUE, zorder=2, label=f"users ({len(users_m)})")
        axes.scatter(
            bs_positions_m[:, 0],
            bs_positions_m[:, 1],
            s=60,
            marker="^",
            color=VERMILION,
            zorder=3,
            label="base stations",
        )
        axes.autoscale_view()
        axes.set_aspect("equal")
        axes.set_xlabel("x, m")
        axes.set_ylabel("y, m")
        axes.legend(loc="upper right")
        axes.set_title(f"{city.name}: {len(city.heights_m)} buildings")
    return figure
