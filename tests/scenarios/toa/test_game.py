"""The time-based games: fusion, rewards, hold-out, observations and bounds, against explicit loops and closed forms."""

import dataclasses

import pytest
import torch

from cfpos_envs import evaluate, make_env
from cfpos_envs.physics.similarity import agreement
from cfpos_envs.physics.toa.bounds import unit_vectors_to
from cfpos_envs.physics.toa.maps import timing_drop_bound
from cfpos_envs.scenarios.toa import fusion
from cfpos_envs.scenarios.toa.config import ToaConfig
from cfpos_envs.scenarios.toa.game import ToaScenario
from cfpos_envs.scenarios.toa.reward import similarity_at
from cfpos_envs.scenarios.toa.state import (
    coarse_start_m,
    linear_start_m,
    median_offset_m,
    range_residuals,
)
from cfpos_envs.streams import Streams
from tests.physics.toa.reference import differencing_matrix

SMALL = {"num_aps": 9, "num_ues": 2, "num_sites": 3}
FAMILIES = ("toa", "tdoa", "rtt")


def fresh(seed=0, batch=6, **options):
    config = ToaConfig(**{**SMALL, **options})
    scenario = ToaScenario(config)
    return scenario, scenario.reset(Streams(seed, config.split), batch)


def exact(scenario, state, offset_m=0.0):
    """The same drop with ranges that are exactly right (plus a clock offset)."""
    _, slant = unit_vectors_to(state.ap_positions_m, state.height_diff_m, state.true_position_m[:, 0])
    return state.replace(sequence_range_m=slant.unsqueeze(1) + offset_m)


def random_actions(scenario, batch, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(batch, scenario.num_aps, scenario.action_size, generator=generator) - 1


def idle(scenario, batch):
    return torch.zeros(batch, scenario.num_aps, scenario.action_size)


def play(scenario, state, rounds=None):
    for _ in range(rounds or scenario.rounds):
        state = scenario.step(state, idle(scenario, len(state.round))).state
    return state


# Fusion ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_neutral_rounds_find_the_truth_from_exact_ranges(family):
    scenario, state = fresh(family=family, num_aps=16, batch=20, split="test", rounds=12)
    state = exact(scenario, state, 37.0 if family == "tdoa" else 0.0)
    end = play(scenario, scenario.with_estimate(state, state.consensus_m))
    assert scenario.truth(end)["error_m"].max().item() < 5e-3
    if family == "tdoa":
        assert end.offset_m.numpy() == pytest.approx(37.0, abs=5e-3)


def reports(scenario, state, seed=1):
    """Residuals, reports of random actions and neutral ones."""
    config, at = scenario.config, range_residuals(state)
    actions = random_actions(scenario, len(state.round), seed).unflatten(2, (scenario.num_ues, -1))
    told, neutral = (
        fusion.decode(at, chosen, config.confidence_scale, config.correction_m)
        for chosen in (actions, torch.zeros_like(actions))
    )
    return at, actions, told, neutral


def test_a_report_weighs_by_the_inverse_variance() -> None:
    scenario = ToaScenario(ToaConfig(**SMALL))
    at = range_residuals(scenario.reset(Streams(0), 3))
    report = fusion.decode(at, torch.zeros(*at.z.shape, 2), 4.0, 10.0)
    torch.testing.assert_close(report.information, 1 / at.std_m.square())
    torch.testing.assert_close(report.weight, report.reliability / at.std_m.square())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_is_the_textbook_weighted_least_squares(family):
    scenario, state = fresh(family=family, blocked_share=0.2, reward="similarity")
    at, _, told, neutral = reports(scenario, state)
    found = fusion.fuse(at, told, neutral, state.fused, family != "tdoa", 1e9, 1e-4)
    step, offset = found.step_m, found.offset_m
    for b in range(6):
        for k in range(2):
            used = state.fused[b, :, k]
            u, r = at.unit[b, used, k].double(), told.residual_m[b, used, k].double()
            w = told.weight[b, used, k].double()
            if family != "tdoa":
                expected = torch.linalg.solve(u.T @ (w[:, None] * u), u.T @ (w * r))
            else:
                # Differences to the first AP with their full covariance.
                d = differencing_matrix(len(w))
                inverse = torch.linalg.inv(d @ torch.diag(1 / w) @ d.T)
                du, dr = d @ u, d @ r
                expected = torch.linalg.solve(du.T @ inverse @ du, du.T @ inverse @ dr)
                o = (w * (r - u @ expected)).sum() / w.sum()
                assert offset[b, k].item() == pytest.approx(o.item(), rel=2e-2, abs=2e-2)
            assert step[b, k].tolist() == pytest.approx(expected.tolist(), rel=2e-2, abs=2e-2)


@pytest.mark.parametrize("family", ["toa", "tdoa"])
def test_leave_one_out_steps_equal_a_loop_over_the_aps(family):
    scenario, state = fresh(family=family, batch=3)
    at, actions, told, neutral = reports(scenario, state)
    common, config = family != "tdoa", scenario.config
    found = fusion.fuse(at, told, neutral, state.fused, common, 20.0, 1e-4)
    for m in range(scenario.num_aps):
        changed = actions.clone()
        changed[:, m] = 0.0
        alone = fusion.decode(at, changed, config.confidence_scale, config.correction_m)
        expected = fusion.fuse(at, alone, alone, state.fused, common, 20.0, 1e-4)
        assert torch.allclose(found.step_without_m[:, m], expected.step_m, rtol=1e-2, atol=1e-2)
        assert torch.allclose(found.offset_without_m[:, m], expected.offset_m, rtol=1e-2, atol=2e-2)


def test_reliabilities_lie_in_the_unit_interval_and_corrections_shorten():
    scenario, state = fresh(nlos_share=0.5)
    at, actions, told, neutral = reports(scenario, state)
    assert ((told.reliability >= 0) & (told.reliability <= 1)).all()
    top = torch.ones_like(actions)
    trusted = fusion.decode(at, top * torch.tensor([1.0, 0.0]), 4.0, 10.0)
    z = at.residual_m / torch.maximum(at.std_m, at.scale_m)
    assert torch.allclose(trusted.reliability, 4 / (4 + z.square()))
    assert torch.allclose(neutral.reliability, trusted.reliability * torch.exp(torch.tensor(-4.0)))
    shorter = fusion.decode(at, top, 4.0, 10.0)
    assert torch.allclose(at.residual_m - shorter.residual_m, torch.full_like(z, 10.0), atol=1e-4)


def test_throwing_all_links_away_alike_changes_nothing_and_pays_nothing_more():
    scenario, state = fresh(batch=10, num_aps=16)
    low = idle(scenario, 10).unflatten(2, (2, 2))
    low[..., 0] = -1.0
    away, neutral = (scenario.step(state, actions) for actions in (low.flatten(2), idle(scenario, 10)))
    assert torch.allclose(away.state.consensus_m, neutral.state.consensus_m, atol=2e-2)
    assert torch.allclose(away.metrics["score"], neutral.metrics["score"], atol=2e-2)


def test_no_step_is_longer_than_allowed_and_users_stay_inside():
    scenario, state = fresh(max_step_m=0.7, batch=30, start="centre")
    moved = scenario.step(state, random_actions(scenario, 30)).state
    length = torch.linalg.vector_norm(moved.consensus_m - state.consensus_m, dim=-1)
    assert length.max().item() <= 0.7 + 1e-4
    assert ((moved.consensus_m >= 0) & (moved.consensus_m <= 100)).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_reports_of_a_point_lead_there(family):
    scenario, state = fresh(family=family, batch=20, num_aps=16, nlos_share=0.2)
    target = (state.consensus_m + torch.tensor([2.0, -3.0])).clamp(5.0, 95.0)
    moved = scenario.step(state, scenario.encode_estimate(state, target)).state
    before, after = ((s.consensus_m - target).norm(dim=-1) for s in (state, moved))
    assert after.median().item() < 0.15 * before.median().item()


# Starts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_linear_start_is_exact_for_exact_ranges_and_coarse_within_a_cell(family):
    common = family != "tdoa"
    scenario, state = fresh(family=family, num_aps=16, batch=10, split="test")
    state = exact(scenario, state, 0.0 if common else -21.0)
    true = state.true_position_m[:, 0]
    assert (linear_start_m(state, 100.0, common) - true).norm(dim=-1).max().item() < 0.05
    coarse = coarse_start_m(state, 100.0, 20, common)
    assert (coarse - true).norm(dim=-1).max().item() < 6.0
    assert torch.allclose(median_offset_m(state, true), torch.tensor(0.0 if common else -21.0), atol=1e-3)


def test_coarse_start_forgives_what_carries_least_squares_away():
    errors = {}
    for start in ("coarse", "linear"):
        scenario, state = fresh(num_aps=16, batch=100, nlos_share=0.4, start=start, split="test")
        errors[start] = scenario.truth(state)["error_m"].median().item()
    assert errors["coarse"] < 0.6 * errors["linear"]


# Rewards -----------------------------------------------------------------------------------------------------------


def test_agreement_by_hand():
    # z = 2: (1/2 + 1/(1 + 1/9) + 1/(1 + 1/100)) / 3
    values = agreement(torch.tensor([0.0, 2.0, -2.0, 1e6]))
    assert values.tolist() == pytest.approx([1.0, 0.796700, 0.796700, 0.0], abs=1e-5)


def test_similarity_is_the_mean_over_the_judges_by_a_loop():
    scenario, state = fresh(family="tdoa")
    point, offset = state.consensus_m + 0.4, state.offset_m - 0.2
    ours = similarity_at(state, point, offset, state.judges)
    for b in range(6):
        for k in range(2):
            values = []
            for m in range(scenario.num_aps):
                if state.judges[b, m, k]:
                    gap = point[b, k] - state.ap_positions_m[b, m]
                    slant = (gap.square().sum() + state.height_diff_m[b, m] ** 2).sqrt()
                    z = (state.range_m[b, m, k] - slant - offset[b, k]) / state.std_m[b, m, k]
                    values.append(sum(1 / (1 + (z / c) ** 2) for c in (2, 6, 20)) / 3)
            assert ours[b, k].item() == pytest.approx(float(sum(values) / len(values)), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("reward", ["similarity", "held-out", "error"])
@pytest.mark.parametrize("family", ["toa", "tdoa"])
def test_credit_is_the_slope_of_the_objective_along_what_an_ap_changed(family, reward):
    scenario, state = fresh(family=family, reward=reward, batch=20)
    quiet = scenario.step(state, idle(scenario, 20))
    assert quiet.metrics["entity_rewards"].abs().max().item() < 1e-3
    # One AP moves a little: its credit is M times the change of the objective, to first order.
    change = idle(scenario, 20)
    change[:, 3] = 0.002
    moved = scenario.step(state, change)
    gained = scenario.num_aps * (moved.metrics["objective"] - quiet.metrics["objective"])
    credit = moved.metrics["entity_rewards"][:, 3]
    assert torch.allclose(credit, gained, rtol=0.1, atol=5e-4)
    assert torch.allclose(moved.reward, moved.metrics["entity_rewards"].sum(-1))


@pytest.mark.parametrize("reward", ["similarity", "held-out"])
def test_believing_the_right_links_pays_without_any_label(reward):
    scenario, state = fresh(reward=reward, batch=100, num_aps=16, nlos_share=0.4)
    good = torch.where(state.is_los, 1.0, -1.0)
    actions = torch.stack((good, torch.zeros_like(good)), dim=-1).flatten(2)
    scores = []
    for chosen in (actions, torch.zeros_like(actions), -actions):
        end = state
        for _ in range(scenario.rounds):
            taken = scenario.step(end, chosen)
            end = taken.state
        scores.append(taken.metrics["score"].mean().item())
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > scores[1] + 0.02


def test_rewards_of_a_finished_game_order_good_and_bad_positions():
    _, state = fresh(batch=100, num_aps=16, nlos_share=0.3, split="test")
    truth = state.true_position_m[:, 0]
    scores = [
        similarity_at(state, truth + shift, state.offset_m, state.judges).mean() for shift in (0.0, 0.3, 1.0, 5.0)
    ]
    assert scores == sorted(scores, reverse=True)


# Hold-out and hidden things ----------------------------------------------------------------------------------------


def test_a_quarter_of_the_measured_links_judges_and_takes_no_part():
    _, state = fresh(num_aps=16, batch=50, blocked_share=0.2)
    assert not (state.judges & state.fused).any()
    assert ((state.judges | state.fused) == state.valid).all()
    measured, judging = state.valid.sum(dim=1), state.judges.sum(dim=1)
    assert torch.equal(judging, (0.25 * measured).round().long())
    _, test = fresh(num_aps=16, batch=5, split="test")
    assert torch.equal(test.fused, test.valid)
    assert torch.equal(test.judges, test.valid)


def test_what_judges_measure_reaches_neither_fusion_nor_the_others():
    scenario, state = fresh(batch=5)
    louder = state.range_m + 30.0 * (~state.fused)
    changed = state.replace(sequence_range_m=louder.unsqueeze(1))
    actions = random_actions(scenario, 5)
    assert torch.equal(
        scenario.step(state, actions).state.consensus_m, scenario.step(changed, actions).state.consensus_m
    )
    seen, other = (scenario.observe(s).unflatten(2, (2, -1)) for s in (state, changed))
    assert torch.equal(seen[state.fused], other[state.fused])
    assert not torch.equal(seen[~state.fused], other[~state.fused])


def test_which_links_have_a_line_of_sight_is_told_to_genies_only():
    scenario, state = fresh(batch=5)
    flipped = state.replace(is_los=~state.is_los)
    assert torch.equal(scenario.observe(state), scenario.observe(flipped))
    actions = random_actions(scenario, 5)
    assert torch.equal(scenario.step(state, actions).reward, scenario.step(flipped, actions).reward)
    assert scenario.measurements(state).is_los is None
    genie = ToaScenario(dataclasses.replace(scenario.config, reveal_los=True))
    assert torch.equal(genie.measurements(state).is_los, state.is_los)


# Bounds and flags --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_bound_is_that_of_the_links_in_line_of_sight(family):
    scenario, state = fresh(family=family, shadowing_db=0.0, nlos_share=0.3, num_aps=16)
    expected = timing_drop_bound(
        scenario.model, state.ap_positions_m, state.height_diff_m, state.true_position_m[:, 0], valid=state.is_los
    )
    limit = 100.0 / 6**0.5
    assert scenario.truth(state)["peb_m"].numpy() == pytest.approx(expected.clamp(max=limit).numpy(), rel=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_any_useful_link_nothing_is_nan_and_the_answer_is_flagged(family):
    for options in ({"blocked_share": 1.0}, {"nlos_share": 1.0}):
        scenario, state = fresh(family=family, batch=10, **options)
        for _ in range(scenario.rounds):
            taken = scenario.step(state, random_actions(scenario, 10))
            state = taken.state
            values = (taken.reward, scenario.observe(state), scenario.global_state(state), state.consensus_m)
            assert all(torch.isfinite(value).all() for value in (*values, *taken.metrics.values()))
        truth = scenario.truth(state)
        assert truth["peb_m"].numpy() == pytest.approx(100.0 / 6**0.5)
        assert truth["valid"].any() != ("blocked_share" in options)


def test_degenerate_networks_are_flagged():
    scenario, state = fresh(batch=2, num_aps=9, split="test", layout="grid")
    assert scenario.truth(state)["valid"].all()
    row = state.ap_positions_m[..., 0] < 30.0
    line = state.replace(valid=row.unsqueeze(-1).expand_as(state.valid))
    assert line.valid.sum(dim=1).unique().tolist() == [3]
    assert not scenario.truth(line)["valid"].any()
    two = state.replace(valid=(torch.arange(9) < 2).view(1, 9, 1).expand_as(state.valid))
    assert not scenario.truth(two)["valid"].any()


def test_a_user_below_an_ap_at_its_own_height_is_no_problem():
    scenario, state = fresh(height_diff_m=0.0, site="nlos-0", num_aps=9, split="test", batch=3)
    on_top = state.ap_positions_m[:, 4:5].expand(-1, 2, -1)
    state = exact(scenario, state.replace(true_position_m=on_top.unsqueeze(1), consensus_m=on_top.clone()))
    end = play(scenario, state)
    assert scenario.truth(end)["error_m"].max().item() < 0.01
    assert torch.isfinite(scenario.observe(end)).all()
    assert torch.isfinite(scenario.truth(end)["peb_m"]).all()


def test_infos_and_evaluations_tell_what_is_not_determined():
    env = make_env("tdoa-v0", blocked_share=1.0, seed=0, **SMALL)
    _, infos = env.reset()
    assert not infos["ap_0"]["valid"].any()

    class Zero:
        def act_batch(self, observations):
            return torch.zeros(*observations.shape[:2], 2 * SMALL["num_ues"])

    class ZeroByName:
        def act(self, observations):
            return {name: torch.zeros(2 * SMALL["num_ues"]).numpy() for name in observations}

    for policy in (Zero(), ZeroByName()):
        result = evaluate("toa-v0", policy, episodes=10, blocked_share=0.7, **SMALL)
        assert 0 < result.valid_share < 1
        assert result.valid_share == evaluate("toa-v0", Zero(), episodes=10, blocked_share=0.7, **SMALL).valid_share
