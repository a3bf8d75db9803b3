"""Whether stated uncertainties hold what they say: shipped networks on unseen users, and a network of a traced city.

The traced city needs a data set in the folder ``munich`` beside the results (``scripts/make_dataset.py``; quick mode
takes the small one that comes with the package). Networks that are trained here are kept in the folder ``agents``.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from cfpos.agents import load_agent
from cfpos.agents.ecc.weights import list_weights, weights
from cfpos.scripts.experiments.common import EVALUATION_SEED, Effort, Outcome, progress
from cfpos.scripts.experiments.ecc.data import BEST, TracedData
from cfpos.scripts.experiments.ecc.trained import ENVIRONMENTS
from cfpos_envs import coverage, evaluate
from cfpos_envs.checkpoints import read_checkpoint, write_checkpoint
from cfpos_envs.coverage import Judgement
from cfpos_envs.drawing.coverage import coverage_figure
from cfpos_envs.results import EvaluationResult
from cfpos_envs.streams import derive_seed
from cfpos_envs.supervised.agent_config import EccFastAgentConfig
from cfpos_envs.supervised.beliefs import Answers
from cfpos_envs.supervised.calibration import LEAST_PLACES, Stated, answers_of, calibrate_network
from cfpos_envs.supervised.data import Pool
from cfpos_envs.supervised.fitting import fit
from cfpos_envs.supervised.inputs import network_shape
from cfpos_envs.supervised.network import EccNetwork

SAMPLES, PARTS = 300_000, 9
_QUICK_SAMPLES = 512
_CALIBRATION_SAMPLES = 4096
_CITY = "munich"


def run(effort: Effort) -> Outcome:
    """Coverage and rank correlation, by stations in sight, of everything that states an uncertainty."""
    results, rows = [], []
    for name in progress(list_weights(), "evaluation", len(list_weights())):
        agent: Any = load_agent(weights(name), ENVIRONMENTS[name.rpartition("-")[2]])
        if agent.calibration is None:
            continue
        measured = evaluate(agent.env, agent, episodes=effort.episodes, seed=EVALUATION_SEED)
        results.append(_named(measured, name))
        rows += _rows(results[-1])
    traced, more, remarks = _traced(effort)
    results.append(traced)
    rows += [*_rows(traced), *more]
    figure = coverage_figure(results)
    return Outcome(rows, Figure() if figure is None else figure, remarks)


def _traced(effort: Effort) -> tuple[EvaluationResult, list[dict[str, Any]], list[str]]:
    """A network that leaves out a ninth of the places of a data set, on the held-out users; bins alone beside it."""
    dataset = "" if effort.agents_folder is None else str(Path(effort.agents_folder).parent / _CITY)
    data = TracedData(dataset)
    pool, test = (data.measured(split, ("acf",)) for split in ("train", "test"))
    places = pool.pools["acf"]
    train, held = places.split(max(LEAST_PLACES, len(places) // PARTS))
    network, seconds = _network(effort, data, train)
    began = time.process_time()
    calibration = calibrate_network(network, held, network.shape.area, 0)
    spent = time.process_time() - began
    answers = answers_of(network, test.pools["acf"])
    result = _result(answers, calibration.states(answers, network.shape.area), test.pools["acf"], test.lit)
    assert answers.belief.covariance_m2 is not None
    alone = _result(answers, Stated(answers.belief.covariance_m2, torch.full((len(test.lit), 2), torch.nan)),
                    test.pools["acf"], test.lit)  # fmt: skip
    remarks = [
        f"{_CITY}: ecc-fast, {len(train)} places "
        f"for training and {len(held)} set aside, "
        f"{_samples(effort)} snapshots seen, {seconds:.0f} CPU-s of training and {spent:.1f} of calibration; held-out "
        "users chose nothing.",
        "stated_m is the median of the stated standard deviation; in_50 and in_90 per cent of the truths in the stated "
        "regions; rank_correlation is Spearman's, of stated deviation and error.",
    ]
    return result, _rows(_named(alone, f"{_CITY}, bins alone")), remarks


def _network(effort: Effort, data: TracedData, train: Pool) -> tuple[EccNetwork, float]:
    """A trained network and its processor time, kept in the folder of agents."""
    config = EccFastAgentConfig(**BEST, samples=_samples(effort))
    generator = torch.Generator().manual_seed(derive_seed(config.seed, "weights"))
    network = EccNetwork(config, network_shape(config, data.system), generator)
    path = None if effort.agents_folder is None else Path(effort.agents_folder) / "uncertainty.pt"
    if path is not None and path.exists():
        stored = read_checkpoint(path)["agent"]
        network.load_state_dict(stored["network"])
        return network.eval(), float(stored["cpu_s"])
    network.check_covers(train.position_m)
    network.calibrate_inputs(train.batch(slice(0, _CALIBRATION_SAMPLES)))
    result = fit(network, train, config.fit_config(config.samples))
    if path is not None:
        write_checkpoint(path, {"agent": {"network": result.model.state_dict(), "cpu_s": result.cpu_seconds}})
    trained: EccNetwork = result.model
    return trained, result.cpu_seconds


def _samples(effort: Effort) -> int:
    return _QUICK_SAMPLES if effort.is_quick else SAMPLES


def _result(answers: Answers, stated: Stated, test: Pool, lit: Tensor) -> EvaluationResult:
    """What ``evaluate`` gives, of users that are no episodes."""
    away = answers.belief.position_m - test.position_m
    return EvaluationResult(
        policy=_CITY,
        env_id="ecc-raytraced-v0",
        config={},
        seed=0,
        errors=away.norm(dim=-1)[:, None].double().numpy(),
        bounds=None,
        sites=None,
        valid_share=1.0,
        rmse_by_round=None,
        latency_ms=0.0,
        policy_ms=0.0,
        fronthaul_bits=0.0,
        positions_m=answers.belief.position_m[:, None].double().numpy(),
        covariance_m2=stated.covariance_m2[:, None].double().numpy(),
        valid=np.ones((len(away), 1), dtype=bool),
        truth_m=test.position_m[:, None].double().numpy(),
        radii=stated.radii[:, None].double().numpy(),
        in_sight=lit.sum(dim=1, keepdim=True).numpy(),
    )


def _named(result: EvaluationResult, name: str) -> EvaluationResult:
    return dataclasses.replace(result, policy=name)


def _rows(result: EvaluationResult) -> list[dict[str, Any]]:
    known = coverage.of_evaluation(result)
    return [] if known is None else [_row(result.policy, name, part) for name, part in coverage.groups(*known)]


def _row(network: str, users: str, part: Judgement) -> dict[str, Any]:
    figures = coverage.row(part)
    correlation = figures["rank_correlation"]
    shown = None if np.isnan(correlation) else correlation
    return {"network": network, "stations": users, **figures, "rank_correlation": shown}
