"""Policies by name: what exists, what is refused and how."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from typing import Any

import pytest
import torch

from baselines import Fingerprint, list_policies, make_policy, register_policy
from baselines.base import NoOptions
from baselines.dcp.fingerprint import FingerprintOptions
from cfpos_envs import make_env
from cfpos_envs.measurements.base import PositionEstimate
from tests.baselines.dcp.synthetic import draw_drops

NAMES = [
    "beamscan",
    "centroid",
    "direct-search",
    "fingerprint",
    "gpr",
    "joint-gn",
    "music",
    "random",
    "rss-gn",
    "rss-mmse",
    "untrained",
]


def test_all_families_are_registered() -> None:
    assert set(NAMES) <= set(list_policies())
    assert list_policies() == sorted(list_policies())


@pytest.mark.parametrize("name", NAMES)
def test_names_and_options_agree_with_the_registry(name: str) -> None:
    policy = make_policy(name)
    assert policy.name == name
    assert dataclasses.is_dataclass(policy.options)
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.options.anything = 1  # type: ignore[attr-defined]


def test_unknown_name_lists_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown policy 'fingerprints'; did you mean fingerprint.*joint-gn"):
        make_policy("fingerprints")


def test_unknown_option_lists_the_nearest_and_all() -> None:
    with pytest.raises(ValueError, match=r"unknown option 'spacings' of policy 'fingerprint'; did you mean spacing.*"):
        make_policy("fingerprint", spacings=1.0)
    with pytest.raises(ValueError, match=r"unknown option 'k' of policy 'centroid'.*no options"):
        make_policy("centroid", k=3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fingerprint", {"feature": "rss"}, r"feature='rss' .*joint-db"),
        ("fingerprint", {"matching": "svm"}, r"matching='svm'"),
        ("fingerprint", {"spacing": 0.0}, r"spacing=0.0"),
        ("fingerprint", {"spacing": float("nan")}, r"spacing=nan"),
        ("fingerprint", {"neighbours": 0}, r"neighbours=0"),
        ("gpr", {"feature": "eq7"}, r"feature='eq7'"),
        ("gpr", {"grid": "hexagons"}, r"grid='hexagons'"),
        ("music", {"num_angles": 2}, r"num_angles=2"),
        ("joint-gn", {"steps": 0}, r"steps=0"),
        ("joint-gn", {"sigma_db": -1.0}, r"sigma_db=-1.0"),
        ("joint-gn", {"links": "esprit"}, r"links='esprit'"),
        ("direct-search", {"grid_spacing": -5.0}, r"grid_spacing=-5.0"),
    ],
)
def test_values_out_of_range_are_refused(name: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make_policy(name, **options)
    assert "\n" not in str(caught.value)


def test_a_new_policy_is_one_line() -> None:
    register_policy("fingerprint", "baselines.dcp.fingerprint:Fingerprint")
    with pytest.raises(ValueError, match=r"taken by baselines\.dcp\.fingerprint"):
        register_policy("fingerprint", "elsewhere:Other")
    with pytest.raises(ValueError, match="must look like"):
        register_policy("other", "no_class_given")


def test_an_old_name_warns_and_is_not_listed() -> None:
    env = make_env("ris-phase-v0", num_envs=2, seed=0, action="raw", ris_shape=[6, 6])
    with pytest.warns(DeprecationWarning, match=r"^policy 'ris-random-phases' is deprecated; use 'random'$"):
        old: Any = make_policy("ris-random-phases", env)
    assert "ris-random-phases" not in list_policies()
    # The same draws, counted from phase zero instead of from the chirp that action 0 is.
    actions = make_policy("random", env).act_batch(env.reset())
    direction = torch.zeros(actions.shape[:2], dtype=torch.float64)
    torch.testing.assert_close(old.profiles(direction, direction).flatten(2), math.pi * (actions.double() + 1))


def test_an_old_option_warns_and_is_another_now() -> None:
    with pytest.warns(
        DeprecationWarning, match=r"^option 'bearing' of policy 'joint-gn' is deprecated; use links='dft'$"
    ):
        old: Any = make_policy("joint-gn", bearing="profile")
    assert old.options == make_policy("joint-gn").options
    with pytest.raises(ValueError, match="unknown option 'bearing'"):
        make_policy("joint-gn", bearing="music", links="music")


def test_policies_of_a_family() -> None:
    assert {"music", "csi-knn", "random"} <= set(list_policies("csi"))
    assert "toa-wls" not in list_policies("tdoa")
    assert "tdoa-wls" in list_policies("tdoa")


def test_acting_without_an_environment_says_what_to_do() -> None:
    for name in ("centroid", "random", "untrained"):
        with pytest.raises(ValueError, match="without an environment"):
            make_policy(name).act_batch(torch.zeros(1, 2, 3))


def test_measurements_of_another_scenario_are_refused() -> None:
    with pytest.raises(TypeError, match=r"music needs RadioMeasurements.*got NoOptions"):
        make_policy("music").locate(NoOptions())
    with pytest.raises(TypeError, match=r"fingerprint needs RadioMeasurements"):
        Fingerprint().locate(NoOptions())
    with pytest.raises(ValueError, match=r"no survey.*from_survey"):
        Fingerprint().locate({"rss": [[-50.0]]})


def test_options_of_another_policy_are_refused() -> None:
    with pytest.raises(TypeError, match="music takes BearingOptions, got FingerprintOptions"):
        type(make_policy("music"))(None, FingerprintOptions())


def test_libraries_are_imported_at_first_use_only() -> None:
    code = "import sys, baselines; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("random", "untrained")])
def test_estimates_are_complete_and_repeat(name: str) -> None:
    drop = draw_drops(4, seed=3, num_aps=12, num_ues=3, num_sites=2)
    options = {"spacing": 10.0} if name in ("fingerprint", "gpr") else {}
    first = make_policy(name, **options).locate(drop.measurements)
    second = make_policy(name, **options).locate(drop.measurements)
    assert isinstance(first, PositionEstimate)
    assert first.position.shape == (4, 3, 2)
    assert first.valid.all()
    assert ((first.position >= 0) & (first.position <= 100)).all()
    assert torch.equal(first.position, second.position)
    if first.covariance is not None:
        assert first.covariance.shape == (4, 3, 2, 2)
        assert (torch.linalg.eigvalsh(first.covariance) > 0).all()
