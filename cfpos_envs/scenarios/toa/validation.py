"""What the options of a time-based game may be; every refusal is one line that names the option."""

from __future__ import annotations

import math
from typing import Any

import torch

from cfpos_envs.checks import number_fields, one_of, whole_fields
from cfpos_envs.physics.los import check_los_scenario
from cfpos_envs.scenarios.site_files import SiteFile

MEASUREMENTS = ("statistical", "waveform")
DELAY_ESTIMATORS = ("first-peak", "music")
REWARDS = ("similarity", "held-out", "error")
STARTS = ("coarse", "linear", "centre")
LAYOUTS = ("uniform", "grid", "circle")
# APs whose second principal axis is shorter than this share of the first one stand on a line.
_LINE_SHARE = 1e-4
_MIN_APS = 3


def validate_game(c: Any) -> None:
    """Options of the game itself: the fields of a ``ToaConfig``, which calls this when it is made.

    Raises:
        ValueError: the first one that is not allowed.
    """
    one_of("measurement", c.measurement, MEASUREMENTS)
    one_of("delay_estimator", c.delay_estimator, DELAY_ESTIMATORS)
    one_of("split", c.split, ("train", "test"))
    one_of("reward", c.reward, REWARDS)
    one_of("start", c.start, STARTS)
    if not isinstance(c.reveal_los, bool):
        raise ValueError(f"reveal_los={c.reveal_los!r} must be true or false")
    whole_fields(c, 1, "num_ues", "rounds")
    whole_fields(c, 2, "coarse_points")
    number_fields(c, 0.0, math.inf, "mobility", "confidence_scale", "correction_m", "ue_height_m")
    number_fields(c, 0.0, 0.9, "held_out_share")
    number_fields(c, 0.0, math.inf, "round_s", "max_step_m", above=True)


def validate_network(s: Any, file: SiteFile | None, name: str) -> None:
    """Options of the network.

    Raises:
        ValueError: the first one that is not allowed.
    """
    one_of("layout", s.layout, LAYOUTS)
    whole_fields(s, 1, "num_aps", "num_antennas", "num_paths", "num_sites")
    if s.num_aps < _MIN_APS:
        raise ValueError(f"num_aps={s.num_aps} cannot fix a position in the plane by ranges; give at least {_MIN_APS}")
    if s.num_aps > 4096:
        raise ValueError(f"num_aps={s.num_aps} must be at most 4096")
    whole_fields(s, 2, "num_subcarriers")
    number_fields(s, 0.0, math.inf, "side_m", "carrier_hz", "subcarrier_spacing_hz", "tx_power_w", above=True)
    number_fields(s, 0.0, math.inf, "excess_shape", "range_std_m", "spacing_wavelengths", above=True)
    number_fields(s, 0.0, math.inf, "height_diff_m", "min_spacing_m", "nlos_mean_m", "shadowing_db", "noise_figure_db")
    number_fields(s, 0.0, math.inf, "sync_std_s", "ue_clock_std_s", "processing_error_std_s", "path_loss_slope_db")
    number_fields(s, 0.0, math.inf, "delay_spread_s", "angular_spread_deg", "nlos_loss_db")
    number_fields(s, 0.0, 1.0, "nlos_share", "blocked_share")
    number_fields(s, -200.0, 200.0, "snr_db", "path_loss_intercept_db", "k_factor_db")
    if s.nlos_share_random and s.nlos_share is None:
        raise ValueError("nlos_share_random draws the share from [0, nlos_share]; set nlos_share too")
    check_los_scenario(s.los)
    _ = s.clock
    _validate_places(s, file, name)


def _validate_places(s: Any, file: SiteFile | None, name: str) -> None:
    if file is None:
        if s.layout == "grid" and any(s.num_aps == count for count in (3, *_primes(s.num_aps))):
            raise ValueError(
                f"a grid of num_aps={s.num_aps} would be a single line, which fixes no position; "
                "choose a composite number or another layout"
            )
        return
    outside = ((file.ap_positions_m < 0) | (file.ap_positions_m > s.side_m)).any(dim=-1)
    if outside.any():
        row = int(outside.nonzero()[0]) + 1
        raise ValueError(
            f"AP {row} of site file {name!r} lies outside the square [0, {s.side_m:g}] m; set side_m or move the AP"
        )
    centred = (file.ap_positions_m - file.ap_positions_m.mean(dim=0)).double()
    axes = torch.linalg.svdvals(centred)
    if float(axes[1]) < _LINE_SHARE * float(axes[0]):
        raise ValueError(
            f"the APs of site file {name!r} stand on one line, which fixes no position (mirror image); move one of them"
        )


def _primes(number: int) -> tuple[int, ...]:
    return (number,) if all(number % d for d in range(2, math.isqrt(number) + 1)) else ()
