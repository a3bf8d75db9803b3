"""How wrong moved paths are: users traced again where they moved to, beside what ``moved_paths`` makes of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cfpos_envs.channels.tracing.generate import TracerLike, draw_users
from cfpos_envs.channels.tracing.recipe import Recipe
from cfpos_envs.channels.tracing.storage import Paths
from cfpos_envs.channels.tracing.synthesis import StoredPaths, moved_paths
from cfpos_envs.physics.ecc.csi import channel

_ARRAY, _SPACING, _SUBCARRIERS, _SPACING_HZ = (2, 4), 0.5, 24, 720e3
_BATCHES = 8


def move_errors(
    recipe: Recipe, scene: TracerLike, distances_m: Sequence[float], batches: int = _BATCHES
) -> list[dict[str, float]]:
    """Errors of moved channels for several distances, steps in random directions.

    The error of a link is that of its frequency response at a 2 x 4 array, ||h - h'||^2 / ||h'||^2, over 24 subcarriers
    every 720 kHz; links that have no path before or after the move are counted apart.

    Args:
        recipe: of the scene; its seed draws users and steps.
        scene: its tracer.
        distances_m: lengths of the steps, metres.
        batches: groups of ``recipe.batch`` users.

    Returns:
        Per distance: ``distance_m``, ``median`` and ``p90`` of the error, ``links_changed`` (share of the links that
        appear or vanish), ``paths_changed`` (share of the others whose number of paths differs).
    """
    rng = np.random.default_rng(recipe.seed)
    groups = [draw_users(recipe, scene, rng, recipe.batch) for _ in range(batches)]
    before = [scene.trace(users) for users in groups]
    rows = []
    for distance in distances_m:
        steps = [rng.normal(size=users.shape) for users in groups]
        steps = [distance * step / np.linalg.norm(step, axis=1, keepdims=True) for step in steps]
        after = [scene.trace((users + step).astype(np.float32)) for users, step in zip(groups, steps, strict=True)]
        displacement = torch.from_numpy(np.concatenate(steps)).float()[:, None]
        moved = _channel(Paths.concatenate(before), displacement, recipe.carrier_hz)
        traced = _channel(Paths.concatenate(after), torch.zeros_like(displacement), recipe.carrier_hz)
        counts = [np.concatenate([paths.counts() for paths in parts]) for parts in (before, after)]
        both = torch.from_numpy((counts[0] > 0) & (counts[1] > 0))
        error = (moved - traced).abs().square().sum((-1, -2)) / traced.abs().square().sum((-1, -2)).clamp(min=1e-30)
        rows.append(
            {
                "distance_m": float(distance),
                "median": float(error[both].median()),
                "p90": float(error[both].quantile(0.9)),
                "links_changed": float(((counts[0] > 0) != (counts[1] > 0)).mean()),
                "paths_changed": float((counts[0] != counts[1])[both.numpy()].mean()),
            }
        )
    return rows


def _channel(paths: Paths, displacement_m: Tensor, carrier_hz: float) -> Tensor:
    """[U, L, A, N] with all arrays facing along x."""
    table = paths.padded()
    fields = {entry.name: torch.from_numpy(table[entry.name]) for entry in dataclasses.fields(StoredPaths)}
    fields["reflections"] = fields["reflections"].to(torch.int16)
    moved = moved_paths(StoredPaths(**fields), displacement_m, carrier_hz)
    level = torch.zeros(paths.num_bss, 3)
    return channel(moved, level, _ARRAY, _SPACING, _SUBCARRIERS, _SPACING_HZ).squeeze(-3)
