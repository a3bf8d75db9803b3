"""The promise that ``-v0`` ids keep their numbers: one small evaluation per family, recorded at version 0.1.0.

What changes a number here changes a game that others have published results of: it belongs into a ``-v1`` id.
"""

from __future__ import annotations

import pytest

from cfpos_envs import evaluate, make_env

# id, overrides, policy, RMSE and bound in metres (seed 7, 4 episodes, tensor operations instead of compiled kernels)
RECORDED = [
    (
        "dcp-jar-v0",
        {"num_aps": 9, "num_ues": 2, "num_antennas": 4, "kernel": "torch"},
        "joint-gn",
        0.8110576278697849,
        0.9726887624502356,
    ),
    (
        "dcp-jar-v0",
        {"num_aps": 9, "num_ues": 2, "num_antennas": 4, "kernel": "torch"},
        "untrained",
        0.8561208096391716,
        0.9726887624502356,
    ),
    ("dcp-rss-v0", {"num_aps": 9, "num_ues": 2, "kernel": "torch"}, "rss-gn", 9.780188192120274, 6.6244345127005495),
    ("toa-v0", {"num_aps": 9, "num_ues": 2}, "toa-em", 0.25012124307837585, 0.175376825554488),
    ("toa-v0", {"num_aps": 9, "num_ues": 2}, "untrained", 4.410109852500413, 0.175376825554488),
    ("tdoa-v0", {"num_aps": 9, "num_ues": 2}, "tdoa-wls", 11.853985077138228, 1.001327856789355),
    ("rtt-v0", {"num_aps": 9, "num_ues": 2}, "rtt-wls", 8.401954603242688, 0.19606035235575478),
    ("ris-v0", {}, "ris-wls", 0.035502027057900204, 0.03219970703565783),
    ("ris-v0", {}, "untrained", 2.203141202971002, 0.03219970703565783),
    ("ris-phase-v0", {}, "ris-chirp", 0.04073044063170838, 0.0544533211060638),
    ("ecc-urban-small-v0", {"num_ues": 2}, "music", 0.8768113085459296, None),
]


@pytest.mark.parametrize(("env_id", "overrides", "policy", "rmse_m", "bound_m"), RECORDED)
def test_numbers_stay(
    env_id: str, overrides: dict[str, object], policy: str, rmse_m: float, bound_m: float | None
) -> None:
    from baselines import make_policy

    env = make_env(env_id, **overrides)
    result = evaluate(env, make_policy(policy, env), episodes=4, seed=7)
    assert result.rmse == pytest.approx(rmse_m, rel=1e-6)
    assert (result.bound_rmse is None) == (bound_m is None)
    if bound_m is not None:
        assert result.bound_rmse == pytest.approx(bound_m, rel=1e-6)
