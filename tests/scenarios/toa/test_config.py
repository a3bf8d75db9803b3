"""Options of the time-based games: what is refused and why, how presets, overrides and site files combine."""

import dataclasses
import math

import pytest
import torch

from cfpos_envs import make_env
from cfpos_envs.scenarios.toa.config import SITE_PRESETS, ToaConfig, ToaSiteConfig

C = 299_792_458.0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"num_aps": 2}, "num_aps=2 cannot fix a position"),
        ({"num_aps": 3, "layout": "grid"}, "single line"),
        ({"num_aps": 7, "layout": "grid"}, "single line"),
        ({"num_aps": True}, "num_aps=True must be a whole number"),
        ({"num_ues": 0}, "num_ues=0 must be at least 1"),
        ({"subcarrier_spacing_hz": 0.0}, "subcarrier_spacing_hz=0.0 must be at least 1 "),
        ({"num_subcarriers": 1}, "num_subcarriers=1 must be at least 2"),
        ({"noise_figure_db": -1.0}, "noise_figure_db=-1.0 must be at least 0"),
        ({"sync_std_s": -1e-9}, "sync_std_s=-1e-09 must be at least 0"),
        ({"nlos_share": 1.5}, "nlos_share=1.5 must be at most 1"),
        ({"nlos_mean_m": -1.0}, "nlos_mean_m=-1.0 must be at least 0"),
        ({"side_m": math.nan}, "side_m=nan must be a finite number"),
        ({"range_std_m": 0.0}, "range_std_m=0.0 must be at least 1e-06"),
        ({"range_std_m": 0.3, "snr_db": 10.0}, "drop snr_db"),
        ({"range_std_m": 0.3, "sync": "ptp"}, "drop sync"),
        ({"sync": "pttp"}, "did you mean ptp"),
        ({"sync": "gnss", "site": "office"}, "see the sky"),
        ({"los": "umi_street"}, "did you mean umi_street_canyon"),
        ({"site": "strete"}, "unknown site 'strete'"),
        ({"family": "tdao"}, "unknown measurement family 'tdao'"),
        ({"measurement": "wave"}, "did you mean waveform"),
        ({"reward": "heldout"}, "did you mean held-out"),
        ({"nlos_share_random": True}, "set nlos_share too"),
        ({"carrier_hz": 1e3}, "carrier_hz=1000.0 must be at least 5e+08 (from 5e+08 to 1e+11)"),
        ({"measurement": "waveform", "subcarrier_spacing_hz": 1e6}, "gives delays modulo 1000 ns only"),
    ],
)
def test_wrong_options_are_named_with_what_is_allowed(options, named):
    with pytest.raises(ValueError, match=r"\S") as caught:
        ToaConfig(**options)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_preset_makes_a_config_and_overrides_win():
    for name, preset in SITE_PRESETS.items():
        assert ToaConfig(site=name).settings == preset
        assert ToaConfig(site=name, nlos_mean_m=7.5, num_aps=9).settings.nlos_mean_m == 7.5


def test_every_field_of_the_site_can_be_set():
    values = {
        "los": "inh_open_office",
        "sync": "ptp",
        "layout": "circle",
        "nlos_share_random": True,
        "nlos_share": 0.5,
        "blocked_share": 0.5,
        "carrier_hz": 5e9,
    }
    for entry in dataclasses.fields(ToaSiteConfig):
        value = values.get(entry.name, 5e-7 if entry.name.endswith("_s") else 5)
        needed = {"nlos_share": 0.5} if entry.name == "nlos_share_random" else {}
        config = ToaConfig(site={"preset": "office", **needed, entry.name: value})
        assert config.settings == dataclasses.replace(SITE_PRESETS["office"], **needed, **{entry.name: value})
    with pytest.raises(ValueError, match="unknown site field 'sinc'; did you mean sync"):
        ToaConfig(site={"sinc": "ptp"})


def test_replacing_the_split_keeps_everything_else():
    config = ToaConfig(site="nlos-50", num_aps=9)
    moved = dataclasses.replace(config, split="test")
    assert moved.settings == config.settings
    assert moved.model == config.model


@pytest.mark.parametrize("family", ["toa", "tdoa", "rtt"])
def test_range_std_fixes_the_told_variance_whatever_the_distance(family):
    model = ToaConfig(family=family, range_std_m=0.3).model
    variance = model.range_variance_m2(model.snr_linear(torch.tensor([1.0, 20.0, 140.0])))
    assert variance.sqrt().tolist() == pytest.approx([0.3] * 3, rel=1e-5)


def test_snr_option_is_that_of_the_whole_pilot_at_50_m():
    model = ToaConfig(snr_db=23.0, num_antennas=8).model
    assert 10 * torch.log10(model.snr_linear(torch.tensor(50.0))).item() == pytest.approx(23.0, abs=1e-3)


def test_default_budget_by_hand():
    # UMi at 3.5 GHz, 50 m: 32.4 + 21 log10 50 + 20 log10 3.5 = 78.96 dB; 20 dBm, N = 4 (6.02 dB); thermal noise in
    # 120 kHz: -173.975 + 50.79 + 7 = -116.18 dBm.
    snr_db = 10 * torch.log10(ToaConfig().model.snr_linear(torch.tensor(50.0))).item()
    assert snr_db == pytest.approx(20.0 + 6.02 - 78.96 + 116.18, abs=0.02)


def test_calibration_over_the_air_leaves_the_noise_of_the_burst():
    model = ToaConfig(sync="ota").model
    slant = math.hypot(38.26, 10.0)
    expected_m2 = C**2 / (8 * math.pi**2 * model.rms_bandwidth_hz**2 * model.snr_linear(torch.tensor(slant)).item())
    assert (C * model.sync_std_s) ** 2 == pytest.approx(expected_m2, rel=1e-4)


def test_a_users_own_site_is_used_as_written(tmp_path):
    path = tmp_path / "hall.csv"
    path.write_text("x_m,y_m,height_m,orientation_deg\n1,2,6,0\n39,2,6,90\n20,30,7.5,180\n5,35,6,270\n")
    env = make_env("tdoa-v0", site=str(path), side_m=40.0, num_ues=2, num_envs=3, seed=1)
    env.reset()
    seen = env.measurements
    assert seen.range_m.shape == (3, 4, 2)
    assert torch.equal(seen.ap_positions_m[2], torch.tensor([[1.0, 2.0], [39.0, 2.0], [20.0, 30.0], [5.0, 35.0]]))
    assert seen.height_diff_m[0].tolist() == pytest.approx([4.5, 4.5, 6.0, 4.5])


@pytest.mark.parametrize(
    ("rows", "options", "named"),
    [
        ("1,2\n30,2\n60,2\n90,2", {}, "stand on one line"),
        ("1,2\n30,2\n30,2\n90,9", {}, "stand on one point"),
        ("1,2\n30,2\n150,40", {"side_m": 100.0}, "AP 3 of site file"),
        ("1,2\n30,2\n50,40", {"num_aps": 5}, "num_aps=5, but site file"),
        ("1,2\n30,40", {}, "num_aps=2 cannot fix a position"),
    ],
)
def test_sites_that_fix_no_position_are_refused(tmp_path, rows, options, named):
    path = tmp_path / "site.csv"
    path.write_text(f"x_m,y_m\n{rows}\n")
    with pytest.raises(ValueError, match=r"\S") as caught:
        ToaConfig(site=str(path), **options)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_torus_is_refused(tmp_path):
    path = tmp_path / "site.yaml"
    path.write_text("side_m: 50.0\nwrap: true\naps:\n- {x_m: 1, y_m: 1}\n- {x_m: 9, y_m: 1}\n- {x_m: 1, y_m: 9}\n")
    with pytest.raises(ValueError, match="not taken on a torus"):
        ToaConfig(site=str(path))
