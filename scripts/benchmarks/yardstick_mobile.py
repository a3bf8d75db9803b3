"""mobile-env: the large scenario (13 stations, 30 users) with its users as agents. Prints JSON; see ``yardsticks``."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from typing import Any

import numpy as np
from mobile_env.handlers.multi_agent import MComMAHandler
from mobile_env.scenarios.large import MComLarge

from cfpos.scripts.benchmarks.common import Options, Played, episode_s

STEPS = 100


def measure(options: Options) -> dict[str, Any]:
    """CPU seconds of reset and step; every step each user connects to a station or leaves it."""
    env = MComLarge(config={"handler": MComMAHandler})
    drawn = np.random.default_rng(0)
    users, stations = sorted(env.users), len(env.stations)
    actions = [{user: int(drawn.integers(stations + 1)) for user in users} for _ in range(STEPS)]
    length = 2 if options.quick else STEPS

    def episode(spent: Played) -> None:
        taken = iter(actions)
        spent.episode(env.reset, lambda: env.step(next(taken)), length)

    episode(Played())
    reset_s, step_s = episode_s(episode, options)
    return {
        "environment": "mobile-large",
        "agents": len(users),
        "worlds": 1,
        "reset_s": reset_s,
        "step_s": step_s,
        "steps": STEPS,
    }


if __name__ == "__main__":
    chosen = Options.from_json(sys.argv[1])
    print(json.dumps({"version": f"mobile-env {importlib.metadata.version('mobile-env')}", "rows": [measure(chosen)]}))
