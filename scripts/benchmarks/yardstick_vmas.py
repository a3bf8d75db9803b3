"""VMAS: simple_spread and dispersion, many worlds at once. Prints JSON; see ``yardsticks``."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from typing import Any

import torch
import vmas

from cfpos.scripts.benchmarks.common import Options, Played, episode_s

STEPS = 100


def measure(scenario: str, agents: int, worlds: int, options: Options) -> dict[str, Any]:
    """CPU seconds of reset and step with so many agents and worlds."""
    env = vmas.make_env(scenario, num_envs=worlds, device="cpu", continuous_actions=True, seed=0, n_agents=agents)
    drawn = torch.Generator().manual_seed(0)
    actions = [2 * torch.rand(worlds, 2, generator=drawn) - 1 for _ in env.agents]
    # Its steps all cost the same and nothing ends by itself: a few of the hundred do where they are slow.
    length = 2 if options.quick else 5

    def episode(spent: Played) -> None:
        spent.episode(lambda: env.reset(seed=0), lambda: env.step(actions), length)

    episode(Played())
    reset_s, step_s = episode_s(episode, options)
    return {
        "environment": scenario,
        "agents": agents,
        "worlds": worlds,
        "reset_s": reset_s,
        "step_s": step_s,
        "steps": STEPS,
    }


if __name__ == "__main__":
    chosen = Options.from_json(sys.argv[1])
    torch.set_num_threads(chosen.threads)
    sizes = [batch for batch in chosen.batches if batch > 1] or list(chosen.batches)
    rows = [
        measure(scenario, agents, worlds, chosen)
        for scenario in chosen.scenarios
        for agents in (3, chosen.num_aps)
        for worlds in sizes
    ]
    print(json.dumps({"version": f"vmas {importlib.metadata.version('vmas')}", "rows": rows}))
