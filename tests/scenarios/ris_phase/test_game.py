"""The surfaces' game: beams by hand, what is told and believed, rewards, and that it can be learned."""

from __future__ import annotations

import math

import pytest
import torch

from baselines import make_policy
from cfpos_envs import evaluate, make_env, make_scenario
from cfpos_envs.physics.ris.geometry import azimuth_elevation
from cfpos_envs.physics.ris.phases import array_gain, cascade, chirp_profile
from cfpos_envs.scenarios.ris_phase.beams import beam_phases, chirp_phases, relative_gain, to_db
from cfpos_envs.scenarios.ris_phase.fusion import belief_moments, encode_profiles, updated_belief
from cfpos_envs.streams import Streams

RAW = {"action": "raw", "rounds": 1, "feedback": "none"}


def fresh(batch=6, **options):
    scenario = make_scenario("ris-phase-v0", **options)
    return scenario, scenario.reset(Streams(3), batch)


def idle(scenario, batch=6):
    return torch.zeros(batch, len(scenario.agents), scenario.action_size)


# Beams -------------------------------------------------------------------------------------------------------------


def test_a_pencil_beam_has_full_gain_where_it_points_and_the_array_factor_beside_it():
    middle = torch.tensor([[0.3, -0.2]])
    low, high = middle - 0.1, middle + 0.1
    phases = beam_phases(low, high, torch.tensor([[0.0, 0.0, -1.0, -1.0]]), (8, 6))
    off = torch.tensor([0.05, 0.0])
    gain = relative_gain(phases, torch.stack((middle[0], middle[0] + off)).unsqueeze(0))[0]
    half = math.pi * 0.05 / 2
    expected = (math.sin(8 * half) / (8 * math.sin(half))) ** 2
    assert gain.tolist() == pytest.approx([1.0, expected], abs=1e-5)
    # Directions count in half-widths of the sector.
    aside = beam_phases(low, high, torch.tensor([[0.5, 0.0, -1.0, -1.0]]), (8, 6))
    assert relative_gain(aside, (middle + off).unsqueeze(0)).item() == pytest.approx(1.0, abs=1e-5)


def test_action_0_is_the_chirp_of_the_physics():
    scenario, state = fresh(batch=2)
    played = scenario.step(state, idle(scenario, 2)).state.phases
    for b in range(2):
        for r in range(2):
            arriving = ((float(state.incoming[b, r, 0]), float(state.incoming[b, r, 1])),)
            where = float(state.azimuth_rad[b, r]), float(state.elevation_rad[b, r])
            design = chirp_profile((16, 16), arriving, *where, math.radians(10.0))
            turn = torch.polar(torch.ones(16, 16), -played[b, r]).flatten() * design.to(torch.complex64)
            # The edges of the sector come from two grids; whatever turns all elements alike is no difference.
            assert (turn.mean().abs()).item() > 0.99


def test_gain_is_that_of_the_physics():
    _, state = fresh(batch=3, **RAW)
    phases = torch.rand(3, 2, 16, 16, generator=torch.Generator().manual_seed(1)) * 6
    ours = relative_gain(phases, state.turned)
    profile = torch.polar(torch.ones_like(phases), phases).flatten(2).to(torch.complex128)
    outgoing = state.turned[:, :, 0].double() + state.incoming
    theirs = array_gain(profile, outgoing, state.incoming, (16, 16)).abs().square() / 256**2
    assert torch.allclose(ours[..., 0].double(), theirs, rtol=1e-3, atol=1e-6)


def test_raw_actions_reach_any_profile():
    scenario, state = fresh(batch=2, **RAW)
    best = cascade(state.turned[:, :, 0], torch.zeros(2, 2, 2), (16, 16)).angle().unflatten(-1, (16, 16))
    taken = scenario.step(state, encode_profiles(state, best))
    assert scenario.truth(taken.state)["beam_gain_db"].abs().max().item() < 0.01


# Users -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sector_deg", [5.0, 20.0])
def test_directions_of_the_first_user_are_uniform_in_every_sector(sector_deg):
    _, state = fresh(batch=2000, sector_deg=sector_deg)
    seen = torch.nn.functional.normalize(state.true_position_m - state.ris_m, dim=-1)
    for told, middle in zip(azimuth_elevation(seen), (state.azimuth_rad, state.elevation_rad)):
        share = torch.rad2deg(told - middle) / sector_deg
        assert share.abs().max() <= 1 + 1e-9
        # Mean and second moment of a uniform distribution, five standard errors.
        assert share.mean(dim=0).abs().max().item() < 5 / math.sqrt(3 * 2000)
        assert (share.square().mean(dim=0) - 1 / 3).abs().max().item() < 5 * 0.3 / math.sqrt(2000)
        # Nothing that is known tells the offset.
        known = torch.cat((state.azimuth_rad, state.elevation_rad), dim=1)
        for column in known.unbind(dim=1):
            correlation = torch.corrcoef(torch.stack((share[:, 0], column)))[0, 1]
            assert abs(correlation.item()) < 5 / math.sqrt(2000)
    assert state.valid.float().mean().item() > 0.99


def test_further_users_lie_in_all_sectors():
    _, state = fresh(batch=50, num_ues=3)
    seen = torch.nn.functional.normalize(state.true_position_m.unsqueeze(2) - state.ris_m.unsqueeze(1), dim=-1)
    azimuth, elevation = azimuth_elevation(seen)
    for told, middle in ((azimuth, state.azimuth_rad), (elevation, state.elevation_rad)):
        assert (told - middle.unsqueeze(1)).abs().max().item() <= math.radians(10.0) + 1e-9
    assert not torch.equal(state.true_position_m[:, 0], state.true_position_m[:, 1])


# What is told, rewards ---------------------------------------------------------------------------------------------


def test_told_energies_are_the_gains_but_for_little_noise():
    scenario, state = fresh(batch=50)
    taken = scenario.step(state, idle(scenario, 50))
    gain = scenario.truth(taken.state)["beam_gain_db"]
    told = taken.state.reported_db[:, 0]
    # At -10 dB the path is 30 dB above what the matched filter leaves of the noise.
    assert (told - gain)[gain > -10].abs().max().item() < 1.0
    assert torch.equal(taken.state.reported_db[:, 1:], torch.zeros_like(taken.state.reported_db[:, 1:]))
    assert torch.allclose(taken.reward, told.mean(dim=-1) / 10)


def test_belief_by_hand():
    # Three directions, of which the beam lights the second: 0 dB there and -20 dB elsewhere, told 0 dB.
    pattern = torch.tensor([-20.0, 0.0, -20.0]).view(1, 1, 3)
    belief = updated_belief(torch.zeros(1, 1, 1, 3), torch.zeros(1, 1, 1), pattern, 10.0)
    assert belief.flatten().tolist() == pytest.approx([-2.0, 0.0, -2.0])
    directions = torch.tensor([[-1.0, 0.0], [0.0, 0.5], [1.0, 1.0]]).view(1, 1, 3, 2)
    mean, std = belief_moments(belief, directions)
    side = math.exp(-2.0) / (1 + 2 * math.exp(-2.0))
    assert mean.flatten().tolist() == pytest.approx([0.0, 0.5], abs=1e-6)
    assert std.flatten().tolist() == pytest.approx([math.sqrt(2 * side), math.sqrt(side / 2)], abs=1e-5)


def test_believing_narrow_beams_finds_the_user():
    scenario, state = fresh(batch=100, rounds=9)
    start = state
    for index in range(9):
        aim = torch.tensor([index % 3 - 1.0, index // 3 - 1.0, -0.7, -0.7]).expand(100, 2, 4)
        state = scenario.step(state, 0.7 * aim).state
    seen, rows = scenario.observe(state), scenario.observation_rows
    parts = dict(zip([row.name for row in rows], seen.split([row.size for row in rows], dim=-1)))
    belief = parts["belief"]
    assert scenario.observe(start).shape == seen.shape
    middle, half = (state.low + state.high) / 2, (state.high - state.low) / 2
    true = (state.turned[:, :, 0] - middle) / half
    error = (belief[..., :2] - true).norm(dim=-1)
    assert error.median().item() < 0.3
    assert error.median().item() < 0.5 * true.norm(dim=-1).median().item()


def test_bound_reward_is_minus_the_log_of_the_bound_and_errors_have_its_size():
    scenario, state = fresh(batch=400, reward="bound")
    taken = scenario.step(state, idle(scenario, 400))
    truth = scenario.truth(taken.state)
    expected = -truth["peb_m"].log().mean(dim=-1, keepdim=True).expand(-1, 2)
    assert torch.allclose(taken.reward, expected, atol=1e-4)
    ratio = (truth["error_m"].square().mean() / truth["peb_m"].square().mean()).sqrt().item()
    # 1200 squared normal numbers of three unequal variances: a standard deviation of 5 % at most.
    assert ratio == pytest.approx(1.0, abs=0.25)
    error = make_scenario("ris-phase-v0", reward="error").step(state, idle(scenario, 400)).reward[:, 0]
    assert torch.allclose(error, -(truth["error_m"][:, 0] + 1e-3).log(), atol=1e-3)


def test_pencil_beams_at_the_user_give_the_best_bound():
    scenario, state = fresh(batch=50)
    pointed = scenario.step(state, scenario.encode_estimate(state, state.true_position_m)).state
    spread = scenario.step(state, idle(scenario, 50)).state
    best, chirp = (scenario.truth(s) for s in (pointed, spread))
    assert best["beam_gain_db"].min().item() > -0.1
    assert (best["peb_m"] < chirp["peb_m"]).float().mean().item() > 0.95


@pytest.mark.parametrize(("reward", "action"), [("energy", "beam"), ("bound", "beam"), ("error", "raw")])
def test_objective_has_the_slope_of_its_differences(reward, action):
    scenario, state = fresh(batch=3, reward=reward, action=action, ris_shape=[4, 4])
    generator = torch.Generator().manual_seed(2)
    actions = (0.4 * torch.rand(3, 2, scenario.action_size, generator=generator)).requires_grad_()
    (slope,) = torch.autograd.grad(scenario.step(state, actions).metrics["objective"].sum(), actions)
    step = 2e-2
    for entry in range(min(scenario.action_size, 4)):
        nudge = torch.zeros_like(slope)
        nudge[0, 0, entry] = step
        up, down = (scenario.step(state, actions.detach() + s * nudge).metrics["objective"].sum() for s in (1, -1))
        assert slope[0, 0, entry].item() == pytest.approx((up - down).item() / (2 * step), abs=2e-2, rel=5e-2)


def test_feedback_decides_what_is_seen():
    sizes = {feedback: fresh(feedback=feedback)[0].observation_size for feedback in ("none", "energy", "position")}
    assert sizes == {"none": 5, "energy": 19, "position": 21}
    scenario, state = fresh(feedback="position", batch=20)
    state = scenario.step(state, idle(scenario, 20)).state
    found = scenario.observe(state)[..., -2:]
    middle, half = (state.low + state.high) / 2, (state.high - state.low) / 2
    assert ((found - (state.turned[:, :, 0] - middle) / half).abs().median()).item() < 0.02


def test_games_whose_actions_mean_something_else_have_another_signature():
    def signature(**options):
        return make_scenario("ris-phase-v0", **options).signature()

    assert signature() == signature(snr_db=20.0, reward="bound")
    for options in ({"sector_deg": 5.0}, {"feedback": "position"}, {"action": "raw"}, {"report_db": 3.0}):
        assert signature(**options) != signature(), options


# Designs, learning -------------------------------------------------------------------------------------------------


def test_designs_by_their_known_figures():
    """Narrow sector: the singular vector is near the chirp; wide: it is one beam, and most users are beside it."""
    gains = {}
    for sector_deg in (5.0, 10.0):
        env = make_env("ris-phase-v0", num_envs=15, seed=7, sector_deg=sector_deg, **RAW)
        for name in ("ris-svd", "ris-chirp", "ris-random-phases"):
            env.step(make_policy(name, env).act_batch(env.reset(seed=7)))
            gains[name, sector_deg] = env.truth()["beam_gain_db"].flatten()
    five = {key: gain.quantile(0.05).item() for key, gain in gains.items()}
    assert gains["ris-svd", 5.0].mean() > gains["ris-chirp", 5.0].mean()
    assert five["ris-svd", 10.0] < five["ris-chirp", 10.0] - 10
    # Random phases: |rho|^2 is exponential with mean N_R.
    both = torch.cat([gains["ris-random-phases", sector_deg] for sector_deg in (5.0, 10.0)])
    power = 10 ** (both / 10) - 1e-4
    assert power.mean().item() == pytest.approx(1 / 256, rel=0.45)


def test_designs_say_what_they_need():
    env = make_env("ris-phase-v0", seed=0)
    observations, _ = env.reset()
    with pytest.raises(ValueError, match="make the environment with action='raw'"):
        make_policy("ris-svd", env).act(observations)
    chirp = make_policy("ris-chirp", env).act(observations)
    assert all((value == 0).all() for value in chirp.values())
    assert evaluate(env, make_policy("ris-chirp", env), episodes=3).errors.shape == (3, 1)


def test_the_game_can_be_learned():
    """Raw phases that nobody tells anything soon have a better 5 % quantile than the chirp they start from."""
    from agents import make_agent

    options = {**RAW, "ris_shape": [10, 10], "sector_deg": 15.0}
    env = make_env("ris-phase-v0", num_envs=64, seed=0, **options)
    settings = {"critic": "model", "lr_actor": 3e-3, "saturation_penalty": 0.0, "threads": 1, "evaluations": 0}
    agent = make_agent("maddpg", env, seed=0, **settings)
    agent.train(total_steps=6400, log_dir=None, progress=False)
    test = make_env("ris-phase-v0", num_envs=300, seed=9, split="test", **options)
    five = {}
    for name, policy in (("chirp", make_policy("ris-chirp", test)), ("agent", agent)):
        test.step(policy.act_batch(test.reset(seed=9)))
        gain = test.truth()["beam_gain_db"]
        five[name] = gain.flatten().quantile(0.05).item()
    assert five["agent"] > five["chirp"] + 0.5


def test_chirp_phases_are_sums_of_local_cosines():
    phases = chirp_phases(torch.tensor([-0.2, 0.1]), torch.tensor([0.2, 0.1]), (4, 3))
    steps = phases.diff(dim=0)[:, 0] / math.pi
    assert steps.tolist() == pytest.approx([-0.2, 0.0, 0.2], abs=1e-6)
    assert (phases.diff(dim=1) / math.pi).flatten().tolist() == pytest.approx([0.1] * 8, abs=1e-6)
    assert to_db(torch.tensor([1.0, 0.0])).tolist() == pytest.approx([4.3e-4, -40.0], abs=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sector_deg": 45.0}, "sector_deg=45.0 must be at most 30"),
        ({"feedback": "energies"}, "did you mean energy"),
        ({"action": "phase"}, "action='phase' is not one of"),
        ({"ris_shape": [1, 8]}, "has no beams"),
        ({"ue_position_m": [0.25] * 3}, r"is behind the UE's array.* \(ue_position_m, ris_positions_m, euler_deg\)"),
        ({"num_ris": 3}, "ris_positions_m has only 2 points"),
    ],
)
def test_options_are_refused_in_one_line(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        make_env("ris-phase-v0", **options)
    assert "\n" not in str(caught.value)
