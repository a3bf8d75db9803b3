"""What the front ends of the joint DCP game cost: an episode with each, over one with ``links=dft``, in one run."""

from __future__ import annotations

from typing import Any

from cfpos.scripts.benchmarks.common import Options, Rows
from cfpos.scripts.benchmarks.environments import HELD_OUT, make, modes
from cfpos.scripts.benchmarks.resets import in_turns
from cfpos_envs.scenarios.dcp.config import LINKS
from cfpos_envs.streams import COUNTER

_BATCH = 256


def run(options: Options) -> dict[str, Any]:
    """Resets, which read the links, and rounds by front end, episodes drawn by their number."""
    batch, mode = (3 if options.quick else _BATCH), modes(options)[-1]
    # The default array is the one whose network comes along.
    envs = {links: make(HELD_OUT, options, batch, mode, rng=COUNTER, links=links, num_antennas=8) for links in LINKS}
    best = in_turns(envs, batch, options)
    episode = {links: reset_s + envs[links].rounds * round_s for links, (reset_s, round_s) in best.items()}
    rows: Rows = [
        {
            "links": links,
            "B": batch,
            "mode": mode,
            "reset us/episode": 1e6 * reset_s / batch,
            "round us/episode": 1e6 * round_s / batch,
            "times dft": episode[links] / episode[LINKS[0]],
        }
        for links, (reset_s, round_s) in best.items()
    ]
    remarks = [
        f"{HELD_OUT.label}, rng=counter, {options.num_aps} APs, {options.num_ues} users, 8 antennas; CPU time in "
        "turns; 'times dft' compares whole episodes."
    ]
    return {"tables": {"links": rows}, "remarks": remarks}
