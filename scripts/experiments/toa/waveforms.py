"""Is the drawn error the estimated one? Variance of delays estimated from waveforms beside 1 / (8 pi^2 beta^2 SNR)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cfpos.scripts.experiments.common import EVALUATION_SEED, Effort, Outcome, progress
from cfpos_envs import draws
from cfpos_envs.drawing.figures import draw_convergence, new_figure
from cfpos_envs.physics.toa.delay_estimation import first_peak_delay_s, music_delay_s
from cfpos_envs.physics.toa.ranging import delay_variance_s2, rms_bandwidth_hz
from cfpos_envs.physics.waveform import add_noise, draw_paths, frequency_response
from cfpos_envs.streams import Streams

SNR_DB = (8.0, 11.0, 14.0, 17.0, 20.0, 30.0, 40.0)
NUM_SUBCARRIERS, SPACING_HZ, NUM_ANTENNAS = 128, 240e3, 4
"""Comb and array of the comparison."""
_ESTIMATORS = {"first peak": first_peak_delay_s, "MUSIC": music_delay_s}
_BANDWIDTH_HZ = rms_bandwidth_hz(NUM_SUBCARRIERS, SPACING_HZ)
_OUTLIER_STD = 5.0
_DELAYS_S = (0.05e-6, 2.0e-6)


def run(effort: Effort) -> Outcome:
    """One path, known noise: root mean square error over its bound by SNR, with and without outliers."""
    rows: list[dict[str, Any]] = []
    for snr_db in progress(effort.chosen(SNR_DB), "waveforms"):
        for name, estimate in _ESTIMATORS.items():
            error_s = _errors(effort.points, snr_db, estimate)
            stated_s = float(delay_variance_s2(torch.tensor(10 ** (snr_db / 10)), _BANDWIDTH_HZ)) ** 0.5
            inside = error_s.abs() < _OUTLIER_STD * stated_s
            rows.append(
                {
                    "snr_db": snr_db,
                    "estimator": name,
                    "bound_ns": 1e9 * stated_s,
                    "variance/bound": float(error_s.square().mean()) / stated_s**2,
                    "without outliers": float(error_s[inside].square().mean()) / stated_s**2,
                    "outliers": 1.0 - float(inside.double().mean()),
                }
            )
    curves = {
        f"{name}{suffix}": (
            [row["snr_db"] for row in rows if row["estimator"] == name],
            [row[column] for row in rows if row["estimator"] == name],
        )
        for name in _ESTIMATORS
        for suffix, column in (("", "variance/bound"), (", without outliers", "without outliers"))
    }
    with new_figure(7.0, 4.5) as (figure, axes):
        draw_convergence(axes, curves, xlabel="SNR of the pilot [dB]")
        axes.set_ylabel("variance of the delay / bound")
        axes.axhline(1.0, color="black", linestyle=":")
    remark = (
        f"{effort.points} trials a row; {NUM_SUBCARRIERS} subcarriers {SPACING_HZ / 1e3:g} kHz apart, {NUM_ANTENNAS} "
        f"antennas, one path; an outlier is off by more than {_OUTLIER_STD:g} standard deviations of the bound."
    )
    return Outcome(rows, figure, [remark])


def _errors(trials: int, snr_db: float, estimate: Callable[..., Tensor]) -> Tensor:
    """Delay errors [trials] in seconds of paths of unit gain."""
    generator = Streams(EVALUATION_SEED, "test").fresh("waveforms")
    low, high = _DELAYS_S
    delay_s = low + (high - low) * draws.uniform(generator, trials)
    ones = torch.ones(trials)
    angle_rad = math.pi * draws.uniform(generator, trials)
    paths = draw_paths(generator, ones > 0, delay_s, ones, angle_rad, 1, 0.0, 0.0, 0.0)
    clean = frequency_response(paths, NUM_ANTENNAS, 0.5, NUM_SUBCARRIERS, SPACING_HZ)
    # The SNR of the whole pilot on all antennas.
    variance = NUM_ANTENNAS * NUM_SUBCARRIERS / 10 ** (snr_db / 10)
    return (estimate(add_noise(generator, clean, variance), SPACING_HZ, variance) - delay_s).double()
