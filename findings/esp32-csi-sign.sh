#!/usr/bin/env bash
# Two readers of ESP32 CSI disagree about the sign of every delay.
#
# An ESP32 writes each subcarrier as two bytes, the imaginary part first (ESP-IDF Programming Guide, Wi-Fi driver,
# "Wi-Fi Channel State Information"). A line with a path of +100 ns is written by that rule and read by both packages.
#
# Guess:     both give the channel, phase falling with frequency, delay +100 ns.
# Behaviour: csiread gives it; CSIKit takes the first byte as the real part and gives j conj(h): a delay of -100 ns.
# Matters:   amplitudes agree, so nothing looks wrong. But the energy lies before the first path, delays are negative, and
#            networks trained on what one package read do not work on what the other read.
#            Remedy: 1j * conj(csi) of what CSIKit returns.
#
# Versions: csiread 1.4.1, CSIKit 2.5. Date: 2026-11-29. Source: PyPI (csiread, CSIKit), ESP-IDF Programming Guide.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "csiread==1.4.1" "CSIKit==2.5" 2>/dev/null

cat > "$folder/compare.py" <<'PYTHON'
import sys
import warnings

import csiread
import numpy as np
from CSIKit.reader import get_reader

warnings.simplefilter("ignore")
spacing_hz, delay_s = 312.5e3, 100e-9
tones = np.fft.ifftshift(np.arange(-32, 32))
channel = 100 * np.exp(-2j * np.pi * spacing_hz * tones * delay_s)
numbers = np.stack((channel.imag, channel.real), -1).round().astype(int).ravel()
names = (
    "type,role,mac,rssi,rate,sig_mode,mcs,bandwidth,smoothing,not_sounding,aggregation,stbc,fec_coding,sgi,noise_floor,"
    "ampdu_cnt,channel,secondary_channel,local_timestamp,ant,sig_len,rx_state,real_time_set,real_timestamp,len,CSI_DATA"
)
values = "CSI_DATA,AP,AA:BB:CC:DD:EE:FF,-55,11,1,0,0,1,1,0,0,0,0,-90,0,6,0,123456,0,100,0,1,1.5,128"
line = f"{values},[{' '.join(map(str, numbers))} ]"
with open(sys.argv[1], "w") as file:
    file.write(f"{names}\n" + f"{line}\n" * 3)

first = csiread.ESP32(None, False)
first.pmsg(line)
second = np.asarray(get_reader(sys.argv[1]).read_file(sys.argv[1]).frames[0].csi_matrix)


def delay_ns(csi):
    ascending = np.fft.fftshift(np.ravel(csi))
    turn = np.angle((ascending[1:] * ascending[:-1].conj()).sum())
    return -turn / (2 * np.pi * spacing_hz) * 1e9


found = {"csiread": delay_ns(first.csi), "CSIKit": delay_ns(second), "CSIKit, mended": delay_ns(1j * np.conj(second))}
print("path written: +100 ns; guess: +100 ns in both")
for name, value in found.items():
    print(f"  {name:<15}{value:+7.1f} ns")
there = abs(found["csiread"] - 100) < 1 and abs(found["CSIKit"] + 100) < 1 and abs(found["CSIKit, mended"] - 100) < 1
print("the readers disagree" if there else "the behaviour is no longer there")
sys.exit(0 if there else 1)
PYTHON
"$folder/venv/bin/python" "$folder/compare.py" "$folder/esp32.csv" 2>/dev/null
