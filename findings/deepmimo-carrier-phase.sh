#!/usr/bin/env bash
# DeepMIMO 4.0.5 with scenarios made by Sionna RT 2.2.0: channels lack exp(-j 2 pi f_c tau), and with it their fading.
#
# Guess: the OFDM channel of a scenario converted from Sionna RT has the magnitude of Sionna's own frequency response of
#   the same paths. The exporter, the converter and the generator are all DeepMIMO's.
# Behaviour: Sionna's coefficients `a` never hold the turns of the carrier over the length of a path (its own cfr and cir
#   put them in). The converter stores the angle of `a` as the path's phase, the generator adds only the delay's phase at
#   baseband. All direct paths have phase 0, and reflections add up as if they were as long: |H| at the carrier is wrong,
#   not only its phase.
# Why it matters: fading, its statistics and everything learned from it (beam selection, fingerprints) is that of another
#   world; the phase between stations is gone as well.
# Way out: multiply every path by exp(-j 2 pi f_c tau) before summing (phase -= 360 f_c tau in degrees).
# Version: deepmimo 4.0.5, sionna-rt 2.2.0. Date: 2026-11-29. Needs LLVM 19 or newer from the system (libllvm19).
# Source: deepmimo/converters/sionna_rt/sionna_paths.py; https://nvlabs.github.io/sionna/rt/ (Paths.a, Paths.cfr)
# Exits with 1 if the behaviour is no longer there.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv venv
venv/bin/python -m pip install --quiet deepmimo==4.0.5 sionna-rt==2.2.0
cat > finding.py <<'PYTHON'
import drjit
import mitsuba
import numpy as np

drjit.set_thread_count(1)
mitsuba.set_variant("llvm_ad_mono_polarized")
import deepmimo
import sionna.rt as rt
from deepmimo.exporters.sionna_exporter import sionna_exporter

scene = rt.load_scene(rt.scene.simple_street_canyon)
scene.frequency = 3.5e9
one = dict(num_rows=1, num_cols=1, vertical_spacing=0.5, horizontal_spacing=0.5, pattern="iso", polarization="V")
scene.tx_array = scene.rx_array = rt.PlanarArray(**one)
scene.add(rt.Transmitter("bs", position=[-30, 2, 8]))
rng = np.random.default_rng(1)
for i in range(40):
    scene.add(rt.Receiver(f"ue{i}", position=[float(rng.uniform(-20, 20)), float(rng.uniform(-7, 7)), 1.5]))
how = dict(max_depth=2, samples_per_src=20_000, seed=1)
paths = rt.PathSolver()(scene, **how)
right = paths.cfr(frequencies=rt.subcarrier_frequencies(1, 1.0), normalize_delays=False, out_type="numpy")
right = np.array(right).reshape(40)

sionna_exporter(scene, paths, {**how, "synthetic_array": True}, "street")
deepmimo.convert("street", overwrite=True, vis_scene=False, scenario_name="street")
data = deepmimo.load("street")
order = [int(np.abs(np.asarray(data.rx_pos) - place).sum(1).argmin()) for place in np.array(paths.targets).T]
# The first of 512 subcarriers is the carrier; powers are divided by their number.
ofdm = {"subcarriers": 512, "selected_subcarriers": np.arange(1), "bandwidth": 10e6}
theirs = data.compute_channels(deepmimo.ChannelParameters(bs_antenna={"shape": [1, 1]}, ofdm=ofdm))
theirs = np.asarray(theirs).reshape(40)[order] * np.sqrt(512)


def turned(mine):
    """The sum of DeepMIMO's paths, with or without the turns of the carrier."""
    power, phase, delay = (np.asarray(data[name], float) for name in ("power", "phase", "delay"))
    gain = 10 ** (power / 20) * np.exp(1j * np.radians(phase)) * np.exp(-2j * np.pi * 3.5e9 * delay * mine)
    return np.nansum(gain, axis=1)[order]


def off(h):
    return float(np.sqrt(np.mean((np.abs(h) - np.abs(right)) ** 2) / np.mean(np.abs(right) ** 2)))


lit = np.asarray(data.inter)[:, 0] == 0
print(f"phases of the direct paths: {np.unique(np.round(np.asarray(data.phase)[lit, 0], 3))} degrees")
print("guess: |H| of DeepMIMO is |H| of Sionna RT")
print(f"|H| of compute_channels is off by {off(theirs):.0%} (rms); the sum of its paths by {off(turned(0)):.0%}")
print(f"with exp(-j 2 pi f_c tau) on every path: {off(turned(1)):.2e}")
raise SystemExit(0 if off(theirs) > 0.2 and off(turned(1)) < 5e-3 else 1)
PYTHON
venv/bin/python finding.py
