#!/usr/bin/env bash
# quadriga-lib 0.12.2: baseband_freq_response(bandwidth=B, carriers=N) is spaced by B / (N - 1), not by B / N.
#
# Guess: N subcarriers of a bandwidth B, as of an OFDM system: spacing B / N, an inverse DFT of the response has bins of
#   1 / B.
# Behaviour: the frequencies run from 0 to B, both included.
# Why it matters: the slope of the phase is read as a delay. With the guessed spacing every delay and distance is N / (N
#   - 1) times too long: 1.6 % with 64 carriers, 1.6 m at 100 m, which no noise averages out.
# Way out: frequencies numpy.linspace(0, B, N); or ask for the bandwidth (N - 1) * spacing; or sum coefficients and delays
#   oneself.
# Version: quadriga-lib 0.12.2. Date: 2026-11-29.
# Source: measured below; https://github.com/stephanjaeckel/quadriga-lib, https://quadriga-lib.org
# Exits with 1 if the behaviour is no longer there.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv venv
venv/bin/python -m pip install --quiet quadriga-lib==0.12.2 numpy==2.2.6
cat > finding.py <<'PYTHON'
import numpy as np
import quadriga_lib

bandwidth, carriers, distance = 20e6, 64, 100.0
delay = distance / 299_792_458.0
response = quadriga_lib.channel.baseband_freq_response(
    [np.ones((1, 1, 1), complex)], [np.full((1, 1, 1), delay)], bandwidth=bandwidth, carriers=carriers
).ravel()
slope = np.unwrap(np.angle(response))[-1] / (carriers - 1) / (-2 * np.pi)
read = [slope / spacing * 299_792_458.0 for spacing in (bandwidth / carriers, bandwidth / (carriers - 1))]
print(f"one path of {distance:g} m; guess: a spacing of B / N = {bandwidth / carriers:g} Hz gives {distance:g} m")
print(f"read with B / N: {read[0]:.2f} m; read with B / (N - 1): {read[1]:.2f} m")
raise SystemExit(0 if abs(read[0] - 101.59) < 0.05 and abs(read[1] - 100) < 0.05 else 1)
PYTHON
venv/bin/python finding.py
