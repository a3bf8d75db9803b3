import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cfpos_envs.physics import los
from cfpos_envs.physics.propagation import path_gain_db

E1 = math.exp(-1)


@pytest.mark.parametrize(
    ("scenario", "distance_m", "expected"),
    [
        ("umi_street_canyon", 0.0, 1.0),
        ("umi_street_canyon", 18.0, 1.0),
        ("umi_street_canyon", 36.0, 0.5 + 0.5 * E1),
        ("umi_street_canyon", 180.0, 0.1 + 0.9 * math.exp(-5)),
        ("inh_mixed_office", 1.2, 1.0),
        ("inh_mixed_office", 5.9, E1),
        ("inh_mixed_office", 6.5, 0.32),
        ("inh_mixed_office", 39.1, 0.32 * E1),
        ("inh_open_office", 5.0, 1.0),
        ("inh_open_office", 40.4, math.exp(-0.5)),
        ("inh_open_office", 49.0, math.exp(-44 / 70.8)),
        ("inh_open_office", 260.7, 0.54 * E1),
    ],
)
def test_los_probabilities_by_hand(scenario: str, distance_m: float, expected: float) -> None:
    probability = los.los_probability(scenario, torch.tensor(distance_m, dtype=torch.float64))
    assert float(probability) == pytest.approx(expected, rel=1e-9)


@given(st.sampled_from(los.LOS_SCENARIOS), st.lists(st.floats(0, 1e5), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_probability_is_one_and_never_rises_much(scenario: str, distances: list) -> None:
    ordered = torch.tensor(sorted(distances), dtype=torch.float64)
    probability = los.los_probability(scenario, ordered)
    assert bool(((probability >= 0) & (probability <= 1)).all())
    # The report's own laws jump by less than 0.003 where their pieces meet.
    assert bool((probability.diff() < 3e-3).all())


def test_draws_have_the_probability() -> None:
    probability = torch.tensor([0.0, 0.2, 1.0]).expand(50_000, 3)
    drawn = los.draw_los(torch.Generator().manual_seed(3), probability).float().mean(dim=0)
    assert float(drawn[0]) == 0.0
    assert float(drawn[1]) == pytest.approx(0.2, abs=0.01)
    assert float(drawn[2]) == 1.0


def test_path_loss_by_hand() -> None:
    # 100 m at 1 GHz: 74.4 dB (UMi) and 67.0 dB (InH) in line of sight; 93.0 and 93.9 dB without.
    expected = {
        ("umi_street_canyon", True): -74.4,
        ("inh_open_office", True): -67.0,
        ("umi_street_canyon", False): -93.0,
        ("inh_mixed_office", False): -93.9,
    }
    for (scenario, line), gain_db in expected.items():
        constants = los.path_loss_constants(scenario, 1e9, line)
        assert float(path_gain_db(torch.tensor(100.0), *constants)) == pytest.approx(gain_db, abs=1e-3)


def test_bad_input_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="did you mean inh_open_office"):
        los.los_probability("inh_open", torch.ones(1))
    for distance in (-1.0, math.nan):
        with pytest.raises(ValueError, match="distance_2d_m"):
            los.los_probability("umi_street_canyon", torch.tensor([distance]))
    with pytest.raises(ValueError, match="probability"):
        los.draw_los(torch.Generator(), torch.tensor([1.5]))
    with pytest.raises(ValueError, match="carrier_hz"):
        los.path_loss_constants("umi_street_canyon", 3.5)


@pytest.mark.parametrize("scenario", los.LOS_SCENARIOS)
@pytest.mark.parametrize("line_of_sight", [True, False])
def test_agrees_with_sionna(scenario: str, line_of_sight: bool) -> None:
    tr38901 = pytest.importorskip(
        "sionna.phy.channel.tr38901", reason="compares with the package sionna-no-rt where it is installed"
    )
    antenna = {
        "polarization": "single",
        "polarization_type": "V",
        "antenna_pattern": "omni",
        "carrier_frequency": 3.5e9,
    }
    array = tr38901.PanelArray(num_rows_per_panel=1, num_cols_per_panel=1, **antenna)
    options = {"ut_array": array, "bs_array": array, "direction": "uplink", "precision": "double"}
    urban = scenario == "umi_street_canyon"
    if urban:
        sionna = tr38901.UMiScenario(3.5e9, "low", **options)
    else:
        sionna = tr38901.InHScenario(3.5e9, "mixed" if "mixed" in scenario else "open", **options)
    ap_height, ue_height = (10.0, 1.5) if urban else (3.0, 1.0)
    distance = torch.tensor([10.0, 12.0, 17.0, 25.0, 48.0, 55.0, 90.0, 130.0], dtype=torch.float64)
    ues = torch.stack((distance, torch.zeros(8), torch.full((8,), ue_height)), dim=-1).double()
    flags = torch.zeros(1, 8, dtype=torch.bool)
    still = torch.zeros(1, 8, 3, dtype=torch.float64)
    sionna.set_topology(
        ut_loc=ues[None],
        bs_loc=torch.tensor([[[0.0, 0.0, ap_height]]], dtype=torch.float64),
        ut_orientations=still,
        bs_orientations=still[:, :1],
        ut_velocities=still,
        in_state=flags if urban else ~flags,
        los=line_of_sight,
    )
    ours = los.los_probability(scenario, distance)
    torch.testing.assert_close(sionna.los_probability.flatten(), ours, rtol=1e-9, atol=0)
    slant = torch.sqrt(distance.square() + (ap_height - ue_height) ** 2)
    gains = [path_gain_db(slant, *los.path_loss_constants(scenario, 3.5e9, line)) for line in (True, line_of_sight)]
    torch.testing.assert_close(-sionna.basic_pathloss.flatten(), torch.minimum(*gains), rtol=1e-6, atol=1e-6)
