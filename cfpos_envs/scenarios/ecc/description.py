"""Plain-text tables of the spaces and the reward, made from what computes them."""

from __future__ import annotations

from collections.abc import Sequence

from cfpos_envs.measurements.ecc import CsiSystem
from cfpos_envs.scenarios.base import Entities
from cfpos_envs.scenarios.ecc.config import EccConfig
from cfpos_envs.scenarios.ecc.observe import Part

_REWARDS = {
    "error": "minus the distance of the fused report from the truth / {scale:g} m (privileged)",
    "consistency": "agreement of the reports with the fused one, and of gains and CSI of a line of sight from there "
    "with the measured ones, in [0, 1]; label-free",
}
_FUSIONS = {
    "mean": "mean over the base stations whose link has a path",
    "confidence": "mean over the base stations whose link has a path, weighed by exp({scale:g} a)",
}


def describe(config: EccConfig, system: CsiSystem, parts: Sequence[Part], entities: Entities) -> str:
    """Tables of one agent's observation and action (the users' parts one after another) and of the reward."""
    low, high = system.area_min_m, system.area_max_m
    rows, columns = system.array_shape
    size = " x ".join(f"{b - a:g}" for a, b in zip(low, high))
    lines = [
        f"Positioning in three dimensions from CSI, site {config.site!r}: {system.num_bs} base stations (agents) with "
        f"{rows} x {columns} antennas,",
        f"{config.num_ues} user(s), {config.rounds} rounds, area {size} m, {system.num_subcarriers} subcarriers every "
        f"{system.subcarrier_spacing_hz / 1e3:g} kHz at {system.carrier_hz / 1e9:g} GHz, {system.num_slots} slots,",
        f"users {config.mobility}; lossless CSI: {system.lossless_bits} bits per base station, user and snapshot.",
        "",
        f"Observation of a base station: {entities.count} parts (one per user) of {entities.observation_size} entries, "
        "float32, in [-1, 1].",
        f"{'entries':>9}  {'name':<13} meaning (unit before scaling)",
    ]
    start = 0
    for part in parts:
        span = f"{start}" if part.size == 1 else f"{start}-{start + part.size - 1}"
        lines.append(f"{span:>9}  {part.name:<13} {part.meaning}")
        start += part.size
    lines += [
        "",
        f"Action of a base station: {entities.count} parts of {entities.action_size} entries in [-1, 1].",
        f"{'0-2':>9}  {'report':<13} position minus centre of the area / {system.scale_m:g} m",
    ]
    if entities.action_size > 3:
        lines.append(f"{'3':>9}  {'confidence':<13} a, see fusion")
    lines += [
        f"Fusion: {_FUSIONS[config.fusion].format(scale=config.confidence_scale)}.",
        "",
        "Reward of every base station, summed over the users: "
        + _REWARDS[config.reward].format(scale=system.scale_m)
        + ".",
        f"The first estimate is the centre of the area. The episode is truncated after {config.rounds} rounds.",
    ]
    return "\n".join(lines)
