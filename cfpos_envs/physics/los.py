"""Line of sight and path loss of 3GPP TR 38.901 for urban street canyons and indoor offices."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs import draws
from cfpos_envs.checks import unknown_name

LOS_SCENARIOS = ("umi_street_canyon", "inh_mixed_office", "inh_open_office")


def check_los_scenario(scenario: str) -> str:
    """The name of a scenario, unchanged.

    Raises:
        ValueError: unless it is one of ``LOS_SCENARIOS``.
    """
    if scenario not in LOS_SCENARIOS:
        raise ValueError(unknown_name("LOS scenario (los)", scenario, LOS_SCENARIOS))
    return scenario


def los_probability(scenario: str, distance_2d_m: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Probability of line of sight by horizontal distance, TR 38.901 table 7.4.2-1 (outdoor users for UMi).

    UMi: 1 up to 18 m, then 18/d + exp(-d/36) (1 - 18/d). InH mixed: 1 up to 1.2 m, exp(-(d - 1.2)/4.7) up to 6.5 m,
    then 0.32 exp(-(d - 6.5)/32.6). InH open: 1 up to 5 m, exp(-(d - 5)/70.8) up to 49 m, then
    0.54 exp(-(d - 49)/211.7).
    Heights are not part of these three laws; they are fitted to APs at 10 m (UMi) and 3 m (InH).

    Args:
        scenario: one of ``LOS_SCENARIOS``.
        distance_2d_m: horizontal distance, metres, >= 0.

    Raises:
        ValueError: for an unknown scenario or a negative distance.
    """
    check_los_scenario(scenario)
    d = distance_2d_m
    if not bool((d >= 0).all()):
        raise ValueError("distance_2d_m must not be negative or NaN")
    if scenario == "umi_street_canyon":
        share = 18.0 / d.clamp(min=18.0)
        return share + torch.exp(-d / 36.0) * (1.0 - share)
    if scenario == "inh_mixed_office":
        near, far = torch.exp(-(d - 1.2).clamp(min=0.0) / 4.7), 0.32 * torch.exp(-(d - 6.5) / 32.6)
        return torch.where(d < 6.5, near, far)
    near, far = torch.exp(-(d - 5.0).clamp(min=0.0) / 70.8), 0.54 * torch.exp(-(d - 49.0) / 211.7)
    return torch.where(d <= 49.0, near, far)


def draw_los(generator: draws.Source, probability: Float[Tensor, "*batch"]) -> Bool[Tensor, "*batch"]:
    """Independent draws of line of sight, true with the given probability.

    Args:
        generator: source of randomness.
        probability: in [0, 1].

    Raises:
        ValueError: for a probability outside [0, 1].
    """
    if not bool(((probability >= 0) & (probability <= 1)).all()):
        raise ValueError("probability must lie in [0, 1]")
    uniform = draws.uniform(generator, *probability.shape, dtype=probability.dtype)
    return uniform < probability


def path_loss_constants(scenario: str, carrier_hz: float, line_of_sight: bool = True) -> tuple[float, float]:
    """Intercept (dB at 1 m) and slope (dB per decade) for ``path_gain_db``, TR 38.901 table 7.4.1-1.

    LOS: UMi 32.4 + 21 log10 d + 20 log10 f, InH 32.4 + 17.3 log10 d + 20 log10 f (d slant, m; f in GHz). NLOS: UMi
    22.4 + 35.3 log10 d + 21.3 log10 f for users at 1.5 m, InH 17.3 + 38.3 log10 d + 24.9 log10 f; the table takes the
    larger of this and the LOS loss. Left out: the steeper UMi law beyond the break point (hundreds of metres).

    Args:
        scenario: one of ``LOS_SCENARIOS``.
        carrier_hz: 0.5 to 100 GHz.
        line_of_sight: which of the two laws.

    Raises:
        ValueError: for an unknown scenario or a carrier outside the range of the report.
    """
    check_los_scenario(scenario)
    if not 0.5e9 <= carrier_hz <= 100e9:
        raise ValueError(f"carrier_hz must lie in [0.5e9, 100e9], the range of TR 38.901, got {carrier_hz}")
    frequency = math.log10(carrier_hz / 1e9)
    urban = scenario == "umi_street_canyon"
    if line_of_sight:
        return -(32.4 + 20 * frequency), 21.0 if urban else 17.3
    return (-(22.4 + 21.3 * frequency), 35.3) if urban else (-(17.3 + 24.9 * frequency), 38.3)
