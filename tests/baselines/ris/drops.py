"""Drops of the scene with surfaces, with the bounds on them, for tests of its estimators."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from baselines.ris.channel import ChannelEstimate, ChannelOptions
from baselines.ris.pairs import RisEstimate, pair_channels, pair_geometry
from cfpos_envs.measurements.ris import RisMeasurements
from cfpos_envs.scenarios.ris.config import RisConfig
from cfpos_envs.scenarios.ris.world import Scene, draw_phases, draw_scene, drop_bound, measurements
from cfpos_envs.streams import Streams

CHUNK = 50


@dataclass(frozen=True)
class RisDrop:
    """Some episodes: what is hidden, what an estimator sees, bounds."""

    config: RisConfig
    scene: Scene
    measurements: RisMeasurements
    peb_m: Tensor
    ceb_m: Tensor

    def error_m(self, estimate: RisEstimate) -> Tensor:
        return torch.linalg.vector_norm(estimate.position - self.scene.ue_m, dim=-1)

    def clock_error_m(self, estimate: RisEstimate) -> Tensor:
        """Against the first base station, modulo the window."""
        window = self.config.system.window_m
        off = estimate.bias_m - self.scene.bias_m[..., 0]
        return (torch.remainder(off + window / 2, window) - window / 2).abs()

    def channels(self, options: ChannelOptions) -> ChannelEstimate:
        return pair_channels(self.measurements, pair_geometry(self.measurements), options)


def ris_drop(count: int, seed: int, **overrides: Any) -> RisDrop:
    config, streams = RisConfig(**overrides), Streams(seed)
    scene = draw_scene(config, streams, count)
    phases = draw_phases(config, streams, count)
    return RisDrop(config, scene, measurements(config, scene, phases), *drop_bound(config, scene, phases))


def ris_drops(count: int, seed: int, **overrides: Any) -> Iterator[RisDrop]:
    """``count`` episodes in pieces that fit into memory."""
    for index, low in enumerate(range(0, count, CHUNK)):
        yield ris_drop(min(CHUNK, count - low), 1000 * seed + index, **overrides)


@dataclass(frozen=True)
class Outcome:
    """Errors of one policy over many episodes, [episodes, UEs]."""

    error_m: Tensor
    clock_m: Tensor
    valid: Tensor
    peb_m: Tensor
    ceb_m: Tensor

    @cached_property
    def rmse_m(self) -> float:
        return rms(self.error_m)

    @cached_property
    def ratio(self) -> float:
        return self.rmse_m / rms(self.peb_m)

    @cached_property
    def clock_ratio(self) -> float:
        return rms(self.clock_m) / rms(self.ceb_m)

    @cached_property
    def outliers(self) -> float:
        return float((self.error_m > 5 * self.peb_m).double().mean())


def outcomes(policies: Mapping[str, Any], count: int, seed: int, **overrides: Any) -> dict[str, Outcome]:
    """Every policy on the same episodes."""
    found: dict[str, list[Outcome]] = {name: [] for name in policies}
    for drop in ris_drops(count, seed, **overrides):
        for name, policy in policies.items():
            estimate = policy.locate(drop.measurements)
            found[name].append(
                Outcome(
                    drop.error_m(estimate), drop.clock_error_m(estimate), estimate.valid, drop.peb_m, drop.ceb_m[..., 0]
                )
            )
    names = ("error_m", "clock_m", "valid", "peb_m", "ceb_m")
    return {
        name: Outcome(*(torch.cat([getattr(part, field) for part in parts]) for field in names))
        for name, parts in found.items()
    }


def rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())
