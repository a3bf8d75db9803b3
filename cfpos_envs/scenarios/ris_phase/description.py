"""Plain-text tables of the spaces and the reward of the surfaces' game, made from the tables that compute them."""

from __future__ import annotations

from cfpos_envs.scenarios.ris_phase.config import RisPhaseConfig
from cfpos_envs.scenarios.ris_phase.observe import features

_REWARDS = {
    "energy": "told energy of the path over this surface relative to its full gain, in 10 dB, mean over the users",
    "bound": "-log(position error bound / m) of what all surfaces played (privileged), mean over the users",
    "error": "-log(error / m + 0.001) of an efficient estimator with what all surfaces played (privileged)",
}


def describe(config: RisPhaseConfig, action_size: int) -> str:
    """Tables of one agent's observation and action and of the reward."""
    n1, n2 = config.scene.system.ris_shape
    lines = [
        f"Profiles of {config.num_ris} surfaces (agents) of {n1} x {n2} elements for {config.num_ues} user(s) anywhere "
        f"in sectors of +-{config.sector_deg:g} degrees, {config.rounds} rounds, SNR {config.snr_db:g} dB.",
        "",
        f"Observation of a surface (feedback: {config.feedback}): float32, each entry clipped to [-1, 1].",
        f"{'entries':>9}  {'name':<10} meaning",
    ]
    first = 0
    for feature in features(config):
        last = first + feature.size(config) - 1
        lines.append(f"{f'{first}-{last}':>9}  {feature.name:<10} {feature.meaning}")
        first = last + 1
    lines += ["", f"Action of a surface ({config.action}): {action_size} entries in [-1, 1]."]
    if config.action == "beam":
        lines += [
            "  0-1  direction along each axis: middle of the beam in half-widths of the sector from its middle",
            "  2-3  width along each axis: half-width is 1 + a times the sector's; -1 is a pencil beam",
        ]
    else:
        lines.append("  phase of every element: pi a is added to the chirp over the sector; rows first")
    lines += [
        "Action 0 is the chirp over the sector.",
        "",
        f"Reward of a surface, every round: {config.reward}: {_REWARDS[config.reward]}.",
        f"The user stays; the episode is truncated after {config.rounds} rounds. Errors in m are those of an efficient "
        "estimator.",
    ]
    return "\n".join(lines)
