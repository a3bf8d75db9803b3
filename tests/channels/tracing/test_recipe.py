"""The hash names the settings: equal settings have equal hashes, any difference shows and is told by name."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfpos_envs.channels.tracing.recipe import PLACES, Recipe


def test_hash_is_what_it_was() -> None:
    # A change of this number makes every stored data set unreadable: raise FORMAT_VERSION only when that is meant.
    assert Recipe().hash == "2d32399c5d9ee137"


@pytest.mark.parametrize(
    "change",
    [
        {"scene": "etoile"},
        {"centre_m": (1.0, 0.0)},
        {"size_m": (100.0, 100.0)},
        {"height_m": (1.0, 30.0)},
        {"indoor": True},
        {"clearance_m": 1.0},
        {"num_bss": 4},
        {"roof_m": 3.0},
        {"mast_m": 5.0},
        {"carrier_hz": 2.6e9},
        {"max_depth": 10},
        {"rays": 100_000},
        {"refraction": True},
        {"diffraction": True},
        {"max_paths": 8},
        {"dynamic_range_db": 40.0},
        {"batch": 10},
        {"shard_users": 100},
        {"seed": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_setting_is_part_of_the_hash(change: dict) -> None:
    other = Recipe(**change)
    assert other.hash != Recipe().hash
    assert next(iter(change)) in other.differences(Recipe())


def test_all_settings_are_tried_above() -> None:
    tried = {next(iter(change)) for change in test_every_setting_is_part_of_the_hash.pytestmark[0].args[1]}
    # Of a map, see test_maps.py.
    assert tried | {"map_digest"} == {entry.name for entry in dataclasses.fields(Recipe)}


@settings(deadline=None)
@given(scene=st.sampled_from(sorted(PLACES)), seed=st.integers(0, 9), mast=st.integers(0, 5), depth=st.integers(0, 10))
def test_survives_json_and_kinds_of_numbers(scene: str, seed: int, mast: int, depth: int) -> None:
    recipe = Recipe(scene=scene, seed=seed, mast_m=mast, max_depth=depth)
    again = Recipe.from_dict(json.loads(json.dumps(recipe.as_dict())))
    assert again == recipe
    assert again.hash == Recipe(scene=scene, seed=seed, mast_m=float(mast), max_depth=depth).hash


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scene": "paris"}, "scene is 'paris'; choose one of munich"),
        ({"max_depth": 11}, "max_depth is 11; it must be an integer from 0 to 10"),
        ({"rays": 0}, "rays is 0"),
        ({"height_m": (30.0, 0.0)}, "height_m is"),
        ({"height_m": (float("nan"), 2.0)}, "both numbers must be finite"),
        ({"size_m": (0.0, 10.0)}, "size_m is"),
        ({"carrier_hz": float("nan")}, "carrier_hz is nan"),
    ],
)
def test_refuses_what_cannot_be(change: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("(", r"\(")):
        Recipe(**change)


def test_unknown_settings_of_a_file_are_named() -> None:
    with pytest.raises(ValueError, match="unknown settings colour; a recipe has batch"):
        Recipe.from_dict({"colour": "red"})
