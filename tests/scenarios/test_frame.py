"""The frame of all games: tables that fit what is observed, one description, signatures that tell games apart."""

import itertools
import json

import pytest
import torch

from cfpos_envs import list_envs, make_env, make_scenario
from cfpos_envs.scenarios.base import Scenario
from cfpos_envs.scenarios.features import Feature, Row, Words, describe, evaluate, rows, width

IDS = [env_id for env_id in list_envs() if make_scenario(env_id).observation_rows]


def test_a_game_needs_five_methods():
    assert Scenario.__abstractmethods__ == {"reset", "observe", "step", "measurements", "encode_estimate"}
    incomplete = type("Incomplete", (Scenario,), {})
    with pytest.raises(TypeError, match=r"abstract methods? .*observe") as caught:
        incomplete()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("env_id", IDS)
def test_tables_fit_the_vectors_and_the_description_shows_every_row(env_id):
    env = make_env(env_id, num_envs=1, seed=0)
    scenario, count = env.scenario, 1 if env.entities is None else env.entities.count
    for table, size in (
        (scenario.observation_rows, env.observation_size),
        (scenario.action_rows, env.action_size),
    ):
        assert count * width(table) == size
        assert len({row.name for row in table}) == len(table)
        assert all(row.name in scenario.describe() and row.meaning in scenario.describe() for row in table)
    assert scenario.words().reward in scenario.describe()


@pytest.mark.parametrize("env_id", IDS)
def test_a_signature_survives_a_file_and_says_what_a_policy_relies_on(env_id):
    told = make_scenario(env_id).signature()
    assert json.loads(json.dumps(told)) == told
    assert told == make_scenario(env_id, split="test").signature()
    assert told["family"]


@pytest.mark.parametrize("pair", list(itertools.combinations(IDS, 2)), ids=" and ".join)
def test_two_games_never_have_the_same_signature(pair):
    one, other = (make_scenario(env_id).signature() for env_id in pair)
    # Measured ranges are played by the rules of rtt-v0, so that agents trained there act on them.
    assert (one == other) == (pair == ("measured-v0", "rtt-v0"))


@pytest.mark.parametrize(
    ("env_id", "change"),
    [
        ("dcp-jar-v0", {"confidence_scale": 1.0}),
        ("dcp-rss-v0", {"stage": "joint", "start": "coarse"}),
        ("dcp-rss-v0", {"action": "polar"}),
        ("toa-v0", {"correction_m": 5.0}),
        ("toa-v0", {"family": "rtt"}),
    ],
)
def test_what_gives_numbers_their_meaning_is_in_the_signature(env_id, change):
    assert make_scenario(env_id).signature() != make_scenario(env_id, **change).signature()


@pytest.mark.parametrize("change", [{"num_aps": 16}, {"num_ues": 2}, {"rounds": 9}, {"site": "clean"}])
def test_a_policy_may_move_to_another_network_of_the_same_game(change):
    assert make_scenario("dcp-jar-v0").signature() == make_scenario("dcp-jar-v0", **change).signature()


TABLE: tuple[Feature[torch.Tensor], ...] = (
    Feature("first", "x / m", lambda v: v[..., 0], scale=10.0),
    Feature("rest", "y, z / m", lambda v: v[..., 1:], size=2),
    Feature("one", "always", lambda v: torch.tensor(1.0)),
)


def test_features_are_scaled_clipped_and_put_side_by_side():
    view = torch.tensor([[5.0, 0.25, -3.0], [-20.0, 0.5, 1.0]])
    values = evaluate(TABLE, view, (2,))
    assert values.dtype == torch.float32
    assert values.tolist() == [[0.5, 0.25, -1.0, 1.0], [-1.0, 0.5, 1.0, 1.0]]
    with pytest.raises(ValueError, match="feature 'rest' has 2 entries, its table says 1; set its size"):
        evaluate((Feature("rest", "", TABLE[1].compute),), view, (2,))


def test_description_of_a_small_game_by_hand():
    words = Words(("A game.",), "UE", reward="none.", closing=("It ends.",))
    assert describe(words, rows(TABLE), (Row("push", "x, y / m", size=2),)).splitlines() == [
        "A game.",
        "",
        "Observation of every UE: 4 entries, float32, each the value",
        "below divided by its scale and clipped to [-1, 1].",
        "    entry  name   scale   meaning (unit before scaling)",
        "        0  first      10  x / m",
        "      1-2  rest        1  y, z / m",
        "        3  one         1  always",
        "",
        "Action of every UE: 2 entries in [-1, 1].",
        "    entry  name  meaning",
        "      0-1  push  x, y / m",
        "",
        "Reward of every UE, every round: none.",
        "It ends.",
    ]
