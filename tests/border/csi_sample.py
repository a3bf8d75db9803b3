"""The sample file of ``ecc-csi-v0``, made in the embedded city; ``python -m tests.border.csi_sample`` writes it."""

from __future__ import annotations

import numpy as np

from cfpos_envs.importers.arrays import CsiFile
from cfpos_envs.scenarios.ecc.config import EccConfig
from cfpos_envs.scenarios.ecc.pool import draw_snapshots
from cfpos_envs.scenarios.ecc.stored import sample_file
from cfpos_envs.scenarios.ecc.world import shared_world

CONFIG = EccConfig(
    site="urban-small",
    num_bs=4,
    num_slots=1,
    array_rows=2,
    array_columns=2,
    num_subcarriers=12,
    subcarrier_stride=24,
    estimator="ls",
)


def sample(count: int, seed: int = 0, config: EccConfig = CONFIG) -> CsiFile:
    """Snapshots of a small city as somebody could have measured them."""
    (part,) = draw_snapshots(config, count, seed, chunk=count)
    world = shared_world(config.settings, "cpu")
    return CsiFile(
        path="sample",
        csi=part.csi.numpy(),
        valid=part.valid.numpy(),
        bs_positions_m=world.source.bs_positions_m.double().numpy(),
        bs_orientation_rad=world.source.bs_orientation_rad.double().numpy(),
        positions_m=np.round(part.position_m.double().numpy(), 3),
        carrier_hz=world.system.carrier_hz,
        subcarrier_spacing_hz=world.system.subcarrier_spacing_hz,
        array_shape=world.system.array_shape,
        spacing_wavelengths=world.system.spacing_wavelengths,
        element_positions_m=None,
        names=tuple(f"mast {index}" for index in range(world.system.num_bs)),
    )


if __name__ == "__main__":
    sample_file().parent.mkdir(exist_ok=True)
    sample(288).write(sample_file())
    print(f"wrote {sample_file()}, {sample_file().stat().st_size / 1e3:.0f} kB")
