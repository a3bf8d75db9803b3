#!/usr/bin/env bash
# UJIIndoorLoc (UCI data set 310): are the metres of its coordinates metres on the ground?
# Date: 2026-11-29. Package: pyproj 3.7.2.
# Source of the numbers: attributes 521 and 522 of https://archive.ics.uci.edu/dataset/310/ujiindoorloc (smallest and
# largest LONGITUDE and LATITUDE); the campus is Universitat Jaume I, Riu Sec, Castello de la Plana.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet pyproj==3.7.2
"$folder/venv/bin/python" - <<'PYTHON'
import math
import sys

from pyproj import Geod, Transformer

west, east = -7695.9387549299299000, -7299.786516730871000
south, north = 4864745.7450159714, 4865017.3646842018

print("Guess:     LONGITUDE and LATITUDE are metres of a map (a northing of 4.86e6 m looks like UTM), so the distance of")
print(f"           two places is that of their coordinates: the campus is {east - west:.1f} m x {north - south:.1f} m.")

utm = Transformer.from_crs("EPSG:32630", "EPSG:4326", always_xy=True).transform(500000.0, south)
place = Transformer.from_crs("EPSG:3857", "EPSG:4326", always_xy=True)
corners = [place.transform(x, y) for x, y in ((west, south), (east, south), (west, north))]
ground = Geod(ellps="WGS84")
width = ground.inv(*corners[0], *corners[1])[2]
height = ground.inv(*corners[0], *corners[2])[2]
print(f"Behaviour: as a UTM northing the latitude would be {utm[1]:.2f} degrees; the campus lies at 39.99 N, 0.07 W.")
print(f"           Read as Web Mercator (EPSG:3857) the corner is {corners[0][1]:.4f} N, {-corners[0][0]:.4f} W: the campus.")
print(f"           On the ground it is {width:.1f} m x {height:.1f} m.")
ratio = (east - west) / width
print(f"Output:    coordinate metres / metres on the ground = {ratio:.4f} (1 / cos(latitude) = "
      f"{1 / math.cos(math.radians(corners[0][1])):.4f}); areas {ratio * (north - south) / height:.2f} times too large.")
print("Why it matters: every error on this data set, in publications too, is in metres that are 0.77 m long. A method")
print("           tuned in ground metres (walking speed, a path-loss model, an accuracy target) does not fit, and scores")
print("           cannot be compared with those of surveys in true metres. Places in other frames must be converted.")
campus = abs(corners[0][1] - 39.99) < 0.01 and abs(corners[0][0] + 0.07) < 0.01
sys.exit(0 if campus and 1.29 < ratio < 1.32 and abs(utm[1] - 39.99) > 1.0 else 1)
PYTHON
