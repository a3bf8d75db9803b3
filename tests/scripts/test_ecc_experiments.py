"""Arithmetic of the experiments on CSI over a thin fronthaul."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from cfpos_envs.channels.tracing.generate import generate, statistics
from cfpos_envs.channels.tracing.storage import DatasetError
from scripts.experiments.common import Effort
from scripts.experiments.ecc.data import by_sight
from scripts.experiments.ecc.positions import exponent
from scripts.experiments.ecc.scenes import run
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
