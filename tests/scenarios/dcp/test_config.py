"""Options of the DCP games: what is refused and why, and how presets, overrides and site files combine."""

import dataclasses
import math

import pytest
import torch

from cfpos_envs import make_env
from cfpos_envs.registry import check_overrides, make_config
from cfpos_envs.scenarios.dcp.config import DcpConfig
from cfpos_envs.scenarios.dcp.sites import SITE_PRESETS, DcpSiteConfig


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"num_aps": 0}, "num_aps=0 must be at least 1"),
        ({"num_ues": 0}, "num_ues=0 must be at least 1"),
        ({"num_ues": 4, "num_pilots": 3}, "num_pilots=3 cannot serve num_ues=4"),
        ({"shadowing_db": -1.0}, "shadowing_db=-1.0 must be at least 0"),
        ({"side_m": 0.0}, "side_m=0.0 must be at least 0.1"),
        ({"side_m": math.nan}, "side_m=nan must be a finite number"),
        ({"layout": "hexagon"}, "layout='hexagon' is not one of uniform, grid"),
        ({"site": "cleen"}, "unknown site 'cleen'"),
        ({"stage": "chained", "rounds": 3, "stage_one_rounds": 3}, "leaves the second stage no round"),
        ({"formulation": "strict"}, "formulation='strict' needs action='polar'"),
        ({"fusion": "mean"}, "set fusion='information'"),
        ({"reward": "local"}, "reward='local' judges an AP's own report"),
        ({"similarity": "paper"}, "similarity='paper' is normalised over all APs"),
        ({"held_out_share": 0.95}, "held_out_share=0.95 must be at most 0.9"),
        ({"nlos_share": 1.5}, "nlos_share=1.5 must be at most 1"),
        ({"num_antennas": 1}, "num_antennas=1 must be at least 2"),
    ],
)
def test_wrong_options_are_named_with_what_is_allowed(options, named):
    with pytest.raises(ValueError, match=r"\S") as caught:
        DcpConfig(**options)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_preset_makes_a_config_and_overrides_win():
    for name, preset in SITE_PRESETS.items():
        assert DcpConfig(site=name).settings == preset
        assert DcpConfig(site=name, shadowing_db=1.5, num_aps=5).settings.shadowing_db == 1.5


def test_a_mixture_alternates_between_its_presets_and_keeps_overrides():
    config = DcpConfig(site="mixed", num_antennas=4)
    kinds = [config.settings_of(index) for index in range(4)]
    assert [kind.shadowing_db for kind in kinds] == [0.0, 4.0, 0.0, 6.0]
    assert [kind.nlos_share for kind in kinds] == [0.0, 0.0, 0.25, 0.25]
    assert all(kind.num_antennas == 4 for kind in kinds)


@pytest.mark.parametrize("entry", dataclasses.fields(DcpSiteConfig), ids=lambda entry: entry.name)
def test_every_field_of_the_site_can_be_set(entry):
    default = getattr(SITE_PRESETS["hard"], entry.name)
    value = {bool: not default, str: "student" if entry.name == "bias_law" else "grid", tuple: ("clean", "hard")}.get(
        type(default), 3
    )
    value = {"biased_share": 0.5, "nlos_share": 0.5, "nlos_offset_max_deg": 50.0}.get(entry.name, value)
    value = 3e9 if entry.name in ("carrier_hz", "path_loss_reference_hz") else value
    config = make_config("dcp-jar-v0", site={"preset": "hard", entry.name: value})
    assert getattr(config.settings, entry.name) == value
    assert config.settings == dataclasses.replace(SITE_PRESETS["hard"], **{entry.name: value})
    assert dataclasses.replace(config, split="test").settings == config.settings
    assert hash(config) == hash(dataclasses.replace(config))


def test_fields_of_the_site_and_options_of_the_same_name_combine():
    config = make_config("dcp-jar-v0", site={"preset": "cf-200", "orientation_deg": None}, num_aps=16)
    assert (config.settings.orientation_deg, config.settings.num_aps, config.settings.side_m) == (None, 16, 200.0)
    assert config.site_text == "'cf-200' with num_aps=16, orientation_deg=None"
    assert DcpConfig(site={"preset": "hard"}) == DcpConfig(site="hard")
    assert "site 'hard' with bias_db=3.0:" in make_env("dcp-jar-v0", site={"preset": "hard", "bias_db": 3}).describe()
    assert make_config("dcp-jar-v0", site={"preset": "hard", "num_aps": 9}, num_aps=9).settings.num_aps == 9
    with pytest.raises(ValueError, match=r"^site sets num_aps=9, and num_aps=16 is given too; give one of the two$"):
        make_config("dcp-jar-v0", site={"preset": "hard", "num_aps": 9}, num_aps=16)


@pytest.mark.parametrize(
    ("site", "named"),
    [
        ({"bandwith_hz": 1.0}, "unknown site field 'bandwith_hz'; did you mean bandwidth_hz"),
        ({"presett": "hard"}, "unknown site field 'presett'; did you mean preset"),
        ({"preset": "hrd"}, "did you mean hard"),
        ({"bias_db": None}, "site: bias_db must be a number"),
        ({"bias_db": -1.0}, "bias_db=-1.0 must be at least 0"),
        ({"nlos_offset_max_deg": 10.0}, "nlos_offset_max_deg=10.0 must be at least 20"),
        ({"mixture": ["clean", "mixed"]}, "mixture='mixed' is not one of"),
        ({"file": "nowhere.yaml"}, "nowhere.yaml does not exist"),
    ],
)
def test_wrong_sites_are_named_with_what_is_allowed(site, named):
    with pytest.raises(ValueError, match=r"\S") as caught:
        DcpConfig(site=site)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("env_id", ["dcp-jar-v0", "tdoa-v0"])
def test_the_old_name_of_the_speed_warns_and_means_the_same(env_id):
    with pytest.warns(DeprecationWarning, match="mobility is the old name of speed_m_s") as caught:
        config = make_config(env_id, mobility=3.0)
    assert (len(caught), config) == (1, make_config(env_id, speed_m_s=3.0))
    assert make_config(env_id, mobility=None, speed_m_s=3.0) == config
    with pytest.raises(ValueError, match="give speed_m_s alone"):
        make_config(env_id, mobility=3.0, speed_m_s=2.0)


def test_a_mapping_without_a_base_changes_the_site_that_is_there():
    for before, named in (("hard", {"preset": "hard"}), ("hall.csv", {"file": "hall.csv"}), ({"snr_db": 1.0},) * 2):
        changed = check_overrides(DcpConfig, {"site": {"bias_db": 1.0}}, {"site": before})
        assert changed == {"site": {**named, "bias_db": 1.0}}


def test_snr_option_sets_the_noise_at_50_m():
    radio = DcpConfig(snr_db=10.0).radio
    gain_db = -30.5 - 36.7 * math.log10(50.0)
    snr = 0.1 * 6 * 10 ** (gain_db / 10) / radio.noise_power_w
    assert 10 * math.log10(snr) == pytest.approx(10.0)


def test_thermal_noise_is_minus_114_dbm_at_200_khz_and_7_db():
    # 10 log10(k 290 K) = -173.975 dBm/Hz, + 53.010 dB, + 7 dB
    assert 10 * math.log10(DcpConfig().radio.noise_power_w) + 30 == pytest.approx(-113.965, abs=2e-3)


def test_cf_200_path_loss_follows_its_published_formula():
    radio = DcpConfig(site="cf-200").radio
    assert radio.path_loss_intercept_db == pytest.approx(-(22.4 + 21.3 * math.log10(2.0)))
    assert radio.path_loss_slope_db == 35.3
    assert 10 * math.log10(radio.noise_power_w) + 30 == pytest.approx(-96.0)


def test_a_higher_carrier_costs_21_3_db_per_decade():
    low, high = DcpConfig(carrier_hz=10e9).radio, DcpConfig(carrier_hz=100e9).radio
    assert low.path_loss_intercept_db - high.path_loss_intercept_db == pytest.approx(21.3)


def test_a_users_own_site_is_used_as_written(tmp_path):
    path = tmp_path / "hall.csv"
    path.write_text("x_m,y_m,height_m,orientation_deg\n1,2,6,0\n39,2,6,90\n20,30,7.5,180\n5,35,6,270\n")
    env = make_env("dcp-jar-v0", site=str(path), side_m=40.0, wrap=False, num_ues=2, num_antennas=4, num_envs=3, seed=1)
    env.reset()
    seen = env.measurements
    assert env.agents == ("ap_0", "ap_1", "ap_2", "ap_3") or list(env.agents) == ["ap_0", "ap_1", "ap_2", "ap_3"]
    assert torch.equal(seen.ap_positions_m[2], torch.tensor([[1.0, 2.0], [39.0, 2.0], [20.0, 30.0], [5.0, 35.0]]))
    assert seen.height_diff_m[0].tolist() == pytest.approx([4.5, 4.5, 6.0, 4.5])
    turns = torch.remainder(seen.ap_orientation_rad[0], 2 * math.pi).tolist()
    assert turns == pytest.approx([0.0, math.pi / 2, math.pi, 3 * math.pi / 2], abs=1e-5)


def test_a_site_file_refuses_another_number_of_aps(tmp_path):
    path = tmp_path / "hall.csv"
    path.write_text("x_m,y_m\n1,2\n39,2\n")
    with pytest.raises(ValueError, match="num_aps=3, but site file"):
        DcpConfig(site=str(path), num_aps=3)


def test_replacing_the_split_keeps_everything_else():
    config = DcpConfig(site="hard", num_aps=9)
    moved = dataclasses.replace(config, split="test")
    assert moved.settings == config.settings
    assert moved.split == "test"


def test_an_ap_outside_the_square_is_refused(tmp_path):
    path = tmp_path / "hall.csv"
    path.write_text("x_m,y_m\n1,2\n150,2\n")
    with pytest.raises(ValueError, match=r"AP 2 of site file .* lies outside the square \[0, 100\] m"):
        DcpConfig(site=str(path), side_m=100.0)
