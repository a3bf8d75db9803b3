"""The agents ``ecc`` and ``ecc-fast``: training, acting by way of bits, checkpoints, bad input."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents import load_agent, make_agent
from agents.base import Plan
from agents.ecc.agent import Ecc
from agents.ecc.training import Training
from agents.ecc.weights import list_weights, weights
from cfpos_envs import evaluate, make_env
from cfpos_envs.checkpoints import BEST, LAST, read_checkpoint, write_checkpoint
from cfpos_envs.coverage import of_evaluation
from cfpos_envs.measurements.base import Reason
from cfpos_envs.scenarios.ecc.pool import draw_snapshots
from cfpos_envs.supervised.bitstream import BitstreamError, messages_from_bytes
from scripts.reports import episode_frame
from tests.baselines.ecc.synthetic import silenced

ENV_ID = "ecc-urban-small-v0"
# Two slots instead of ten: the same game at a fifth of the cost.
SCENE: dict[str, Any] = {"num_slots": 2}
FAST: dict[str, Any] = {"pool": 4000, "validation": 500, "samples": 25_600, "encoder_hidden": 128, "fusion_hidden": 256}
TINY: dict[str, Any] = {
    "pool": 200, "validation": 50, "samples": 640, "local_samples": 640, "batch_size": 32, "evaluations": 2,
    "checkpoint_every": 6, "channels": (4,), "fusion_size": 8, "fusion_hidden": 8, "heads": 2, "encoder_hidden": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, dict[str, float]]:
    folder = tmp_path_factory.mktemp("run")
    env = make_env(ENV_ID, num_envs=4, seed=0, **SCENE)
    agent = make_agent("ecc-fast", env, threads=1, evaluations=1, lr=3e-3, **FAST)
    found = agent.train(log_dir=folder, progress=False)
    return agent, folder, found


def test_it_learns_where_users_are(trained: tuple[Any, Path, dict[str, float]]) -> None:
    """A predictor that knows nothing errs by 24 m; one whose base stations send nothing of use cannot come below 8."""
    agent, _, found = trained
    result = evaluate(ENV_ID, agent, episodes=200, **SCENE)
    assert result.mean < 4.0
    assert abs(result.mean - found["mean_m"]) < 1.0
    assert result.fronthaul_bits == 1 + 8 + 24 * 4 * 4
    assert bool(result.valid_share == 1)


def test_it_acts_on_observations_as_it_locates(trained: tuple[Any, Path, dict[str, float]]) -> None:
    agent, folder, _ = trained
    venv = make_env(ENV_ID, num_envs=5, seed=3, num_ues=2, **SCENE)
    observations = venv.reset()
    player = load_agent(folder, venv)
    actions = player.act_batch(observations)
    located = player.locate(venv.measurements)
    assert located.position.shape == (5, 2, 3)
    torch.testing.assert_close(actions, venv.encode_estimate(located.position))
    single = make_env(ENV_ID, seed=3, **SCENE)
    shown, _ = single.reset(seed=4)
    chosen = load_agent(folder, single).act(shown)
    wanted = single.encode_estimate(agent.locate(single.measurements).position[0].numpy())
    assert set(chosen) == set(single.agents)
    for name in chosen:
        np.testing.assert_allclose(chosen[name], wanted[name], atol=1e-5)
    other = make_env(ENV_ID, num_envs=5, seed=3, features="cov", **SCENE)
    shown_other = other.reset()
    looking = load_agent(folder, other)
    torch.testing.assert_close(
        looking.act_batch(shown_other), other.encode_estimate(looking.locate(other.measurements).position)
    )


def test_only_bits_cross_the_fronthaul(trained: tuple[Any, Path, dict[str, float]]) -> None:
    agent, _, _ = trained
    venv = make_env(ENV_ID, num_envs=3, seed=5, **SCENE)
    venv.reset()
    messages = agent.encode(venv.measurements)
    wire = messages.to_bytes()
    assert {len(message) for message in wire if message is not None} == {-(-393 // 8)}
    heard = messages_from_bytes(agent.network.layout, wire[:6], 6)
    position = agent.locate(venv.measurements).position[:, 0]
    torch.testing.assert_close(agent.decode(heard), position[:1])
    assert agent.fronthaul_bits == 393
    with pytest.raises(BitstreamError, match="truncated"):
        agent.decode(messages_from_bytes(agent.network.layout, [wire[0][:-1], *wire[1:6]], 6))  # type: ignore[index]
    with pytest.raises(BitstreamError, match="7 messages for 6"):
        messages_from_bytes(agent.network.layout, wire[:7], 6)
    lost = dataclasses.replace(heard, received=torch.tensor([[True] * 5 + [False]]))
    assert float((agent.decode(lost) - position[:1]).norm()) < 60


def test_bad_csi_is_masked_and_other_networks_are_refused(trained: tuple[Any, Path, dict[str, float]]) -> None:
    agent, _, _ = trained
    venv = make_env(ENV_ID, num_envs=2, seed=6, **SCENE)
    venv.reset()
    good = venv.measurements
    csi = good.csi.clone()
    csi[0, 0, 2, 0, 0, 0] = torch.nan
    csi[0, 0, 4] = 0
    silent = torch.zeros(2, 1, 6, dtype=torch.bool)
    silent[0, 0, [2, 4]] = True
    broken = agent.locate(dataclasses.replace(good, csi=csi))
    torch.testing.assert_close(broken.position, agent.locate(silenced(good, silent)).position)
    nothing = agent.locate(silenced(good, torch.ones(2, 1, 6, dtype=torch.bool)))
    assert not bool(nothing.valid.any())
    assert bool(torch.isfinite(nothing.position).all())
    fewer = make_env(ENV_ID, num_envs=2, seed=6, num_bs=5, **SCENE)
    fewer.reset()
    with pytest.raises(ValueError, match="num_bs=5, the network was made for 6"):
        agent.locate(fewer.measurements)
    with pytest.raises(ValueError, match="needs CsiMeasurements"):
        agent.locate(object())
    with pytest.raises(ValueError, match="measures CSI"):
        make_agent("ecc-fast", "dcp-jar-v0")
    with pytest.raises(ValueError, match="fronthaul_bits_max"):
        evaluate(ENV_ID, agent, episodes=2, fronthaul_bits_max=392, **SCENE)


def test_a_policy_comes_back_from_its_file_and_only_where_it_fits(
    trained: tuple[Any, Path, dict[str, float]], tmp_path: Path
) -> None:
    agent, folder, _ = trained
    agent.save(tmp_path / "policy.pt")
    venv = make_env(ENV_ID, num_envs=3, seed=7, **SCENE)
    venv.reset()
    for path in (tmp_path / "policy.pt", folder):
        again = load_agent(path, venv)
        assert torch.equal(again.locate(venv.measurements).position, agent.locate(venv.measurements).position)
    with pytest.raises(ValueError, match="trained with num_slots=2"):
        load_agent(folder, ENV_ID)
    with pytest.raises(ValueError, match="of the agent ecc-fast, not ecc"):
        Ecc.load(folder, venv)
    with pytest.raises(ValueError, match="already holds a run"):
        make_agent("ecc-fast", venv, **FAST).train(log_dir=folder)
    with pytest.raises(ValueError, match="finished"):
        make_agent("ecc-fast", venv, threads=1, evaluations=1, lr=3e-3, **FAST).train(resume=folder)


def test_both_stages_leave_pictures_and_go_on_where_they_stopped(tmp_path: Path) -> None:
    env = make_env(ENV_ID, num_envs=2, seed=0, **SCENE)

    def fresh() -> Any:
        return make_agent("ecc", env, **TINY)

    whole = fresh()
    whole.train(log_dir=tmp_path / "whole", progress=False)
    seen: list[int] = []

    def interrupt(step: int) -> None:
        seen.append(step)
        if len(seen) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fresh().train(log_dir=tmp_path / "parts", progress=False, callback=interrupt)
    run = read_checkpoint(tmp_path / "parts", LAST)["run"]
    assert run["stage"] == "joint"
    assert 0 < run["fit"]["step"] < 20
    rest = fresh()
    rest.train(resume=tmp_path / "parts", progress=False)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, rest.network.state_dict()[name]), name
    with pytest.raises(ValueError, match=r"started with lr=0\.001"):
        make_agent("ecc", env, lr=0.01, **TINY).train(resume=tmp_path / "parts")
    written = list((tmp_path / "whole").glob("events.out.tfevents*"))
    text = b"".join(path.read_bytes() for path in written)
    for tag in (b"local/phase", b"local/adcpm", b"local/loss", b"validation/cdf", b"validation/mean_m", b"train/loss"):
        assert tag in text
    assert (tmp_path / "whole" / BEST).is_file()
    moved = [name for name, value in fresh().network.encoder.state_dict().items()
             if not torch.equal(value, whole.network.encoder.state_dict()[name])]  # fmt: skip
    assert moved


def test_an_agent_that_looks_at_measurements_can_be_pictured_in_another_environment() -> None:
    """Its own environment has never been played; the picture's measurements decide, and only while it is drawn."""
    agent = make_agent("ecc", make_env(ENV_ID, num_envs=4, seed=0, **SCENE), **TINY)
    own = agent.player
    shown = make_env(ENV_ID, seed=3, render_mode="rgb_array", **SCENE)
    frame = episode_frame(shown, agent)
    assert frame.dtype == np.uint8
    assert frame.ndim == 3
    assert agent.player is own
    single = make_env(ENV_ID, seed=3, **SCENE)
    observations, _ = single.reset(seed=4)
    with agent.playing(single):
        chosen = agent.act(observations)
    wanted = single.encode_estimate(agent.locate(single.measurements).position[0].numpy())
    np.testing.assert_allclose(chosen["bs_0"], wanted["bs_0"], atol=1e-5)


def test_split_training_leaves_the_encoder_of_stage_one_alone() -> None:
    env = make_env(ENV_ID, num_envs=2, seed=0, **SCENE)
    states = []
    for samples in (64, 640):
        agent = make_agent("ecc", env, strategy="local-split", **{**TINY, "samples": samples})
        agent.train(progress=False)
        states.append(agent.network.encoder.state_dict())
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name])


def test_a_file_of_a_build_without_heads_holds_three_numbers(tmp_path: Path) -> None:
    env = make_env(ENV_ID, num_envs=2, seed=0, **SCENE)
    before = make_agent("ecc-fast", env, head="regression", **FAST)
    state = before.policy_state()
    del state["config"]["head"], state["config"]["bins"]
    write_checkpoint(tmp_path / "old.pt", {"agent": state})
    said = r"^the ECC file is of a build before head: it means head=regression, today's default is bins\.$"
    with pytest.warns(UserWarning, match=said):
        there = load_agent(tmp_path / "old.pt", env)
    env.reset()
    torch.testing.assert_close(there.locate(env.measurements).position, before.locate(env.measurements).position)
    with pytest.raises(ValueError, match="head"):
        make_agent("ecc-fast", env, head="bin", **FAST)


def test_weights_and_payloads_of_another_head_or_size_are_refused_in_one_line() -> None:
    env = make_env(ENV_ID, num_envs=2, seed=0, **SCENE)
    bins = make_agent("ecc-fast", env, **FAST)
    assert bins.config.head == "bins"
    kept = {name: value.clone() for name, value in bins.network.state_dict().items()}
    for other, said in (
        ({"head": "regression"}, r"fusion\.last\.weight is 3 x 256, here \(head=bins\) \d+ x 256; load the file"),
        ({"bins": 60}, r"fusion\.last\.weight is \d+ x 256, here \(head=bins\)"),
        ({"encoder_hidden": 64}, r"encoder\.\S+ is 6 x \d+ x 64, here"),
        ({"fusion_depth": 1}, r"'fusion\.layers\.1\.weight' is only in it"),
    ):
        state = make_agent("ecc-fast", env, **{**FAST, **other}).policy_state()
        with pytest.raises(ValueError, match=said) as refused:
            bins.load_policy(state)
        assert "\n" not in str(refused.value)
    for name, value in bins.network.state_dict().items():
        assert torch.equal(value, kept[name])
    env.reset()
    coarse = make_agent("ecc-fast", env, **{**FAST, "bits": 2})
    with pytest.raises(
        BitstreamError, match=r"messages with bits=2 \(201 bits\), the decoder has bits=4 \(393 bits\); "
    ):
        bins.decode(coarse.encode(env.measurements))


@pytest.mark.parametrize("name", list_weights())
def test_trained_networks_come_along_and_are_good(name: str) -> None:
    path = weights(name)
    assert path.stat().st_size < 5e6
    env_id = "ecc-urban-small-v0" if name.endswith("small") else "ecc-urban-v0"
    result = evaluate(env_id, load_agent(path, env_id), episodes=200)
    # The paper's networks are slow on a processor core: theirs saw 60 000 snapshots and is not at its end.
    assert result.mean < {"ecc-fast-small": 0.7, "ecc-fast-urban": 1.5, "ecc-small": 4.5}[name]
    with pytest.raises(ValueError, match="did you mean ecc-fast-small"):
        weights("ecc-fast-smal")


def test_it_states_covariances_that_files_keep(trained: tuple[Any, Path, dict[str, float]], tmp_path: Path) -> None:
    agent, folder, found = trained
    assert agent.calibration.places == 400
    assert found["calibration_cpu_s"] > 0
    result = evaluate(ENV_ID, agent, episodes=200, **SCENE)
    known = of_evaluation(result)
    assert known is not None
    judged, in_sight = known
    # 160 places measure the radii, 200 users judge: three standard deviations.
    assert judged.inside == pytest.approx([0.5, 0.9], abs=0.15)
    assert judged.rank_correlation > 0.2
    assert in_sight is not None
    again = evaluate(ENV_ID, load_agent(folder, agent.env), episodes=50, **SCENE)
    assert again.covariance_m2 is not None
    assert np.array_equal(again.covariance_m2, result.covariance_m2[:50])  # type: ignore[index]
    state = read_checkpoint(folder)
    del state["agent"]["calibration"]
    write_checkpoint(tmp_path / "old.pt", state)
    venv = make_env(ENV_ID, num_envs=3, seed=3, **SCENE)
    venv.reset()
    older = load_agent(tmp_path / "old.pt", venv)
    estimate = older.locate(venv.measurements)
    assert estimate.covariance is None
    assert estimate.radii is None
    assert torch.equal(estimate.position, load_agent(folder, venv).locate(venv.measurements).position)
    # Learned again from the same places it is the same.
    assert older.calibrate(400).state()["factor"] == pytest.approx(agent.calibration.factor)


def test_an_answer_that_could_be_anywhere_is_not_valid(trained: tuple[Any, Path, dict[str, float]]) -> None:
    venv = make_env(ENV_ID, num_envs=3, seed=3, **SCENE)
    venv.reset()
    vague: Any = load_agent(trained[1], venv)
    assert bool(vague.locate(venv.measurements).valid.all())
    vague.calibration = dataclasses.replace(vague.calibration, factor=1e9)
    estimate = vague.locate(venv.measurements)
    assert set(estimate.reason.unique().tolist()) == {int(Reason.AMBIGUOUS)}


@pytest.mark.parametrize("move_m", [0.0, 1.0])
def test_training_leaves_out_the_places_that_are_set_aside(move_m: float, monkeypatch: pytest.MonkeyPatch) -> None:
    # The set that comes along has 400 places, a tenth of which are too few for a calibration.
    for module in ("agents.ecc.training", "cfpos_envs.supervised.calibration"):
        monkeypatch.setattr(f"{module}.LEAST_PLACES", 20)
    env = make_env("ecc-raytraced-v0", num_envs=2, seed=0, **SCENE)
    agent = make_agent("ecc-fast", env, **{**TINY, "pool": 400, "move_m": move_m})
    pool, validation, held = Training(agent, Plan(progress=False))._pools()
    assert held is not None
    assert 20 <= len(held.pool) <= 40
    assert len(pool) >= 300
    assert float(torch.cdist(pool.position_m, held.pool.position_m).min()) > move_m
    # The users that the environment is tested on are neither.
    tested = next(draw_snapshots(agent.game.config.changed(split="test"), 200, 0)).position_m
    for places in (pool, held.pool):
        assert float(torch.cdist(places.position_m, tested).min()) > 0
    assert len(validation) == 50
    # What a network is calibrated on later are the same places.
    if move_m == 0:
        assert agent.calibrate().places == len(held.pool)
        with pytest.raises(ValueError, match=r"left out 40 of the stored places, too few to set 50 .* set_aside=50\.$"):
            agent.calibrate(50)


def test_nobody_is_located_nowhere(trained: tuple[Any, Path, dict[str, float]]) -> None:
    venv = make_env(ENV_ID, num_envs=2, seed=0, **SCENE)
    venv.reset()
    measured = venv.measurements
    for nobody in (
        measured.select(torch.zeros(0, dtype=torch.long)),
        dataclasses.replace(measured, csi=measured.csi[:, :0], valid=measured.valid[:, :0]),
    ):
        shape, found = nobody.csi.shape[:2], trained[0].locate(nobody)
        assert found.position.shape == (*shape, 3)
        assert found.valid.shape == found.reason.shape == shape
        assert found.covariance.shape == (*shape, 3, 3)
        assert found.radii.shape == (*shape, 2)


def test_a_damaged_calibration_leaves_an_agent_as_it_was(trained: tuple[Any, Path, dict[str, float]]) -> None:
    agent = make_agent("ecc-fast", trained[0].env, **FAST)
    before, system = agent.policy_state(), agent.system
    for damage, said in (({"places": 0}, "calibration is damaged"), ({"network": {}}, "calibration is damaged")):
        state = trained[0].policy_state()
        state["calibration"] = {**state["calibration"], **damage}
        state["system"]["log_gain_mean"] = [0.0] * 6
        with pytest.raises(ValueError, match=said):
            agent.load_policy(state)
    assert agent.system == system
    assert agent.calibration is None
    for name, value in agent.network.state_dict().items():
        assert torch.equal(value, before["network"][name])


def test_too_few_or_known_places_calibrate_nothing() -> None:
    agent = make_agent("ecc-fast", make_env(ENV_ID, num_envs=2, seed=0, **SCENE), **TINY)
    with pytest.raises(ValueError, match="100 places set aside are too few to calibrate an uncertainty; at least 200"):
        agent.calibrate(100)
    traced = make_agent("ecc-fast", make_env("ecc-raytraced-v0", num_envs=2, seed=0, **SCENE), **TINY)
    with pytest.raises(ValueError, match=r"^40 places set aside are too few .* a tenth of 2000 or more to train on\.$"):
        traced.calibrate(200)
    with pytest.warns(UserWarning, match="^no uncertainty will be stated: 20 places set aside are too few"):
        traced.train(progress=False)
    assert traced.calibration is None


def test_what_training_has_not_left_out_calibrates_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cfpos_envs.supervised.calibration.LEAST_PLACES", 20)
    monkeypatch.setattr("agents.ecc.training.LEAST_PLACES", 20)
    traced = make_agent("ecc-fast", make_env("ecc-raytraced-v0", num_envs=2, seed=0, **SCENE), set_aside=0, **TINY)
    with pytest.raises(ValueError, match="training has left out 0 of the stored places, too few to set 30 aside"):
        traced.calibrate(30)
