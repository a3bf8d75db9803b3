"""The table of position error bounds: one row per site size, averaged over random layouts and users."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from cfpos_envs import draws
from cfpos_envs.physics.dcp.bounds import drop_bound, measurement_statistics
from cfpos_envs.physics.dcp.model import RadioModel
from cfpos_envs.physics.propagation import shadowing_maps
from cfpos_envs.streams import Streams

# name -> (use RSS, use AOA, shadowing, shadowing known)
CASES = {
    "rss": (True, False, False, False),
    "aoa": (False, True, False, False),
    "joint": (True, True, False, False),
    "rss_unknown": (True, False, True, False),
    "joint_unknown": (True, True, True, False),
    "rss_known": (True, False, True, True),
    "joint_known": (True, True, True, True),
}


def bounds_table(
    radio: RadioModel,
    num_aps: Sequence[int] = (16, 36, 64),
    *,
    height_diff_m: float = 10.0,
    shadowing_db: float = 4.0,
    decorrelation_m: float = 9.0,
    map_resolution_m: float = 1.75,
    layouts: int = 400,
    users: int = 24,
    seed: int = 0,
) -> list[dict[str, float]]:
    """Root mean squared position error bounds over uniform random layouts, orientations and users.

    Args:
        radio: the known constants.
        num_aps: one row per value.
        height_diff_m: AP minus UE height.
        shadowing_db, decorrelation_m, map_resolution_m: the shadowing of the last four cases. The finer the map, the
            steeper its bilinear interpolation and the lower the bounds with the map known.
        layouts, users: random layouts and users per layout; the cases with maps, which cost most, take a tenth of the
            layouts.
        seed: of all draws.

    Returns:
        One dict per row: ``num_aps``, ``num_antennas`` and the bounds in metres named as in ``CASES``.

    Raises:
        ValueError: if a number of APs, layouts or users is below 1.
    """
    if min(*num_aps, layouts, users) < 1:
        raise ValueError("num_aps, layouts and users must be at least 1")
    rows = []
    for count in num_aps:
        row: dict[str, float] = {"num_aps": count, "num_antennas": radio.num_antennas}
        for case, (use_rss, use_aoa, shadowed, known) in CASES.items():
            # The same stream for every case: the same layouts and users as far as the maps allow.
            stream = Streams(seed, "bounds").fresh(count)
            repeats, batch = (max(1, layouts // 10), 1) if known else (1, layouts)
            squares = []
            for _ in range(repeats):
                site = draw_drop(stream, radio, batch, count, users, height_diff_m)
                maps = None
                if known:
                    area = (radio.side_m, radio.wrap, map_resolution_m)
                    maps = shadowing_maps(stream, count, *area, shadowing_db, decorrelation_m).unsqueeze(0)
                hidden_db = shadowing_db if shadowed and not known else 0.0
                bound = drop_bound(radio, measurement_statistics(radio), *site, hidden_db, maps, use_rss, use_aoa)
                squares.append(float(bound.square().mean()))
            row[case] = (sum(squares) / len(squares)) ** 0.5
        rows.append(row)
    return rows


def draw_drop(
    stream: draws.Source, radio: RadioModel, batch: int, num_aps: int, users: int, height_diff_m: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """AP positions, array orientations, height differences and user positions, all uniform."""
    ap_positions = draws.uniform(stream, batch, num_aps, 2) * radio.side_m
    orientation = draws.uniform(stream, batch, num_aps) * (2 * math.pi)
    points = draws.uniform(stream, batch, users, 2) * radio.side_m
    return ap_positions, orientation, torch.full_like(orientation, height_diff_m), points
