"""Lines of sight by features of waveforms: laws of drawn features, what comes along, and what a scene teaches."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from cfpos.baselines.toa.links import range_links
from cfpos.baselines.toa.nlos import (
    WAVEFORM_COEFFICIENTS,
    expected_rss_dbm,
    fit_los_classifier,
    learned_log_odds,
    waveform_coefficients,
)
from cfpos.baselines.toa.robust import huber_fit
from cfpos.scripts.experiments.common import EVALUATION_SEED, Effort, Outcome, progress
from cfpos_envs import make_env
from cfpos_envs.drawing.figures import OKABE_ITO
from cfpos_envs.measurements.toa import TimingMeasurements
from cfpos_envs.physics.toa.link_features import los_log_odds

SCENES: dict[str, dict[str, Any]] = {
    "toa-v0 as it is": {},
    "time differences": {"family": "tdoa"},
    "office": {"site": "office"},
    "side of 300 m": {"side_m": 300.0},
    "30 % without line of sight": {"nlos_share": 0.3},
    "64 subcarriers": {"num_subcarriers": 64},
    "512 subcarriers": {"num_subcarriers": 512},
    "SNR of 20 dB": {"snr_db": 20.0},
}
TAUGHT, TESTED = 100, 25
"""Episodes that a classifier is fitted to, and that it is tried on."""


def run(effort: Effort) -> Outcome:
    """Share of the measured links, on unseen sites, whose class each classifier finds."""
    rows: list[dict[str, Any]] = []
    taught = TAUGHT if not effort.is_quick else 12
    first: tuple[float, ...] | None = None
    for scene, env in progress(effort.chosen(list(SCENES.items())), "scenes"):
        learned = fitted(waveforms(env, taught, 1, "train"))
        first = first or learned
        seen = waveforms(env, TESTED if not effort.is_quick else 4, EVALUATION_SEED, "test")
        features, expected = seen.features.double(), expected_near(seen)
        rows.append(
            {
                "waveforms": scene,
                "links": int(seen.valid.sum()),
                "with line of sight": _share(seen, torch.ones_like(expected)),
                "laws of drawn features": _share(seen, los_log_odds(features, expected)),
                "comes along": _share(seen, learned_log_odds(features, expected, WAVEFORM_COEFFICIENTS)),
                "taken": "yes" if _serves(seen) else "refused",
                "fitted to such links": _share(seen, learned_log_odds(features, expected, learned)),
            }
        )
    numbers = ", ".join(f"{value:.3g}" for value in first or ())
    remark = (
        f"Fitted to {taught} episodes of training sites, tried on unseen sites, RSS at the distance of a robust fix; "
        "'refused': toa-nlos-drop asks for coefficients there. Coefficients of the first row, which come along: "
        f"{numbers}."
    )
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for index, column in enumerate(("laws of drawn features", "comes along", "fitted to such links")):
        places = [place + 0.27 * (index - 1) for place in range(len(rows))]
        axes.barh(places, [row[column] for row in rows], 0.25, color=OKABE_ITO[index], label=column)
    axes.set(yticks=range(len(rows)), yticklabels=[row["waveforms"] for row in rows], xlim=(0, 1))
    axes.set_xlabel("links whose class is found")
    axes.invert_yaxis()
    axes.legend(loc="lower left")
    return Outcome(rows, figure, [remark])


def waveforms(env: dict[str, Any], episodes: int, seed: int, split: str) -> TimingMeasurements:
    """Episodes whose classes are known.

    Args:
        env: overrides of ``toa-v0``.
        episodes, seed, split: how many, and which.
    """
    options = {"measurement": "waveform", "reveal_los": True, "split": split, **env}
    batched = make_env("toa-v0", num_envs=episodes, seed=seed, **options)
    batched.reset()
    measurements: TimingMeasurements = batched.measurements
    return measurements


def fitted(seen: TimingMeasurements) -> tuple[float, ...]:
    """Coefficients from links that were measured."""
    kept = seen.valid
    assert seen.is_los is not None
    return fit_los_classifier(seen.features.double()[kept], expected_near(seen)[kept], seen.is_los[kept])


def expected_near(seen: TimingMeasurements) -> Tensor:
    """[B, M, K] RSS by the path loss at the distance of a robust fix, as the estimator has it."""
    return expected_rss_dbm(seen, huber_fit(range_links(seen)).position_m)


def _share(seen: TimingMeasurements, odds: Tensor) -> float:
    assert seen.is_los is not None
    return float(((odds > 0) == seen.is_los)[seen.valid].double().mean())


def _serves(seen: TimingMeasurements) -> bool:
    try:
        waveform_coefficients(seen.model)
    except ValueError:
        return False
    return True
