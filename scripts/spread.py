"""MADDPG on MPE's simple_spread_v3: mean return per agent over several seeds, for comparison with published results.

    python scripts/spread.py --seeds 3 --steps 100000 --out outputs/spread

Three agents, continuous actions, 25 cycles, the environment's own reward. The written number is the return summed over
an episode, averaged over agents and over greedy (noise-free) evaluation episodes that no training run has seen.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from cfpos.agents import make_agent
from cfpos.agents.assessment import FixedDrops
from cfpos_envs.streams import derive_seed


def spread_env() -> Any:
    """The benchmark's environment.

    Raises:
        ModuleNotFoundError: the package mpe2 is missing.
    """
    try:
        from mpe2 import simple_spread_v3
    except ModuleNotFoundError:
        raise ModuleNotFoundError("simple_spread_v3 needs the package mpe2; install it (pip install mpe2).") from None
    return simple_spread_v3.parallel_env(N=3, max_cycles=25, continuous_actions=True)


def train_and_score(seed: int, steps: int, episodes: int, log_dir: Path | None = None) -> dict[str, float]:
    """Train one seed with the preset ``simple-spread`` and play it without noise.

    Args:
        seed: of training; the evaluation episodes are the same for all seeds.
        steps: environment steps of training.
        episodes: greedy evaluation episodes.
        log_dir: TensorBoard files and checkpoints; None: none.

    Returns:
        ``seed``, ``mean_return`` per agent, and ``untrained_return`` on the same episodes.
    """
    agent = make_agent("maddpg", spread_env(), preset="simple-spread", seed=seed)
    evaluation_seed = derive_seed("spread", "evaluation")
    drops = FixedDrops(agent.env.sibling(1, evaluation_seed), evaluation_seed, episodes)
    untrained = drops.play(agent).score
    agent.train(steps, log_dir=log_dir)
    return {"seed": seed, "mean_return": drops.play(agent).score, "untrained_return": untrained}


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, 0 .. N-1")
    parser.add_argument("--steps", type=int, default=100_000, help="environment steps per seed")
    parser.add_argument("--episodes", type=int, default=200, help="greedy evaluation episodes")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--out", type=Path, default=Path("outputs/spread"), help="folder for spread.json and the runs")
    options = parser.parse_args(arguments)
    for name in ("seeds", "steps", "episodes", "threads"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} is {getattr(options, name)}; it must be at least 1.")
    torch.set_num_threads(options.threads)
    results = []
    for seed in range(options.seeds):
        results.append(train_and_score(seed, options.steps, options.episodes, options.out / f"seed-{seed}"))
        print(json.dumps(results[-1]), flush=True)
    mean = sum(result["mean_return"] for result in results) / len(results)
    summary = {"steps": options.steps, "episodes": options.episodes, "mean_return_per_agent": mean, "seeds": results}
    write_json(options.out / "spread.json", summary)
    print(f"mean return per agent over {options.seeds} seeds: {mean:.2f}")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        json.dump(content, file, indent=2)
    os.replace(file.name, path)


if __name__ == "__main__":
    main()
