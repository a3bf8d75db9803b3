"""Bounds of counters' episodes, compiled: those of torch, whatever counts and wherever the users are."""

import copy
import math

import pytest
import torch

from cfpos_envs.native import build
from cfpos_envs.physics.bounds import position_error_bound
from cfpos_envs.scenarios.dcp.config import DcpConfig
from cfpos_envs.scenarios.dcp.game import DcpScenario
from cfpos_envs.streams import Streams

SMALL = {"num_aps": 5, "num_ues": 3, "num_antennas": 4, "num_sites": 2, "rng": "counter"}
GAMES = {
    "rss": {"stage": "rss", "action": "gain", "similarity": "log"},
    "aoa": {"stage": "aoa", "action": "gain", "similarity": "log"},
    "both, biased sites": {"site": "miscalibrated"},
    "no torus, below the noise": {"wrap": False, "snr_db": -10.0},
    "moving": {"speed_m_s": 20.0, "round_s": 1.0},
}


def game(**options):
    try:
        build.library()
    except build.KernelUnavailableError as error:
        pytest.skip(f"nothing to compare with torch: {error}")
    return DcpScenario(DcpConfig(**SMALL | options))


def torchs(scenario, state):
    return position_error_bound(scenario.fisher(state, scenario.true_position(state)))


@pytest.mark.parametrize("options", GAMES.values(), ids=GAMES)
def test_the_bound_is_that_of_torch(options):
    scenario = game(**options)
    state = scenario.reset(Streams(2, "train"), 40)
    state = state.replace(round=torch.full_like(state.round, 3))
    bounds = scenario.bound_m(state)
    assert bounds.dtype == torch.float64
    torch.testing.assert_close(bounds, torchs(scenario, state), rtol=1e-10, atol=0)
    assert not torch.equal(bounds[0], bounds[1])


def test_what_one_access_point_cannot_tell_has_no_bound():
    scenario = game(num_aps=1, stage="rss", action="gain", similarity="log", num_ues=1, reward="shared")
    state = scenario.reset(Streams(2, "train"), 3)
    # Along the axis all information is on one line exactly.
    state.true_position_m = state.ap_positions_m.unsqueeze(1) + torch.tensor([7.0, 0.0])
    assert torch.equal(scenario.bound_m(state), torch.full((3, 1), math.inf, dtype=torch.float64))
    assert torch.equal(torchs(scenario, state), scenario.bound_m(state))


def test_streams_and_known_maps_keep_torchs_bound():
    for options in ({"rng": "stream"}, {"shadowing_known": True}):
        scenario = game(**options)
        state = scenario.reset(Streams(2, "train"), 3)
        assert torch.equal(scenario.bound_m(state), torchs(scenario, state))


def test_a_bound_kernel_can_be_sent_to_another_process():
    scenario = game()
    state = scenario.reset(Streams(2, "train"), 3)
    expected = scenario.bound_m(state)
    sent = copy.deepcopy(scenario)
    assert torch.equal(sent.bound_m(sent.reset(Streams(2, "train"), 3)), expected)
