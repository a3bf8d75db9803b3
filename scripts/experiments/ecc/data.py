"""A ray-traced data set measured once: features of every stored user, line-of-sight links, training on them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cfpos.agents.ecc.autoencoder import Autoencoders
from cfpos.baselines import make_policy
from cfpos.scripts.experiments.common import progress
from cfpos.scripts.experiments.ecc.nearest import nearest_m
from cfpos_envs.channels.tracing.source import RaytracedSource
from cfpos_envs.measurements.ecc import CsiMeasurements
from cfpos_envs.registry import make_scenario
from cfpos_envs.scenarios.ecc.mobility import draw_moves
from cfpos_envs.scenarios.ecc.world import CsiWorld
from cfpos_envs.streams import Streams, derive_seed
from cfpos_envs.supervised.agent_config import EccAgentConfig, EccFastAgentConfig
from cfpos_envs.supervised.data import Batch, Pool, joined
from cfpos_envs.supervised.errors import predictions_m
from cfpos_envs.supervised.fit_config import FitConfig, uses_bfloat16
from cfpos_envs.supervised.fitting import fit
from cfpos_envs.supervised.inputs import batch_of, network_shape
from cfpos_envs.supervised.network import EccNetwork

ENV_ID = "ecc-raytraced-v0"
INPUTS: dict[str, dict[str, Any]] = {
    "acf": {"features": "acf"},
    "cov": {"features": "cov"},
    "amplitude": {"features": "amplitude"},
    "stabilised": {"features": "stabilised"},
    "stabilised per slot": {"features": "stabilised", "stabilise": "per-slot"},
}
HEAD: dict[str, Any] = {"head": "bins", "bins": 75}
"""Bins of 4 m: 75 of them along the 300 m of the area."""
# Chosen on training users that were set aside (the experiments ecc-settings and ecc-heads), never on the held-out ones.
BEST: dict[str, Any] = {"features": "acf", "bs_dropout": 0.0, "batch_size": 128, **HEAD}
COPIES = 3
"""Of every training user where users are moved."""
_CHUNK = 512
_CALIBRATION_SAMPLES = 4096
_FURTHER = ("position_m", "nearest_m")


@dataclass(frozen=True)
class Measured:
    """Every stored user of one split, measured once.

    Attributes:
        pools: by label of ``INPUTS``.
        lit: [U, L] links with a line of sight.
    """

    pools: dict[str, Pool]
    lit: Tensor

    def first(self, count: int) -> Measured:
        """The first users only."""
        return Measured({name: pool.first(count) for name, pool in self.pools.items()}, self.lit[:count])


class TracedData:
    """A data set behind the environment's radio.

    Args:
        dataset: its folder; empty: the small one that comes with the package.
        overrides: environment overrides.
    """

    def __init__(self, dataset: str, **overrides: Any) -> None:
        self.overrides = {"dataset": dataset, **overrides}
        scenario: Any = make_scenario(ENV_ID, **self.overrides)
        self.world: CsiWorld = scenario.world
        self.system = self.world.system
        source = self.world.source
        assert isinstance(source, RaytracedSource)
        self.source = source

    def chunks(self, split: str, limit: int | None = None) -> list[Tensor]:
        """Numbers of the users of a split, piece by piece."""
        total = len(self.source.users(split).index)
        return list(torch.arange(total if limit is None else min(limit, total)).split(_CHUNK))

    def csi(self, split: str, index: Tensor, copy: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """CSI [U, L, T, A, N], valid [U, L], positions [U, 3] of some users; their noise depends on their numbers.

        Args:
            split: of the users.
            index: their numbers.
            copy: 0: where they were traced; another: moved by up to a metre, each number to another place.
        """
        users = self.source.users(split, index)
        named = ("munich", int(index[0]), copy) if copy else ("munich", int(index[0]))
        streams = Streams(derive_seed(*named), split)
        moved = torch.zeros(len(index), 1, 3)
        if copy:
            moved = draw_moves(streams["mobility"], len(index), self.source.max_displacement_m)[:, None]
        taken = self.world.measure(streams, users, moved)
        return taken.csi[:, 0], taken.valid[:, 0], users.position_m + moved[:, 0]

    def measured(self, split: str, inputs: Sequence[str], limit: int | None = None, copy: int = 0) -> Measured:
        """All users of a split.

        Args:
            split: ``train`` or ``test``.
            inputs: labels of ``INPUTS`` or names of learned policies, whose own inputs are taken.
            limit: users at most.
            copy: see ``csi``.
        """
        makers = {name: self._maker(name) for name in inputs}
        parts: dict[str, list[Pool]] = {name: [] for name in inputs}
        for index in progress(self.chunks(split, limit), f"measuring {split}"):
            csi, valid, position = self.csi(split, index, copy)
            for name, make in makers.items():
                batch = make(csi, valid)
                parts[name].append(Pool(batch.features.half(), batch.log_gain, batch.valid, position))
        pools = {name: joined(pieces) for name, pieces in parts.items()}
        count = len(next(iter(pools.values())))
        return Measured(pools, self.source.line_of_sight(self.source.users(split))[:count])

    def with_moved(self, train: Pool, copies: int, name: str = "acf") -> Pool:
        """The first training users and beside each of them its ``copies`` to within a metre, see ``csi``.

        Args:
            train: the users where they were traced.
            copies: of each; 0: none.
            name: label of ``INPUTS`` of the pool.
        """
        numbers = range(1, copies + 1)
        return joined([train, *(self.measured("train", (name,), len(train), copy).pools[name] for copy in numbers)])

    def _maker(self, name: str) -> Callable[[Tensor, Tensor], Batch]:
        if name in INPUTS:
            config = EccFastAgentConfig(**INPUTS[name])
            return lambda csi, valid: batch_of(csi, valid, config, self.system)
        policy: Any = make_policy(name)
        return lambda csi, valid: policy.inputs(csi, valid, self.system)

    def measurements(self, split: str, index: Tensor) -> CsiMeasurements:
        """Some users as estimators take them, one per episode."""
        csi, valid, _ = self.csi(split, index)
        batch = len(index)
        return CsiMeasurements(
            system=self.system,
            bs_positions_m=self.source.bs_positions_m.expand(batch, -1, -1),
            bs_orientation_rad=self.source.bs_orientation_rad.expand(batch, -1, -1),
            csi=csi.unsqueeze(1),
            valid=valid.unsqueeze(1),
            site_ids=torch.zeros(batch, dtype=torch.long),
        )


@dataclass(frozen=True)
class Trained:
    """One trained network, or another way of locating, on the held-out users.

    Attributes:
        errors_m: [U] of the held-out users.
        curve: (samples seen, mean held-out error in metres).
        bits: per BS and user, flag and gain included.
        cpu_s: of training.
        position_m: [U, 3] where they were located.
        nearest_m: [U] errors of nearest neighbours in the space of the latents, see ``nearest``; None: not asked for.
    """

    errors_m: np.ndarray
    curve: list[tuple[int, float]]
    bits: float
    cpu_s: float
    position_m: np.ndarray | None = None
    nearest_m: np.ndarray | None = None


def train_network(
    config: EccAgentConfig, data: TracedData, train: Pool, test: Pool, samples: int, nearest: bool = False
) -> Trained:
    """Train a network of ``config`` on ``train`` for ``samples`` snapshots; the held-out users choose nothing.

    Args:
        config: settings.
        data: of the pools.
        train, test: snapshots to learn from, and held-out ones.
        samples: snapshots seen in Stage II.
        nearest: also locate by nearest neighbours in the space of the latents.
    """
    generator = torch.Generator().manual_seed(derive_seed(config.seed, "weights"))
    network: Any = EccNetwork(config, network_shape(config, data.system), generator)
    network.check_covers(train.position_m)
    network.calibrate_inputs(train.batch(slice(0, _CALIBRATION_SAMPLES)))
    seconds = 0.0
    if config.strategy.startswith("local"):
        decoders = Autoencoders(network, torch.Generator().manual_seed(derive_seed(config.seed, "decoders")))
        stage = fit(decoders, train, config.fit_config(config.local_samples))
        network.encoder.load_state_dict(stage.model.encoder.state_dict())
        network.encoder.requires_grad_(config.strategy == "local-joint")
        seconds = stage.cpu_seconds
    result = fit(network, train, config.fit_config(samples), validation=test)
    layout = result.model.layout
    bits = layout.message_bits if layout.bits else 32 * layout.coefficients + layout.message_bits
    position = predictions_m(result.model, test)
    return Trained(
        errors_of(position, test.position_m),
        result.curve,
        float(bits),
        seconds + result.cpu_seconds,
        position.numpy(),
        errors_of(nearest_m(result.model, train, test), test.position_m) if nearest else None,
    )


def train_policy(policy: Any, train: Pool, test: Pool) -> Trained:
    """A learned policy made without an environment, trained on pools of its inputs."""
    policy.train_on(train)
    parts = torch.arange(len(test)).split(_CHUNK)
    position = torch.cat([policy.predict(test.batch(index)) for index in parts])
    errors = errors_of(position, test.position_m)
    return Trained(errors, [], float(policy.fronthaul_bits), policy.train_cpu_s, position.numpy())


def errors_of(position_m: Tensor, truth_m: Tensor) -> np.ndarray:
    """[U] three-dimensional errors (36), metres."""
    distances: np.ndarray = (position_m - truth_m).norm(dim=-1).numpy()
    return distances


def by_sight(errors_m: np.ndarray, in_sight: Tensor) -> dict[str, float | None]:
    """Mean error of the users with 0, 1, ... 6 base stations in sight; None where there are none.

    Args:
        errors_m: [U], metres.
        in_sight: [U] links with a line of sight, of at least as many users.
    """
    views = in_sight.numpy()[: len(errors_m)]
    return {
        f"mean, {count} in sight": float(errors_m[views == count].mean()) if (views == count).any() else None
        for count in range(7)
    }


def located(policy: Any, data: TracedData, split: str, limit: int | None = None) -> np.ndarray:
    """[U] errors of an estimator on the users of a split."""
    parts = []
    for index in progress(data.chunks(split, limit), policy.name):
        position = policy.locate(data.measurements(split, index)).position[:, 0]
        parts.append(errors_of(position, data.source.users(split, index).position_m))
    return np.concatenate(parts)


def kept(folder: str | None, name: str, make: Callable[[], Trained]) -> Trained:
    """``make()``, or what an earlier run of the same name left in ``folder`` (None: nothing is kept)."""
    if folder is None:
        return make()
    path = Path(folder) / f"{name}.json"
    if not path.exists():
        began = time.process_time()
        made = make()
        content = {
            "errors_m": np.round(made.errors_m.astype(float), 4).tolist(),
            **{name: np.round(value.astype(float), 4).tolist() for name, value in _further(made).items()},
            "curve": made.curve,
            "bits": made.bits,
            "cpu_s": made.cpu_s or time.process_time() - began,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_suffix(".partial")
        half.write_text(json.dumps(content), encoding="utf-8")
        half.replace(path)
    content = json.loads(path.read_text(encoding="utf-8"))
    curve = [(int(seen), float(error)) for seen, error in content["curve"]]
    further = {name: np.array(content[name]) for name in _FURTHER if name in content}
    return Trained(np.array(content["errors_m"]), curve, content["bits"], content["cpu_s"], **further)


def processor_remark(seconds: str = "CPU-s") -> str:
    """Which arithmetic the processor times of a table are of.

    Args:
        seconds: what the table calls them.
    """
    low = uses_bfloat16(FitConfig())
    kind = "mixed precision with 16-bit instructions" if low else "float32 without 16-bit instructions"
    more = "" if low else "; a core that has such instructions trains about 2.4 times as fast"
    return f"{seconds} are of one core in {kind}{more}."


def _further(made: Trained) -> dict[str, np.ndarray]:
    found = {name: getattr(made, name) for name in _FURTHER}
    return {name: value for name, value in found.items() if value is not None}
