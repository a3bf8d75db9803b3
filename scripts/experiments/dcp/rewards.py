"""How well label-free rewards order joint estimates by their true RMSE: Spearman's rank correlation."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from cfpos.scripts.experiments.common import EVALUATION_SEED, Effort, Outcome
from cfpos_envs import draws, make_env
from cfpos_envs.drawing.figures import new_figure
from cfpos_envs.scenarios.dcp.similarity import Judge
from cfpos_envs.streams import Streams

ENV_ID = "dcp-jar-v0"
SITES: dict[str, dict[str, Any]] = {"no shadowing": {"shadowing_db": 0.0}, "4 dB unknown": {"shadowing_db": 4.0}}
_DROPS = 10
_SMALLEST_M, _LARGEST_M = 0.1, 30.0
_CLOSE_M = 1.0


def random_estimates(effort: Effort, **overrides: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """RMSE [N] in metres and rewards {name: [N]} of random joint estimates.

    Every estimate is the truth plus Gaussian errors whose scale is drawn log-uniformly from 0.1 to 30 m.

    Args:
        effort: ``points`` estimates over ten drops.
        overrides: environment overrides.
    """
    env = make_env(ENV_ID, num_envs=_DROPS, seed=EVALUATION_SEED, split="test", **effort.env(**overrides))
    env.reset()
    state = env.game_state
    truth = env.truth()["true_position"].unsqueeze(1)
    generator = Streams(EVALUATION_SEED, "test").fresh("random-estimates")
    count = max(1, effort.points // _DROPS)
    exponent = draws.uniform(generator, _DROPS, count, 1, 1)
    scale_m = _SMALLEST_M * (_LARGEST_M / _SMALLEST_M) ** exponent
    error_m = scale_m * draws.normal(generator, _DROPS, count, *truth.shape[2:])

    def similarity(kind: str, stage: str) -> Tensor:
        config = dataclasses.replace(env.config, similarity=kind, stage=stage, reward="shared")
        judge = Judge(config, config.radio, state, state.at_consensus(config))
        return judge.similarity(truth + error_m, None, kind)[0]

    # Eq. (9) is a distance; the logarithmic terms give back what they are made of.
    rms_db = torch.exp(-similarity("log", "rss")) - 0.05
    xi_a = 1 - torch.exp(-similarity("log", "aoa"))
    rewards = {
        "1 - Xi^r, eq. (9) as printed": 1 - similarity("paper", "rss"),
        "Xi^a / Xi^r, eq. (7) as printed": similarity("paper", "joint"),
        "Xi^a, 1/M": xi_a,
        "-rms of the RSS in dB": -rms_db,
        "Xi^a / (1 + rms / 3 dB)": xi_a / (1 + rms_db / 3),
        "log: RSS": similarity("log", "rss"),
        "log: AOA": similarity("log", "aoa"),
        "log: joint": similarity("log", "joint"),
        "robust: joint": similarity("robust", "joint"),
        "cauchy: joint": similarity("cauchy", "joint"),
    }
    rmse_m = error_m.square().sum(dim=-1).mean(dim=-1).sqrt()
    return rmse_m.flatten(), {name: value.sum(dim=-1).flatten() for name, value in rewards.items()}


def run(effort: Effort) -> Outcome:
    """Correlations on both kinds of site, over all estimates and over the close ones alone."""
    correlations: dict[str, dict[str, float]] = {}
    for site, overrides in SITES.items():
        rmse_m, rewards = random_estimates(effort, **overrides)
        close = rmse_m < _CLOSE_M
        for name, reward in rewards.items():
            line = correlations.setdefault(name, {})
            line[site] = rank_correlation(reward, -rmse_m)
            line[f"{site}, RMSE < {_CLOSE_M:g} m"] = rank_correlation(reward[close], -rmse_m[close])
    rows = [{"reward": name, **line} for name, line in correlations.items()]
    with new_figure(7.0, 4.5) as (figure, axes):
        places = np.arange(len(rows))
        for index, site in enumerate(SITES):
            axes.barh(places + 0.4 * index, [line[site] for line in correlations.values()], height=0.38, label=site)
        axes.set_yticks(places + 0.2, list(correlations))
        axes.invert_yaxis()
        axes.set(xlabel="Spearman correlation with -RMSE")
        axes.legend(loc="lower right")
    remark = f"{effort.points} random joint estimates; rewards summed over the users."
    return Outcome(rows, figure, [remark])


def rank_correlation(left: Tensor, right: Tensor) -> float:
    """Spearman's rank correlation of two vectors; NaN-free inputs."""
    return float(spearmanr(left.numpy(), right.numpy()).statistic)
