"""Position bounds of whole sample covariances beside those of powers, of known paths and of what single links read."""

from __future__ import annotations

import math
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from cfpos.scripts.experiments.common import EVALUATION_SEED, Effort, Outcome, progress
from cfpos.scripts.experiments.dcp.bounds_table import draw_drop
from cfpos.scripts.experiments.dcp.presets import ENV_ID
from cfpos_envs import make_scenario
from cfpos_envs.physics.bounds import position_error_bound
from cfpos_envs.physics.dcp.bounds import LinksToUsers, drop_bound, measurement_statistics
from cfpos_envs.physics.dcp.covariance.information import (
    LinkInformation,
    covariance_fisher,
    known_paths_information,
    link_information,
)
from cfpos_envs.physics.dcp.covariance.network import ArrayLaw, network_readings, simulate_links
from cfpos_envs.physics.dcp.model import RadioModel
from cfpos_envs.streams import Streams

_SETTINGS: list[dict[str, Any]] = [
    {"num_aps": 36},
    {"num_aps": 16},
    {"num_aps": 64},
    {"num_aps": 36, "num_antennas": 4},
    {"num_aps": 36, "num_antennas": 16},
    {"num_aps": 36, "angular_spread_deg": 5.0},
]
_SHADOWING_DB = {"clean": 0.0, "4 dB": 4.0}
_LAYOUTS, _USERS, _HEIGHT_M = 400, 24, 10.0
_LEAST_LINKS = 40


def run(effort: Effort) -> Outcome:
    """One row per setting: four bounds without shadowing and with 4 dB of it, not known; metres."""
    rows: list[dict[str, Any]] = []
    found: dict[ArrayLaw, LinkInformation] = {}
    for setting in progress(effort.chosen(_SETTINGS), "bounds"):
        radio: RadioModel = make_scenario(ENV_ID, **setting).config.radio
        law, count = ArrayLaw.of(radio), setting["num_aps"]
        if law not in found:
            found[law] = readings_information(law, max(_LEAST_LINKS, effort.points))
        stream = Streams(EVALUATION_SEED, "bounds").fresh(count)
        layouts, users = (10, 2) if effort.is_quick else (_LAYOUTS, _USERS)
        site = draw_drop(stream, radio, layouts, count, users, _HEIGHT_M)
        links = LinksToUsers.of(radio, *site)
        tables = {
            "covariances": link_information(law, simulate=False),
            "links as read": found[law],
            "paths known": known_paths_information(law),
        }
        line: dict[str, Any] = {
            "M": count,
            "changed": ", ".join(f"{key}={value:g}" for key, value in setting.items() if key != "num_aps"),
        }
        for shadowing, hidden_db in _SHADOWING_DB.items():
            powers = drop_bound(radio, measurement_statistics(radio), *site, hidden_db)
            line[f"RSS and DFT powers, {shadowing}"] = _rms(powers)
            for name, table in tables.items():
                line[f"{name}, {shadowing}"] = _rms(position_error_bound(covariance_fisher(links, table, hidden_db)))
        rows.append(line)
    remark = (
        "Root mean squared position error bound over random layouts and users, metres; 4 dB: of unknown shadowing; "
        "links as read: were the network's bearings and powers Gaussian with the errors that they have; paths known: "
        "to a genie."
    )
    law = next(iter(found))
    return Outcome(rows, _figure(link_information(law, simulate=False), found[law]), [remark])


def readings_information(law: ArrayLaw, links: int) -> LinkInformation:
    """Inverse mean squared errors of the link network on simulated links, in the form of a table of information.

    Args:
        law: array and scattering.
        links: simulated per angle and SNR.
    """
    grid = link_information(law, simulate=False)
    snr_db, angle = grid.snr_db, grid.angle_rad
    generator = torch.Generator().manual_seed(EVALUATION_SEED)
    values = torch.zeros(len(snr_db), len(angle), 3, dtype=torch.float64)
    for row, level in enumerate(snr_db.tolist()):
        for column, bearing in enumerate(angle.tolist()):
            drawn = simulate_links(generator, law, links, (level, level), (bearing, bearing))
            read = network_readings(drawn.covariance, drawn.snr_db, law)
            errors = torch.stack((read.bearing_rad - drawn.bearing_rad, read.correction_db - drawn.correction_db), -1)
            # Of the power of signal and noise; that of the signal is known worse by the share of the signal.
            errors[:, 1] *= 1.0 + 10.0 ** (-level / 10.0)
            inverse = torch.linalg.inv(errors.double().mT @ errors.double() / links)
            values[row, column] = torch.stack((inverse[0, 0], inverse[0, 1], inverse[1, 1]))
    return LinkInformation(snr_db, angle, values, torch.zeros_like(values), "errors of the link network")


def _rms(bound_m: Tensor) -> float:
    return float(bound_m.square().mean().sqrt())


def _figure(bound: LinkInformation, read: LinkInformation) -> Figure:
    """Deviations of bearing and power over the SNR, across the array and near its axis."""
    figure, panels = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for column in (-1, len(bound.angle_rad) // 2, 3):
        where = f"{math.degrees(float(bound.angle_rad[column])):.0f} degrees"
        for table, style, name in ((bound, "-", "bound"), (read, "o", "network")):
            bearing, power = table.values[:, column, 0], table.values[:, column, 2]
            label = f"{name}, {where}"
            panels[0].plot(bound.snr_db, torch.rad2deg(bearing.rsqrt()), style, label=label)
            panels[1].plot(bound.snr_db, power.rsqrt(), style, label=label)
    panels[0].set(xlabel="SNR per antenna [dB]", ylabel="bearing [deg]", yscale="log")
    panels[1].set(xlabel="SNR per antenna [dB]", ylabel="power [dB]", yscale="log")
    panels[0].legend(fontsize=8)
    return figure
