"""What a run leaves behind: TensorBoard numbers under their documented names, figures, hyper-parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.figure
import matplotlib.pyplot as plt
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agents import MaddpgConfig, make_agent
from agents.assessment import is_as_good
from agents.maddpg.agent import Maddpg
from agents.maddpg.schedules import cosine_factor, noise_scale
from agents.metrics import SCALARS
from tests.agents import probes
from tests.agents.interrupted_run import SETTINGS
from tests.agents.probes import probe_env


def small_agent(critic: str = "own", **settings: Any) -> Maddpg:
    env = probe_env(probes.Follow, 8, num_ues=2, rounds=2)
    return make_agent("maddpg", env, **{**SETTINGS, "critic": critic, **settings})


def written(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    return events


@pytest.mark.parametrize("critic", ["own", "model"])
def test_every_scalar_has_a_documented_name_and_a_sane_value(critic: str, tmp_path: Path) -> None:
    agent = small_agent(critic)
    agent.train(320, log_dir=tmp_path, progress=False)
    events = written(tmp_path)
    names = {name for name in events.Tags()["scalars"] if not name.startswith("hparam/")}
    documented = set(SCALARS) - {"reward/round_<t>"} | {"reward/round_0", "reward/round_1"}
    learned = {"loss/critic", "value/mean", "gradient/critic"}
    assert names == documented - (learned if critic == "model" else {"value/objective"})

    last = {name: events.Scalars(name)[-1].value for name in names}
    assert last["test/rmse_m"] == pytest.approx(4.0)  # the probe's error grows from 2 m by 1 m per round
    assert last["test/bound_rmse_m"] == pytest.approx(2.0)
    assert last["reward/episode"] == pytest.approx(last["reward/round_0"] + last["reward/round_1"], rel=1e-5)
    assert 0 <= last["policy/saturation"] <= 1
    assert events.Scalars("explore/noise")[0].value == pytest.approx(agent.config.noise_start, abs=0.01)
    assert last["explore/noise"] == pytest.approx(agent.config.noise_end, abs=0.01)
    assert len(events.Scalars("score/validation")) == 6  # before the first step and five times during the run
    assert {name for name in events.Tags()["scalars"] if name.startswith("hparam/")} >= {"hparam/best_score"}


def test_figures_are_written_at_every_evaluation_and_closed(tmp_path: Path) -> None:
    steps: list[int] = []

    def draw(step: int) -> dict[str, matplotlib.figure.Figure]:
        steps.append(step)
        return {"episode": plt.figure(figsize=(1, 1))}

    before = plt.get_fignums()
    small_agent().train(320, log_dir=tmp_path, figures=draw, progress=False)
    assert [image.step for image in written(tmp_path).Images("episode")] == steps
    assert len(steps) == 6
    assert plt.get_fignums() == before


def test_a_resumed_log_has_no_entry_twice(tmp_path: Path) -> None:
    agent = small_agent()

    class StopError(Exception):
        pass

    def stop(step: int) -> None:
        if step == 176:
            raise StopError

    with pytest.raises(StopError):
        agent.train(320, log_dir=tmp_path, callback=stop, progress=False)
    small_agent().train(resume=tmp_path, progress=False)
    steps = [event.step for event in written(tmp_path).Scalars("explore/noise")]
    assert steps == sorted(set(steps))
    assert steps[-1] == 320


def test_schedules_by_hand() -> None:
    assert [noise_scale(f, 0.3, 0.1, 0.5) for f in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([0.3, 0.2, 0.1, 0.1])
    assert noise_scale(0.0, 0.3, 0.1, 0.0) == 0.1
    assert [cosine_factor(f, 0.1) for f in (0.0, 0.5, 1.0)] == pytest.approx([1.0, 0.55, 0.1])


def test_learning_rates_fall_to_the_final_factor(tmp_path: Path) -> None:
    assert MaddpgConfig(critic="model").final_lr_factor == 0.1
    assert MaddpgConfig().final_lr_factor == 1.0
    agent = small_agent("own", lr_final_factor=0.25)
    agent.train(800, log_dir=tmp_path, progress=False)
    rates = [event.value for event in written(tmp_path).Scalars("rate/actor")]
    assert rates[0] == pytest.approx(agent.config.lr_actor, rel=0.01)
    assert rates[-1] == pytest.approx(0.25 * agent.config.lr_actor, rel=0.01)
    groups = [group for optimiser in agent.learner.optimisers.values() for group in optimiser.param_groups]
    wanted = [0.25 * rate for rate in (agent.config.lr_actor, agent.config.lr_critic)]
    assert [group["lr"] for group in groups] == pytest.approx(wanted, rel=0.01)


def test_a_later_policy_replaces_the_best_unless_it_is_worse_beyond_doubt() -> None:
    record = torch.randn(64, generator=torch.Generator().manual_seed(0))
    wiggle = 0.8 * torch.randn(64, generator=torch.Generator().manual_seed(1))
    wiggle = wiggle - wiggle.mean()
    assert is_as_good(record + wiggle - 0.05, record)  # standard error 0.1
    assert not is_as_good(record + wiggle - 0.2, record)
    assert not is_as_good(record - 1e-3, record)  # no noise, no doubt


def test_steps_are_whole_rounds_and_the_policy_is_deterministic() -> None:
    agent = small_agent()
    results = agent.train(100, progress=False)
    assert results["steps"] == 104  # whole rounds of 8 parallel episodes
    observations = torch.zeros(5, 2, 4)
    assert torch.equal(agent.act_batch(observations), agent.act_batch(observations))
