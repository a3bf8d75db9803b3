#!/usr/bin/env bash
# DeepMIMO 4.0.5: dataset.los is 0 for a user who has a direct path, as soon as a reflection is stronger.
#
# Guess: los == 1 where the line of sight is free. "Line of Sight status (1: LoS, 0: NLoS, -1: No paths) for each
#   receiver", says the documentation of the property, and the direct path is in the data with its own code, 0.
# Behaviour: only the first path is looked at, and paths are sorted by power. Wet ground, an antenna pattern or two
#   reflections that add up make the first path a reflection: such users count as shadowed.
# Why it matters: whoever trains or tests by line of sight, or takes ranges of "LOS users" alone, sorts users wrongly.
# Way out: (dataset.inter == 0).any(axis=1), over all paths.
# Version: deepmimo 4.0.5. Date: 2026-11-29.
# Source: deepmimo/datasets/dataset.py, Dataset._compute_los; https://github.com/DeepMIMO/DeepMIMO
# Exits with 1 if the behaviour is no longer there.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv venv
venv/bin/python -m pip install --quiet deepmimo==4.0.5
cat > finding.py <<'PYTHON'
import numpy as np
from deepmimo.datasets.dataset import Dataset

# Two users, each with the direct path (code 0) and one reflection (code 1); sorted by power, as converters write them.
angles = np.full((2, 2), 45.0)
data = Dataset(
    {
        "rx_pos": np.array([[40.0, 0.0, 1.5], [60.0, 0.0, 1.5]]),
        "tx_pos": np.array([[0.0, 0.0, 10.0]]),
        "inter": np.array([[0.0, 1.0], [1.0, 0.0]]),
        "power": np.array([[-75.0, -82.0], [-77.0, -79.0]]),
        "phase": np.zeros((2, 2)),
        "delay": np.array([[1.37e-7, 1.40e-7], [2.05e-7, 2.02e-7]]),
        **{name: angles for name in ("aoa_az", "aoa_el", "aod_az", "aod_el")},
    }
)
direct = (np.asarray(data.inter) == 0).any(axis=1).astype(int)
print("users with a direct path among their paths:", direct.tolist())
print("guess: dataset.los is the same")
print("dataset.los:", np.asarray(data.los).tolist())
raise SystemExit(0 if np.asarray(data.los).tolist() == [1, 0] and direct.tolist() == [1, 1] else 1)
PYTHON
venv/bin/python finding.py
