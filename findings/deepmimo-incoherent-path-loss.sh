#!/usr/bin/env bash
# DeepMIMO 4.0.5: compute_pathloss(coherent=False) does not add powers; it adds amplitudes as if all were in phase.
#
# Guess: coherent=True adds complex amplitudes with their phases, coherent=False adds the powers of the paths: the mean
#   over positions a few wavelengths apart, which is what a path loss is compared with.
# Behaviour: with False the phases are dropped and the magnitudes are added, then squared: the largest power that any
#   phases could give. With n equal paths that is n times (10 log10 n dB) too much.
# Why it matters: link budgets, coverage and RSS made of it are several dB too good, the more so the more paths there
#   are; distances from a path loss law come out short by as much.
# Way out: -10 log10(nansum(10 ** (power / 10), axis=1)).
# Version: deepmimo 4.0.5. Date: 2026-11-29.
# Source: deepmimo/datasets/dataset.py, Dataset.compute_pathloss; https://github.com/DeepMIMO/DeepMIMO
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

# One user, four paths of equal power and spread phases.
power = np.array([[-80.0, -80.0, -80.0, -80.0]])
data = Dataset({"rx_pos": np.array([[40.0, 0.0, 1.5]]), "power": power, "phase": np.array([[0.0, 80.0, 170.0, 290.0]])})
powers = float(-10 * np.log10((10 ** (power / 10)).sum()))
found = float(np.asarray(data.compute_pathloss(coherent=False))[0])
print(f"guess: four times -80 dB is a path loss of {powers:.2f} dB")
print(f"compute_pathloss(coherent=False): {found:.2f} dB, {powers - found:.2f} dB less")
raise SystemExit(0 if abs(powers - found - 10 * np.log10(4)) < 0.05 else 1)
PYTHON
venv/bin/python finding.py
