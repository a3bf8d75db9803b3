"""Peak memory of one episode in a process of its own: ``python -m scripts.benchmarks.memory JSON THREADS``."""

from __future__ import annotations

import json
import re
import resource
import sys
from pathlib import Path

import torch

from cfpos.scripts.benchmarks.environments import SEED, actions_for
from cfpos_envs import make_env

_STATUS = Path("/proc/self/status")
_KIB_PER_MIB = 1024.0


def peak_mib() -> float:
    """The most memory that this process has held.

    ``ru_maxrss`` starts at what the *parent* held when it started us, which may hide our own growth; Linux tells the
    process's own peak elsewhere.
    """
    if _STATUS.is_file():
        found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text(encoding="ascii"))
        if found is not None:
            return int(found[1]) / _KIB_PER_MIB
    unit = _KIB_PER_MIB**2 if sys.platform == "darwin" else _KIB_PER_MIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def main(given: str, threads: int) -> None:
    """Play one episode and print its peaks beyond the imports, MiB."""
    torch.set_num_threads(threads)
    wanted = json.loads(given)
    imported = peak_mib()
    env = make_env(wanted["id"], num_envs=wanted["batch"], seed=SEED, **wanted["overrides"])
    env.reset()
    after_reset = peak_mib()
    actions = actions_for(env)
    for _ in range(env.rounds):
        env.step(actions)
    peaks = {"reset peak MiB": after_reset - imported, "peak MiB": peak_mib() - imported}
    print(json.dumps(peaks))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
