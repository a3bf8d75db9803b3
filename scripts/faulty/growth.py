"""Memory of a long training: what it needs in its first quarter is what it needs at its end."""

from __future__ import annotations

import resource
import tempfile
from pathlib import Path
from typing import Any

from cfpos.agents import make_agent
from cfpos.scripts.faulty.processes import forked
from cfpos_envs import make_env

MOST_GROWTH = 0.1
"""Share of the memory at a quarter of the run by which it may have grown at the end: buffers are full by then."""
_SCENE: dict[str, Any] = {"num_aps": 9, "num_ues": 2, "num_antennas": 4, "num_sites": 2, "side_m": 50.0}


def growth(steps: int, updates: int) -> dict[str, Any]:
    """Resident memory of a training of ``maddpg`` at a quarter of its steps and at its end.

    Args:
        steps: environment steps.
        updates: of the networks, spread over them.
    """
    num_envs = 64
    rounds = max(steps // num_envs, 1)
    often = max(-(-updates // rounds), 1)
    seen: list[tuple[int, float]] = []
    with tempfile.TemporaryDirectory() as place:
        told = Path(place) / "seen"

        def work() -> None:
            env = make_env("dcp-rss-v0", num_envs=num_envs, seed=0, **_SCENE)
            settings: dict[str, Any] = {"updates_per_step": often, "batch_size": 256, "evaluations": 20, "threads": 1}
            agent = make_agent("maddpg", env, actor_hidden=(8,), critic_hidden=(8,), **settings)
            agent.train(steps, log_dir=place, callback=lambda at: seen.append((at, _resident_mb())), progress=False)
            quarter = next(size for at, size in seen if 4 * at >= steps)
            told.write_text(f"{quarter} {seen[-1][1]}")

        end = forked(work)
        if end.error is not None:
            raise RuntimeError(f"the long training failed: {end.error}")
        first, last = map(float, told.read_text().split())
    return {
        "steps": steps,
        "updates": rounds * often,
        "at a quarter, MB": round(first, 1),
        "at the end, MB": round(last, 1),
        "growth, MB": round(last - first, 1),
    }


def _resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
