"""Training in the experiments: Stage I once for all networks that share it, every network once, kept in a folder."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cfpos.agents.ecc.autoencoder import Autoencoders
from cfpos.scripts.experiments.common import Effort
from cfpos.scripts.experiments.ecc import common as ecc
from cfpos_envs.checkpoints import read_checkpoint, write_checkpoint
from cfpos_envs.streams import derive_seed
from cfpos_envs.supervised.agent_config import EccAgentConfig
from cfpos_envs.supervised.data import Pool
from cfpos_envs.supervised.fitting import Hooks, fit
from cfpos_envs.supervised.inputs import network_shape
from cfpos_envs.supervised.network import EccNetwork

_CALIBRATION_SAMPLES = 4096
_VALIDATION, _QUICK_VALIDATION = 1000, 60
# What Stage I does not look at: any values will do, so that networks which differ in these alone share it.
_STAGE_TWO: Mapping[str, Any] = {
    "bits": 4,
    "gain_bits": 8,
    "fusion": "cma",
    "fusion_hidden": 8,
    "fusion_size": 8,
    "fusion_depth": 0,
    "heads": 1,
    "mask": True,
    "mask_printed": False,
    "beta": 1.0,
    "literal": False,
    "tokens": "per-subcarrier",
    "head": "regression",
    "loss": "wmse",
    "strategy": "local-joint",
    "samples": 1,
}


@dataclass(frozen=True)
class Local:
    """Stage I of some encoders.

    Attributes:
        model: encoders and decoders.
        curve: (snapshots seen, training objective since the last point, validation objective), both of (22).
    """

    model: Autoencoders
    curve: list[tuple[int, float, float]]


@dataclass(frozen=True)
class Learned:
    """A trained network.

    Attributes:
        network: in evaluation mode.
        curve: (snapshots seen in Stage II, mean error in metres of unseen places), if ``config.evaluations`` are asked.
    """

    network: EccNetwork
    curve: list[tuple[int, float]]


def trained(config: EccAgentConfig, effort: Effort, **env: Any) -> EccNetwork:
    """A network trained on a pool that all networks of the same features share; taken from the folder if kept there."""
    return learned(config, effort, **env).network


def learned(
    config: EccAgentConfig,
    effort: Effort,
    start: EccNetwork | None = None,
    changed: tuple[str, Callable[[Pool], Pool]] | None = None,
    **env: Any,
) -> Learned:
    """A network and how it learned.

    Args:
        config: settings; Stage I is shared with every network that differs in Stage II alone.
        effort: quick or not, and the folder.
        start: weights to go on from, instead of fresh ones or those of Stage I.
        changed: what to make of the pool before Stage II, and its name.
        env: environment overrides.
    """
    network = fresh(config, **env)
    path = _kept("ecc" if changed is None else f"ecc-{changed[0]}", {**config.to_dict(), **_named(env, start)}, effort)
    if path is not None and path.exists():
        content = read_checkpoint(path)
        network.load_state_dict(content["agent"])
        return Learned(network.eval(), [(int(seen), float(error)) for seen, error in content.get("curve", [])])
    pool = ecc.snapshots(config, "train", config.pool, **env)
    pool = pool if changed is None else changed[1](pool)
    network.check_covers(pool.position_m)
    network.calibrate_inputs(pool.batch(slice(0, _CALIBRATION_SAMPLES)))
    if start is not None:
        network.load_state_dict(start.state_dict())
    elif config.strategy.startswith("local"):
        network.encoder.load_state_dict(local_stage(config, effort, **env).model.encoder.state_dict())
    network.encoder.requires_grad_(config.strategy != "local-split")
    result = fit(
        network, pool, config.fit_config(config.samples), validation=_validation(config, effort, env), progress=None
    )
    if path is not None:
        write_checkpoint(path, {"agent": result.model.state_dict(), "curve": [list(point) for point in result.curve]})
    return Learned(result.model, result.curve)


def local_stage(config: EccAgentConfig, effort: Effort, **env: Any) -> Local:
    """Stage I of ``config``: what it sets of Stage II makes no difference.

    Args:
        config, effort, env: as in ``learned``.
    """
    config = dataclasses.replace(config, **_STAGE_TWO)
    network = fresh(config, **env)
    path = _kept("local", {**config.to_dict(), **_named(env, None)}, effort)
    pool = ecc.snapshots(config, "train", config.pool, **env)
    network.calibrate_inputs(pool.batch(slice(0, _CALIBRATION_SAMPLES)))
    stage = Autoencoders(network, torch.Generator().manual_seed(derive_seed(config.seed, "decoders")))
    if path is not None and path.exists():
        content = read_checkpoint(path)
        stage.load_state_dict(content["agent"])
        return Local(stage.eval(), [(int(seen), *map(float, rest)) for seen, *rest in content["curve"]])  # type: ignore[misc]
    validation, seen_at, errors = _validation(config, effort, env), [], []

    def evaluated(seen: int, model: Autoencoders) -> None:
        if validation is not None:
            seen_at.append(seen)
            errors.append(objective(model, validation))

    result = fit(stage, pool, config.fit_config(config.local_samples), hooks=Hooks(evaluated=evaluated), progress=None)
    curve, before = [], 0
    for seen, error in zip(seen_at, errors, strict=True):
        last = seen // config.batch_size
        curve.append((seen, float(np.mean(result.losses[before:last])), error))
        before = last
    if path is not None:
        write_checkpoint(path, {"agent": result.model.state_dict(), "curve": [list(point) for point in curve]})
    return Local(result.model, curve)


@torch.no_grad()
def objective(model: Autoencoders, pool: Pool) -> float:
    """The objective of Stage I, equation (22), on a whole pool; -1 is a perfect reconstruction.

    Args:
        model: encoders and decoders.
        pool: snapshots.
    """
    return float(model.loss(pool.batch(slice(None))))


def fresh(config: EccAgentConfig, **env: Any) -> EccNetwork:
    """An untrained network for the experiments' scene.

    Args:
        config: settings.
        env: environment overrides.
    """
    generator = torch.Generator().manual_seed(derive_seed(config.seed, "weights"))
    return EccNetwork(config, network_shape(config, ecc.system(**env)), generator)


def _validation(config: EccAgentConfig, effort: Effort, env: Mapping[str, Any]) -> Pool | None:
    """Unseen snapshots for a curve; they choose nothing."""
    if not config.evaluations:
        return None
    return ecc.snapshots(config, "test", _QUICK_VALIDATION if effort.is_quick else _VALIDATION, **env)


def _named(env: Mapping[str, Any], start: EccNetwork | None) -> dict[str, Any]:
    """What a kept file depends on beside the settings."""
    found: dict[str, Any] = {"env": dict(env)} if env else {}
    if start is not None:
        found["start"] = start.config.to_dict()
    return found


def _kept(kind: str, content: Mapping[str, Any], effort: Effort) -> Path | None:
    if effort.agents_folder is None:
        return None
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return Path(effort.agents_folder) / f"{kind}-{digest[:16]}.pt"
