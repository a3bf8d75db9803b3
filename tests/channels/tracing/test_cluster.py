"""Shards as tasks of a Ray cluster: the same bits as in one process, also when a node or a worker is lost."""

from __future__ import annotations

import importlib.util
import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cfpos_envs.channels.tracing.cluster import RETRIES, connected, on_cluster
from cfpos_envs.channels.tracing.generate import MadeShard, generate
from cfpos_envs.channels.tracing.recipe import Recipe
from cfpos_envs.channels.tracing.requirements import RayTracingUnavailableError, missing_packages
from cfpos_envs.channels.tracing.storage import DatasetError
from scripts import make_dataset
from tests.channels.tracing.mirrors import MirrorTracer, contents, small_recipe

ROOT = Path(__file__).parents[2]
USERS = {"train": 120, "test": 40}
WHERE = "CFPOS_TEST_WHERE"
with_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason='the optional extra is not installed: pip install "cfpos[ray]"'
)


class SlowTracer(MirrorTracer):
    """Takes its time and leaves a file in a folder of its node."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        import ray

        self.folder = Path(os.environ[WHERE]) / ray.get_runtime_context().get_node_id()
        self.folder.mkdir(exist_ok=True)

    def trace(self, users_m: Any) -> Any:
        (self.folder / str(time.monotonic_ns())).touch()
        time.sleep(0.2)
        return super().trace(users_m)


class DeadlyTracer(MirrorTracer):
    """Takes its process with it when it meets one certain user."""

    def trace(self, users_m: Any) -> Any:
        (Path(os.environ[WHERE]) / str(time.monotonic_ns())).touch()
        os.kill(os.getpid(), signal.SIGKILL)


class AbsentTracer(MirrorTracer):
    def __init__(self, recipe: Recipe) -> None:
        raise RayTracingUnavailableError("the ray tracer is not installed on this node")


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes of one core each, and this process connected to them."""
    import ray
    from ray.cluster_utils import Cluster

    # Workers of the lowest priority would starve beside whatever else this machine computes.
    monkeypatch.setenv("RAY_worker_niceness", "0")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv(WHERE, str(tmp_path / "where"))
    (tmp_path / "where").mkdir()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.second = cluster.add_node(num_cpus=1)
    try:
        with connected(cluster.address):
            yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_without_ray_the_command_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cfpos_envs.channels.tracing.cluster.importlib.util.find_spec", lambda name: None)
    assert make_dataset.main(["--out", str(tmp_path / "set"), "--ray"]) == 1
    assert capsys.readouterr().err == 'make_dataset: Ray is not installed; run: pip install "cfpos[ray]"\n'
    assert not (tmp_path / "set").exists()


@with_ray
def test_a_cluster_that_is_not_there_is_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make_dataset.main(["--out", str(tmp_path / "set"), "--ray", "127.0.0.1:1"]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("make_dataset: no Ray cluster at 127.0.0.1:1")
    assert not (tmp_path / "set").exists()


@with_ray
@pytest.mark.slow
def test_a_lost_node_changes_no_bit(cluster: Any, tmp_path: Path) -> None:
    recipe, where = small_recipe(), tmp_path / "where"
    generate(recipe, tmp_path / "here", USERS, MirrorTracer)
    written: list[tuple[str, int]] = []

    def lose_a_node(shards: Iterable[MadeShard], total: int) -> Iterator[MadeShard]:
        assert total == 8
        for split, index, shard in shards:
            written.append((split, index))
            yield split, index, shard
            if len(written) == 1:
                until = time.monotonic() + 120
                while len(list(where.glob("*/*"))) < 4 or len(list(where.iterdir())) < 2:
                    assert time.monotonic() < until, "only one node works"
                    time.sleep(0.05)
                cluster.remove_node(cluster.second, allow_graceful=False)

    made = generate(recipe, tmp_path / "there", USERS, SlowTracer, lose_a_node, on_cluster)
    assert made == {"train": 6, "test": 2}
    assert len(set(written)) == len(written) == 8
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    assert (tmp_path / "there" / "recipe.json").read_text() == (tmp_path / "here" / "recipe.json").read_text()


@with_ray
@pytest.mark.slow
def test_what_kills_its_process_is_told_and_made_the_next_time(cluster: Any, tmp_path: Path) -> None:
    recipe, folder = small_recipe(), tmp_path / "set"
    generate(recipe, folder, {"train": 20}, MirrorTracer)
    with pytest.raises(DatasetError, match=rf"^1 shards were lost .* {RETRIES + 1} times each: train-00001 \("):
        generate(recipe, folder, {"train": 40}, DeadlyTracer, maker=on_cluster)
    assert len(list((tmp_path / "where").iterdir())) == RETRIES + 1
    assert generate(recipe, folder, {"train": 40}, MirrorTracer, maker=on_cluster) == {"train": 1}
    generate(recipe, tmp_path / "here", {"train": 40}, MirrorTracer)
    assert contents(folder) == contents(tmp_path / "here")
    # What a node lacks is told as if it were lacking here.
    with pytest.raises(RayTracingUnavailableError, match="not installed on this node"):
        generate(recipe, tmp_path / "none", {"train": 20}, AbsentTracer, maker=on_cluster)


@with_ray
@pytest.mark.slow
@pytest.mark.skipif(bool(missing_packages()), reason='an optional extra is missing: pip install "cfpos[raytracing]"')
def test_real_rays_fall_alike_on_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    settings = ["--scene", "simple_street_canyon", "--num-bss", "2", "--rays", "2000", "--max-depth", "2"]
    settings += ["--shard-users", "10", "--batch", "5", "--train", "20", "--test", "10"]
    assert make_dataset.main(["--out", str(tmp_path / "here"), *settings]) == 0
    assert make_dataset.main(["--out", str(tmp_path / "there"), *settings, "--ray"]) == 0
    assert len(contents(tmp_path / "here")) == 3
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
