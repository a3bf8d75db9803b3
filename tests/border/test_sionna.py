"""Channels of Sionna RT, converted, are those of this suite's own synthesis; what cannot be converted is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cfpos_envs.importers.sionna import csi_from_sionna, paths_from_sionna
from tests.border.importer_data import (
    CARRIER_HZ,
    SHAPE,
    SPACING_HZ,
    by_place,
    music_error_m,
    off,
    played,
    sionna_arrays,
)


def test_sionnas_paths_give_sionnas_own_frequency_response(tmp_path: Path) -> None:
    recorded = sionna_arrays()
    paths = paths_from_sionna(recorded)
    assert paths.bs_names == ("west", "east", "lamp")
    assert paths.valid.sum(axis=-1).max() > 1  # reflections too
    places, csi = played(paths, tmp_path / "city", 7)
    rows = by_place(recorded["targets"], places)
    # Theirs is numbered down the columns, top first; the first of the eight frequencies makes the comb uneven.
    order = [2 * column + (1 - row) for row in range(2) for column in range(4)]
    theirs = recorded["cfr"][rows][:, 0, :, :, 0, 1:][:, :, order]
    assert off(csi, theirs) < 1e-3
    assert off(csi, recorded["cfr"][rows][:, 0, :, :, 0, 1:]) > 1.0  # in their order
    assert off(csi.conj(), theirs) > 1.0


def test_sionnas_frequency_response_is_converted() -> None:
    recorded = sionna_arrays()
    csi = csi_from_sionna(recorded)
    order = [2 * column + (1 - row) for row in range(2) for column in range(4)]
    np.testing.assert_array_equal(csi.csi, recorded["cfr"][:, 0, :, :, 0][:, :, order])
    assert (csi.array_shape, csi.spacing_wavelengths) == (SHAPE, 0.5)
    np.testing.assert_allclose(csi.frequencies_hz - CARRIER_HZ, np.arange(-4, 4) * SPACING_HZ)


def test_music_needs_the_order_of_elements_and_the_sign() -> None:
    recorded = sionna_arrays()
    of = csi_from_sionna(recorded)
    raw = recorded["cfr"][:, 0, :, :, 0]
    right, unordered, turned = (music_error_m(csi, of) for csi in (of.csi, raw, of.csi.conj()))
    assert right < 4.5
    assert unordered > 3 * right
    assert turned > 3 * right


def test_element_by_element_tracing_is_read_from_the_frequency_response_alone() -> None:
    recorded = sionna_arrays()
    traced = {
        **recorded,
        "a": recorded["a_elements"],
        "tau": recorded["tau_elements"],
        "synthetic_array": np.array(False),
    }
    # One and the same real number at every element: MUSIC on it says broadside.
    direct = recorded["a_elements"][0, 0, 0, :, 0]
    assert np.abs(np.angle(direct / direct[0])).max() < 1e-3
    with pytest.raises(ValueError, match="synthetic_array=False, whose coefficients hold no phase between elements"):
        paths_from_sionna(traced)
    elements = csi_from_sionna({**recorded, "cfr": recorded["cfr_elements"]})
    assert off(elements.csi, csi_from_sionna(recorded).csi) < 0.05  # spherical instead of plane waves


def test_normalised_delays_are_refused() -> None:
    recorded = sionna_arrays()
    with pytest.raises(ValueError, match=r"sionna scene: delays start at the first path.*normalize_delays=False"):
        csi_from_sionna({**recorded, "cfr": recorded["cfr_default"]})
    with pytest.raises(ValueError, match="conjugate the csi"):
        csi_from_sionna({**recorded, "cfr": recorded["cfr"].conj()})


def swapped(recorded: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same scene with the users sending."""
    back = {"t": "r", "r": "t"}
    found = {key: recorded[key] for key in ("frequency", "frequencies", "synthetic_array")}
    found["a"] = np.transpose(recorded["a"], (2, 3, 0, 1, 4))
    found["cfr"] = np.transpose(recorded["cfr"], (2, 3, 0, 1, 4, 5))
    for name in ("tau", "valid"):
        found[name] = recorded[name].swapaxes(0, 1)
    for angle in ("theta", "phi"):
        for end, other in back.items():
            found[f"{angle}_{end}"] = recorded[f"{angle}_{other}"].swapaxes(0, 1)
    for name in ("names", "orientation", "elements"):
        for end, other in back.items():
            found[f"{end}x_{name}"] = recorded[f"{other}x_{name}"]
    found["interactions"] = recorded["interactions"].swapaxes(1, 2)
    found["sources"], found["targets"] = recorded["targets"], recorded["sources"]
    return found


def test_base_stations_may_be_the_receivers() -> None:
    recorded = sionna_arrays()
    paths, back = paths_from_sionna(recorded), paths_from_sionna(swapped(recorded), side="receivers")
    for name, values in paths.fields().items():
        np.testing.assert_allclose(getattr(back, name)[back.valid], values[paths.valid], rtol=1e-6, err_msg=name)
    there = csi_from_sionna(swapped(recorded), side="receivers")
    np.testing.assert_array_equal(there.csi, csi_from_sionna(recorded).csi)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a: a.pop("tau"), r"tau missing; write the file with save_sionna"),
        (lambda a: a.update(a=a["a"][:, 0]), r"a has shape .*must be \[Rx, rx antennas"),
        (lambda a: a.update(a=np.repeat(a["a"], 2, axis=1)), r"users have 2 antennas"),
        (lambda a: a.update(phi_t=a["phi_t"][:1]), r"phi_t has shape"),
        (lambda a: a.pop("tx_elements"), r"8 elements; their places"),
        (lambda a: a.update(tx_orientation=a["tx_orientation"] + 0.3), r"more than a plane wave"),
        (lambda a: a.update(tau=1e9 * a["tau"]), r"sionna scene: delay_s .*nanoseconds"),
        (lambda a: a.update(targets=a["targets"] / 1000, sources=a["sources"] / 1000), r"kilometres"),
        (lambda a: a.update(phi_t=np.degrees(a["phi_t"])), r"bs_azimuth_rad .*|more than a plane wave"),
        (lambda a: a.update(theta_r=np.degrees(a["theta_r"])), r"ue_zenith_rad .*degrees"),
    ],
)
def test_what_sionna_arrays_cannot_be(change: Callable[[dict[str, np.ndarray]], object], said: str) -> None:
    arrays = sionna_arrays()
    change(arrays)
    with pytest.raises(ValueError, match=said):
        paths_from_sionna(arrays)
