"""The DCP games: fusion, rewards, hold-out and observations, against explicit loops and closed forms."""

import dataclasses
import math

import pytest
import torch

from cfpos_envs import make_env
from cfpos_envs.physics.dcp.innovations import predicted_rss_dbm
from cfpos_envs.physics.dcp.links import link_geometry
from cfpos_envs.physics.geometry import nearest_image
from cfpos_envs.scenarios.ap_game import counterfactual_credit
from cfpos_envs.scenarios.dcp import fusion, similarity
from cfpos_envs.scenarios.dcp.config import DcpConfig
from cfpos_envs.scenarios.dcp.game import DcpScenario
from cfpos_envs.scenarios.dcp.observe import feature_table
from cfpos_envs.streams import Streams

SMALL = {"num_aps": 9, "num_ues": 2, "num_antennas": 4, "num_sites": 3}
GAIN = {"action": "gain", "reward": "local", "similarity": "log", "fusion": "line-search", "start": "centroid"}


def fresh(seed=0, batch=5, **options):
    config = DcpConfig(**{**SMALL, **options})
    scenario = DcpScenario(config)
    return scenario, scenario.reset(Streams(seed, config.split), batch)


def exact(scenario, state):
    """The same drop with noise-free RSS and bearings: every measurement equals its prediction at the truth."""
    radio = scenario.radio
    links = link_geometry(
        state.ap_positions_m,
        state.ap_orientation_rad,
        state.height_diff_m,
        state.true_position_m[:, 0],
        radio.side_m,
        radio.wrap,
    )
    rss = predicted_rss_dbm(radio, links)
    return state.replace(sequence_rss_dbm=rss.unsqueeze(1), bearing_rad=links.angle_rad.abs())


def random_actions(scenario, batch, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(batch, scenario.num_aps, scenario.action_size, generator=generator) - 1


def idle(scenario, batch):
    return torch.zeros(batch, scenario.num_aps, scenario.action_size)


def play(scenario, state, actions=None, rounds=None):
    for _ in range(rounds or scenario.rounds):
        chosen = idle(scenario, len(state.round)) if actions is None else actions
        state = scenario.step(state, chosen).state
    return state


def judged(scenario, state):
    return similarity.Judge(scenario.config, scenario.radio, state, state.at_consensus(scenario.config))


# Fusion ------------------------------------------------------------------------------------------------------------


def test_neutral_information_rounds_find_the_truth_from_exact_measurements():
    scenario, state = fresh(num_antennas=8, site="clean", num_aps=16, batch=20, split="test", rounds=10)
    end = play(scenario, exact(scenario, state))
    assert scenario.truth(end)["error_m"].max().item() < 2e-3


def test_neutral_gain_rounds_find_the_truth_from_exact_rss_and_bearings():
    options = {**GAIN, "stage": "joint", "site": "clean", "start": "coarse", "num_aps": 16, "rounds": 12}
    scenario, state = fresh(num_antennas=8, batch=20, **options)
    state = exact(scenario, state)
    end = play(scenario, state)
    assert scenario.truth(end)["error_m"].median() < 0.3 * scenario.truth(state)["error_m"].median()


def test_information_step_of_two_perpendicular_aps_by_hand():
    unit = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])
    radial, tangential = torch.tensor([[[2.0], [1.0]]]), torch.tensor([[[0.0], [4.0]]])
    w_r, w_t = torch.tensor([[[1.0], [2.0]]]), torch.tensor([[[3.0], [0.5]]])
    proposal = fusion.Proposal(radial, tangential, w_r, w_t)
    fused = torch.ones(1, 2, 1, dtype=torch.bool)
    config = DcpConfig(max_step_m=100.0)
    step, _ = fusion.information_fusion(config, unit, proposal, proposal, fused)
    # x: (1 * 2 + 0.5 * (-4)) / (1 + 0.5), y: (3 * 0 + 2 * 1) / (3 + 2); the ridge of 1e-3 is below the tolerance.
    assert step[0, 0].tolist() == pytest.approx([0.0, 0.4], abs=1e-3)


def test_leave_one_out_steps_equal_a_loop_over_the_aps():
    scenario, state = fresh(site="hard")
    at = state.at_consensus(scenario.config)
    actions = random_actions(scenario, 5).unflatten(2, (2, -1))
    neutral = fusion.propose(scenario.config, scenario.radio, state, at, torch.zeros_like(actions))
    proposal = fusion.propose(scenario.config, scenario.radio, state, at, actions)
    _, without = fusion.information_fusion(scenario.config, at.links.unit, proposal, neutral, state.fused)
    for m in range(scenario.num_aps):
        changed = actions.clone()
        changed[:, m] = 0.0
        alone = fusion.propose(scenario.config, scenario.radio, state, at, changed)
        step, _ = fusion.information_fusion(scenario.config, at.links.unit, alone, alone, state.fused)
        assert torch.allclose(without[:, m], step, atol=2e-4)


def test_no_fused_step_is_longer_than_allowed():
    scenario, state = fresh(site="hard", max_step_m=0.7, batch=30)
    step = scenario.step(state, random_actions(scenario, 30)).state.consensus_m - state.consensus_m
    assert torch.linalg.vector_norm(nearest_image(step, 100.0, True), dim=-1).max().item() <= 0.7 + 1e-4


def test_polar_reports_are_decoded_where_they_were_encoded():
    for wrap in (True, False):
        options = {"action": "polar", "fusion": "mean", "reward": "shared", "similarity": "log", "wrap": wrap}
        scenario, state = fresh(**options)
        target = 100 * torch.rand(5, 2, 2, generator=torch.Generator().manual_seed(3))
        moved = scenario.step(state, scenario.encode_estimate(state, target)).state
        assert nearest_image(moved.consensus_m - target, 100.0, wrap).abs().max().item() < 1e-2


@pytest.mark.parametrize("action", ["gain", "confidence", "confidence-correction"])
def test_encoding_the_truth_leads_closer_to_it_than_random_actions(action):
    options = GAIN if action == "gain" else {"action": action}
    scenario, state = fresh(stage="joint", batch=60, site="clean", **{**options, "start": "centroid", "split": "test"})
    true = state.true_position_m[:, 0]
    told = scenario.step(state, scenario.encode_estimate(state, true)).state
    wild = scenario.step(state, random_actions(scenario, 60)).state
    assert scenario.truth(told)["error_m"].mean() < scenario.truth(wild)["error_m"].mean()


def test_line_search_never_lowers_the_consensus_similarity():
    scenario, state = fresh(**GAIN, batch=40)
    moved = scenario.step(state, random_actions(scenario, 40)).state
    points = torch.stack((state.consensus_m, moved.consensus_m), dim=1)
    before, after = judged(scenario, state).similarity(points, state.readings.fused_shares, "log")[0].unbind(dim=1)
    assert (after >= before - 1e-4).all()


# Rewards -----------------------------------------------------------------------------------------------------------


def loop_similarity(kind, scenario, state, points):
    """[B, K] similarity of points by plain loops over eqs. (7)-(9) and their repairs."""
    values = torch.zeros(len(points), scenario.num_ues)
    at = state.at_consensus(scenario.config)
    links = link_geometry(
        state.ap_positions_m, state.ap_orientation_rad, state.height_diff_m, points, 100.0, scenario.radio.wrap
    )
    predicted, profile = predicted_rss_dbm(scenario.radio, links), state.readings.profiles(scenario.config)
    for b in range(len(points)):
        distances = []
        for k in range(scenario.num_ues):
            watts = 10 ** ((state.rss_dbm[b, :, k] - 30) / 10) - 10 ** ((predicted[b, :, k] - 30) / 10)
            distances.append(math.sqrt(sum(float(w) ** 2 for w in watts)))
        for k in range(scenario.num_ues):
            e = (state.rss_dbm[b, :, k] - predicted[b, :, k]).tolist()
            angles = links.angle_rad[b, :, k]
            grid = (angles.abs() / math.pi * (profile.shape[-1] - 1)).tolist()
            cosine = []
            for m, place in enumerate(grid):
                low = min(int(place), profile.shape[-1] - 2)
                left, right = profile[b, m, k, low].item(), profile[b, m, k, low + 1].item()
                cosine.append(left + (place - low) * (right - left))
            eta = (state.bearing_rad[b, :, k] - angles.abs()).tolist()
            count = len(e)
            if kind == "log":
                rms = math.sqrt(sum(x * x for x in e) / count)
                values[b, k] = -math.log(rms + 0.05) - math.log(1 - sum(cosine) / count)
            elif kind == "paper":
                values[b, k] = (sum(cosine) / math.sqrt(count)) / (distances[k] / max(distances))
            elif kind == "cauchy":
                sine = [max(abs(math.sin(x)), 0.05) for x in state.bearing_rad[b, :, k].tolist()]
                scale = [0.03 + 0.01 / s for s in sine]
                terms = [
                    -math.log(1 + (x / 0.5) ** 2) - math.log(1 + (y / s) ** 2)
                    for x, y, s in zip(e, eta, scale, strict=True)
                ]
                values[b, k] = sum(terms) / count
            else:
                s_r = at.rss_scale_db[b, 0, k].item()
                s_t = at.bearing_scale_rad[b, :, k].tolist()
                terms = [
                    -2.5 * (math.log(1 + (x / s_r) ** 2 / 4) + math.log(1 + (y / t) ** 2 / 4))
                    for x, y, t in zip(e, eta, s_t, strict=True)
                ]
                values[b, k] = sum(terms) / count
    return values


@pytest.mark.parametrize("kind", ["paper", "log", "robust", "cauchy"])
def test_similarities_equal_plain_loops(kind):
    scenario, state = fresh(split="test")
    points = 100 * torch.rand(5, 2, 2, generator=torch.Generator().manual_seed(2))
    ours = judged(scenario, state).similarity(points.unsqueeze(1), None, kind)[0][:, 0]
    # atol for bearings beyond a quarter turn, where the loop's folded difference and ours agree to rounding only
    assert torch.allclose(ours, loop_similarity(kind, scenario, state, points), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["robust", "cauchy", "log"])
@pytest.mark.parametrize("options", [{}, {"stage": "rss"}, {"stage": "chained", "rounds": 4}, {"snr_db": 3.0}])
def test_gradient_of_the_similarity_is_that_of_finite_differences(kind, options):
    scenario, state = fresh(**{"stage": "joint", "similarity": kind, **options})
    state = state.replace(round=state.round + torch.tensor([0, 1, 3, 3, 3]))
    judge, shares = judged(scenario, state), state.readings.judge_shares
    points = 100 * torch.rand(5, 2, 2, generator=torch.Generator().manual_seed(4))
    (value,), gradient = judge.with_gradient(points, shares, kind)
    torch.testing.assert_close(value, judge.similarity(points.unsqueeze(1), shares, kind)[0][:, 0])
    leaf = points.clone().requires_grad_()
    (expected,) = torch.autograd.grad(judge.similarity(leaf.unsqueeze(1), shares, kind)[0].sum(), leaf)
    torch.testing.assert_close(gradient, expected, rtol=2e-3, atol=2e-4)
    for axis in range(2):
        step = 0.02 * torch.eye(2)[axis]
        ends = torch.stack((points - step, points + step), dim=1)
        (low, high) = judge.similarity(ends, shares, kind)[0].unbind(dim=1)
        # A profile is linear between its angles and a residual has corners: most points, not all.
        close = (gradient[..., axis] - (high - low) / 0.04).abs() < 0.03 + 0.03 * gradient[..., axis].abs()
        assert close.float().mean() >= 0.7


def test_chunks_change_nothing(monkeypatch):
    for kind in ("robust", "log", "paper"):
        held_out = {"held_out_share": 0.0} if kind == "paper" else {}
        scenario, state = fresh(similarity=kind, reward="shared", **held_out)
        points = 100 * torch.rand(5, 3, 2, 2, generator=torch.Generator().manual_seed(2))
        whole = judged(scenario, state).similarity(points, None, kind)[0]
        monkeypatch.setattr(similarity, "_CACHE_LINKS", 2 * 3 * 2 * 9 + 1)
        torch.testing.assert_close(judged(scenario, state).similarity(points, None, kind)[0], whole)
        monkeypatch.undo()


def test_kept_quantities_leave_with_what_they_were_computed_from():
    scenario, state = fresh(split="test")
    first = scenario.step(state, idle(scenario, 5))
    louder = state.replace(sequence_rss_dbm=state.sequence_rss_dbm + 3.0)
    assert not torch.allclose(scenario.observe(louder), scenario.observe(state), atol=1e-3)
    assert not torch.allclose(scenario.step(louder, idle(scenario, 5)).metrics["score"], first.metrics["score"])
    moved = scenario.with_estimate(state, state.consensus_m + 5.0)
    unseen = fresh(split="test")[1].replace(consensus_m=moved.consensus_m)
    assert torch.equal(scenario.observe(moved), scenario.observe(unseen))


def test_local_reward_is_the_gain_of_the_own_report():
    scenario, state = fresh(**GAIN, stage="joint", split="test")
    actions = random_actions(scenario, 5)
    result = scenario.step(state, actions)
    at = state.at_consensus(scenario.config)
    vectors = fusion.propose(scenario.config, scenario.radio, state, at, actions.unflatten(2, (2, 2))).vectors(
        at.links.unit
    )
    before = loop_similarity("log", scenario, state, state.consensus_m)
    for m in (0, 4, 8):
        report = torch.remainder(state.consensus_m + vectors[:, m], 100.0)
        expected = loop_similarity("log", scenario, state, report) - before
        assert torch.allclose(result.metrics["entity_rewards"][:, m], expected, rtol=1e-3, atol=2e-3)
    assert torch.allclose(result.reward, result.metrics["entity_rewards"].sum(-1))


def test_printed_reward_is_eq_9_summed_over_the_users():
    options = {**GAIN, "action": "polar", "formulation": "strict", "similarity": "paper", "fusion": "mean"}
    scenario, state = fresh(**options, stage="rss", num_ues=4)
    reward = scenario.step(state, random_actions(scenario, 5)).metrics["entity_rewards"]
    # Eq. (9) divides by the maximum over the users: the worst one has exactly 1, all lie in [0, 1].
    assert torch.allclose(reward.amax(dim=-1), torch.ones(5, 9))
    assert reward.min() >= 0.0


def test_credit_is_the_derivative_along_the_change_an_ap_makes():
    gradient = torch.tensor([[[1.0, -2.0]]])
    step = torch.tensor([[[0.5, 0.5]]])
    without = torch.tensor([[[[0.5, 0.5]], [[0.4, 0.7]], [[0.0, 0.0]]]])
    credit = counterfactual_credit(gradient, step.unsqueeze(1) - without)
    # 3 APs: 3 * (1 * dx - 2 * dy)
    assert credit[0, :, 0].tolist() == pytest.approx([0.0, 3 * (0.1 + 0.4), 3 * (0.5 - 1.0)])


def test_held_out_credit_predicts_the_change_of_similarity_for_small_actions():
    scenario, state = fresh(site="shadowed", batch=40, similarity="cauchy")
    state = play(scenario, state, rounds=4)
    small = 0.02 * random_actions(scenario, 40)
    alone = torch.zeros_like(small)
    alone[:, 3] = small[:, 3]
    acted = scenario.step(state, alone).metrics
    calm = scenario.step(state, torch.zeros_like(small)).metrics
    change = (acted["objective"] - calm["objective"]) * scenario.num_aps
    credit = acted["entity_rewards"][:, 3]
    assert torch.corrcoef(torch.stack((change.flatten(), credit.flatten())))[0, 1].item() > 0.99


def test_objective_gradient_matches_finite_differences():
    scenario, state = fresh(site="hard", batch=3)
    state = dataclasses.replace(state, **{n: v.double() for n, v in state.state_dict().items() if _is_float(v)})
    actions = 0.3 * random_actions(scenario, 3).double()
    actions.requires_grad_(True)
    (gradient,) = torch.autograd.grad(scenario.step(state, actions).metrics["objective"].sum(), actions)
    for index in [(0, 0, 0), (1, 4, 1), (2, 8, 2), (2, 5, 3)]:
        shifted = []
        for sign in (1.0, -1.0):
            moved = actions.detach().clone()
            moved[index] += sign * 1e-5
            shifted.append(scenario.step(state, moved).metrics["objective"].sum())
        slope = (shifted[0] - shifted[1]) / 2e-5
        assert gradient[index].item() == pytest.approx(slope.item(), rel=1e-3, abs=1e-6)


def _is_float(value):
    return value is not None and value.dtype == torch.float32


# Hold-out and observation -------------------------------------------------------------------------------------------


def test_held_out_aps_reach_neither_fusion_nor_broadcast_but_judge():
    scenario, state = fresh(batch=8)
    assert ((~state.fused).sum(dim=1) == 2).all()
    lie = torch.where(state.fused, 0.0, 25.0).unsqueeze(1)
    twisted = state.replace(
        sequence_rss_dbm=state.sequence_rss_dbm + lie,
        bearing_rad=torch.where(state.fused, state.bearing_rad, math.pi - state.bearing_rad),
    )
    actions = random_actions(scenario, 8)
    honest, misled = scenario.step(state, actions), scenario.step(twisted, actions)
    assert torch.equal(honest.state.consensus_m, misled.state.consensus_m)
    assert not torch.allclose(honest.metrics["objective"], misled.metrics["objective"])
    broadcast = [i for i, row in enumerate(feature_table(scenario.config)) if "broadcast" in row.meaning]
    one = scenario.observe(state).unflatten(2, (2, -1))[..., broadcast]
    other = scenario.observe(twisted).unflatten(2, (2, -1))[..., broadcast]
    assert len(broadcast) == 2
    assert torch.equal(one, other)


def test_evaluation_fuses_every_ap():
    _, state = fresh(split="test")
    assert state.fused.all()


def test_the_start_does_not_look_at_held_out_aps():
    scenario, state = fresh(batch=8)
    pool = scenario._pool
    lie = torch.where(state.fused, 0.0, 25.0).unsqueeze(1)
    started = scenario.start(state.replace(sequence_rss_dbm=state.sequence_rss_dbm + lie), pool)
    assert torch.equal(started.start_m, state.start_m)


def test_strict_formulation_sees_its_own_measurement_and_the_round_only():
    options = {**GAIN, "formulation": "strict", "action": "polar", "fusion": "mean", "similarity": "log"}
    scenario, state = fresh(**options, stage="rss")
    seen = scenario.observe(state).unflatten(2, (2, -1))
    assert torch.allclose(seen[..., 0], ((state.rss_dbm + 60) / 50).clamp(-1, 1))
    assert (seen[..., 1] == 0).all()
    assert torch.equal(scenario.observe(state.replace(consensus_m=state.consensus_m + 5)), scenario.observe(state))


def test_first_stage_of_the_chain_ignores_bearings_and_the_second_uses_them():
    scenario, state = fresh(stage="chained", rounds=4, stage_one_rounds=2)
    twisted = state.replace(bearing_rad=math.pi - state.bearing_rad)
    actions = random_actions(scenario, 5)
    for round_index in range(4):
        straight, turned = scenario.step(state, actions).state, scenario.step(twisted, actions).state
        assert torch.equal(straight.consensus_m, turned.consensus_m) == (round_index < 2)
        flag = scenario.observe(state).unflatten(2, (2, -1))[..., -1]
        assert (flag == (-1.0 if round_index < 2 else 0.0)).all()
        state, twisted = straight, straight.replace(bearing_rad=twisted.bearing_rad)


def test_every_observation_entry_is_described():
    for options in ({}, {**GAIN, "stage": "rss"}, {**GAIN, "formulation": "strict", "action": "polar"}):
        scenario, _ = fresh(**options)
        names = [row.name for row in feature_table(scenario.config)]
        assert len(names) == len(set(names)) == scenario.entities.observation_size
        assert all(name in scenario.describe() for name in names)


def test_summaries_are_those_of_the_aps_own_users():
    scenario, state = fresh(num_ues=5)
    seen = scenario.observe(state).unflatten(2, (5, -1))
    own, rest = seen[..., :10], seen[..., 10:40]
    assert torch.allclose(rest[:, :, 0, :10], own.mean(dim=2), atol=1e-6)
    assert torch.allclose(rest[:, :, 3, 10:20], own.median(dim=2).values, atol=1e-6)
    assert torch.allclose(rest[:, :, 1, 20:30], own.quantile(0.25, dim=2), atol=1e-6)


# The physics as a whole ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("site", "low", "high"), [("clean", 1.02, 1.4), ("shadowed", 1.02, 1.5)])
def test_the_neutral_game_comes_close_to_the_bound_and_does_not_beat_it(site, low, high):
    env = make_env("dcp-jar-v0", site=site, split="test", num_envs=100, seed=5)
    env.reset()
    for _ in range(env.rounds):
        env.step(torch.zeros(100, 36, env.action_size))
    truth = env.truth()
    ratio = (truth["error_m"].square().mean() / truth["peb_m"].square().mean()).sqrt().item()
    assert low < ratio < high


def test_a_known_radio_map_helps_under_shadowing():
    errors = {}
    for known in (False, True):
        options = {"shadowing_known": known, "stage": "rss", "split": "test", "num_aps": 36, "batch": 30}
        scenario, state = fresh(**options)
        errors[known] = scenario.truth(state)["error_m"].median().item()
        assert scenario.truth(state)["peb_m"].isfinite().all()
    assert errors[True] < 0.8 * errors[False]


def test_aoa_game_starts_from_a_power_fix():
    scenario, state = fresh(**{**GAIN, "start": "stage-1"}, stage="aoa", num_aps=16, batch=20, site="clean")
    assert scenario.truth(state)["error_m"].median() < 2.0


# Front ends --------------------------------------------------------------------------------------------------------


def test_whole_covariances_take_neutral_rounds_nearer_than_spectra():
    def mean_square_m2(links):
        options = {"site": "clean", "num_aps": 36, "num_antennas": 8, "num_ues": 6, "split": "test"}
        scenario, state = fresh(batch=48, links=links, rng="counter", **options)
        return scenario.truth(play(scenario, state))["error_m"].square().mean().item()

    # The same 288 users; .66 on 1800 of them, and chance adds a deviation of .04.
    assert mean_square_m2("covariance") < 0.85 * mean_square_m2("dft")


def test_stated_noise_of_powers_widens_what_all_aps_share():
    scenario, state = fresh(links="likelihood", split="test")
    std_db = torch.linspace(0.1, 0.9, 9).view(1, 9, 1).expand(5, 9, 2)
    at = state.replace(power_std_db=std_db).at_consensus(scenario.config)
    mad_db = 1.48 * at.rss_db.abs().median(dim=1, keepdim=True).values
    mean_square = sum((0.1 * n) ** 2 for n in range(1, 10)) / 9
    expected = torch.sqrt(std_db**2 + (mad_db**2 - mean_square).clamp(min=0.0))
    torch.testing.assert_close(at.rss_scale_db, expected.clamp(min=0.1))
    assert (mad_db**2 > mean_square).any()


def test_a_front_end_corrects_powers_in_the_game_and_not_in_what_estimators_are_given():
    scenario, state = fresh(links="likelihood", split="test")
    plain = state.replace(correction_db=torch.zeros_like(state.bearing_rad))
    moved = state.at_consensus(scenario.config).rss_db - plain.at_consensus(scenario.config).rss_db
    torch.testing.assert_close(moved, state.correction_db, rtol=0, atol=1e-4)
    assert state.correction_db.abs().max() > 0.01
    assert torch.equal(scenario.measurements(state).rss_dbm, state.rss_dbm)


def test_an_array_without_a_network_is_refused_where_none_may_be_learned():
    with pytest.raises(ValueError, match="no link network for 4 antennas"):
        fresh(links="covariance", link_training=False)
