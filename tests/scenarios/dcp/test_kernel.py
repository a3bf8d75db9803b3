"""The compiled kernel of the DCP games: the numbers of torch, who is served, and what happens without a compiler."""

import copy
import pickle

import pytest
import torch

from cfpos_envs import make_env
from cfpos_envs.native import build
from cfpos_envs.scenarios.dcp import kernel
from cfpos_envs.scenarios.dcp.config import DcpConfig
from cfpos_envs.scenarios.dcp.game import DcpScenario
from cfpos_envs.scenarios.dcp.observe import feature_table
from cfpos_envs.streams import Streams

SMALL = {"num_aps": 9, "num_ues": 3, "num_antennas": 4, "num_sites": 2}
GAIN = {"action": "gain", "reward": "local", "similarity": "log", "fusion": "line-search", "start": "centroid"}

GAMES = {
    "rss": {**GAIN, "stage": "rss"},
    "aoa": {**GAIN, "stage": "aoa", "start": "coarse"},
    "joint, local log": {**GAIN, "stage": "joint"},
    "joint, local robust": {**GAIN, "stage": "joint", "similarity": "robust"},
    "joint, local cauchy, mean": {**GAIN, "similarity": "cauchy", "fusion": "mean"},
    "gain, held out shared": {**GAIN, "reward": "held-out-shared"},
    "gain, information, counterfactual": {
        **GAIN,
        "reward": "held-out",
        "fusion": "information",
        "similarity": "robust",
    },
    "jar": {},
    "jar, cauchy, counterfactual": {"similarity": "cauchy", "reward": "counterfactual"},
    "jar, log, shared": {"similarity": "log", "reward": "shared"},
    "jar, corrections, miscalibrated": {"action": "confidence-correction", "site": "miscalibrated"},
    "jar, several drops": {
        "drops": 2,
        "rounds": 2,
        "memory": "site",
        "action": "confidence-correction",
        "site": "harsh",
    },
    "jar, moving users": {"speed_m_s": 20.0, "round_s": 1.0},
    "jar, no torus, much noise": {"wrap": False, "snr_db": 0.0, "num_ues": 4},
    "jar, links from covariances": {"links": "covariance", "num_antennas": 8},
    "joint, local robust, links by likelihood": {**GAIN, "similarity": "robust", "links": "likelihood"},
    "jar, nobody left out": {"split": "test", "num_ues": 1},
    "chained": {"stage": "chained"},
    "chained, gain": {**GAIN, "stage": "chained", "similarity": "robust"},
    "whole vectors of APs": {**GAIN, "num_aps": 16},
    "many APs": {"num_aps": 70, "num_ues": 2},
}


def needs_kernel():
    try:
        build.library()
    except build.KernelUnavailableError as error:
        pytest.skip(f"nothing to compare with torch: {error}")


def both(**options):
    """The game as torch and as the kernel play it, and a state of it."""
    needs_kernel()
    torch_game, native_game = (DcpScenario(DcpConfig(**SMALL | options, kernel=name)) for name in ("torch", "native"))
    return torch_game, native_game, torch_game.reset(Streams(1, torch_game.config.split), 4)


def random_actions(scenario, batch, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return 2.4 * torch.rand(batch, scenario.num_aps, scenario.action_size, generator=generator) - 1.2


@pytest.mark.parametrize("options", GAMES.values(), ids=GAMES)
def test_the_kernel_gives_the_numbers_of_torch(options):
    expected, ours, state = both(**options)
    actions = random_actions(expected, 4)
    for _ in range(expected.rounds):
        torch.testing.assert_close(ours.observe(state), expected.observe(state), rtol=0, atol=3e-4)
        theirs, mine = expected.step(state, actions), ours.step(state, actions)
        torch.testing.assert_close(mine.state.consensus_m, theirs.state.consensus_m, rtol=0, atol=1e-3)
        torch.testing.assert_close(mine.state.spread_m, theirs.state.spread_m, rtol=1e-4, atol=1e-4)
        # A credit is M times the difference of two nearly equal points.
        torch.testing.assert_close(mine.reward, theirs.reward, rtol=1e-3, atol=3e-3)
        assert mine.metrics.keys() == theirs.metrics.keys()
        for name, value in theirs.metrics.items():
            torch.testing.assert_close(
                mine.metrics[name], value, rtol=1e-3, atol=3e-3, msg=lambda m, n=name: f"{n}: {m}"
            )
        assert torch.equal(mine.state.round, theirs.state.round)
        assert torch.equal(mine.truncated, theirs.truncated)
        state = theirs.state


@pytest.mark.parametrize("options", [{**GAIN, "stage": "chained"}, {"stage": "chained"}], ids=["gain", "confidence"])
def test_the_kernel_writes_the_rows_of_the_feature_table_in_its_order(options):
    expected, ours, state = both(**options, num_ues=5)
    state = expected.step(state, random_actions(expected, 4)).state
    mine, theirs = (game.observe(state).unflatten(2, (5, -1)).flatten(0, 2) for game in (ours, expected))
    rows = feature_table(expected.config)
    assert mine.shape[1] == len(rows)
    gap = (mine.unsqueeze(2) - theirs.unsqueeze(1)).abs().amax(dim=0)  # [kernel's column, table's row]
    for column, row in enumerate(rows):
        matching = [rows[i].name for i in range(len(rows)) if gap[column, i] < 1e-3]
        assert matching == [row.name]


DROPS = {
    "joint": {},
    "centroid": {**GAIN, "stage": "rss"},
    "bearings alone": {"stage": "aoa", "reward": "shared", "action": "gain", "similarity": "log"},
    "moving users": {"speed_m_s": 20.0, "round_s": 1.0},
    "many antennas, odd grid": {"num_antennas": 9, "coarse_spacing_m": 7.0, "num_angles": 64},
    "fewer snapshots than antennas": {"snapshots": 3},
    "polar actions": {"action": "polar", "fusion": "mean", "reward": "shared", "kernel": "auto"},
}


@pytest.mark.parametrize("options", DROPS.values(), ids=DROPS)
def test_episodes_begin_with_the_numbers_of_torch(options):
    needs_kernel()
    theirs, mine = (
        DcpScenario(DcpConfig(**SMALL | {"kernel": name} | options | extra)).reset(Streams(3, "train"), 5)
        for name, extra in (("torch", {"kernel": "torch"}), ("native", {}))
    )
    trace = torch.diagonal(theirs.sequence_covariance, dim1=-2, dim2=-1).real.sum(dim=-1)[..., None, None]
    difference = (mine.sequence_covariance - theirs.sequence_covariance) / trace
    assert difference.abs().max() < 2e-6
    torch.testing.assert_close(mine.sequence_rss_dbm, theirs.sequence_rss_dbm, rtol=0, atol=1e-4)
    torch.testing.assert_close(mine.peak, theirs.peak, rtol=0, atol=1e-5)
    # Where the profile is flat its maximum is not sharp.
    torch.testing.assert_close(mine.bearing_rad, theirs.bearing_rad, rtol=0, atol=2e-2)
    torch.testing.assert_close(mine.start_m, theirs.start_m, rtol=0, atol=1e-2)
    share = theirs.angular_power / theirs.angular_power.sum(dim=-1, keepdim=True)
    torch.testing.assert_close(
        mine.angular_power / theirs.angular_power.sum(-1, keepdim=True), share, rtol=0, atol=1e-5
    )


def test_a_neutral_access_point_earns_exactly_nothing():
    _, ours, state = both()
    actions = random_actions(ours, 4).clamp(-1, 1)
    actions[:, 3] = 0.0
    assert torch.equal(ours.step(state, actions).reward[:, 3], torch.zeros(4))


def test_an_episode_does_not_depend_on_those_beside_it():
    _, ours, state = both()
    actions = random_actions(ours, 4)
    alone = ours.step(state.select(slice(2, 3)), actions[2:3])
    assert torch.equal(alone.reward, ours.step(state, actions).reward[2:3])
    assert torch.equal(ours.observe(state.select(slice(2, 3))), ours.observe(state)[2:3])


def test_threads_share_the_episodes():
    needs_kernel()
    game = DcpScenario(DcpConfig(**SMALL, kernel="native"))
    state = game.reset(Streams(0), 2000)
    actions = random_actions(game, 2000)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = game.observe(state), game.step(state, actions).reward
        torch.set_num_threads(3)
        three = game.observe(state), game.step(state, actions).reward
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(one, three, strict=True))


def test_gradients_go_through_torch():
    _, ours, state = both()
    actions = random_actions(ours, 4).requires_grad_()
    objective = ours.step(state, actions).metrics["objective"]
    (gradient,) = torch.autograd.grad(objective.sum(), actions)
    assert gradient.abs().sum() > 0
    with torch.no_grad():
        assert kernel.takes(state, actions)
    assert not kernel.takes(state.replace(consensus_m=state.consensus_m.double()))


def test_games_travel_between_processes():
    _, ours, state = both()
    actions = random_actions(ours, 4)
    expected = ours.step(state, actions).reward
    for travelled in (pickle.loads(pickle.dumps(ours)), copy.deepcopy(ours)):  # noqa: S301  our own bytes
        assert torch.equal(travelled.step(state, actions).reward, expected)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"shadowing_known": True}, "shadowing_known=True"),
        ({"action": "polar"}, "action='polar'"),
        ({**GAIN, "similarity": "paper"}, "similarity='paper'"),
        ({**GAIN, "reward": "counterfactual"}, "needs fusion='information'"),
    ],
)
def test_other_games_are_left_to_torch(options, reason):
    assert DcpScenario(DcpConfig(**SMALL | options))._kernel is None
    with pytest.raises(ValueError, match=f"kernel='native' is unavailable: .*{reason}"):
        DcpScenario(DcpConfig(**SMALL | options, kernel="native")).reset(Streams(0), 1)


@pytest.fixture
def no_compiler(monkeypatch, tmp_path):
    """A process that has not built anything yet, in which no compiler is found."""
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("CFPOS_CACHE", str(tmp_path))
    for kept in (build._found, kernel._warn_once):
        kept.cache_clear()
    yield
    for kept in (build._found, kernel._warn_once):
        kept.cache_clear()


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_torch_goes_on_and_says_so_once(recwarn):
    for _ in range(2):
        env = make_env("dcp-rss-v0", num_envs=2, seed=0, **SMALL)
        env.reset()
        env.step(torch.zeros(2, 9, env.action_size))
    messages = [str(warning.message) for warning in recwarn]
    assert sum("no C++ compiler named no-such-compiler" in message for message in messages) == 1
    with pytest.raises(ValueError, match="install one or set CXX to its name"):
        make_env("dcp-rss-v0", num_envs=2, kernel="native", **SMALL).reset()


def test_a_compiler_that_fails_is_reported_in_one_line(monkeypatch, tmp_path):
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\necho 'kernel.cpp:1: error: bad luck' >&2\nexit 1\n")
    compiler.chmod(0o700)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("CFPOS_CACHE", str(tmp_path / "cache"))
    with pytest.raises(build.KernelUnavailableError, match=r"c\+\+ fails: kernel.cpp:1: error: bad luck"):
        raise build._found.__wrapped__()
    assert list((tmp_path / "cache").iterdir()) == []
    assert (tmp_path / "cache").stat().st_mode & 0o077 == 0


def test_a_library_is_kept_per_source_and_compiler(monkeypatch):
    compiler = build._compiler()
    key = build._key(compiler, build._ENVIRONMENTS)
    assert key == build._key(compiler, build._ENVIRONMENTS)
    assert key != build._key(compiler, build._ENVIRONMENTS[:1])
    monkeypatch.setattr(build, "_FLAGS", (*build._FLAGS, "-DOTHER"))
    assert key != build._key(compiler, build._ENVIRONMENTS)


def test_the_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("CFPOS_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert build.cache_folder() == tmp_path / "cfpos"
    monkeypatch.setattr(build.os, "getuid", lambda: -1)
    with pytest.raises(OSError, match="belongs to another user"):
        build.cache_folder()


def test_two_antennas_leave_it_to_rounding_which_side_is_heard():
    """Two peaks of a spectrum may be equally high, and then are each other's mirror image: where agreement ends."""
    bearings = []
    for name in ("torch", "native"):
        options = {"num_aps": 2, "num_antennas": 2, "num_ues": 3, "num_sites": 2}
        env = make_env("dcp-rss-v0", num_envs=64, seed=5, kernel=name, **options)
        env.reset()
        bearings.append(env.game_state.bearing_rad.flatten())
    one, other = bearings
    torch.testing.assert_close(one.cos().abs(), other.cos().abs(), rtol=0, atol=0.02)
    mirrored = (one - other).abs() > 0.1
    torch.testing.assert_close(one[mirrored], torch.pi - other[mirrored], rtol=0, atol=0.02)
    assert 0 < mirrored.float().mean() < 0.2
