"""Small folders in the layout of each measured set, with numbers that are known in advance."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cfpos_envs.datasets.epic import BINS, channel_bins

MEASURED = Path(os.environ.get("CFPOS_MEASURED", Path(__file__).resolve().parents[3] / "shared" / "measured"))
"""Where the public sets lie; nothing of them is part of the project."""
with_sets = pytest.mark.skipif(not MEASURED.is_dir(), reason="the measured sets do not lie beside the checkout")

GRID_APS = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
"""Grid steps."""


def write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def feng(folder: Path, per_step_m: float = 0.6, unit_mm: float = 1e3) -> Path:
    """A room whose first AP is never heard; ranges are true but for one that is missing and one RSS."""
    heads = [*(f"AP{k} RTT(mm)" for k in range(1, 6)), *(f"AP{k} RSS(dBm)" for k in range(1, 6))]
    for part, steps in (("train", [(1, 2), (3, 7), (8, 4), (5, 5)]), ("test", [(2, 2), (7, 7)])):
        lines = [",".join(["X", "Y", *heads, "LOS APs"])]
        for number, (x, y) in enumerate(steps):
            ranges = per_step_m * np.linalg.norm(GRID_APS - (x, y), axis=1) * unit_mm
            cells = [f"{each:.0f}" for each in ranges]
            if number == 0:
                cells[1] = "100000.0"
            powers = [f"{-40 - number - k}" for k in range(4)]
            powers[3] = "-200.0"
            lines.append(",".join([f"{x}.0", f"{y}.0", "100000.0", *cells, "-200.0", *powers, "2 3"]))
        write(folder / f"database_hall_{part}.csv", lines)
    write(folder / "hall_AP_position.txt", ["hall", "AP X: 0,10,0,10", "AP Y:0,0,10,10"])
    return folder


def haiyao(folder: Path) -> Path:
    """Two laps of two users, one row per link; a range of 0 is no measurement, a standard deviation of 0 no report."""
    head = "real_dis,RTT,RTT std,RSS,AP_idx,class_idx,AP_x,AP_y,circle,user,true_x,true_y"
    lines = [head]
    for circle in (5, 6):
        for user in (1, 2):
            for step in range(3):
                x, y = 2.0 + step, 3.0 + user
                for ap, (ax, ay) in ((10, (0, 0)), (2, (9, 0)), (3, (0, 8))):
                    distance = np.hypot(x - ax, y - ay)
                    measured = 0 if (circle, user, step, ap) == (6, 1, 1, 3) else distance + 1
                    std = 0 if ap == 3 else 0.5
                    lines.append(
                        f"{distance},{measured},{std},{-50 - ap},{ap},{step},{ax},{ay},{circle},{user},{x},{y}"
                    )
    write(folder / "dataset_Hall.csv", lines)
    return folder


def lias(folder: Path) -> Path:
    anchors = np.array([[-3.0, 3.0], [3.0, 3.0], [3.0, -3.0], [-3.0, -3.0]])
    write(folder / "anchors_day.csv", ["x_m,y_m,z_m", *(f"{x},{y},1.04" for x, y in anchors)])
    lines = ["pose,deg,tag,true_x_m,true_y_m," + ",".join(f"range_a{k}_m" for k in range(4))]
    for pose in (1, 2, 3):
        for tag in (0, 1):
            place = np.array([0.5 * pose, 0.25 * tag])
            cells = [f"{each:.2f}" for each in np.linalg.norm(anchors - place, axis=1)]
            lines.append(f"{pose},60,{tag},{place[0]},{place[1]}," + ",".join(cells))
    write(folder / "static_day.csv", lines)
    return folder


def hanyang(folder: Path, turns: int = 8) -> Path:
    """A vehicle at 2 m/s along x; anchors answer every 100 ms, 2 ms apart; the second does not answer in turn 3."""
    begin_ns = 1_730_020_288_000_000_000
    anchors = {"A3": (2.5, -0.9, 2.0), "A5": (-2.5, 0.9, 2.0), "A12": (-2.5, -0.9, 2.0)}
    head = "%time,field.stamp,field.id,field.x,field.y,field.z,field.distanceFromTag,field.rssi,field.rssi_fp"
    for number, (name, place) in enumerate(anchors.items()):
        lines = [head]
        for turn in range(turns):
            if (name, turn) == ("A5", 3):
                continue
            stamp = begin_ns + 97_000_000 + turn * 100_000_000 + number * 2_000_000
            at = np.array([2.0 * (stamp - begin_ns) * 1e-9, 5.0, 1.0])
            distance = float(np.linalg.norm(at - place))
            lines.append(f"{stamp},{stamp},{name[1:]},{place[0]},{place[1]},{place[2]},{distance},-79.5,-81")
        write(folder / "Drive_1" / f"{name}.csv", lines)
    way = [f"{begin_ns + 50_000_000 * k:.16e},{0.1 * k},5.0,77.0,0" for k in range(40)]
    write(folder / "Drive_1" / "trajectory.csv", ["timestamp,x,y,z,heading_degrees", *way])
    return folder


def tetam(folder: Path) -> Path:
    write(folder / "sensors.csv", ["sensor,x_m,y_m,z_m", "s01,0,0,2.3", "s02,5,0,2.3", "s03,0,5,2.3"])
    write(folder / "survey_set1.csv", ["x_m,y_m,rss_s01,rss_s02,rss_s03", "1,1,-60,-70,-71", "4,1,-72,-61,-75"])
    write(folder / "tracks_1s.csv", ["x_m,y_m,rss_s01,rss_s02,rss_s03", "2,1,-63,,-72.5"])
    return folder


def uji(folder: Path, zipped: bool = True) -> Path:
    head = "WAP001,WAP002,LONGITUDE,LATITUDE,FLOOR,BUILDINGID,SPACEID,RELATIVEPOSITION,USERID,PHONEID,TIMESTAMP"
    files = {
        "trainingData.csv": [
            "-60,100,-7541.2,4864921.5,2,1,106,2,2,23,1371713733",
            "0,-71,-7536.6,4864934.2,0,2,1,2,2,23,9",
        ],
        "validationData.csv": ["100,-80,-7515.9,4864889.6,1,0,0,0,0,0,1380872703"],
    }
    for name, rows in files.items():
        write(folder / name, [head, *rows])
    if zipped:
        with zipfile.ZipFile(folder / "UJIIndoorLoc.zip", "w") as archive:
            for name in files:
                archive.write(folder / name, f"UJIndoorLoc/{name}")
                (folder / name).unlink()
    return folder


def epic(folder: Path) -> Path:
    """Every bin holds its own tone as I and 1 as Q; bins without a channel shout."""
    tones = (np.arange(BINS) + 32) % BINS - 32
    iq = np.stack([tones, np.ones(BINS)], axis=1).astype(np.int16)
    iq[np.setdiff1d(np.arange(BINS), channel_bins())] = 30_000
    for name, aps in (("ref", ["b", "a"]), ("test", ["b"])):
        count = len(aps)
        np.savez(
            folder / f"{name}.npz",
            iq=np.repeat(iq[None], count, axis=0),
            position_m=np.arange(2 * count, dtype=np.float32).reshape(count, 2),
            ap=np.array(aps),
            rssi_dbm=np.full(count, -55, np.float32),
            place=np.array([f"p{k}" for k in range(count)]),
        )
    return folder


WRITERS: dict[str, Callable[[Path], Path]] = {
    "feng": feng, "haiyao": haiyao, "lias": lias, "hanyang": hanyang, "tetam": tetam, "uji": uji, "epic": epic
}  # fmt: skip
