"""Front ends on simulated single links: errors, shares of them within the stated deviations, and time."""

from __future__ import annotations

import math
import time
from typing import Any

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from cfpos.baselines.dcp.front_end import read_links
from cfpos.baselines.dcp.radio_map import measured_profiles
from cfpos.scripts.experiments.common import EVALUATION_SEED, Effort, Outcome
from cfpos.scripts.experiments.dcp.presets import ENV_ID
from cfpos_envs import make_scenario
from cfpos_envs.measurements.dcp import RadioMeasurements
from cfpos_envs.physics.arrays import angular_power
from cfpos_envs.physics.dcp.covariance.network import ArrayLaw, SimulatedLinks, simulate_links
from cfpos_envs.physics.dcp.model import RadioModel

FRONT_ENDS = ("dft", "music", "beamscan", "likelihood", "covariance")
BEARINGS_DEG = ((0, 10), (10, 30), (30, 90), (90, 150), (150, 180))
SNRS_DB = ((0, 20), (20, 35), (35, 70))


def run(effort: Effort) -> Outcome:
    """``points`` links for every range of bearings to the array's axis and of SNR."""
    radio: RadioModel = make_scenario(ENV_ID, **effort.small).config.radio
    generator = torch.Generator().manual_seed(EVALUATION_SEED)
    rows: list[dict[str, Any]] = []
    for snr_db in SNRS_DB:
        for low, high in BEARINGS_DEG:
            bearing = (math.radians(low), math.radians(high))
            links = simulate_links(generator, ArrayLaw.of(radio), effort.points, snr_db, bearing)
            measurements = _measurements(radio, links)
            place = {"snr_db": "{} to {}".format(*snr_db), "bearing_deg": f"{low} to {high}"}
            rows += [{"links": name, **place, **_scores(measurements, links, name)} for name in FRONT_ENDS]
    remark = "Simulated single links of the default array; bearings near 0 and 180 degrees are along the array's axis."
    return Outcome(sorted(rows, key=lambda line: FRONT_ENDS.index(line["links"])), _figure(rows), [remark])


def _measurements(radio: RadioModel, links: SimulatedLinks) -> RadioMeasurements:
    """Every link as an episode of one AP and one user, with the RSS that its SNR makes."""
    one, count = torch.zeros(len(links.snr_db), 1), len(links.snr_db)
    noise_dbm = 10.0 * math.log10(radio.num_antennas * radio.noise_power_w) + 30.0
    return RadioMeasurements(
        radio=radio,
        ap_positions_m=one.unsqueeze(-1).expand(-1, -1, 2),
        ap_orientation_rad=one,
        height_diff_m=one,
        rss_dbm=(links.snr_db + noise_dbm).view(-1, 1, 1),
        angular_power=angular_power(links.covariance)[:, None, None],
        covariance=links.covariance[:, None, None],
        shadowing_maps=None,
        shadowing_std_db=0.0,
        site_ids=torch.zeros(count, dtype=torch.long),
    )


def _scores(measurements: RadioMeasurements, links: SimulatedLinks, name: str) -> dict[str, float]:
    # Once for tables that are kept.
    read_links(measurements, name, measured_profiles(measurements))
    began = time.process_time()
    profiles = measured_profiles(measurements) if name == "dft" else None
    found = read_links(measurements, name, profiles)
    seconds = time.process_time() - began
    bearing = found.bearing_rad.flatten() - links.bearing_rad
    power = found.correction_db.flatten() - links.correction_db
    return {
        "bearing_rms_deg": math.degrees(_rms(bearing)),
        **_shares("bearing", bearing / found.bearing_std_rad.flatten()),
        "power_rms_db": _rms(power),
        **_shares("power", power / found.power_std_db.flatten()),
        "us/link": 1e6 * seconds / len(bearing),
    }


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def _shares(name: str, z: Tensor) -> dict[str, float]:
    return {f"{name}_in_{times}": float((z.abs() < times).float().mean()) for times in (1, 2, 3)}


def _figure(rows: list[dict[str, Any]]) -> Any:
    figure, panels = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    snr_db = rows[-1]["snr_db"]
    for name in FRONT_ENDS:
        chosen = [line for line in rows if line["links"] == name and line["snr_db"] == snr_db]
        for axes, key in zip(panels, ("bearing_rms_deg", "power_rms_db")):
            axes.plot([line["bearing_deg"] for line in chosen], [line[key] for line in chosen], "o-", label=name)
    for axes, label in zip(panels, ("bearing error [deg]", "power error [dB]")):
        axes.set(xlabel="bearing to the array's axis [deg]", ylabel=f"rms {label}", title=f"{snr_db} dB")
    panels[0].legend()
    return figure
