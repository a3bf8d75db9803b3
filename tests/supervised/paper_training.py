"""Trains the paper's networks at reduced size and writes the losses: FILE [compiled], alone or under torchrun.

In a process of its own, because the types that the tests check everywhere are nothing that torch.compile understands.
"""

from __future__ import annotations

import os
import sys

import numpy as np
import torch
import torch.distributed as dist

from cfpos_envs.measurements.ecc import CsiSystem
from cfpos_envs.supervised.agent_config import EccAgentConfig
from cfpos_envs.supervised.data import Pool
from cfpos_envs.supervised.fitting import fit
from cfpos_envs.supervised.inputs import batch_of, network_shape
from cfpos_envs.supervised.network import EccNetwork

if __name__ == "__main__":
    torch.set_num_threads(1)
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    system = CsiSystem(
        3.5e9, 720e3, 6, 2, (2, 2), 0.5, 2, (0.0,) * 3, (60.0, 60.0, 15.0), 1.0, 1e-3, (1.0, 1.0), (0.2, 0.2)
    )
    config = EccAgentConfig.preset(
        "paper", channels=(4, 4), latent_width=4, fusion_size=8, fusion_hidden=16, heads=2, strategy="scratch",
        batch_size=32, precision="float32", compile="compiled" in sys.argv[2:], bs_dropout=0.2, lr=5e-3,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    csi = torch.randn(64, 2, 2, 4, 6, generator=generator, dtype=torch.complex64)
    batch = batch_of(csi, torch.ones(64, 2, dtype=torch.bool), config, system)
    position = 60 * torch.rand(64, 3, generator=generator)
    network = EccNetwork(config, network_shape(config, system), generator)
    network.calibrate_inputs(batch)
    pool = Pool(batch.features.half(), batch.log_gain, batch.valid, position)
    losses = fit(network, pool, config.fit_config(32 * 30), progress=False).losses
    if not dist.is_initialized() or dist.get_rank() == 0:
        np.save(sys.argv[1], np.array(losses))
    if dist.is_initialized():
        dist.destroy_process_group()
