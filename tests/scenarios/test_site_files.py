import dataclasses
import math
from pathlib import Path

import pytest
import torch

from cfpos_envs.scenarios.dcp.config import DcpConfig
from cfpos_envs.scenarios.dcp.sites import SITE_PRESETS, DcpSiteConfig
from cfpos_envs.scenarios.site_files import SiteFile
from cfpos_envs.scenarios.site_files import load_site_file as load
from cfpos_envs.scenarios.toa.config import ToaConfig

YAML = """
name: hall
carrier_hz: 10e9
num_antennas: 8
side_m: 60
wrap: false
aps:
  - {x_m: 5, y_m: 10, height_m: 6, orientation_deg: 90}
  - {x_m: 50, y_m: 20.5, height_m: 7, orientation_deg: -180}
"""


def load_site_file(path: Path) -> SiteFile:
    return load(path, DcpSiteConfig)


def write(folder: Path, text: str, name: str = "site.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_yaml_site(tmp_path: Path) -> None:
    site = load_site_file(write(tmp_path, YAML))
    assert site.name == "hall"
    assert site.fields == {"carrier_hz": 10e9, "num_antennas": 8, "side_m": 60.0, "wrap": False}
    assert site.ap_positions_m.tolist() == [[5.0, 10.0], [50.0, 20.5]]
    assert site.ap_height_m is not None
    assert site.ap_height_m.tolist() == [6.0, 7.0]
    assert site.orientation_rad is not None
    torch.testing.assert_close(site.orientation_rad, torch.tensor([math.pi / 2, -math.pi], dtype=torch.float64))


def test_shortest_yaml_site_leaves_the_rest_open(tmp_path: Path) -> None:
    site = load_site_file(write(tmp_path, "aps: [{x_m: 1, y_m: 2}]", "tiny.YML"))
    assert site.name == "tiny"
    assert site.ap_positions_m.dtype == torch.float64
    assert (site.ap_height_m, site.orientation_rad, site.preset, site.fields) == (None, None, None, {})


def test_csv_site(tmp_path: Path) -> None:
    text = "\ufeffx_m, y_m, orientation_deg, num_antennas, carrier_hz\n# west\n1,2,45,4,2e9\n\n3,4,0,4,2e9\n"
    site = load_site_file(write(tmp_path, text, "site.csv"))
    assert site.ap_positions_m.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert (site.fields, site.name) == ({"num_antennas": 4, "carrier_hz": 2e9}, "site")
    assert site.ap_height_m is None
    assert site.orientation_rad is not None
    assert float(site.orientation_rad[0]) == pytest.approx(math.pi / 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("aps: []", "no APs"),
        ("name: x", "no APs"),
        ("[1, 2]", "must be a mapping"),
        ("", "must be a mapping"),
        ("aps: [{x_m: 1, y_m: 2}", "not valid YAML"),
        ("aps: [3]", "AP 1: must be a mapping"),
        ("aps: [{x_m: 1}]", "AP 1: y_m is missing"),
        ("aps: [{x_m: .nan, y_m: 2}]", "AP 1: x_m must be a finite number"),
        ("aps: [{x_m: 1, y_m: -.inf}]", "AP 1: y_m must be a finite number"),
        ("aps: [{x_m: one, y_m: 2}]", "AP 1: x_m must be a number"),
        ("aps: [{x_m: true, y_m: 2}]", "AP 1: x_m must be a finite number"),
        ("aps: [{x_m: 1, y_m: 2}, {x_m: 4, y_m: 2}, {x_m: 1, y_m: 2}]", "APs 1 and 3 stand on one point"),
        ("aps: [{x_m: 1, y_m: 2, height_m: 3}, {x_m: 4, y_m: 2}]", "AP 2: height_m is missing"),
        ("aps: [{x_m: 1, y_m: 2, hight_m: 3}]", r"unknown key 'hight_m' .did you mean height_m"),
        ("aps: [{x_m: 1, y_m: 2}]\nantennas: 3", "unknown site field 'antennas'; did you mean num_antennas"),
        ("aps: [{x_m: 1, y_m: 2}]\nbandwith_hz: 1e5", "unknown site field 'bandwith_hz'; did you mean bandwidth_hz"),
        ("aps: [{x_m: 1, y_m: 2}]\nbias_db: much", "bias_db must be a number"),
        ("aps: [{x_m: 1, y_m: 2}]\nside_m: null", "side_m must be a number"),
        ("aps: [{x_m: 1, y_m: 2}]\nlayout: 3", "layout must be text"),
        ("aps: [{x_m: 1, y_m: 2}]\nmixture: clean", "mixture must be a list"),
        ("aps: [{x_m: 1, y_m: 2}]\nwrap: 1", "wrap must be true or false"),
        ("aps: [{x_m: 1, y_m: 2}]\nnum_antennas: 2.5", "whole number"),
        ("aps: [{x_m: 1, y_m: 2}]\nnum_antennas: 0", "num_antennas must be positive"),
        ("aps: [{x_m: 1, y_m: 2}]\ncarrier_hz: -1", "carrier_hz must be positive"),
        ("aps: [{x_m: 1, y_m: 200}]\nside_m: 100", r"AP 1: lies outside the area \[0, 100\] m"),
    ],
)
def test_bad_yaml_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load_site_file(write(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert "site.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "site.csv is empty"),
        ("x_m,height_m\n1,2\n", "lacks the columns y_m"),
        ("x_m,y_m\n", "no data"),
        ("x_m,y_m,azimuth\n1,2,3\n", "unknown key 'azimuth'"),
        ("x_m,y_m,x_m\n1,2,3\n", "names the column 'x_m' twice"),
        ("x_m,y_m\n1,2\n3\n", "line 3: 1 columns, the header has 2"),
        ("x_m,y_m\n1,2,3\n", "line 2: 3 columns, the header has 2"),
        ("x_m,y_m\n1,\n", "AP 1: y_m is missing"),
        ("x_m,y_m\n1,nan\n", "AP 1: y_m must be a finite number"),
        ("x_m,y_m\n1,two\n", "AP 1: y_m must be a number"),
        ("x_m,y_m\n1,2\n1.0,2.0\n", "APs 1 and 2 stand on one point"),
        ("x_m,y_m,num_antennas\n1,2,4\n3,4,8\n", r"APs 1 and 2 differ in num_antennas \(4 and 8\)"),
        ("x_m,y_m,carrier_hz\n1,2,2e9\n3,4,3e9\n", "differ in carrier_hz"),
    ],
)
def test_bad_csv_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load_site_file(write(tmp_path, text, "site.csv"))
    assert "\n" not in str(caught.value)
    assert "site.csv" in str(caught.value)


def test_missing_unknown_and_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        load_site_file(tmp_path / "none.yaml")
    with pytest.raises(ValueError, match=r"unknown type '\.json'"):
        load_site_file(write(tmp_path, "{}", "site.json"))
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="UTF-8"):
        load_site_file(tmp_path / "binary.csv")


def test_yaml_cannot_run_code(tmp_path: Path) -> None:
    target = tmp_path / "made"
    with pytest.raises(ValueError, match="not valid YAML"):
        load_site_file(write(tmp_path, f"aps: !!python/object/apply:os.mkdir ['{target}']"))
    assert not target.exists()


def test_a_persons_own_site_starts_from_the_plain_preset_and_does_not_wrap(tmp_path: Path) -> None:
    path = str(write(tmp_path, "aps: [{x_m: 1, y_m: 2}, {x_m: 9, y_m: 2}, {x_m: 5, y_m: 8}]"))
    outdoor = DcpConfig(site=path)
    assert outdoor.settings == dataclasses.replace(SITE_PRESETS["clean"], wrap=False, num_aps=3, side_m=8.0)
    assert outdoor.site_text == f"{path!r} (from 'clean') with num_aps=3, side_m=8.0, wrap=False"
    timing = ToaConfig(site=path)
    assert (timing.settings.nlos_share, timing.settings.num_aps) == (0.0, 3)
    assert DcpConfig(site=path, wrap=True).settings.wrap is True


def test_a_site_file_may_name_its_preset_and_any_field(tmp_path: Path) -> None:
    text = "preset: hard\nwrap: true\nbias_db: 3\naps: [{x_m: 1, y_m: 2}, {x_m: 9, y_m: 2}]"
    path = str(write(tmp_path, text))
    config = DcpConfig(site=path)
    assert config.settings == dataclasses.replace(SITE_PRESETS["hard"], num_aps=2, side_m=8.0, bias_db=3.0)
    changed = DcpConfig(site={"file": path, "preset": "clean", "bias_db": 1.0}, biased_share=0.5)
    assert (changed.settings.bias_db, changed.settings.biased_share, changed.settings.shadowing_db) == (1.0, 0.5, 0.0)
    with pytest.raises(ValueError, match=r"unknown site 'hrd'.*did you mean hard"):
        DcpConfig(site=str(write(tmp_path, text.replace("hard", "hrd"))))
