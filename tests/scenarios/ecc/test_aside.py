"""Places that training does not see: where they come from, and what training leaves out for them."""

from __future__ import annotations

import pytest
import torch

from cfpos_envs.registry import make_config, make_scenario
from cfpos_envs.scenarios.ecc.aside import aside, check_set_aside, elsewhere
from cfpos_envs.scenarios.ecc.options import EccOptions
from cfpos_envs.scenarios.ecc.pool import draw_snapshots
from cfpos_envs.streams import Streams


def game(env_id: str, **changes: object) -> EccOptions:
    config = make_config(env_id, **changes)
    assert isinstance(config, EccOptions)
    return config


def test_places_are_compared_to_the_last_bit() -> None:
    places = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0000002], [4.0, 5.0, 6.0]])
    others = torch.tensor([[4.0, 5.0, 6.0], [1.0, 2.0, 3.0]])
    assert elsewhere(places, others).tolist() == [False, True, False]
    assert elsewhere(places + torch.tensor([0.0, 0.9, 0.0]), others, 1.0).tolist() == [False] * 3
    assert elsewhere(places + torch.tensor([0.0, 1.1, 0.0]), others, 1.0).tolist() == [True] * 3
    check_set_aside(places[1:2], others)
    with pytest.raises(ValueError, match="2 of 3 places of the calibration are places of the training too"):
        check_set_aside(places, others)


def test_a_city_that_makes_its_users_has_others_at_no_cost() -> None:
    config = game("ecc-urban-small-v0", num_slots=2)
    source = aside(config, 30)
    assert (source.count, source.costs) == (30, False)
    first, second = (torch.cat([part.position_m for part in source.draw(3)]) for _ in range(2))
    assert torch.equal(first, second)
    assert len(first) == 30
    trained = next(draw_snapshots(config, 30, 3)).position_m
    assert bool(elsewhere(first, trained).all())


def test_stored_users_give_a_tenth_of_those_of_training() -> None:
    source = aside(game("ecc-raytraced-v0", num_slots=2), 10_000)
    assert source.costs
    stored = len(make_scenario("ecc-raytraced-v0").world.source.users("train").index)  # type: ignore[attr-defined]
    assert source.count == stored // 10


def test_a_file_gives_its_validation_split() -> None:
    config = game("ecc-csi-v0")
    source = aside(config, 10_000)
    assert not source.costs
    assert source.game.split == "validation"
    held = torch.cat([part.position_m for part in source.draw(0)])
    assert len(held) == source.count
    trained = torch.cat([part.position_m for part in draw_snapshots(config.changed(split="train"), 64, 0)])
    assert bool(elsewhere(held, trained).all())


@pytest.mark.parametrize("env_id", ["ecc-urban-small-v0", "ecc-raytraced-v0"])
def test_stations_in_sight_are_those_of_the_tracer(env_id: str) -> None:
    scenario = make_scenario(env_id, num_slots=2, split="test")
    state = scenario.reset(Streams(0, "test"), 40)
    found = scenario.in_sight(state)  # type: ignore[attr-defined]
    assert found.shape == (40, scenario.config.num_ues)  # type: ignore[attr-defined]
    assert 0 <= int(found.min()) < int(found.max()) <= 6
    silent = scenario.in_sight(state.replace(sequence_valid=torch.zeros_like(state.sequence_valid)))  # type: ignore[attr-defined]
    assert int(silent.max()) == 0


def test_stored_csi_does_not_tell_who_is_in_sight() -> None:
    scenario = make_scenario("ecc-csi-v0")
    assert scenario.in_sight(scenario.reset(Streams(0, "test"), 2)) is None  # type: ignore[attr-defined]
