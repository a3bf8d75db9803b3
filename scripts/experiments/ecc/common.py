"""What the experiments on CSI over a thin fronthaul share: pools made once, networks trained once, errors in a row."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cfpos.agents.ecc.autoencoder import Autoencoders
from cfpos.scripts.experiments.common import Effort
from cfpos_envs.checkpoints import read_checkpoint, write_checkpoint
from cfpos_envs.measurements.ecc import CsiSystem
from cfpos_envs.registry import make_scenario
from cfpos_envs.scenarios.ecc.pool import draw_snapshots
from cfpos_envs.streams import derive_seed
from cfpos_envs.supervised.agent_config import EccAgentConfig, EccFastAgentConfig
from cfpos_envs.supervised.data import Pool
from cfpos_envs.supervised.errors import errors_m
from cfpos_envs.supervised.fitting import fit
from cfpos_envs.supervised.inputs import network_shape, pool_of
from cfpos_envs.supervised.network import EccNetwork

ENV_ID = "ecc-urban-small-v0"
# Snapshots that a network sees, is drawn from and tested on, where the command says nothing else (--steps, --episodes).
SAMPLES, POOL, TEST = 102_400, 30_000, 4_000
_QUICK = {"samples": 1024, "pool": 300, "batch_size": 64, "encoder_hidden": 16, "fusion_hidden": 16, "channels": (4,)}
_QUICK_TEST = 60
_CALIBRATION_SAMPLES = 4096


def fast(effort: Effort, **settings: Any) -> EccAgentConfig:
    """Settings of ``ecc-fast`` for an experiment."""
    return _sized(EccFastAgentConfig, effort, settings)


def full(effort: Effort, **settings: Any) -> EccAgentConfig:
    """Settings of ``ecc`` for an experiment."""
    return _sized(EccAgentConfig, effort, settings)


def system() -> CsiSystem:
    """The constants of the experiments' scene."""
    known: CsiSystem = make_scenario(ENV_ID).system  # type: ignore[attr-defined]
    return known


def trained(config: EccAgentConfig, effort: Effort) -> EccNetwork:
    """A network trained on a pool that all networks of the same features share; taken from the folder if kept there."""
    generator = torch.Generator().manual_seed(derive_seed(config.seed, "weights"))
    network = EccNetwork(config, network_shape(config, system()), generator)
    path = _kept(config, effort)
    if path is not None and path.exists():
        network.load_state_dict(read_checkpoint(path)["agent"])
        return network.eval()
    pool = snapshots(config, "train", config.pool)
    network.calibrate_inputs(pool.batch(slice(0, _CALIBRATION_SAMPLES)))
    if config.strategy.startswith("local"):
        stage = Autoencoders(network, torch.Generator().manual_seed(derive_seed(config.seed, "decoders")))
        local = fit(stage, pool, config.fit_config(config.local_samples), progress=None)
        network.encoder.load_state_dict(local.model.encoder.state_dict())
        network.encoder.requires_grad_(config.strategy == "local-joint")
    network = fit(network, pool, config.fit_config(config.samples), progress=None).model
    if path is not None:
        write_checkpoint(path, {"agent": network.state_dict()})
    return network


def test_pool(config: EccAgentConfig, effort: Effort, **env: Any) -> Pool:
    """Unseen places and noise, the same for every network; ``env`` changes the scene."""
    return snapshots(config, "test", test_count(effort), **env)


def test_count(effort: Effort) -> int:
    """Snapshots that every network is tested on."""
    if effort.is_quick:
        return _QUICK_TEST
    return TEST if effort.episodes == Effort.episodes else effort.episodes


def with_settings(network: EccNetwork, **settings: Any) -> EccNetwork:
    """The same weights used with other settings, e.g. another number of bits."""
    config = dataclasses.replace(network.config, **settings)
    changed = EccNetwork(config, network.shape, torch.Generator().manual_seed(0)).eval()
    changed.load_state_dict(network.state_dict())
    return changed


def row(labels: Mapping[str, Any], network: Any, pool: Pool) -> dict[str, Any]:
    """One table line: labels, then the errors on a pool in metres with the standard error of their mean."""
    errors = errors_m(network, pool)
    return {
        **labels,
        "mean_m": float(errors.mean()),
        "standard_error_m": float(errors.std() / len(errors) ** 0.5),
        "median_m": float(np.median(errors)),
        "p90_m": float(np.percentile(errors, 90)),
    }


def snapshots(config: EccAgentConfig, split: str, count: int, **env: Any) -> Pool:
    """Labelled snapshots of the experiments' scene as ``config`` wants to see them."""
    return _snapshots(config.features, config.stabilise, config.slots, split, count, tuple(sorted(env.items())))


@lru_cache(maxsize=8)
def _snapshots(
    features: str, stabilise: str, slots: int, split: str, count: int, env: tuple[tuple[str, Any], ...]
) -> Pool:
    config = EccFastAgentConfig(features=features, stabilise=stabilise, slots=slots)
    parts = draw_snapshots(
        make_scenario(ENV_ID, split=split, **dict(env)).config, count, seed=0, chunk=min(count, 2048)
    )
    # Gains are standardised with the averages of the training scene, whatever the test scene is.
    return pool_of(((part.csi, part.valid, part.position_m) for part in parts), config, system(), count)


def _sized(kind: type[EccAgentConfig], effort: Effort, settings: Mapping[str, Any]) -> EccAgentConfig:
    sizes = {"samples": SAMPLES, "pool": POOL, "evaluations": 0, "threads": 1}
    if effort.is_quick:
        return kind.build({**sizes, **settings, **_QUICK, "local_samples": 256})
    asked = {} if effort.train_steps == Effort.train_steps else {"samples": effort.train_steps}
    return kind.build({**sizes, **settings, **asked})


def _kept(config: EccAgentConfig, effort: Effort) -> Path | None:
    if effort.agents_folder is None:
        return None
    digest = hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode()).hexdigest()
    return Path(effort.agents_folder) / f"ecc-{digest[:16]}.pt"
