"""Every policy of ``baselines`` on a small network of every family it can play: answers fit, are finite, and repeat."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from cfpos_envs import evaluate, make_env
from cfpos_envs.measurements.base import PositionEstimate

SMALL = {"num_aps": 9, "num_ues": 2, "num_antennas": 4}
ENV_IDS = {
    "dcp": "dcp-jar-v0",
    "toa": "toa-v0",
    "tdoa": "tdoa-v0",
    "rtt": "rtt-v0",
    "hybrid": "hybrid-v0",
    "csi": "ecc-urban-small-v0",
    "ris": "ris-v0",
    "ris-phase": "ris-phase-v0",
}
# Games with other names for their sizes, or whose defaults are small already.
SMALL_BY_FAMILY: dict[str, dict[str, Any]] = {
    "csi": {"num_ues": 2, "num_slots": 2, "estimator": "ls"},
    "ris": {"num_ues": 2},
    "ris-phase": {"num_ues": 2, "ris_shape": [6, 6]},
}
# Policies that need to be told more than others.
NEEDS: dict[str, dict[str, Any]] = {
    "toa-oracle": {"reveal_los": True},
    "joint-cp": {"measurement": "waveform", "num_subcarriers": 64},
    "ris-svd": {"action": "raw"},
}
# What learns is given little to learn from.
_BRIEF = {"train_samples": 64, "train_steps": 2, "batch_size": 32}
OPTIONS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("transformer", "adcpm", "mfcnet", "csi-scalar-q"), _BRIEF),
    "csi-knn": {"references": 64},
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    from baselines import list_policies
    from baselines.registry import policy_families

    if "policy_name" not in metafunc.fixturenames:
        return
    playable = {name: policy_families(name) or tuple(ENV_IDS) for name in list_policies()}
    if "other_family" in metafunc.fixturenames:
        pairs = [(name, family) for name, known in playable.items() for family in ENV_IDS if family not in known]
        metafunc.parametrize(("policy_name", "other_family"), pairs)
    else:
        pairs = [(name, family) for name, known in playable.items() for family in known]
        metafunc.parametrize(("policy_name", "family"), pairs)


def overrides(policy_name: str, family: str) -> dict[str, Any]:
    return {**SMALL_BY_FAMILY.get(family, SMALL), **(NEEDS.get(policy_name, {}) if family != "dcp" else {})}


def dimensions(env: Any) -> int:
    """Coordinates of a position."""
    return 3 if env.scenario.family == "csi" or env.scenario.family.startswith("ris") else 2


def largest_error_m(env: Any) -> float:
    """From one corner of the area to the other; of the surfaces' game what it calls lost."""
    if env.scenario.family == "csi":
        low, high = np.array(env.scenario.system.area_min_m), np.array(env.scenario.system.area_max_m)
        return float(np.linalg.norm(high - low))
    if env.scenario.family == "ris-phase":
        return 10.0
    if env.scenario.family == "ris":
        return 2 * env.config.area_m * 3**0.5
    known = env.measurements.radio if env.scenario.family == "dcp" else env.measurements.model
    return float(known.side_m * 2**0.5)


def fresh(policy_name: str, family: str) -> tuple[Any, Any]:
    from baselines import make_policy

    env = make_env(ENV_IDS[family], seed=3, **overrides(policy_name, family))
    return env, make_policy(policy_name, env, **OPTIONS.get(policy_name, {}))


def played(env: Any, policy: Any) -> list[np.ndarray]:
    """All joint actions of one episode."""
    policy.reset()
    observations, _ = env.reset(seed=5)
    taken = []
    while env.agents:
        actions = policy.act(observations)
        assert set(actions) == set(env.agents)
        assert all(env.action_space(agent).contains(action) for agent, action in actions.items())
        taken.append(np.stack(list(actions.values())))
        observations, *_ = env.step(actions)
    return taken


def test_acts_within_the_space_and_repeats_itself(policy_name: str, family: str) -> None:
    first, second = played(*fresh(policy_name, family)), played(*fresh(policy_name, family))
    assert len(first) == len(second) > 0
    for left, right in zip(first, second):
        np.testing.assert_array_equal(left, right)


def test_locates_every_user_or_says_that_it_cannot(policy_name: str, family: str) -> None:
    _, policy = fresh(policy_name, family)
    if not hasattr(policy, "locate"):
        assert callable(policy.act_batch)
        return
    venv = make_env(ENV_IDS[family], num_envs=3, seed=4, **overrides(policy_name, family))
    venv.reset()
    first, second = policy.locate(venv.measurements), policy.locate(venv.measurements)
    size = dimensions(venv)
    assert first.position.shape == (3, SMALL["num_ues"], size)
    assert first.valid.shape == (3, SMALL["num_ues"])
    assert first.valid.dtype == torch.bool
    assert torch.isfinite(first.position).all()
    assert torch.equal(first.position, second.position)
    if first.covariance is not None:
        assert first.covariance.shape == (3, SMALL["num_ues"], size, size)
        assert (torch.linalg.eigvalsh(first.covariance[first.valid]) >= 0).all()


def test_can_be_evaluated(policy_name: str, family: str) -> None:
    env, policy = fresh(policy_name, family)
    result = evaluate(env, policy, episodes=4)
    assert result.policy == policy.name
    assert result.errors.shape == (4, SMALL["num_ues"])
    assert np.isfinite(result.errors).all()
    env.reset()
    assert result.errors.max() <= largest_error_m(env)


def test_is_refused_by_a_game_it_cannot_play(policy_name: str, other_family: str) -> None:
    from baselines import make_policy

    env = make_env(ENV_IDS[other_family], seed=3, **SMALL_BY_FAMILY.get(other_family, SMALL))
    with pytest.raises(
        ValueError, match=f"{policy_name}.* this environment makes {other_family}; choose one of"
    ) as got:
        make_policy(policy_name, env)
    assert "\n" not in str(got.value)
    # Made without an environment it is refused when it sees the measurements.
    with pytest.raises((TypeError, ValueError)):
        evaluate(env, make_policy(policy_name), episodes=1)


class Lost:
    """Has never an answer."""

    name = "lost"

    def locate(self, measurements: Any) -> PositionEstimate:
        seen = getattr(measurements, "rss_dbm", None)
        seen = measurements.range_m if seen is None else seen
        position = torch.full((*seen.shape[::2], 2), torch.nan)
        return PositionEstimate(position, None, torch.zeros(position.shape[:-1], dtype=torch.bool))


@pytest.mark.parametrize("family", ["dcp", "toa"])
def test_without_any_answer_the_centre_of_the_area_counts(family: str) -> None:
    result = evaluate(ENV_IDS[family], Lost(), episodes=100, **SMALL)
    # Users are uniform in 100 m x 100 m: the root mean square distance from the centre is 100 m / sqrt(6).
    assert result.rmse == pytest.approx(100 / np.sqrt(6), rel=0.1)
    assert result.valid_share == 0
