"""mpe2: simple_spread through PettingZoo's parallel interface, continuous actions. Prints JSON; see ``yardsticks``."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from typing import Any

import numpy as np
from mpe2 import simple_spread_v3

from cfpos.scripts.benchmarks.common import Options, Played, episode_s

CYCLES = 25


def measure(agents: int, options: Options) -> dict[str, Any]:
    """CPU seconds of reset and step with so many agents."""
    env = simple_spread_v3.parallel_env(N=agents, max_cycles=CYCLES, continuous_actions=True)
    drawn = np.random.default_rng(0)
    actions = {name: drawn.uniform(0, 1, 5).astype(np.float32) for name in env.possible_agents}

    def episode(spent: Played) -> None:
        spent.episode(lambda: env.reset(seed=0), lambda: env.step(actions), CYCLES)

    episode(Played())
    reset_s, step_s = episode_s(episode, options)
    return {
        "environment": "simple_spread",
        "agents": agents,
        "worlds": 1,
        "reset_s": reset_s,
        "step_s": step_s,
        "steps": CYCLES,
    }


if __name__ == "__main__":
    chosen = Options.from_json(sys.argv[1])
    rows = [measure(agents, chosen) for agents in (3, chosen.num_aps)]
    print(json.dumps({"version": f"mpe2 {importlib.metadata.version('mpe2')}", "rows": rows}))
