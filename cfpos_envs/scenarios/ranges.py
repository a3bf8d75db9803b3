"""What numbers of networks and games may be, where several games have a field of that name.

The limits are wide: they hold what anybody builds, and keep arithmetic in single precision finite.
"""

from __future__ import annotations

from cfpos_envs.fields import Range

MOST_M = 1e5
"""Longest length, metres: positions in single precision are then exact to a centimetre."""
MOST_ROUNDS = 10_000
CARRIERS_HZ: Range = (1e7, 1e12)
RATIOS_DB: Range = (-200.0, 200.0)

SITE_RANGES: dict[str, Range] = {
    "num_aps": (1, 4096),
    "num_antennas": (1, 1024),
    "side_m": (0.1, MOST_M),
    "min_spacing_m": (0, MOST_M),
    "height_diff_m": (0, MOST_M),
    "carrier_hz": CARRIERS_HZ,
    "tx_power_w": (1e-12, 1e6),
    "noise_figure_db": (0, 100),
    "snr_db": RATIOS_DB,
    "spacing_wavelengths": (0.01, 100),
    "angular_spread_deg": (0, 360),
    "num_paths": (1, 10_000),
    "shadowing_db": (0, 50),
    "nlos_share": (0, 1),
    "nlos_loss_db": (0, 200),
    "num_sites": (1, 1_000_000),
}
GAME_RANGES: dict[str, Range] = {
    "num_ues": (1, 10_000),
    "rounds": (1, MOST_ROUNDS),
    "held_out_share": (0, 0.9),
    "confidence_scale": (0, 20),
    "max_step_m": (0.001, MOST_M),
    "speed_m_s": (0, 1e4),
    "round_s": (1e-9, 1e5),
    "ue_height_m": (-1e4, 1e4),
}
