"""The estimators of channels over surfaces against their bounds in the default scene; minutes of computing.

``pytest -m slow tests/baselines/ris/test_monte_carlo.py -s`` prints every figure.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from baselines import make_policy
from baselines.ris.channel import ChannelOptions
from tests.baselines.ris.drops import Outcome, outcomes, ris_drops, rms

pytestmark = pytest.mark.slow

SEED = 77
LIGHT_M_NS = 0.299792458


def measured(policies: dict[str, dict[str, Any]], count: int, **overrides: Any) -> dict[str, Outcome]:
    """Outcomes of policies given as label -> options with the policy's name under ``policy``; printed."""
    made = {label: make_policy(**{"name": label, **options}) for label, options in policies.items()}
    found = outcomes(made, count, SEED, **overrides)
    for label, outcome in found.items():
        print(
            f"\n{overrides} {label}: RMSE {1e3 * outcome.rmse_m:.3f} mm, / PEB {outcome.ratio:.3f}, clock / CEB "
            f"{outcome.clock_ratio:.3f}, beyond 5 PEB {outcome.outliers:.3f}, median / PEB "
            f"{float((outcome.error_m / outcome.peb_m).median()):.3f}, valid {float(outcome.valid.float().mean()):.3f}",
            end="",
        )
    return found


FULL: dict[str, dict[str, Any]] = {"ris-wls": {}}
PAPER: dict[str, dict[str, Any]] = {"ris-wls-paper": {}}


@pytest.mark.parametrize("snr_db", [-10.0, 0.0, 10.0, 20.0])
def test_full_pipeline_reaches_both_bounds_and_not_less(snr_db: float) -> None:
    found = measured(FULL, 200, snr_db=snr_db)["ris-wls"]
    assert 0.85 < found.ratio < 1.15
    assert 0.85 < found.clock_ratio < 1.15
    assert found.valid.all()


def test_full_pipeline_holds_at_minus_20_db() -> None:
    found = measured(FULL, 60, snr_db=-20.0)["ris-wls"]
    assert found.ratio < 1.25
    assert found.outliers == 0


@pytest.mark.parametrize(
    ("snr_db", "low", "high"), [(-10.0, 1.6, 4.0), (0.0, 1.0, 1.35), (10.0, 0.9, 1.2), (20.0, 0.9, 1.2)]
)
def test_published_pipeline_approaches_the_bound_from_above(snr_db: float, low: float, high: float) -> None:
    assert low < measured(PAPER, 200, snr_db=snr_db)["ris-wls-paper"].ratio < high


@pytest.mark.parametrize("snr_db", [0.0, 10.0, 20.0])
def test_both_labels_agree(snr_db: float) -> None:
    labels = {label: {"name": "ris-wls-paper", "label": label} for label in ("energy", "delay")}
    found = measured(labels, 200, snr_db=snr_db)
    same = (found["energy"].error_m - found["delay"].error_m).abs() < 1e-9
    assert same.double().mean() >= 0.99


def test_equal_weights_lose_a_factor_of_two() -> None:
    found = measured({"ris-ls": {"channel": "paper"}, **PAPER}, 200)
    assert found["ris-ls"].ratio > 2
    assert found["ris-ls"].rmse_m > 2 * found["ris-wls-paper"].rmse_m


@pytest.mark.parametrize("bias_ns", [-40.0, 0.0, 20.0, 60.0, 120.0])
def test_the_clock_does_not_matter_but_to_the_one_who_trusts_it(bias_ns: float) -> None:
    found = measured({**FULL, "ris-aoa-toa": {}}, 60, bias_ns=bias_ns)
    assert 0.8 < found["ris-wls"].ratio < 1.2
    if abs(bias_ns) >= 20:
        assert found["ris-aoa-toa"].rmse_m == pytest.approx(LIGHT_M_NS * abs(bias_ns), rel=0.02)


def test_uncorrected_energies_swap_paths() -> None:
    choices = {str(corrected): {"name": "ris-wls-paper", "correct_noise": corrected} for corrected in (True, False)}
    found = measured(choices, 200, snr_db=-10.0)
    assert found["False"].outliers > 0.5
    assert found["True"].outliers < 0.1


def test_blocked_line_of_sight_needs_the_gate() -> None:
    gates = {"gate": {"name": "ris-wls"}, "no gate": {"name": "ris-wls", "gate": 0.0}}
    found = measured(gates, 200, los_blocked=1.0)
    assert rms(found["gate"].peb_m) == pytest.approx(6.14e-3, rel=0.02)
    assert found["gate"].ratio < 1.3
    assert found["no gate"].ratio > 10


@pytest.mark.parametrize("snr_db", [0.0, 10.0])
def test_the_gate_drops_no_path_that_is_there(snr_db: float) -> None:
    for drop in ris_drops(200, SEED, snr_db=snr_db):
        assert drop.channels(ChannelOptions()).present.all()


def test_statistic_of_a_missing_line_of_sight() -> None:
    drops = ris_drops(200, SEED, los_blocked=1.0)
    statistic = torch.cat([drop.channels(ChannelOptions(gate=0.0)).statistic[:, 0] for drop in drops])
    print(
        f"\nmissing line of sight: median {float(statistic.median()):.2f}, largest {float(statistic.max()):.2f}", end=""
    )
    assert 8 < statistic.median() < 14
    assert statistic.max() < 30


def test_four_surfaces_that_collide() -> None:
    found = measured({**FULL, **PAPER}, 200, num_ris=4)
    assert found["ris-wls"].ratio < 1.3
    assert found["ris-wls-paper"].ratio > 3


def test_single_antennas_are_far_behind() -> None:
    found = measured({**FULL, "ris-siso": {}}, 200, snr_db=20.0, num_ris=1)
    assert found["ris-siso"].rmse_m > 10 * found["ris-wls"].rmse_m
    assert found["ris-siso"].rmse_m < 0.5


def test_two_base_stations_fused() -> None:
    scene = {"num_ues": 2, "phases": "balanced", "sector_deg": 10.0}
    both = measured(FULL, 200, num_bs=2, **scene)["ris-wls"]
    assert 0.8 < both.ratio < 1.2
    linked = measured(FULL, 200, num_bs=2, link_std_m=0.002, **scene)["ris-wls"]
    assert 0.8 < linked.ratio < 1.2
    assert linked.rmse_m < both.rmse_m
    single = []
    for drop in ris_drops(200, SEED, num_bs=2, **scene):
        alone = drop.measurements
        alone = type(alone)(
            **{**alone.__dict__, "bs_positions_m": alone.bs_positions_m[:, :1], "received": alone.received[:, :, :1]}
        )
        single.append(drop.error_m(make_policy("ris-wls").locate(alone)))
    print(f"\nfirst base station alone: RMSE {1e3 * rms(torch.cat(single)):.3f} mm", end="")
    assert both.rmse_m < rms(torch.cat(single))


def test_small_preset() -> None:
    found = measured({**FULL, **PAPER}, 200, preset="small")
    assert rms(found["ris-wls"].peb_m) == pytest.approx(12.28e-3, rel=0.005)
    assert 0.85 < found["ris-wls"].ratio < 1.15
    assert found["ris-wls-paper"].ratio < 1.3


@pytest.mark.parametrize("bias_ns", [-100.0, -60.0, 200.0, 250.0])
def test_wrapped_delays(bias_ns: float) -> None:
    assert measured(FULL, 200, preset="small", bias_ns=bias_ns)["ris-wls"].ratio < 1.3


def test_solvers_agree() -> None:
    solvers = {solver: {"name": "ris-wls", "solver": solver} for solver in ("search", "linear", "exip")}
    found = measured(solvers, 200)
    for solver in ("linear", "exip"):
        assert found[solver].rmse_m == pytest.approx(found["search"].rmse_m, rel=0.01)
