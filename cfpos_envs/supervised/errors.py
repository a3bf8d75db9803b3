"""Positions and errors of a network on a pool of labelled snapshots."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cfpos_envs.supervised.data import Pool

_EVALUATION_BATCH = 1024


@torch.no_grad()
def predictions_m(model: Any, pool: Pool) -> Tensor:
    """Positions [S, 3] that a network gives to all snapshots of a pool, metres, in full precision."""
    device = next(model.parameters()).device
    parts = [slice(low, low + _EVALUATION_BATCH) for low in range(0, len(pool), _EVALUATION_BATCH)]
    return torch.cat([model.predict(pool.batch(part).to(device)).float().cpu() for part in parts])


def errors_m(model: Any, pool: Pool) -> np.ndarray:
    """Euclidean 3-D errors (36) of a network on all snapshots of a pool, metres."""
    distances: np.ndarray = (predictions_m(model, pool) - pool.position_m).norm(dim=-1).numpy()
    return distances
