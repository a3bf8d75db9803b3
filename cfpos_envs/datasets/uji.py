"""UJIIndoorLoc: Wi-Fi scans of 520 access points in three buildings, the zip file or the two CSV files in it."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

import numpy as np

from cfpos_envs.datasets.base import MeasuredSet, Recording, Source
from cfpos_envs.files.surveys import SurveyTable, read_survey

SOURCE = Source(
    "UJIIndoorLoc (Torres-Sospedra et al. 2014), UCI data set 310",
    "https://doi.org/10.24432/C5MS59",
    "CC BY 4.0 (as stated by UCI)",
    "surveyed; metres of EPSG:3857",
)
ZIP = "UJIIndoorLoc.zip"
_FILES = ("trainingData.csv", "validationData.csv")


def scenes(folder: Path) -> tuple[str, ...]:
    """One scene, all buildings."""
    return ("all",) if _has_files(folder) or (folder / ZIP).is_file() else ()


def load(folder: Path, scene: str) -> MeasuredSet:
    """Training and validation scans as published: other days, other phones, in part other people.

    Raises:
        ValueError: files of another layout, a zip file without them.
        OSError: a file cannot be read.
    """
    if _has_files(folder):
        tables = [read_survey(folder / name, "uji") for name in _FILES]
    else:
        with tempfile.TemporaryDirectory() as unpacked, zipfile.ZipFile(folder / ZIP) as archive:
            held = {Path(name).name: name for name in archive.namelist()}
            lacking = [name for name in _FILES if name not in held]
            if lacking:
                raise ValueError(f"{folder / ZIP} holds no {lacking[0]}; it must be the published archive")
            tables = [read_survey(archive.extract(held[name], unpacked), "uji") for name in _FILES]
    names = tables[0].ap_names
    parts = [_recording(table, names) for table in tables]
    return MeasuredSet("uji/all", SOURCE, names, None, None, None, parts[0], parts[1])


def _has_files(folder: Path) -> bool:
    return all((folder / name).is_file() for name in _FILES)


def _recording(table: SurveyTable, names: tuple[str, ...]) -> Recording:
    if table.positions_m is None or table.floors is None or table.buildings is None:
        raise ValueError(f"{table.file} lacks LONGITUDE, LATITUDE, FLOOR or BUILDINGID")
    return Recording(
        truth_m=table.positions_m,
        group=np.array([f"{x:g},{y:g},{floor}" for (x, y), floor in zip(table.positions_m, table.floors)]),
        user=np.full(len(table), "0"),
        rss_dbm=table.rows_with(names)[0],
        time_s=table.time_s,
        floors=np.array(table.floors),
        buildings=np.array(table.buildings),
    )
