"""Position error bounds over the number of APs, for RSS, AOA and both, with unknown and known shadowing."""

from __future__ import annotations

from typing import Any

from cfpos_envs import make_env
from cfpos_envs.rendering import draw_convergence, new_figure
from scripts.experiments.common import EVALUATION_SEED, Effort, Outcome, progress

_IDS = {"RSS": "dcp-rss-v0", "AOA": "dcp-aoa-v0", "joint": "dcp-jar-v0"}
_CLEAN, _UNKNOWN, _KNOWN = {"shadowing_db": 0.0}, {"shadowing_db": 4.0}, {"shadowing_db": 4.0, "shadowing_known": True}
_COLUMNS: dict[str, tuple[str, dict[str, Any]]] = {
    "RSS, none": ("RSS", _CLEAN),
    "AOA": ("AOA", _CLEAN),
    "joint, none": ("joint", _CLEAN),
    "RSS, 4 dB unknown": ("RSS", _UNKNOWN),
    "joint, 4 dB unknown": ("joint", _UNKNOWN),
    "RSS, 4 dB known": ("RSS", _KNOWN),
    "joint, 4 dB known": ("joint", _KNOWN),
}
_SETTINGS: list[dict[str, Any]] = [
    {"num_aps": 16},
    {"num_aps": 36},
    {"num_aps": 64},
    {"num_aps": 36, "num_antennas": 4},
    {"num_aps": 36, "num_antennas": 16},
    {"num_aps": 36, "angular_spread_deg": 5.0},
]


def bound_m(stage: str, effort: Effort, **overrides: Any) -> float:
    """Root mean squared position error bound in metres over unseen drops.

    Args:
        stage: ``RSS``, ``AOA`` or ``joint``.
        effort: ``episodes`` drops are taken.
        overrides: environment overrides.
    """
    env = make_env(_IDS[stage], num_envs=effort.episodes, seed=EVALUATION_SEED, split="test", **overrides)
    env.reset()
    return float(env.truth()["peb_m"].double().square().mean().sqrt())


def run(effort: Effort) -> Outcome:
    """The table of bounds and its picture over the number of APs."""
    rows: list[dict[str, Any]] = []
    for setting in progress(effort.chosen(_SETTINGS), "bounds"):
        name = ", ".join(f"{key}={value:g}" for key, value in setting.items())
        values = {
            column: bound_m(stage, effort, **effort.env(**shadowing, **setting))
            for column, (stage, shadowing) in _COLUMNS.items()
        }
        rows.append({"setting": name, **values})
    counts = [setting["num_aps"] for setting in effort.chosen(_SETTINGS[:3])]
    curves = {column: (counts, [line[column] for line in rows[: len(counts)]]) for column in _COLUMNS}
    with new_figure(7.0, 4.5) as (figure, axes):
        draw_convergence(axes, curves, xlabel="number of APs M", ylabel="bound, RMSE [m]")
    return Outcome(rows, figure, ["Root mean squared position error bound over drops and sites, metres."])
