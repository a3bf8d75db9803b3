"""The hybrid game: what it hides, what its actions do, who gets the credit, what it refuses."""

from __future__ import annotations

import pytest
import torch

from cfpos_envs import evaluate, make_env
from cfpos_envs.scenarios.hybrid.config import HybridConfig
from cfpos_envs.scenarios.hybrid.game import HybridScenario
from cfpos_envs.streams import Streams

SMALL = {"num_aps": 9, "num_ues": 2}


def game(**options: object) -> HybridScenario:
    return HybridScenario(HybridConfig(**{**SMALL, **options}))


def test_neutral_agents_earn_nothing_and_find_users_in_sight() -> None:
    played = game(site="clear", split="test")
    state = played.reset(Streams(1, "test"), 32)
    idle = torch.zeros(32, 9, played.action_size)
    for _ in range(played.rounds):
        step = played.step(state, idle)
        # The exchange of equal terms leaves rounding.
        assert float(step.reward.abs().max()) < 1e-4
        state = step.state
    truth = played.truth(state)
    assert float(truth["rmse_m"].square().mean().sqrt()) < 2 * float(truth["peb_m"].square().mean().sqrt())


def test_distrusting_a_link_without_sight_is_paid() -> None:
    played = game(site="clear", reward="similarity")
    state = played.reset(Streams(2), 64)
    spoiled = state.sequence_values.clone()
    spoiled[:, :, 0, :, 0] += 15.0
    state = state.replace(sequence_values=spoiled)
    actions = torch.zeros(64, 9, 2, 3)
    actions[:, 0, :, 0] = -1.0
    assert float(played.step(state, actions.flatten(2)).reward[:, 0].mean()) > 0.0


def test_training_holds_access_points_out_and_tests_fuse_all() -> None:
    assert not bool(game().reset(Streams(0), 4).fused.all())
    assert bool(game(split="test").reset(Streams(0, "test"), 4).fused.all())


def test_blocked_links_show_zeros_and_moving_users_are_measured_anew() -> None:
    played = game(site={"preset": "street", "blocked_share": 0.5})
    state = played.reset(Streams(3), 4)
    own = played.observe(state).unflatten(2, (2, -1))[..., :9]
    assert bool((own[~state.valid] == 0).all())
    moving = game(speed_m_s=5.0).reset(Streams(3), 4)
    assert moving.sequence_values.shape[1] == 5
    assert not torch.equal(moving.sequence_values[:, 0], moving.sequence_values[:, 1])


def test_signatures_differ_where_actions_mean_something_else() -> None:
    assert game().signature() == game(num_aps=12).signature()
    assert game().signature() != game(confidence_scale=2.0).signature()


def test_an_evaluation_has_a_bound() -> None:
    env = make_env("hybrid-v0", **SMALL, site="clear")
    from baselines import make_policy

    result = evaluate(env, make_policy("untrained", env), episodes=8)
    assert result.bound_rmse is not None
    assert 0 < result.bound_rmse < result.rmse


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"site": "nlos-30"}, "shadowing_db=0 of site 'nlos-30' would make powers exact; set shadowing_db above 0"),
        ({"reward": "error"}, "reward='error' is not one of similarity, held-out"),
        ({"coarse_points": 1}, "coarse_points=1 must be at least 2"),
        ({"direction_error_std": -1.0}, "direction_error_std=-1.0 must be at least 0"),
        ({"num_aps": 64, "coarse_points": 4096}, "num_aps=64, coarse_points=4096: an episode with its lattice would"),
        ({"site": {"preset": "office", "shadow_db": 2.0}}, "shadowing_db"),
    ],
)
def test_options_are_refused_in_one_line(options: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        game(**options)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
