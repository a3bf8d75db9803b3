"""Plain-text tables of the spaces and the reward of a DCP game, made from the tables that compute them."""

from __future__ import annotations

from cfpos_envs.scenarios.base import Entities
from cfpos_envs.scenarios.dcp.config import DcpConfig
from cfpos_envs.scenarios.dcp.observe import feature_table

_ACTIONS: dict[str, tuple[tuple[str, str], ...]] = {
    "gain": (
        ("gain_radial", "report moves (1 + a) times the distance innovation, 0 to 2"),
        ("gain_tangential", "report moves (1 + a) times the bearing innovation, 0 to 2"),
    ),
    "polar": (
        ("distance", "(1 + a) / 2 of the largest distance, m"),
        ("azimuth", "pi a, rad"),
    ),
    "confidence": (
        ("confidence_rss", "RSS weight times exp(confidence_scale a)"),
        ("confidence_aoa", "bearing weight times exp(confidence_scale a)"),
    ),
}
_ACTIONS["confidence-correction"] = (
    *_ACTIONS["confidence"],
    ("correction_rss", "correction_db a|a| dB subtracted from the RSS residual"),
    ("correction_aoa", "correction_rad a rad subtracted from the bearing residual"),
)

_REWARDS = {
    "local": "similarity of the AP's own report minus that of the consensus",
    "shared": "gain in similarity of the fused point, the same for every AP",
    "counterfactual": "M grad(similarity) . (fused point - fused point with this AP neutral)",
    "held-out": "as counterfactual, judged by APs that took no part in the fusion",
    "held-out-shared": "as shared, judged by APs that took no part in the fusion",
}


def describe(config: DcpConfig, entities: Entities) -> str:
    """Tables of one agent's observation and action (the UEs' parts one after another) and of the reward."""
    settings = config.settings
    lines = [
        f"DCP, stage {config.stage!r}, site {config.site!r}: {settings.num_aps} APs (agents), {config.num_ues} UEs, "
        f"{settings.num_antennas} antennas per AP, {config.rounds} rounds, area {settings.side_m:g} m square.",
        "",
        f"Observation of an AP: {entities.count} parts (one per UE) of {entities.observation_size} entries, float32,",
        "each the value below divided by its scale and clipped to [-1, 1].",
        f"{'entry':>5}  {'name':<22} {'scale':>6}  meaning (unit before scaling)",
    ]
    for index, (name, meaning, scale) in enumerate(feature_table(config)):
        lines.append(f"{index:>5}  {name:<22} {scale:>6.3g}  {meaning}")
    lines += ["", f"Action of an AP: {entities.count} parts of {entities.action_size} entries in [-1, 1]."]
    for index, (name, meaning) in enumerate(_ACTIONS[config.action]):
        lines.append(f"{index:>5}  {name:<22}  {meaning}")
    lines += [
        "",
        f"Reward of an AP, summed over its UEs: {config.reward}, similarity {config.similarity!r}: "
        f"{_REWARDS[config.reward]}.",
        f"Fusion: {config.fusion}. Start: {config.start}. The episode is truncated after {config.rounds} rounds.",
    ]
    return "\n".join(lines)
