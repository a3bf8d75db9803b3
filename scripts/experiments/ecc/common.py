"""What the experiments on CSI over a thin fronthaul share: sizes, pools made once, errors in a row."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from cfpos.scripts.experiments.common import Effort
from cfpos_envs.measurements.ecc import CsiSystem
from cfpos_envs.registry import make_scenario
from cfpos_envs.scenarios.ecc.pool import draw_snapshots
from cfpos_envs.supervised.agent_config import EccAgentConfig, EccFastAgentConfig
from cfpos_envs.supervised.data import Pool
from cfpos_envs.supervised.errors import errors_m
from cfpos_envs.supervised.inputs import pool_of
from cfpos_envs.supervised.network import EccNetwork

ENV_ID = "ecc-urban-small-v0"
# Snapshots that a network sees, is drawn from and tested on, where the command says nothing else (--steps, --episodes).
SAMPLES, POOL, TEST = 102_400, 30_000, 4_000
# The source's network, narrowed, with its own three numbers: bins need more snapshots than this before they pay.
NARROW: Mapping[str, Any] = {
    "samples": 20_480,
    "local_samples": 7_680,
    "pool": 10_000,
    "channels": (8, 16),
    "batch_size": 32,
    "head": "regression",
    "evaluations": 8,
}
_QUICK: Mapping[str, Any] = {
    "samples": 1024,
    "pool": 300,
    "batch_size": 64,
    "encoder_hidden": 16,
    "fusion_hidden": 16,
    "channels": (4,),
}
_QUICK_NARROW: Mapping[str, Any] = {**_QUICK, "samples": 128, "local_samples": 128, "evaluations": 2}
_QUICK_TEST = 60


def fast(effort: Effort, **settings: Any) -> EccAgentConfig:
    """Settings of ``ecc-fast`` for an experiment."""
    return _sized(EccFastAgentConfig, effort, settings, _QUICK)


def narrow(effort: Effort, **settings: Any) -> EccAgentConfig:
    """Settings of ``ecc`` at a size whose training a minute or two of a core suffice for."""
    return _sized(EccAgentConfig, effort, {**NARROW, **settings}, _QUICK_NARROW)


def narrow_remark(effort: Effort, local: bool = True) -> str:
    """What the networks of ``narrow`` are and what they have seen.

    Args:
        effort: as for them.
        local: whether any of them went through Stage I.
    """
    config = narrow(effort)
    first = f" and {config.local_samples} in Stage I" if local else ""
    return (
        f"{ENV_ID}; ecc with Res-SegNet ({', '.join(map(str, config.channels))} channels), CMA and LSTM on stabilised "
        f"CSI, head={config.head}, d_z = {config.latent_width}, Q = {config.bits} unless it says otherwise; "
        f"{config.samples} snapshots in Stage II{first} from {config.pool}, in batches of {config.batch_size}; one "
        "seed."
    )


def system(**env: Any) -> CsiSystem:
    """The constants of the experiments' scene under environment overrides."""
    known: CsiSystem = make_scenario(ENV_ID, **env).system  # type: ignore[attr-defined]
    return known


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
    known = dataclasses.replace(system(), num_subcarriers=dict(env).get("num_subcarriers", system().num_subcarriers))
    return pool_of(((part.csi, part.valid, part.position_m) for part in parts), config, known, count)


def _sized(
    kind: type[EccAgentConfig], effort: Effort, settings: Mapping[str, Any], quick: Mapping[str, Any]
) -> EccAgentConfig:
    sizes = {"samples": SAMPLES, "pool": POOL, "evaluations": 0, "threads": 1}
    if effort.is_quick:
        return kind.build({**sizes, **settings, **quick})
    asked = {} if effort.train_steps == Effort.train_steps else {"samples": effort.train_steps}
    return kind.build({**sizes, **settings, **asked})
