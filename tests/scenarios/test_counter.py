"""``rng=counter``: episodes follow from seed, split and number in every game; the compiled reset is that of torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from cfpos_envs import make_env
from cfpos_envs.draws import native
from cfpos_envs.scenarios.dcp.game import DcpScenario
from cfpos_envs.streams import EpisodeStreams, Streams

SMALL = {"num_aps": 6, "num_ues": 2}
DCP = {**SMALL, "num_antennas": 4}
GAMES: dict[str, tuple[str, dict[str, Any]]] = {
    "rss": ("dcp-rss-v0", DCP),
    "aoa": ("dcp-aoa-v0", {**DCP, "site": "hard"}),
    "jar": ("dcp-jar-v0", {**DCP, "site": "mixed"}),
    "moving": ("dcp-jar-v0", {**DCP, "speed_m_s": 3.0}),
    "few snapshots": ("dcp-jar-v0", {**DCP, "snapshots": 3}),
    "toa": ("toa-v0", SMALL),
    "tdoa": ("tdoa-v0", {**SMALL, "speed_m_s": 2.0}),
    "rtt": ("rtt-v0", {**SMALL, "measurement": "waveform"}),
    "hybrid": ("hybrid-v0", SMALL),
    "ris": ("ris-v0", {"preset": "small", "num_ues": 2, "phases": "random", "link_std_m": 0.1}),
    "ris-phase": ("ris-phase-v0", {"num_ues": 2}),
    "measured": ("measured-v0", {}),
    "ecc": ("ecc-urban-small-v0", {"num_ues": 2, "lost_bs": 1, "clock_offset_ns": 10.0}),
    "ecc-csi": ("ecc-csi-v0", {"num_ues": 2}),
}


def state(game: str, num_envs: int, resets: int = 1, seed: int = 3, **overrides: Any) -> dict[str, Tensor]:
    """Fields of the state after some resets."""
    env_id, options = GAMES[game]
    env = make_env(env_id, num_envs=num_envs, rng="counter", **{**options, **overrides})
    env.reset(seed=seed)
    for _ in range(resets - 1):
        env.reset()
    return {name: value for name, value in env.game_state.state_dict().items() if value is not None}


def close(one: Tensor, other: Tensor) -> bool:
    """Equal but for what torch rounds differently at the end of a row."""
    if not (one.is_floating_point() or one.is_complex()):
        return torch.equal(one, other)
    finite = one[torch.isfinite(one.abs())].abs()
    scale = float(finite.max()) if finite.numel() else 0.0
    return torch.allclose(one, other, rtol=1e-4, atol=1e-5 * scale, equal_nan=True)


@pytest.mark.parametrize("game", GAMES)
def test_an_episode_is_the_same_alone_and_in_a_batch(game: str) -> None:
    batch, alone = state(game, 4, resets=2), state(game, 1, resets=7)
    assert batch.keys() == alone.keys()
    wrong = [name for name in batch if not close(batch[name][2], alone[name][0])]
    assert wrong == []
    others = state(game, 1, resets=7, seed=4)
    assert any(not close(batch[name][2], others[name][0]) for name in batch)


@pytest.mark.parametrize("game", ["rss", "aoa", "jar"])
def test_a_compiled_episode_is_the_same_bit_for_bit(game: str) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        batch = state(game, 9)
        torch.set_num_threads(1)
        alone = state(game, 1, resets=6)
    finally:
        torch.set_num_threads(before)
    assert [name for name in batch if not torch.equal(batch[name][5], alone[name][0])] == []


VARIANTS: dict[str, dict[str, Any]] = {
    "jar": {},
    "hard": {"site": "hard"},
    "harsh": {"site": "harsh"},
    "drifting drops": {"site": "drifting", "drops": 3, "memory": "site"},
    "rss": {"stage": "rss", "start": "coarse"},
    "aoa": {"stage": "aoa", "start": "stage-1", "action": "gain", "reward": "local", "fusion": "line-search"},
    "centroid": {"start": "centroid"},
    "test": {"split": "test", "wrap": False},
    "moving": {"speed_m_s": 3.0, "site": "miscalibrated"},
    "odd": {"num_aps": 7, "num_ues": 3, "num_antennas": 3, "num_paths": 5, "snapshots": 3, "num_angles": 25},
    "apart": {"site": {"preset": "shadowed", "min_ue_distance_m": 12.0}},
    "known": {"shadowing_known": True},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_compiled_reset_is_that_of_torch(variant: str) -> None:
    options = VARIANTS[variant]
    compiled = state("jar", 5, **{"site": "shadowed", **options})
    plain = state("jar", 5, kernel="torch", **{"site": "shadowed", **options})
    assert compiled.keys() == plain.keys()
    for name, value in compiled.items():
        assert value.dtype == plain[name].dtype, name
        assert value.shape == plain[name].shape, name
        # A bearing is the place of a maximum, which is flat: rounding moves it.
        loose = {"rtol": 0.0, "atol": 0.02} if name == "bearing_rad" else {"rtol": 1e-4, "atol": 0.0}
        if value.is_floating_point() or value.is_complex():
            loose["atol"] = loose["atol"] or 1e-5 * float(plain[name].abs().max())
            assert torch.allclose(value, plain[name], **loose), name
        else:
            assert torch.equal(value, plain[name]), name


def test_without_a_compiler_the_numbers_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = state("toa", 3)
    monkeypatch.setattr(native, "draw", lambda *given: None)
    plain = state("toa", 3)
    assert [name for name in compiled if not torch.equal(compiled[name], plain[name])] == []


def test_episodes_are_distributed_as_those_of_streams() -> None:
    # 300 episodes each, one link of each; two samples by Kolmogorov and Smirnov, threshold 1e-5.
    drawn = {}
    for rng in ("stream", "counter"):
        env = make_env("dcp-jar-v0", num_envs=300, seed=5, rng=rng, **DCP, site="clean", num_sites=60)
        env.reset()
        drawn[rng] = env.game_state
    for name in ("true_position_m", "sequence_rss_dbm", "peak", "bearing_rad"):
        one, other = (getattr(drawn[rng], name).flatten(1)[:, 0].numpy() for rng in drawn)
        assert stats.ks_2samp(one, other).pvalue > 1e-5, name
    ratio = [
        torch.diagonal(found.sequence_covariance, dim1=-2, dim2=-1).real.std(dim=-1)
        / torch.diagonal(found.sequence_covariance, dim1=-2, dim2=-1).real.mean(dim=-1)
        for found in drawn.values()
    ]
    assert stats.ks_2samp(*(value.flatten().numpy() for value in ratio)).pvalue > 1e-5
    held_out = [1.0 - found.fused.float().mean() for found in drawn.values()]
    assert held_out[0] == held_out[1] > 0


def test_every_batch_covers_the_sites_and_neighbours_differ() -> None:
    found = state("rss", 32)
    assert sorted(found["site_ids"].tolist()) == sorted(list(range(16)) * 2)
    positions = found["true_position_m"].flatten(1)
    assert len(torch.unique(positions, dim=0)) == 32


def test_measured_epochs_come_all_before_one_comes_again() -> None:
    env = make_env("measured-v0", num_envs=7, rng="counter", num_ues=3)
    env.reset(seed=1)
    seen = []
    for _ in range(40):
        seen += env.game_state.true_position_m.flatten(0, 2).tolist()
        env.reset()
    count = len(env.scenario.rules.truth_m)
    places = sorted(env.scenario.rules.truth_m.tolist())
    assert sorted(seen[:count]) == places
    assert seen[:count] != seen[count : 2 * count]


def test_split_and_seed_are_part_of_the_key() -> None:
    train, test = state("rss", 2), state("rss", 2, split="test")
    assert not torch.equal(train["true_position_m"], test["true_position_m"])


def test_a_saved_environment_goes_on_with_the_next_episode() -> None:
    env = make_env("dcp-rss-v0", num_envs=3, seed=2, rng="counter", **DCP)
    env.reset()
    saved = env.state_dict()
    env.reset()
    other = make_env("dcp-rss-v0", num_envs=3, seed=9, rng="counter", **DCP)
    other.load_state_dict(saved)
    other.reset()
    assert torch.equal(env.game_state.true_position_m, other.game_state.true_position_m)


def test_streams_saved_before_there_were_counters_load() -> None:
    saved = Streams(4).state_dict()
    del saved["episode"]
    streams = Streams(0)
    streams.load_state_dict(saved)
    assert (streams.seed, streams.next_episode) == (4, 0)


def test_parts_of_episodes_are_told_apart() -> None:
    streams = Streams(6).episodes(2)
    parts = streams.parts(3)["noise"].words(4)
    assert len(torch.unique(parts, dim=0)) == 6
    assert torch.equal(streams.parts(3).of(slice(4, 6))["noise"].words(4), parts[4:])
    assert not torch.equal(streams["noise"].words(4)[0], parts[0])
    assert isinstance(streams.restarted(), EpisodeStreams)


def test_the_compiled_reset_serves_the_default_games() -> None:
    scenario = make_env("dcp-jar-v0", num_envs=1, rng="counter", **DCP).scenario
    assert isinstance(scenario, DcpScenario)
    assert (scenario._episode_kernel is None) == (scenario._drop_kernel is None)


@pytest.mark.parametrize("game", ["rss", "toa", "hybrid", "ris", "ris-phase", "measured", "ecc", "ecc-csi"])
def test_an_unknown_generator_is_refused(game: str) -> None:
    env_id, options = GAMES[game]
    with pytest.raises(ValueError, match=r"rng.*stream.*counter"):
        make_env(env_id, **options, rng="mersenne")
