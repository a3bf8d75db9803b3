"""The experiments of ``scripts/reproduce.py``: one file each, one function ``run(effort) -> Outcome``."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from scripts.experiments.common import Effort, Outcome

EXPERIMENTS = {
    "fig2": "convergence",
    "fig3": "rmse_over_aps",
    "fig4": "rmse_over_antennas",
    "rewards": "rewards",
    "ablation": "ablation",
    "bounds": "bounds",
    "presets": "presets",
    "chain": "chain",
    "cf200": "cf200",
    "fingerprints": "fingerprints",
    "toa-learning": "toa_learning",
    "toa-nlos": "toa_nlos",
    "toa-joint": "toa_joint",
    "toa-clocks": "toa_clocks",
    "toa-waveforms": "toa_waveforms",
    "ecc-game": "ecc_game",
    "ecc-trained": "ecc_trained",
    "ecc-rate": "ecc_rate",
    "ecc-robust": "ecc_robust",
    "ecc-strategies": "ecc_strategies",
    "ecc-cost": "ecc_cost",
    "ecc-munich": "ecc_munich",
    "ecc-settings": "ecc_settings",
    "ecc-positions": "ecc_positions",
    "ecc-tracking": "ecc_tracking",
    "ecc-scenes": "ecc_scenes",
    "trainers": "trainers",
    "ris-snr": "ris_snr",
    "ris-clock": "ris_clock",
    "ris-slots": "ris_slots",
    "ris-elements": "ris_elements",
    "ris-surfaces": "ris_surfaces",
    "ris-rician": "ris_rician",
    "ris-los": "ris_los",
    "ris-phases": "ris_phases",
    "ris-phase": "ris_phase",
    "ris-learning": "ris_learning",
    "ris-cooperation": "ris_cooperation",
}
"""Name on the command line -> module in this folder."""


def experiment(name: str) -> Callable[[Effort], Outcome]:
    """The ``run`` function of an experiment, imported when first used."""
    run: Callable[[Effort], Outcome] = importlib.import_module(f"scripts.experiments.{EXPERIMENTS[name]}").run
    return run
