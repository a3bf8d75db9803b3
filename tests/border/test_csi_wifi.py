"""Wi-Fi captures: a path of 100 ns stays one of +100 ns, whoever wrote the file."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cfpos_envs.importers.arrays import read_csi
from cfpos_envs.importers.wifi import TONE_HZ, WifiCapture, held_tones, read_wifi, wifi_snapshots

DELAY_S = 100e-9
TONES = np.fft.ifftshift(np.arange(-32, 32))
INTEL = np.array([*range(-28, -1, 2), -1, *range(1, 28, 2), 28])


def channel(tones: np.ndarray, scale: float = 1000.0) -> np.ndarray:
    return scale * np.exp(-2j * np.pi * TONE_HZ * tones * DELAY_S)


def delay_s(capture: WifiCapture) -> np.ndarray:
    """[F, A] slope of the phase."""
    turn = np.angle((capture.csi[..., 1:] * capture.csi[..., :-1].conj()).sum(axis=-1))
    return -turn / (2 * np.pi * np.diff(capture.offsets_hz).mean())


def pcap(packets: list[tuple[bytes, np.ndarray | None]]) -> bytes:
    """A capture of UDP packets of nexmon_csi (meta data, CSI) and, where there is no CSI, of somebody else."""
    out = struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    for number, (meta, csi) in enumerate(packets):
        head = bytearray(42)
        head[6:12] = b"NEXMON" if csi is not None else b"someon"
        pairs = b"" if csi is None else np.stack((csi.real, csi.imag), -1).round().astype("<i2").tobytes()
        packet = bytes(head) + meta + pairs
        out += struct.pack("<IIII", 10 + number, 500_000, len(packet), len(packet)) + packet
    return out


def meta(seq: int, core: int) -> bytes:
    return b"\x11\x11" + struct.pack("<bB", -60, 8) + b"\xaa" * 6 + struct.pack("<HHHH", seq, core, 0x1001, 0x65)


def intel(csi: np.ndarray) -> bytes:
    """A packet of the Linux 802.11n CSI Tool with CSI [30, antennas] of one stream, 8 bits per part."""
    antennas = csi.shape[1]
    bits: list[int] = []
    for row in csi:
        bits += [0, 0, 0]
        for part in np.stack((row.real, row.imag), -1).round().astype(int).ravel():
            bits += [int(part) >> place & 1 for place in range(8)]
    payload = np.packbits(np.array(bits, np.uint8), bitorder="little").tobytes()
    assert len(payload) == (30 * (antennas * 16 + 3) + 7) // 8
    body = struct.pack("<IHH5BbBBHH", 2_000_000, 1, 0, antennas, 1, 40, 40, 40, -92, 30, 0b100100, len(payload), 0x1101)
    return struct.pack(">H", len(body) + len(payload) + 1) + b"\xbb" + body + payload


def esp32(csi: np.ndarray, ending: str = " ]") -> str:
    pairs = np.stack((csi.imag, csi.real), -1).round().astype(int).ravel()
    head = "CSI_DATA,AP,AA:BB:CC:DD:EE:FF,-55,11,1,0,0,1,1,0,0,0,0,-90,0,6,0,123456,0,100,0,1,1.5"
    return f"{head},{len(pairs)},[{' '.join(map(str, pairs))}{ending}"


@pytest.mark.parametrize(("size", "edge", "gap"), [(64, 26, 0), (128, 58, 1), (256, 122, 1)])
def test_tones_ascend_and_gaps_are_filled(size: int, edge: int, gap: int) -> None:
    tones = np.fft.ifftshift(np.arange(-size // 2, size // 2))
    csi = 2.0 * tones + 5j
    csi[np.abs(tones) <= gap] = 1e6
    csi[np.abs(tones) > edge] = -1e6
    found, numbers = held_tones(csi)
    np.testing.assert_array_equal(numbers, np.arange(-edge, edge + 1))
    np.testing.assert_allclose(found, 2.0 * numbers + 5j)


def test_what_is_no_capture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="did you mean nexmon"):
        read_wifi(tmp_path / "a.pcap", "nexmn")
    with pytest.raises(FileNotFoundError, match=r"a\.pcap: there is no such file"):
        read_wifi(tmp_path / "a.pcap", "nexmon")


def capture(packets: int, phase: float = 0.0, antennas: int = 1) -> WifiCapture:
    csi, tones = held_tones(np.broadcast_to(channel(TONES), (packets, antennas, 64)) * np.exp(1j * phase))
    return WifiCapture(csi.astype(np.complex64), tones * TONE_HZ, np.arange(packets) * 0.1)


def test_captures_become_snapshots_of_one_file(tmp_path: Path) -> None:
    places = [[0.0, 0.0], [4.0, 1.0], [2.0, 6.0]]
    stands = [[0.0, 0.0, 2.0], [5.0, 5.0, 2.0]]
    rows = [[capture(9), capture(7)], [capture(7, 1.0), None], [None, capture(8, 2.0)]]
    file = wifi_snapshots(rows, places, stands, [0.0, 1.0], 5.18e9, packets=8)
    assert file.csi.shape == (3, 2, 7, 1, 53)
    assert file.valid.tolist() == [[True, True], [True, False], [False, True]]
    file.write(tmp_path / "own.npz")
    again = read_csi(tmp_path / "own.npz", labelled=True)
    assert np.array_equal(again.csi, file.csi)
    assert again.subcarrier_spacing_hz == TONE_HZ
    with pytest.raises(ValueError, match="antennas and tones; take one tool"):
        wifi_snapshots([[capture(3), capture(3, antennas=2)]], places[:1], stands, [0.0, 1.0], 5.18e9)
    with pytest.raises(ValueError, match=r"captures\[0\] has 1 receivers; there are 2"):
        wifi_snapshots([[capture(3)]], places[:1], stands, [0.0, 1.0], 5.18e9)
    with pytest.raises(ValueError, match="captures holds no capture"):
        wifi_snapshots([[None, None]], places[:1], stands, [0.0, 1.0], 5.18e9)


# With csiread --------------------------------------------------------------------------------------------------------


@pytest.fixture
def csiread() -> Any:
    return pytest.importorskip("csiread", reason="captures need the extra wifi: pip install 'cfpos[wifi]'")


def test_esp32_lines(tmp_path: Path, csiread: Any) -> None:
    path = tmp_path / "esp.csv"
    lines = ["type,role,mac,...", esp32(channel(TONES, 100.0)), "boot: a message", esp32(channel(TONES, 100.0), "]")]
    longer = np.concatenate((channel(TONES, 100.0), np.full(64, 99.0)))
    path.write_text("\n".join([*lines, esp32(longer), esp32(0 * TONES)]))
    found = read_wifi(path, "esp32")
    assert found.csi.shape == (3, 1, 53)
    np.testing.assert_allclose(delay_s(found), DELAY_S, rtol=0.02)
    assert found.time_s[0] == pytest.approx(0.123456)


def test_nexmon_packets_among_others(tmp_path: Path, csiread: Any) -> None:
    path, csi = tmp_path / "nexmon.pcap", channel(TONES)
    path.write_bytes(pcap([(meta(1, 0), csi), (b"", None), (meta(2, 0), csi), (b"", None), (b"", None)]))
    found = read_wifi(path, "nexmon", chip="43455c0", bandwidth_mhz=20)
    assert found.csi.shape == (2, 1, 53)
    np.testing.assert_allclose(delay_s(found), DELAY_S, rtol=1e-3)
    np.testing.assert_allclose(found.time_s, [10.5, 12.5])
    path.write_bytes(pcap([(b"", None)]))
    with pytest.raises(ValueError, match="no CSI of nexmon in it"):
        read_wifi(path, "nexmon")
    for wrong in ({"chip": "43455"}, {"bandwidth_mhz": 30}):
        with pytest.raises(ValueError, match=r"43455c0|20, 40, 80"):
            read_wifi(path, "nexmon", **wrong)


def test_cores_of_nexmon_are_antennas_of_whole_frames(tmp_path: Path, csiread: Any) -> None:
    path, csi = tmp_path / "nexmon.pcap", channel(TONES)
    order = [(1, 1), (1, 0), (2, 0), (3, 0), (3, 1)]
    path.write_bytes(pcap([(meta(seq, core), csi * (2.0 if core else 1.0)) for seq, core in order]))
    found = read_wifi(path, "nexmon")
    assert found.csi.shape == (2, 2, 53)
    np.testing.assert_allclose(np.abs(found.csi).mean(axis=2), [[1000, 2000]] * 2, rtol=1e-2)


def test_intel_packets(tmp_path: Path, csiread: Any) -> None:
    path = tmp_path / "intel.dat"
    path.write_bytes(intel(channel(INTEL, 100.0)[:, None] * np.array([1.0, 1j, -1.0])) * 3)
    found = read_wifi(path, "intel")
    assert found.csi.shape == (3, 3, 29)
    np.testing.assert_allclose(np.diff(found.offsets_hz), 2 * TONE_HZ)
    np.testing.assert_allclose(delay_s(found), DELAY_S, rtol=0.02)
    products = (found.csi[0] * found.csi[0, :1].conj()).sum(axis=1)
    np.testing.assert_allclose(products / np.abs(products), [1.0, 1j, -1.0], atol=0.05)
    with pytest.raises(ValueError, match="of the Intel 5300 must be one of"):
        read_wifi(path, "intel", bandwidth_mhz=80)
