"""Stage II of the paper's preset at reduced size, compiled and in mixed precision; prints what they gave as JSON."""

from __future__ import annotations

import json

import torch

from agents.ecc.agent import Ecc
from agents.ecc.config import EccConfig
from cfpos_envs import make_env

if __name__ == "__main__":
    torch.set_num_threads(1)
    config = EccConfig.preset(
        "paper", precision="bfloat16", pool=256, validation=32, samples=1280, batch_size=32,
        evaluations=1, channels=(4,), strategy="scratch", latent_width=8, fusion_size=16, fusion_hidden=16, heads=2,
        lr=1e-2,
    )  # fmt: skip
    assert config.compile
    assert config.slots == 0
    agent = Ecc(make_env("ecc-urban-small-v0", num_envs=2, seed=0, num_slots=2), config)
    found = agent.train(progress=False)
    print(json.dumps({**found, "bits": agent.fronthaul_bits}))
