"""Options of the edge-cloud games: what is refused and why, how presets and overrides combine."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from cfpos_envs import make_env
from cfpos_envs.channels.scene import EccSceneConfig
from cfpos_envs.registry import make_config
from cfpos_envs.scenarios.ecc.config import SITE_PRESETS, EccConfig


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"site": "urbn"}, "did you mean urban"),
        ({"source": "traced"}, "did you mean raytraced"),
        ({"estimator": "mmse"}, "did you mean lmmse"),
        ({"features": "acff"}, "did you mean acf"),
        ({"stabilise": "per-slots"}, "did you mean per-slot"),
        ({"fusion": "means"}, "did you mean mean"),
        ({"reward": "eror"}, "did you mean error"),
        ({"mobility": "spirals"}, "did you mean spiral"),
        ({"split": "validation"}, "train, test"),
        ({"num_ues": 0}, "num_ues=0 must be at least 1"),
        ({"num_bs": 65}, "num_bs=65 must be at most 64"),
        ({"num_bs": True}, "num_bs=True must be a whole number"),
        ({"lost_bs": 6}, "leaves none of num_bs=6"),
        ({"num_slots": 0}, "num_slots=0 must be at least 1"),
        ({"num_subcarriers": 1}, "num_subcarriers=1 must be at least 2"),
        ({"size_m": (220.0, 300.0)}, "must be 3 numbers"),
        ({"size_m": (220.0, 300.0, math.inf)}, "size_m=inf must be a finite number"),
        ({"blocks": (30, 30)}, "product of at most 400"),
        ({"building_height_m": (20.0, 10.0)}, "must rise"),
        ({"building_height_m": (20.0, 30.0)}, "1 m below the top"),
        ({"tx_power_w": 0.0}, "tx_power_w=0.0 must be at least"),
        ({"snr_db": math.nan}, "snr_db=nan must be a finite number"),
        ({"clock_offset_ns": -1.0}, "clock_offset_ns=-1.0 must be at least 0"),
        ({"fronthaul_bits_max": 0.0}, "fronthaul_bits_max=0.0 must be at least"),
        ({"round_s": 0.0}, "round_s=0.0 must be at least"),
    ],
)
def test_wrong_options_are_named_with_what_is_allowed(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=r"\S") as caught:
        EccConfig(**options)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_preset_makes_a_config_and_overrides_win() -> None:
    for name, preset in SITE_PRESETS.items():
        assert EccConfig(site=name).settings == preset
        changed = EccConfig(site=name, num_slots=2, size_m=[50.0, 40.0, 35.0]).settings
        assert (changed.num_slots, changed.size_m) == (2, (50.0, 40.0, 35.0))
    config = dataclasses.replace(EccConfig(site="urban-small", lost_bs=1), split="test")
    assert (config.settings, config.lost_bs) == (SITE_PRESETS["urban-small"], 1)


def test_every_field_of_the_site_can_be_set() -> None:
    values = {
        "source": "raytraced",
        "dataset": "x",
        "estimator": "ls",
        "size_m": [50, 40, 35],
        "blocks": [2, 2],
        "carrier_hz": 3e9,
    }
    for entry in dataclasses.fields(EccSceneConfig):
        value = values.get(entry.name, [3.0, 9.0] if entry.name == "building_height_m" else 3)
        settings = make_config("ecc-urban-small-v0", site={entry.name: value}).settings
        wanted = tuple(value) if isinstance(value, list) else value
        assert settings == dataclasses.replace(SITE_PRESETS["urban-small"], **{entry.name: wanted})
    with pytest.raises(ValueError, match="unknown site field 'num_bss'; did you mean num_bs"):
        EccConfig(site={"num_bss": 3})
    with pytest.raises(ValueError, match="this game has no site files"):
        EccConfig(site={"file": "hall.yaml", "num_bs": 3})


def test_the_radio_by_hand() -> None:
    site = SITE_PRESETS["urban"]
    assert site.kept_spacing_hz == 720e3
    assert site.pilot_power_w == pytest.approx(0.2 / 288)
    # -174 dBm/Hz + 10 log10(60 kHz) + 7 dB
    assert 10 * math.log10(site.noise_power_w) + 30 == pytest.approx(-174 + 47.78 + 7, abs=0.1)
    fixed = dataclasses.replace(site, snr_db=20.0)
    wavelength_m = 299_792_458.0 / 3.5e9
    received_w = fixed.pilot_power_w * (wavelength_m / (4 * math.pi * 100.0)) ** 2
    assert received_w / fixed.noise_power_w == pytest.approx(100.0)


def test_an_unknown_override_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown override 'lost_bss'; did you mean lost_bs"):
        make_env("ecc-urban-small-v0", lost_bss=1)
