"""Plain-text tables of the spaces and the reward of the localisation game, made from the tables that compute them."""

from __future__ import annotations

from cfpos_envs.scenarios.ris.observe import part_sizes, parts
from cfpos_envs.scenarios.ris.options import RisGameConfig

_REWARDS = {
    "explained": "share of the received energy that the estimate explains with the paths' gains fitted, in [0, 1]",
    "paths": "mean over the paths of the share of what arrives from each one's departure that it explains, in [0, 1]",
    "gain": "increase of that mean (see reward='paths') in the round",
    "error": "-log(error / m + 0.01) by the simulated truth (privileged, for studies)",
}


def describe(config: RisGameConfig) -> str:
    """Tables of one agent's observation and action and of the reward."""
    system = config.system
    u1, u2, b1, b2, n = system.sizes
    low, high = config.clock_m
    lines = [
        f"Localisation by {config.num_bs} base station(s) and {config.num_ris} surface(s), {config.num_ues} UEs "
        f"(agents), {config.rounds} rounds.",
        f"Arrays: base station {b1} x {b2}, UE {u1} x {u2}, surfaces {system.ris_shape[0]} x {system.ris_shape[1]}; "
        f"{n} subcarriers over {system.bandwidth_hz / 1e6:g} MHz at {system.carrier_hz / 1e9:g} GHz, "
        f"SNR {config.snr_db:g} dB.",
        "",
        "Observation of a UE: float32, each entry the value below clipped to [-1, 1].",
        f"{'entries':>9}  {'name':<18} meaning",
    ]
    sizes, first = part_sizes(config), 0
    for part in parts(config):
        last = first + sizes[part.name] - 1
        lines.append(f"{f'{first}-{last}':>9}  {part.name:<18} {part.meaning}")
        first = last + 1
    lines += ["", f"Action of a UE: {3 + config.num_bs} entries in [-1, 1]."]
    if config.action == "correction":
        lines += [
            f"  0-2  x, y, z: moved by up to the reach, {config.reach_m:g} m, times {config.zoom:g} after every round",
            "  3-   clock bias of each base station, likewise, in metres",
        ]
    else:
        lines += [
            f"  0-2  x, y, z in the cube of {2 * config.area_m:g} m around the UEs' middle",
            f"  3-   clock bias of each base station in [{low:.1f} m, {high:.1f} m]",
        ]
    lines += [
        "",
        f"Reward of a UE, every round: {config.reward}: {_REWARDS[config.reward]}.",
        f"Estimates start in the middle. The episode is truncated after {config.rounds} rounds.",
    ]
    return "\n".join(lines)
