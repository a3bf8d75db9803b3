"""The experiments of ``scripts/reproduce.py``: one file each, one function ``run(effort) -> Outcome``."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from cfpos.scripts.experiments.common import Effort, Outcome

EXPERIMENTS = {
    "fig2": "dcp.convergence",
    "fig3": "dcp.rmse_over_aps",
    "fig4": "dcp.rmse_over_antennas",
    "rewards": "dcp.rewards",
    "ablation": "dcp.ablation",
    "bounds": "dcp.bounds",
    "covariance-bounds": "dcp.covariance_bounds",
    "path-steps": "dcp.path_steps",
    "presets": "dcp.presets",
    "chain": "dcp.chain",
    "dcp-links": "dcp.links",
    "dcp-link-agents": "dcp.link_agents",
    "dcp-memory": "dcp.site_memory",
    "dcp-readings": "dcp.readings",
    "cf200": "dcp.cf200",
    "fingerprints": "dcp.fingerprints",
    "toa-learning": "toa.learning",
    "toa-nlos": "toa.nlos",
    "toa-joint": "toa.joint",
    "toa-clocks": "toa.clocks",
    "toa-waveforms": "toa.waveforms",
    "toa-classifier": "toa.classifier",
    "ecc-game": "ecc.game",
    "ecc-trained": "ecc.trained",
    "ecc-rate": "ecc.rate",
    "ecc-robust": "ecc.robust",
    "ecc-clocks": "ecc.clocks",
    "ecc-strategies": "ecc.strategies",
    "ecc-strategy-bits": "ecc.strategy_bits",
    "ecc-convergence": "ecc.convergence",
    "ecc-reconstruction": "ecc.reconstruction",
    "ecc-subcarriers": "ecc.subcarriers",
    "ecc-table2": "ecc.table2",
    "ecc-cost": "ecc.cost",
    "ecc-sizes": "ecc.sizes",
    "ecc-munich": "ecc.munich",
    "ecc-baselines": "ecc.baselines",
    "ecc-heads": "ecc.heads",
    "ecc-settings": "ecc.settings",
    "ecc-positions": "ecc.positions",
    "ecc-tracking": "ecc.tracking",
    "ecc-ways": "ecc.ways",
    "ecc-scenes": "ecc.scenes",
    "ecc-uncertainty": "ecc.uncertainty",
    "trainers": "trainers",
    "ris-snr": "ris.snr",
    "ris-clock": "ris.clock",
    "ris-slots": "ris.slots",
    "ris-elements": "ris.elements",
    "ris-surfaces": "ris.surfaces",
    "ris-rician": "ris.rician",
    "ris-los": "ris.los",
    "ris-phases": "ris.phases",
    "ris-phase": "ris.phase",
    "ris-learning": "ris.learning",
    "ris-cooperation": "ris.cooperation",
    "measured": "measured.sets",
    "measured-agents": "measured.agents",
}
"""Name on the command line -> module in this folder, one folder per family."""


def experiment(name: str) -> Callable[[Effort], Outcome]:
    """The ``run`` function of an experiment, imported when first used."""
    run: Callable[[Effort], Outcome] = importlib.import_module(f".{EXPERIMENTS[name]}", __package__).run
    return run
