"""Arithmetic of the experiments on CSI over a thin fronthaul."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from cfpos_envs.channels.tracing.generate import generate, statistics
from cfpos_envs.channels.tracing.storage import DatasetError
from cfpos_envs.supervised.errors import errors_m
from scripts.experiments import experiment
from scripts.experiments.common import Effort
from scripts.experiments.ecc import common as ecc
from scripts.experiments.ecc import table2
from scripts.experiments.ecc.baselines import EQUAL, NEAREST, City, yardsticks
from scripts.experiments.ecc.data import Trained, by_sight, kept
from scripts.experiments.ecc.learning import learned, local_stage, objective
from scripts.experiments.ecc.nearest import nearest_m, received_numbers
from scripts.experiments.ecc.positions import exponent
from scripts.experiments.ecc.rate import ahead
from scripts.experiments.ecc.reconstruction import correlation, phase_error_deg, same_peak
from scripts.experiments.ecc.scenes import run
from scripts.experiments.ecc.subcarriers import errors_by_step_m
from tests.channels.tracing.mirrors import MirrorTracer, small_recipe


def test_the_exponent_of_a_power_law_is_found() -> None:
    numbers = [1e5, 1e6, 4e6]
    assert exponent(numbers, [7.0 * n**-0.35 for n in numbers]) == pytest.approx(0.35)
    assert exponent([10, 1000], [2.0, 2.0]) == 0.0


def test_errors_are_averaged_over_the_users_who_see_as_much() -> None:
    means = by_sight(np.array([1.0, 3.0, 8.0]), torch.tensor([0, 0, 6, 6]))
    assert means["mean, 0 in sight"] == 2.0
    assert means["mean, 6 in sight"] == 8.0
    assert all(means[f"mean, {count} in sight"] is None for count in range(1, 6))


def test_links_of_a_data_set_are_counted(tmp_path: Path) -> None:
    generate(small_recipe(), tmp_path, {"train": 40}, MirrorTracer)
    found = statistics(tmp_path)
    # In the scene of mirrors every link has a line of sight, the ground, the wall, and both.
    assert set(found) == {"train"}
    assert found["train"]["users"] == 40
    assert math.isclose(found["train"]["line_of_sight"], 1.0)
    assert math.isclose(found["train"]["no_path"], 0.0)
    assert math.isclose(found["train"]["paths_per_link"], 4.0)


def test_scenes_that_are_not_there_name_the_command(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"make them: cfpos make-dataset --scene"):
        run(Effort(agents_folder=str(tmp_path / "agents")))


@pytest.fixture(scope="module")
def effort(tmp_path_factory: pytest.TempPathFactory) -> Effort:
    """Tiny networks that are kept."""
    return dataclasses.replace(Effort.quick(), agents_folder=str(tmp_path_factory.mktemp("agents")))


def test_networks_that_differ_in_stage_two_alone_share_stage_one(effort: Effort) -> None:
    split, other = (ecc.narrow(effort, strategy="local-split", bits=bits) for bits in (4, 8))
    local, network = local_stage(split, effort), learned(split, effort).network
    learned(other, effort)
    names = [path.name.partition("-")[0] for path in Path(str(effort.agents_folder)).iterdir()]
    assert sorted(names) == ["ecc", "ecc", "local"]
    wanted = local.model.encoder.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in network.encoder.state_dict().items())
    # What is read back is what was learned, its curves too; the last point is that of the weights that are kept.
    again = local_stage(other, effort)
    assert again.curve == local.curve
    assert [seen for seen, _, _ in again.curve] == [64, 128]
    unseen = ecc.snapshots(split, "test", ecc.test_count(effort))
    assert objective(again.model, unseen) == pytest.approx(local.curve[-1][2], abs=1e-6)
    assert learned(split, effort).curve == learned(split, effort).curve != []


def test_the_last_step_is_the_answer(effort: Effort) -> None:
    config = ecc.narrow(effort, strategy="scratch")
    network, pool = learned(config, effort).network, ecc.test_pool(config, effort)
    steps = errors_by_step_m(network, pool)
    assert steps.shape == (len(pool), 24)
    np.testing.assert_allclose(steps[:, -1], errors_m(network, pool), rtol=1e-4, atol=1e-3)
    assert not np.allclose(steps[:, 0], steps[:, -1])


def test_training_messages_find_their_own_places_whatever_silent_stations_measured(effort: Effort) -> None:
    config = ecc.fast(effort)
    network, pool = learned(config, effort).network, ecc.test_pool(config, effort)
    # Metres apart from each other; distances of zero are known to rounding only.
    torch.testing.assert_close(nearest_m(network, pool, pool), pool.position_m, rtol=0, atol=0.3)
    silent = dataclasses.replace(pool, valid=pool.valid & (torch.arange(6) != 2))
    other = dataclasses.replace(silent, features=torch.where(silent.valid[..., None, None, None], pool.features, 7))
    numbers = received_numbers(network, silent.batch(slice(None)))
    assert torch.equal(numbers, received_numbers(network, other.batch(slice(None))))
    assert not torch.equal(numbers, received_numbers(network, pool.batch(slice(None))))


def test_reconstructions_are_judged_up_to_scale_and_common_phase() -> None:
    csi = torch.randn(3, 8, 24, generator=torch.Generator().manual_seed(0), dtype=torch.complex64)
    turned = csi * torch.polar(torch.tensor(0.3), torch.tensor(2.0))
    torch.testing.assert_close(phase_error_deg(csi, turned), torch.zeros(3), rtol=0, atol=1e-2)
    ones = torch.ones(1, 2, 4, dtype=torch.complex64)
    quarter = ones.clone()
    quarter[:, 0] *= 1j  # half of the power is 90 degrees off, so everything is 45 off the best common phase
    assert float(phase_error_deg(ones, quarter)) == pytest.approx(45.0, abs=1e-3)
    power = csi.abs().square()
    torch.testing.assert_close(correlation(power, 3 - 2 * power), -torch.ones(3))
    assert bool(same_peak(power, 5 * power + 1).all())
    assert not bool(same_peak(power, -power).any())


def test_tables_say_what_is_ahead_of_the_learned_code() -> None:
    points = [("ecc-fast a", 96, 1.0), ("ecc-fast b", 384, 0.7), ("csi-scalar-q", 384, 0.6), ("other", 96, 1.1)]
    rows = [{"model": name, "bits_per_bs": bits, "mean_m": mean} for name, bits, mean in points]
    assert ahead(rows, "csi-scalar-q") == "At equal bits csi-scalar-q is ahead of ecc-fast at 384 bits (of 1 payloads)."
    assert ahead(rows, "other") == "At equal bits other is ahead of ecc-fast nowhere (of 1 payloads)."
    cells = [(EQUAL, 393.0, 3.0), (NEAREST + EQUAL, 393.0, 2.5), ("csi-scalar-q", 1545.0, 3.5)]
    near, plain = yardsticks([{"policy": name, "bits/BS": bits, "mean_m": mean} for name, bits, mean in cells])
    assert f"reads the same messages: 2.50 against 3.00 m, better ({EQUAL})." in near
    assert "large batches: 3.50 against 3.00 m, worse, with 3.9 times the bits." in plain
    alike = yardsticks([{"policy": n, "bits/BS": 1.0, "mean_m": m} for n, m in ((EQUAL, 3.0), ("csi-scalar-q", 2.9))])
    assert len(alike) == 1
    assert "2.90 against 3.00 m, alike" in alike[0]


@pytest.mark.parametrize(("bits", "percent"), [(4, 2.5), (6, 3.75), (8, 5.0), (10, 6.25)])
def test_the_budget_leaves_the_sizes_of_table_two(bits: int, percent: float) -> None:
    config = table2.settings(Effort(), bits=bits)
    assert 100 * 24 * config.latent_width * config.quantiser_bits / 122_880 == percent  # type: ignore[operator]
    paper = type(config).preset("paper")
    assert (config.slots, config.channels, config.gain_bits) == (paper.slots, paper.channels, paper.gain_bits)
    assert table2.SOURCE_M[bits][0] > table2.SOURCE_M[None][0]


def test_kept_rows_hold_everything(tmp_path: Path) -> None:
    made = Trained(np.array([1.0, 2.0]), [(64, 1.5)], 393.0, 2.0, np.eye(3)[:2], np.array([3.0, 4.0]))
    for name, run_of in (("whole", made), ("bare", dataclasses.replace(made, position_m=None, nearest_m=None))):
        for _ in range(2):  # written, then read
            found = kept(str(tmp_path), name, lambda run_of=run_of: run_of)  # type: ignore[misc]
            np.testing.assert_equal(dataclasses.asdict(found), dataclasses.asdict(run_of))


def test_held_out_users_and_ways_are_told_apart(tmp_path: Path) -> None:
    city = City(dataclasses.replace(Effort.quick(), agents_folder=str(tmp_path)))
    errors = np.arange(city.held_out + 50.0)
    kept(str(tmp_path), "baselines-mfcnet", lambda: Trained(errors, [], 1.0, 2.0, np.outer(errors, np.ones(3))))
    found = city.row("mfcnet")
    assert found.held_out.errors_m[-1] == city.held_out - 1
    np.testing.assert_equal(found.ways.errors_m, errors[-50:])
    np.testing.assert_equal(found.ways.position_m[:, 2], errors[-50:])  # type: ignore[index]
    assert found.ways.nearest_m is None


def test_parameters_of_both_ends_are_counted() -> None:
    rows = {row["model"]: row for row in experiment("ecc-sizes")(Effort.quick()).rows}
    plain = rows["ecc-fast small, three numbers"]
    # 336 lags -> 256 -> 24 tokens x 4, with biases, at every one of six stations.
    assert plain["station_parameters"] == 336 * 256 + 256 + 256 * 96 + 96
    assert plain["all_parameters"] == 6 * plain["station_parameters"] + plain["centre_parameters"]
    # Two matrices of 512, and one that reads six messages with gain and flag.
    assert plain["centre_parameters"] == 6 * 98 * 512 + 512 + 2 * (512 * 512 + 512) + 512 * 3 + 3
    assert rows["ecc paper"]["message_bits"] == 32 * 24 * 10 + 32 + 1
    assert rows["ecc paper, bins"]["station_parameters"] == rows["ecc paper"]["station_parameters"]
