"""RLlib's PPO as an agent. Everything but the settings needs the extra ``ray``."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents import load_agent, make_agent
from agents.rllib.settings import RllibPpoSettings
from cfpos_envs import evaluate, make_env

with_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason='the optional extra is not installed: pip install "cfpos[ray]"'
)
SCENE: dict[str, Any] = {"num_aps": 4, "num_ues": 2, "num_antennas": 4, "num_sites": 2}
SMALL: dict[str, Any] = {
    "num_envs": 4,
    "n_steps": 6,
    "minibatch_size": 24,
    "hidden": (8,),
    "evaluations": 2,
    "validation_envs": 4,
    "test_envs": 4,
    "seed": 3,
}


def agent(**settings: Any) -> Any:
    return make_agent("rllib-ppo", make_env("dcp-rss-v0", num_envs=4, seed=0, **SCENE), **{**SMALL, **settings})


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two nodes with one processor each; the driver sits on the first."""
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    made.add_node(num_cpus=1)
    ray.init(address=made.address, logging_level="error", log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"env_runner": 2}, "unknown RLlib PPO setting 'env_runner'; did you mean env_runners"),
        ({"num_envs": 4, "env_runners": 3}, "num_envs=4 cannot be shared evenly by env_runners=3"),
        ({"clip_range": -1.0}, "clip_range=-1.0 must be at least 0"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        RllibPpoSettings.build(wrong)
    assert "\n" not in str(caught.value)


def test_without_ray_the_extra_is_named() -> None:
    if importlib.util.find_spec("ray") is not None:
        assert agent().name == "rllib-ppo"
        return
    with pytest.raises(ValueError, match=r'needs the package ray, which is not installed; pip install "cfpos\[ray\]"'):
        agent()


@with_ray
def test_a_run_is_made_evaluated_and_gone_on_with(tmp_path: Path) -> None:
    np.random.seed(1)  # noqa: NPY002 - the point is that nobody draws from it
    torch.manual_seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    trained = agent()
    first = trained.act_batch(trained.env.reset(seed=1))
    results = trained.train(48, log_dir=tmp_path, progress=False)
    assert results["steps"] == 48
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()  # noqa: NPY002
    saved = torch.load(tmp_path / "last.pt", weights_only=True)
    assert not torch.equal(first, trained.act_batch(trained.env.reset(seed=1)))

    resumed = agent()
    assert resumed.train(96, resume=tmp_path, progress=False)["steps"] == 96
    after = torch.load(tmp_path / "last.pt", weights_only=True)
    steps = [next(iter(state["run"]["rollout"]["optimisers"].values()))["state"][0]["step"] for state in (saved, after)]
    # The optimiser went on from where it was.
    assert float(steps[1]) > float(steps[0]) > 0

    played = load_agent(tmp_path, make_env("dcp-rss-v0", num_envs=2, seed=0, **{**SCENE, "num_aps": 9}))
    result = evaluate("dcp-rss-v0", played, episodes=2, seed=7, **{**SCENE, "num_aps": 9})
    assert np.isfinite(result.rmse)
    with pytest.raises(ValueError, match="another environment"):
        load_agent(tmp_path, make_env("toa-v0", num_envs=2, num_aps=4, num_ues=2))


@with_ray
def test_it_plays_on_two_nodes(cluster: Any) -> None:
    trained = agent(env_runners=2)
    assert trained.train(48, progress=False)["steps"] >= 48


@with_ray
def test_workers_have_their_own_streams() -> None:
    from agents.rllib.envs import make_rllib_env

    class Context(dict):
        worker_index, vector_index = 0, 0

    def first(worker: int, vector: int, seed: int = 0) -> list[float]:
        context = Context(id="dcp-rss-v0", seed=seed, **SCENE)
        context.worker_index, context.vector_index = worker, vector
        observations, _ = make_rllib_env(context).reset()
        return observations["ap_0"].tolist()

    assert first(1, 0) == first(1, 0)
    assert len({tuple(first(*place)) for place in ((0, 0), (1, 0), (1, 1), (2, 0))}) == 4
    assert first(1, 0) != first(1, 0, seed=1)
    with pytest.raises(ValueError, match="env_config has no id"):
        make_rllib_env({})


@with_ray
def test_games_that_workers_cannot_make_are_refused() -> None:
    from tests.agents import probes

    with pytest.raises(ValueError, match=r"one of list_envs\(\)"):
        make_agent("rllib-ppo", probes.probe_env(probes.Follow))
