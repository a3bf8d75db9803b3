"""Channels as other tools write them (recorded with Sionna RT 2.2.0, or closed forms), and what is made of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from baselines.ecc.music import Music3d
from cfpos_envs.channels.scene import EccSceneConfig
from cfpos_envs.channels.tracing.imported import write_imported
from cfpos_envs.channels.tracing.source import RaytracedSource
from cfpos_envs.importers.csi import ImportedCsi
from cfpos_envs.importers.paths import ImportedPaths
from cfpos_envs.measurements.ecc import CsiMeasurements, CsiSystem
from cfpos_envs.physics.ecc.csi import CsiPaths, channel, rotation_matrix

C_M_S = 299_792_458.0
CARRIER_HZ = 3.5e9
SHAPE = (2, 4)
SPACING_HZ = 720e3
STATIONS_M = np.array([[-30.0, 2.0, 8.0], [30.0, -3.0, 6.0], [2.0, 19.0, 10.0]])
ORIENTATION_RAD = np.array([[0.2, 0.1, 0.0], [2.9, 0.0, 0.1], [-1.6, 0.2, 0.0]])
_RECORDED = Path(__file__).parent / "recorded" / "sionna-rt-2.2.0.npz"


def sionna_arrays() -> dict[str, np.ndarray]:
    """A street canyon with one reflection at most, 8 users, 3 stations with 2 x 4 panels; and frequency responses.

    ``a_elements``, ``tau_elements`` (first user) and ``cfr_elements``: traced with ``synthetic_array=False``;
    ``cfr_default``: with normalised delays, as the tool does unless told not to.
    """
    with np.load(_RECORDED, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def users(count: int, seed: int = 0) -> np.ndarray:
    """[count, 3] places among the stations."""
    return np.random.default_rng(seed).uniform([-20, -7, 1], [20, 7, 3], (count, 3))


def free_space(positions_m: np.ndarray, offsets_hz: np.ndarray, orientation_rad: np.ndarray) -> np.ndarray:
    """[U, L, A, N] this suite's own synthesis of direct paths; ``offsets_hz`` is symmetric around the carrier."""
    vector = positions_m[:, None] - STATIONS_M[None]
    distance = np.linalg.norm(vector, axis=-1)
    gain = C_M_S / CARRIER_HZ / (4 * np.pi * distance) * np.exp(-2j * np.pi * CARRIER_HZ * distance / C_M_S)
    paths = CsiPaths(
        torch.from_numpy(gain)[..., None],
        torch.from_numpy(distance / C_M_S)[..., None],
        torch.from_numpy(vector / distance[..., None])[..., None, :],
    )
    turned = torch.from_numpy(orientation_rad).expand(len(positions_m), -1, -1)
    spacing_hz = float(np.diff(offsets_hz).mean())
    return channel(paths, turned, SHAPE, 0.5, len(offsets_hz), spacing_hz)[:, :, 0].numpy()


def write_deepmimo(folder: Path, paths: ImportedPaths, phase_rad: np.ndarray | None = None, **raw: object) -> None:
    """A scenario folder as DeepMIMO 4.0.5 makes it of Sionna's paths: stations sorted, degrees, decibels.

    Args:
        folder: to be made.
        paths: what was traced.
        phase_rad: of the coefficients; None: those of Sionna, without the turns of the delays.
        raw: of the ray tracing parameters.
    """
    folder.mkdir(parents=True)
    order = np.lexsort(paths.bs_positions_m.T[::-1])
    turned = np.angle(paths.amplitude) if phase_rad is None else phase_rad
    for number, station in enumerate(order):
        valid = paths.valid[:, station]
        power = np.where(valid, np.abs(paths.amplitude[:, station]), 0.0)
        ranked = np.argsort(-power, axis=1, kind="stable")

        def table(values: np.ndarray, valid: np.ndarray = valid, ranked: np.ndarray = ranked) -> np.ndarray:
            return np.take_along_axis(np.where(valid, values, np.nan), ranked, axis=1).astype(np.float32)

        with np.errstate(divide="ignore"):
            decibels = 20 * np.log10(power)
        arrays = {
            "power": table(decibels),
            "phase": table(np.degrees(turned[:, station])),
            "delay": table(paths.delay_s[:, station]),
            "aod_az": table(np.degrees(paths.bs_azimuth_rad[:, station])),
            "aod_el": table(np.degrees(paths.bs_zenith_rad[:, station])),
            "aoa_az": table(np.degrees(paths.ue_azimuth_rad[:, station])),
            "aoa_el": table(np.degrees(paths.ue_zenith_rad[:, station])),
            "inter": table(paths.reflections[:, station].astype(float)),
            "inter_pos": np.zeros((*valid.shape, 1, 3), np.float32),
            "rx_pos": paths.positions_m.astype(np.float32),
            "tx_pos": paths.bs_positions_m[station : station + 1].astype(np.float32),
        }
        for key, values in arrays.items():
            np.savez_compressed(folder / f"{key}_t000_tx{number:03}_r001.npz", **{key: values})
    sets = {
        f"txrx_set_{i}": {"id": i, "is_tx": i == 0, "is_rx": i == 1, "num_points": count, "num_ant": 1}
        for i, count in enumerate((len(order), len(paths.positions_m)))
    }
    tracing = {"raytracer_name": "Sionna Ray Tracing", "frequency": paths.carrier_hz, "synthetic_array": True, **raw}
    content = {"version": "4.0.5", "rt_params": tracing, "txrx_sets": sets, "scene": {"num_scenes": 1}, "materials": {}}
    (folder / "params.json").write_text(json.dumps(content), encoding="utf-8")


def quadriga_channels(
    positions_m: np.ndarray, orientation_rad: np.ndarray, shape: tuple[int, int] = SHAPE, absolute: bool = True
) -> list[dict[str, object]]:
    """One channel with one snapshot per link as quadriga-lib 0.12.2 computes it: spherical waves, up the columns.

    Args:
        positions_m: [U, 3] users, each with one element.
        orientation_rad: [L, 3] (yaw, pitch, roll).
        shape: rows and columns of the stations' arrays.
        absolute: whether delays are; else to the straight line between the middles.
    """
    rows, columns = shape
    step = 0.5 * C_M_S / CARRIER_HZ
    local = np.array(
        [
            [0.0, (c - (columns - 1) / 2) * step, (r - (rows - 1) / 2) * step]
            for c in range(columns)
            for r in range(rows)
        ]
    )
    turn = rotation_matrix(torch.from_numpy(orientation_rad)).numpy()
    channels: list[dict[str, object]] = []
    for user in positions_m:
        for place, angles, matrix in zip(STATIONS_M, orientation_rad, turn, strict=True):
            length = np.linalg.norm(user - (place + local @ matrix.T), axis=-1)
            middle = np.linalg.norm(user - place)
            unit = (user - place) / middle
            gain = C_M_S / CARRIER_HZ / (4 * np.pi * middle)
            delay = (length if absolute else length - middle) / C_M_S
            departure = [np.arctan2(unit[1], unit[0]), np.arcsin(unit[2])]
            arrival = [np.arctan2(-unit[1], -unit[0]), np.arcsin(-unit[2])]
            channels.append(
                {
                    "rx_position": user[:, None],
                    "tx_position": place[:, None],
                    "tx_orientation": np.array([[angles[2]], [-angles[1]], [angles[0]]]),
                    "coeff": [(gain * np.exp(-2j * np.pi * CARRIER_HZ * length / C_M_S))[None, :, None]],
                    "delay": [delay[None, :, None]],
                    "path_angles": [np.array([departure + arrival])],
                    "center_frequency": np.array([CARRIER_HZ]),
                }
            )
    return channels


def off(found: np.ndarray, right: np.ndarray) -> float:
    """Largest difference over the largest entry, link by link."""
    size = np.abs(right).max(axis=(-1, -2), keepdims=True)
    return float((np.abs(found - right) / size).max())


def played(paths: ImportedPaths, folder: Path, subcarriers: int) -> tuple[np.ndarray, np.ndarray]:
    """What the environment's source makes of a written data set: users [U, 3] and channels [U, L, A, N]."""
    write_imported(paths, folder, hold_out="random", test_share=0.2)
    settings = EccSceneConfig(
        source="raytraced", dataset=str(folder), num_bs=len(paths.bs_names), num_paths=32, carrier_hz=paths.carrier_hz
    )
    source = RaytracedSource(settings)
    there = source.users("train")
    found = source.paths(there, torch.zeros(len(there.index), 1, 3))
    csi = channel(found, source.bs_orientation_rad, SHAPE, 0.5, subcarriers, SPACING_HZ)
    return there.position_m.numpy(), csi[:, 0, :, 0].numpy()


def by_place(places: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Rows of ``places`` at which ``wanted`` stand."""
    return np.linalg.norm(wanted[:, None] - places[None], axis=-1).argmin(axis=1)


def music_error_m(csi: np.ndarray, of: ImportedCsi) -> float:
    """Mean error of MUSIC on CSI [P, L, A, N] from the arrays of ``of``."""
    bss = len(of.bs_names)
    system = CsiSystem(
        carrier_hz=float(of.frequencies_hz.mean()),
        subcarrier_spacing_hz=float(np.diff(of.frequencies_hz).mean()),
        num_subcarriers=csi.shape[-1],
        num_slots=1,
        array_shape=of.array_shape,
        spacing_wavelengths=of.spacing_wavelengths,
        num_bs=bss,
        area_min_m=(-35.0, -10.0, 0.0),
        area_max_m=(35.0, 20.0, 12.0),
        pilot_power_w=1.0,
        noise_power_w=1e-12,
        log_gain_mean=(0.0,) * bss,
        log_gain_std=(1.0,) * bss,
    )
    measured = CsiMeasurements.from_csi(
        system,
        torch.from_numpy(of.bs_positions_m).float(),
        torch.from_numpy(of.bs_orientation_rad).float(),
        torch.from_numpy(csi[None, :, :, None].astype(np.complex64)),
    )
    found = Music3d().locate(measured).position[0]
    return float((found - torch.from_numpy(of.positions_m)).norm(dim=-1).mean())
