"""The embedded city: labelled CSI samples per CPU second, one sample being one user heard by all base stations."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from cfpos.scripts.benchmarks.common import Options, Rows, cpu_s
from cfpos_envs.physics.ecc.features import csi_features
from cfpos_envs.scenarios.ecc.config import EccConfig
from cfpos_envs.scenarios.ecc.pool import draw_snapshots

SEED = 0
SITES = ("urban", "urban-small")
SLOTS = (1, 2, 10)
BATCH, TINY_BATCH = 1024, 8


def run(options: Options) -> dict[str, Any]:
    """Samples per second of paths, channels, pilots and LMMSE estimates, and with the features made of them."""
    rows: Rows = [_row(site, slots, options) for site in SITES for slots in SLOTS[: 1 if options.quick else None]]
    return {
        "tables": {"csi": rows},
        "remarks": [
            "CSI samples per CPU second: one user, all base stations, all slots, estimated by LMMSE; features on top."
        ],
    }


def _row(site: str, slots: int, options: Options) -> dict[str, Any]:
    print(f"  {site}, T={slots}", file=sys.stderr, flush=True)
    batch = TINY_BATCH if options.quick else BATCH
    config = EccConfig(site=site, num_slots=slots)
    shape = (config.settings.array_rows, config.settings.array_columns)
    (chunk,) = draw_snapshots(config, batch, SEED, chunk=batch)
    made_s = cpu_s(lambda: list(draw_snapshots(config, batch, SEED, chunk=batch)), options)
    row: dict[str, Any] = {"site": site, "T": slots, "B": batch, "samples/s": batch / made_s}
    for features in ("stabilised", "cov", "acf"):
        seen_s = cpu_s(partial(csi_features, chunk.csi, features, shape), options)
        row[f"with {features}"] = batch / (made_s + seen_s)
    return row
