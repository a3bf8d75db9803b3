"""Plain-text tables of the spaces and the reward of a time-based game, made from the tables that compute them."""

from __future__ import annotations

from cfpos_envs.scenarios.base import Entities
from cfpos_envs.scenarios.toa.config import ToaConfig
from cfpos_envs.scenarios.toa.observe import FEATURES

_FAMILIES = {
    "toa": "arrival times with a common clock",
    "tdoa": "arrival times of UEs whose clock is unknown: only differences count",
    "rtt": "round-trip times",
}
_REWARDS = {
    "similarity": "agreement of the measured ranges with the fused point, judged by all measured links",
    "held-out": "agreement of the measured ranges with the fused point, judged by APs that took no part in the fusion",
    "error": "-log(error / m + 0.1) by the simulated truth (privileged, for studies)",
}


def describe(config: ToaConfig, entities: Entities) -> str:
    """Tables of one agent's observation and action (the UEs' parts one after another) and of the reward."""
    settings = config.settings
    lines = [
        f"Time-based positioning, {config.family} ({_FAMILIES[config.family]}),",
        f"{config.measurement} measurements, site {config.site!r}: "
        f"{settings.num_aps} APs (agents), {config.num_ues} UEs, {config.rounds} rounds, area {settings.side_m:g} m "
        f"square, {settings.num_subcarriers} x {settings.subcarrier_spacing_hz / 1e3:g} kHz.",
        "",
        f"Observation of an AP: {entities.count} parts (one per UE) of {entities.observation_size} entries, float32,",
        "each the value below divided by its scale and clipped to [-1, 1].",
        f"{'entry':>5}  {'name':<18} {'scale':>5}  meaning (unit before scaling)",
    ]
    for index, feature in enumerate(FEATURES):
        lines.append(f"{index:>5}  {feature.name:<18} {feature.scale:>5.3g}  {feature.meaning}")
    lines += [
        "",
        f"Action of an AP: {entities.count} parts of {entities.action_size} entries in [-1, 1].",
        f"    0  reliability         robust weight times exp({config.confidence_scale:g} (a - 1)), in [0, 1]",
        f"    1  correction          the range is taken to be {config.correction_m:g} a|a| m shorter",
        "Action 0 is one step of a robust (Student-t) least squares estimator.",
        "",
        "Reward of an AP, summed over its UEs: M grad(s) . (fused estimate - the same with this AP neutral),",
        f"s = {config.reward}: {_REWARDS[config.reward]}.",
        f"Start: {config.start}. The episode is truncated after {config.rounds} rounds.",
    ]
    return "\n".join(lines)
