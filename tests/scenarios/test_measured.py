"""The game on measured epochs: estimators see what was measured, agents of the simulated games act on it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.patches import Ellipse

from agents import load_agent, make_agent
from baselines import make_policy
from cfpos_envs import evaluate, make_env, make_scenario
from cfpos_envs.datasets import load_dataset
from cfpos_envs.datasets.base import distances_m
from cfpos_envs.datasets.path_loss import fitted_path_loss
from cfpos_envs.datasets.sample import sample
from cfpos_envs.drawing.figures import new_figure
from cfpos_envs.scenarios.measured.stored import draw_rows
from cfpos_envs.streams import Streams
from tests.datasets import small_sets

ENV = "measured-v0"


@pytest.mark.parametrize(("family", "policy"), [("rtt", "rtt-wls"), ("tdoa", "tdoa-wls"), ("dcp", "rss-gn")])
def test_an_estimator_answers_in_the_game_as_on_the_set(family: str, policy: str) -> None:
    """The very numbers, whether epochs come through the game or from the set."""
    hall = sample()
    scenario = make_scenario(ENV, split="test", family=family, num_ues=100)
    state = scenario.reset(Streams(0, "test"), 1)
    played = make_policy(policy).locate(scenario.measurements(state)).position[0]
    if family == "dcp":
        assert hall.train.rss_dbm is not None
        assert hall.ap_positions_m is not None
        law = fitted_path_loss(hall.train.rss_dbm, distances_m(hall.ap_positions_m, hall.train.truth_m))
        told: dict[str, Any] = {"rss_at_1m_dbm": law.at_1m_dbm, "path_loss_slope_db": law.slope_db}
        given: Any = hall.powers(hall.test, shadowing_std_db=law.std_db, noise_dbm=-200.0, **told)
    else:
        given = hall.ranges(hall.test, family=family)
    alone = make_policy(policy).locate(given).position[0]
    # The game's order is random; places tell which epoch is which, up to the origin.
    order = np.lexsort(scenario.true_position(state)[0].double().numpy().T)
    there = np.lexsort(hall.test.truth_m.T)
    shift = scenario.true_position(state)[0, order[0]].double() - torch.from_numpy(hall.test.truth_m[there[0]])
    apart = played[order].double() - shift - alone[there].double()
    # Single precision in the game, and another square in which a few users search.
    assert float(torch.linalg.vector_norm(apart, dim=1).median()) < 1e-3


def test_a_picture_shows_no_bound_that_there_is_not() -> None:
    for env_id, ellipses in ((ENV, 0), ("rtt-v0", 2)):
        scenario = make_scenario(env_id, split="test", num_ues=2)
        state = scenario.reset(Streams(0, "test"), 1)
        with new_figure(4, 4) as (_, axes):
            scenario.draw(axes, state, [scenario.true_position(state)[0]])
            assert sum(isinstance(patch, Ellipse) for patch in axes.patches) == ellipses


def test_fifty_episodes_show_every_test_epoch() -> None:
    scenario = make_scenario(ENV, split="test")
    states = scenario.reset(Streams(3, "test"), 50)
    shown = {tuple(place) for place in scenario.true_position(states).flatten(0, 1).tolist()}
    assert len(shown) == len(sample().test)


def test_all_epochs_come_before_one_comes_again() -> None:
    rows = draw_rows(Streams(1), 5, 3, 3).flatten().tolist()
    assert sorted(rows[:5]) == [0, 1, 2, 3, 4]
    assert len(set(rows[5:])) == 4


def test_a_missing_link_is_missing_for_estimators_and_weakest_for_agents(tmp_path: Path) -> None:
    small_sets.tetam(tmp_path)
    survey = [
        "x_m,y_m,rss_s01,rss_s02,rss_s03",
        "1,1,-60,-70,-71",
        "4,1,-72,-61,-75",
        "1,4,-70,-74,-62",
        "2,2,-66,-67,-68",
    ]
    small_sets.write(tmp_path / "survey_set1.csv", survey)
    scenario = make_scenario(ENV, data=str(tmp_path), set="tetam", family="dcp", split="test", num_ues=1)
    state = scenario.reset(Streams(0, "test"), 1)
    seen = scenario.measurements(state).rss_dbm[0, :, 0]
    assert torch.isnan(seen).tolist() == [False, True, False]
    # Every sensor's own power at 1 m is taken out and the mean put in; the weakest reading of the survey is -75 dBm.
    assert float(state.rss_dbm[0, 1, 0]) == pytest.approx(-75.0)
    assert torch.isfinite(scenario.observe(state)).all()


def test_agents_trained_in_simulation_act_whatever_the_number_of_access_points(tmp_path: Path) -> None:
    for family, trained in (("rtt", "rtt-v0"), ("toa", "toa-v0"), ("dcp", "dcp-rss-v0")):
        agent = make_agent("maddpg", make_env(trained, num_envs=2, seed=0, num_aps=9, num_ues=3), share="entity")
        agent.save(tmp_path / f"{family}.pt")
        env = make_env(ENV, num_envs=1, seed=0, family=family, split="test")
        result = evaluate(env, load_agent(tmp_path / f"{family}.pt", env), episodes=2)
        assert np.isfinite(result.errors).all()


def test_training_holds_links_out_and_rewards_without_truth() -> None:
    scenario = make_scenario(ENV)
    state = scenario.reset(Streams(0), 4)
    # A quarter of five links, rounded.
    assert ((state.valid & ~state.fused).sum(dim=1) == 1).all()
    actions = torch.zeros(4, len(scenario.agents), scenario.action_size)
    honest = scenario.step(state, actions)
    lied = scenario.step(state.replace(true_position_m=state.true_position_m + 100.0), actions)
    assert torch.equal(honest.reward, lied.reward)


def test_own_table(tmp_path: Path) -> None:
    site = ["name,x_m,y_m", "a,500000,0", "b,500010,0", "c,500000,10", "d,500010,10"]
    small_sets.write(tmp_path / "hall.csv", site)
    places = np.array([[500002.0, 3.0], [500007.0, 4.0], [500005.0, 8.0], [500003.0, 6.0]])
    aps = np.array([[500000.0, 0], [500010, 0], [500000, 10], [500010, 10]])
    rows = [
        ",".join(f"{value:.4f}" for value in (*place, *(1e3 * np.linalg.norm(aps - place, axis=1)))) for place in places
    ]
    head = "truth_x_m,truth_y_m,range_a,range_b,range_c,range_d"
    small_sets.write(tmp_path / "ranges.csv", [head, *rows])
    own = {"data": str(tmp_path / "ranges.csv"), "set": "table", "site": str(tmp_path / "hall.csv")}
    env = make_env(ENV, num_envs=1, seed=0, split="test", table={"unit": "mm"}, std_m=0.1, **own)
    assert env.scenario is not None
    assert env.scenario.describe().startswith("Measured epochs, table/ranges.csv")
    assert evaluate(env, make_policy("rtt-wls"), episodes=3).rmse < 0.01
    with pytest.raises(ValueError, match=r"median of .* look like millimetres"):
        make_scenario(ENV, **own)
    small_sets.write(tmp_path / "ranges.csv", [head, rows[0]])
    with pytest.raises(ValueError, match="has 1 epochs; the game needs one to train and another to test"):
        make_scenario(ENV, table={"unit": "mm"}, **own)
    small_sets.write(tmp_path / "ranges.csv", ["range_a,range_b,range_c", "1,2,3"])
    with pytest.raises(ValueError, match="no truth_x_m and truth_y_m to score by"):
        make_scenario(ENV, **own)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"set": "feng/office"}, "needs data=FOLDER"),
        ({"data": "somewhere"}, "needs set=NAME"),
        ({"data": "somewhere", "set": "table"}, "needs site=FILE"),
        ({"data": "somewhere", "set": "feng", "site": "hall.csv"}, "is for set=table"),
        ({"data": "nowhere", "set": "feng"}, "there is no such file or folder"),
        ({"family": "csi"}, "family='csi' is not one of"),
        ({"std_m": "told"}, "std_m='told' is not one of reported"),
        ({"std_m": -1.0}, "std_m=-1.0 must be at least"),
        ({"std_m": "reported"}, "reports no standard deviations"),
        ({"game": {"rewards": "error"}}, "game has no key 'rewards'.*did you mean reward"),
        ({"game": {"rounds": 3}}, "game has no key 'rounds'"),
        ({"table": {"units": "mm"}}, "table has no key 'units'.*did you mean unit"),
    ],
)
def test_what_cannot_be_is_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        make_scenario(ENV, **settings)
    assert "\n" not in str(caught.value)


def test_a_path_loss_is_found_where_it_is_exact() -> None:
    generator = np.random.default_rng(1)
    distance = generator.uniform(1.0, 30.0, (40, 3))
    at_1m = np.array([-35.0, -40.0, -45.0])
    powers = at_1m - 27.0 * np.log10(distance)
    powers[generator.random(powers.shape) < 0.3] = np.nan
    law = fitted_path_loss(powers, distance)
    np.testing.assert_allclose(law.at_1m_dbm, at_1m)
    assert law.slope_db == pytest.approx(27.0)
    assert law.std_db == pytest.approx(0.0, abs=1e-9)
    powers[:, 0] = np.nan
    assert fitted_path_loss(powers, distance).at_1m_dbm[0] == pytest.approx(-42.5)
    with pytest.raises(ValueError, match="does not fall with distance"):
        fitted_path_loss(-powers, distance)
    with pytest.raises(ValueError, match="too few to fit"):
        fitted_path_loss(powers[:1], distance[:1])


@small_sets.with_sets
def test_least_squares_in_the_game_is_that_of_scipy() -> None:
    from scipy.optimize import least_squares

    folder = small_sets.MEASURED / "ftm_feng"
    room = load_dataset("feng/lecture_theatre", folder)
    assert room.ap_positions_m is not None
    assert room.test.range_m is not None
    some = room.test.select(slice(None, None, 40))
    assert some.range_m is not None
    found = []
    for ranges in some.range_m:
        heard = ranges > 0
        aps = room.ap_positions_m[heard]
        found.append(least_squares(_misfit, aps.mean(axis=0), args=(aps, ranges[heard])).x)
    ours = make_policy("rtt-wls").locate(room.ranges(some))
    apart = np.linalg.norm(ours.position[0].numpy() - np.array(found), axis=1)
    # Where the sum of squares has one minimum both are in it.
    assert np.quantile(apart, 0.9) < 0.01
    env = make_env(ENV, num_envs=1, seed=0, split="test", data=str(folder), set="feng/lecture_theatre")
    result = evaluate(env, make_policy("rtt-wls"), episodes=50)
    # The median error of scipy's least squares over all 1920 test epochs.
    assert result.median == pytest.approx(0.73, abs=0.02)


def _misfit(place: np.ndarray, aps: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    return np.linalg.norm(place - aps, axis=1) - ranges


def test_a_front_end_of_arrays_is_refused_where_there_are_powers_alone(tmp_path: Path) -> None:
    small_sets.tetam(tmp_path)
    with pytest.raises(ValueError, match=r"links='covariance' reads covariances of arrays, .* use links='dft'"):
        make_scenario(ENV, data=str(tmp_path), set="tetam", family="dcp", game={"links": "covariance"})


def test_an_episode_of_several_drops_hears_and_answers_each_by_itself() -> None:
    scenario = make_scenario(ENV, family="dcp", num_ues=3, rounds=2, game={"drops": 2})
    assert scenario.rounds == 4
    rules = scenario.rules
    # The first access point heard every second epoch alone.
    rules._rss_dbm = rules._rss_dbm.clone()
    rules._rss_dbm[::2, 0] = math.nan
    state = scenario.reset(Streams(3), 4)
    for drop, played in enumerate((state, scenario.answered(state))):
        truth_m = scenario.truth(played)["true_position"]
        torch.testing.assert_close(truth_m, state.true_position_m[:, drop])
        epochs = torch.cdist(truth_m.flatten(0, 1), rules.truth_m).argmin(dim=1).unflatten(0, (4, 3))
        heard = torch.isfinite(rules._rss_dbm[epochs]).transpose(1, 2)
        assert torch.equal(torch.isfinite(scenario.measurements(played).rss_dbm), heard)
