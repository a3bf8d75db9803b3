"""Pictures of what was played: error distributions of evaluations, and one episode of an environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cfpos.scripts.plots.style import LABEL, panels
from cfpos.scripts.policies import build_policy
from cfpos_envs import make_env
from cfpos_envs.drawing.figures import draw_cdf, episode_figure
from cfpos_envs.results import EvaluationResult


def cdf_figure(files: Sequence[Path]) -> tuple[Figure, list[EvaluationResult]]:
    """Error distributions of evaluations on one axis; the bound too, where all were played on the same drops.

    Args:
        files: written by ``EvaluationResult.to_json``.

    Raises:
        ValueError: a file is not an evaluation result.
        OSError: it cannot be read.
    """
    results = [EvaluationResult.from_json(file) for file in files]
    environments = {result.env_id for result in results}
    errors: dict[str, np.ndarray] = {}
    for file, result in zip(files, results):
        label = result.policy if len(environments) == 1 else f"{result.policy}, {result.env_id}"
        errors[label if label not in errors else f"{label} ({file.stem})"] = result.errors
    shared = all(result.config == results[0].config and result.seed == results[0].seed for result in results)
    bound = results[0].bound_rmse if shared and len(environments) == 1 else None
    with panels(1, 7.6, 4.4) as (figure, (axes,)):
        draw_cdf(axes, errors, bound)
        episodes = sorted({len(result.errors) for result in results})
        played = " or ".join(str(count) for count in episodes)
        axes.set_title(f"{', '.join(sorted(environments))}, {played} episodes", fontsize=LABEL + 1)
    return figure, results


def played_episode(env_id: str, policy: str, seed: int, overrides: Mapping[str, Any]) -> tuple[Figure, float]:
    """Play one episode and draw it as the environment does.

    Args:
        env_id: a name from ``list_envs()``.
        policy: a name from ``list_policies()``, or a run's folder or checkpoint.
        seed: of the drop.
        overrides: fields of the environment's config.

    Returns:
        The figure and the root mean squared error after the last round, metres.

    Raises:
        ValueError: unknown environment, policy or override.
    """
    env = make_env(env_id, seed=seed, **overrides)
    player = build_policy(policy, env)
    observations, infos = env.reset(seed=seed)
    player.reset()
    history = [env.vector.estimate[0]]
    while env.agents:
        observations, _, _, _, infos = env.step(player.act(observations))
        history.append(env.vector.estimate[0])
    rmse_m = float(next(iter(infos.values()))["rmse_m"])
    return episode_figure(env.scenario, env.vector.game_state, history), rmse_m
