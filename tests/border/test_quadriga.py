"""Channels of QuaDRiGa, converted: panels, delays, the frequency grid; what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cfpos_envs.channels.scene import EccSceneConfig
from cfpos_envs.channels.tracing.source import RaytracedSource
from cfpos_envs.importers.quadriga import baseband_frequencies_hz, csi_from_quadriga, paths_from_quadriga, read_quadriga
from tests.border.importer_data import (
    C_M_S,
    CARRIER_HZ,
    ORIENTATION_RAD,
    SHAPE,
    SPACING_HZ,
    free_space,
    off,
    played,
    quadriga_channels,
    users,
)


@pytest.mark.parametrize("delays", ["absolute", "relative"])
def test_quadrigas_panels_give_our_own_synthesis(delays: str) -> None:
    place = users(6)
    channels = quadriga_channels(place, ORIENTATION_RAD, absolute=delays == "absolute")
    csi = csi_from_quadriga(channels, SHAPE, 16, SPACING_HZ, delays=delays)
    np.testing.assert_allclose(csi.bs_orientation_rad, ORIENTATION_RAD, atol=1e-12)
    offsets = (np.arange(16) - 7.5) * SPACING_HZ
    right = free_space(csi.positions_m, offsets, csi.bs_orientation_rad)
    # Waves are spherical there and plane here: the phase differs by pi r^2 / (lambda d), 2e-2 at the nearest user.
    nearest = np.linalg.norm(csi.positions_m[:, None] - csi.bs_positions_m[None], axis=-1).min()
    assert off(csi.csi, right) < np.pi * 0.0677**2 / (C_M_S / CARRIER_HZ * nearest) + 5e-3


def test_quadrigas_panels_far_away_give_our_own_synthesis() -> None:
    """Far from the panels and within half a megahertz, over which the elements' own delays count for nothing."""
    csi = csi_from_quadriga(quadriga_channels(users(6) + [800.0, 300.0, 0.0], ORIENTATION_RAD), SHAPE, 16, 30e3)
    right = free_space(csi.positions_m, (np.arange(16) - 7.5) * 30e3, csi.bs_orientation_rad)
    assert off(csi.csi, right) < 1e-3


def test_quadrigas_single_elements_give_paths(tmp_path: Path) -> None:
    place = users(9)
    paths = paths_from_quadriga(quadriga_channels(place, np.zeros((3, 3)), (1, 1)))
    assert paths.line_of_sight.all()
    there, csi = played(paths, tmp_path / "city", 16)
    settings = EccSceneConfig(source="raytraced", dataset=str(tmp_path / "city"), num_bs=3)
    facing = RaytracedSource(settings).bs_orientation_rad.double().numpy()
    right = free_space(there.astype(np.float64), (np.arange(16) - 7.5) * SPACING_HZ, facing)
    assert off(csi, right) < 1e-3


def test_quadrigas_receivers_may_be_the_base_stations() -> None:
    ends = {"rx_position": "tx_position", "tx_position": "rx_position", "tx_orientation": "rx_orientation"}
    channels = quadriga_channels(users(3), ORIENTATION_RAD)
    back = [
        {ends.get(key, key): value for key, value in channel_.items()}
        | {key: [np.swapaxes(channel_[key][0], 0, 1)] for key in ("coeff", "delay")}
        for channel_ in channels
    ]
    there = csi_from_quadriga(back, SHAPE, 8, SPACING_HZ, side="receivers")
    here = csi_from_quadriga(channels, SHAPE, 8, SPACING_HZ)
    np.testing.assert_array_equal(there.csi, here.csi)
    np.testing.assert_array_equal(there.bs_orientation_rad, here.bs_orientation_rad)


def test_quadrigas_relative_delays_are_refused_until_stated() -> None:
    channels = quadriga_channels(users(4), ORIENTATION_RAD, absolute=False)
    with pytest.raises(ValueError, match=r"quadriga channels: delay is -.*use_absolute_delays=True.*delays=relative"):
        csi_from_quadriga(channels, SHAPE, 16, SPACING_HZ)
    # Of single elements none is negative; they are all zero.
    with pytest.raises(ValueError, match=r"delay_s .*normalised"):
        paths_from_quadriga([{**c, "kind": 0} for c in quadriga_channels(users(4), ORIENTATION_RAD, (1, 1), False)])


def test_quadrigas_channels_that_do_not_fit_are_refused() -> None:
    channels = quadriga_channels(users(4), ORIENTATION_RAD)
    for changed, said in (
        (channels + channels[:1], "two channels between the same places"),
        ([{k: v for k, v in channels[0].items() if k != "delay"}], "lacks delay"),
        ([*channels[:-1], {**channels[-1], "center_frequency": np.array([2e9])}], "one carrier"),
        ([], "no channels"),
    ):
        with pytest.raises(ValueError, match=said):
            csi_from_quadriga(changed, SHAPE, 16, SPACING_HZ)
    with pytest.raises(ValueError, match="8 elements, not 2 x 2"):
        csi_from_quadriga(channels, (2, 2), 16, SPACING_HZ)
    with pytest.raises(ValueError, match="base stations have 8 elements"):
        paths_from_quadriga(channels)


def test_quadrigas_grid_ends_at_the_bandwidth() -> None:
    frequencies = baseband_frequencies_hz(20e6, 64)
    assert (frequencies[0], frequencies[-1]) == (0.0, 20e6)
    # Read as B / N every distance is 1.6 % long.
    assert np.diff(frequencies)[0] / (20e6 / 64) == pytest.approx(64 / 63)


def test_the_real_quadriga_lib_agrees(tmp_path: Path) -> None:
    quadriga_lib = pytest.importorskip("quadriga_lib", reason="extra [quadriga] is not installed")
    place = users(3)
    panel = quadriga_lib.arrayant.generate("omni", 10, CARRIER_HZ)
    panel = quadriga_lib.arrayant.copy_element(panel, 0, list(range(1, 8)))
    step = 0.5 * C_M_S / CARRIER_HZ
    panel["element_pos"] = np.array([[0, (c - 1.5) * step, (r - 0.5) * step] for c in range(4) for r in range(2)]).T
    one = quadriga_lib.arrayant.generate("omni", 10, CARRIER_HZ)
    still = np.array([1.0, 0, 0, 0, 0, 0, -1, 0])[:, None]
    expected = quadriga_channels(place, ORIENTATION_RAD)
    channels = []
    for link in expected:
        tx, rx = np.ravel(link["tx_position"]), np.ravel(link["rx_position"])
        middle = ((tx + rx) / 2)[:, None]
        gain = np.array([(C_M_S / CARRIER_HZ / (4 * np.pi * np.linalg.norm(rx - tx))) ** 2])
        re, im, delay, *_ = quadriga_lib.arrayant.get_channels_spherical(
            panel, one, middle, middle, gain, np.zeros(1), still, tx, np.ravel(link["tx_orientation"]), rx, np.zeros(3),
            CARRIER_HZ, use_absolute_delays=True,
        )  # fmt: skip
        channels.append({**link, "name": "c", "coeff": [re + 1j * im], "delay": [delay]})
    file = tmp_path / "c.hdf5"
    quadriga_lib.channel.hdf5_create_file(str(file), len(channels))
    for index, channel_ in enumerate(channels):
        quadriga_lib.channel.hdf5_write_channel(str(file), channel_, None, index)
    read = csi_from_quadriga(read_quadriga(file), SHAPE, 8, SPACING_HZ)
    right = csi_from_quadriga(expected, SHAPE, 8, SPACING_HZ)
    np.testing.assert_allclose(read.bs_orientation_rad, ORIENTATION_RAD, atol=1e-9)
    assert off(read.csi, right.csi) < 0.05  # the dipole's polarisation turns with a rolled panel
    phase = np.angle(read.csi * right.csi.conj())
    assert np.abs(phase).max() < 2e-3
    response = quadriga_lib.channel.baseband_freq_response(
        [np.ones((1, 1, 1), complex)], [np.full((1, 1, 1), 1e-7)], bandwidth=20e6, carriers=64
    )
    turns = np.exp(-2j * np.pi * 1e-7 * baseband_frequencies_hz(20e6, 64))
    np.testing.assert_allclose(response.ravel(), turns, atol=1e-6)
    (tmp_path / "text").write_text("x", encoding="utf-8")
    with pytest.raises(ValueError, match="no HDF5 file"):
        read_quadriga(tmp_path / "text")
