"""Evaluate policies on the same unseen drops: tables, results.json, positions.csv, pictures of errors and an episode.

``python scripts/evaluate.py env=dcp-jar policy=[fingerprint,music,joint-gn,RUN_DIR] episodes=200 seed=7``
``python scripts/evaluate.py policy=[RUN_DIR,music]`` plays the game of the run, with its settings.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from cfpos.scripts import reports
from cfpos.scripts.cli import output_folder, overrides_typed, run_hydra
from cfpos.scripts.policies import build_policy, labelled
from cfpos.scripts.runs import difference, followed, trained_game, warn
from cfpos.scripts.settings import check_counts, load_plugins, plain
from cfpos.scripts.workers import default_workers, finished
from cfpos_envs import evaluate, make_env
from cfpos_envs.arithmetic_threads import torch_threads
from cfpos_envs.checks import one_of
from cfpos_envs.coverage import format_coverage
from cfpos_envs.drawing.coverage import coverage_figure
from cfpos_envs.drawing.figures import cdf_figure, save_figure
from cfpos_envs.evaluation import EvaluationResult, format_table
from cfpos_envs.files.positions import Positions
from cfpos_envs.results import ANSWERS

TABLES = ("csv", "geojson", "npz", "parquet", "none")
"""Formats of the table of positions."""


_WORTH_A_PROCESS = 100
"""Episodes."""


@dataclass(frozen=True)
class Plan:
    """What every policy plays.

    Attributes:
        env_id, overrides: the game, of the test split.
        episodes, seed, device, threads: see ``EvaluateSettings``.
    """

    env_id: str
    overrides: dict[str, Any]
    episodes: int
    seed: int
    device: str
    threads: int


def main(config: DictConfig) -> None:
    """Evaluate every policy named in ``config.policy`` and write the report into the run's folder."""
    check_counts(config, "episodes", "threads", *(() if config.workers is None else ("workers",)))
    one_of("positions", config.positions, TABLES)
    one_of("answers", config.answers, ANSWERS)
    torch.set_num_threads(config.threads)
    config.env = followed(config, overrides_typed())
    overrides = {**plain(config.env, "id"), "split": "test"}
    env = make_env(config.env.id, num_envs=1, seed=config.seed, device=config.device, **overrides)
    entries = labelled(OmegaConf.to_container(config.policy) if OmegaConf.is_config(config.policy) else config.policy)
    for entry in entries.values():
        build_policy(entry, env)  # What is wrong with any of them is said before the first is evaluated.
    for game in filter(None, map(trained_game, entries.values())):
        if (otherwise := difference(game, config.env)) is not None:
            warn(otherwise)
    folder = reports.check_writable(output_folder())

    plan = Plan(str(config.env.id), overrides, config.episodes, config.seed, config.device, config.threads)
    found: dict[str, EvaluationResult] = {}
    jobs = list(entries.items())
    for (label, _), result in tqdm(
        finished(partial(measure, plan=plan), jobs, _workers(config)), "policies", len(jobs)
    ):
        found[label] = result
    results = [found[label] for label in entries]

    table = None if config.positions == "none" else f"positions.{config.positions}"
    content = {"env": config.env.id, "seed": config.seed, "positions": table, "answers": config.answers}
    rows = [reports.result_row(result.policy, result) for result in results]
    picture_env = make_env(config.env.id, render_mode="rgb_array", seed=config.seed, **overrides)
    *_, pictured = entries.values()
    frame = reports.episode_frame(picture_env, build_policy(pictured, picture_env))
    written = [
        reports.write_text(folder / "config.yaml", OmegaConf.to_yaml(config, resolve=True)),
        reports.write_json(folder / "results.json", {**content, "policies": rows}),
        *(
            []
            if table is None
            else [Positions.joined([*map(Positions.from_evaluation, results)]).write(folder / table)]
        ),
        *_pictures(results, f"{config.env.id}, {config.episodes} unseen episodes", config.answers, folder / "cdf.png"),
        *_coverage(results, folder / "coverage.png"),
        reports.save_image(folder / "episode.png", frame),
    ]
    if config.settings_of is not None:
        print(f"{config.env.id} with the settings of {config.settings_of}")
    print("\n\n".join(filter(None, (format_table(results), format_coverage(results)))))
    print("\n".join(f"wrote {path}" for path in written))


def measure(named: tuple[str, Any], plan: Plan) -> EvaluationResult:
    """One policy, made and evaluated.

    Args:
        named: label and entry, see ``policies.labelled``.
        plan: what it plays.
    """
    load_plugins()
    label, entry = named
    with torch_threads(plan.threads):
        env = make_env(plan.env_id, num_envs=1, seed=plan.seed, device=plan.device, **plan.overrides)
        policy = build_policy(entry, env)
    result = evaluate(env, policy, episodes=plan.episodes, seed=plan.seed, threads=plan.threads)
    return dataclasses.replace(result, policy=label)


def _workers(config: DictConfig) -> int:
    if config.workers is not None:
        return int(config.workers)
    return default_workers() if config.episodes >= _WORTH_A_PROCESS and config.device == "cpu" else 1


def _pictures(results: list[EvaluationResult], title: str, answers: str, path: Path) -> list[Path]:
    """Error distributions; none where no policy has a valid answer and only those are asked for."""
    if not any(result.answers.counted(answers).size for result in results):
        warn("no answer is valid: no picture of their errors; answers=all draws those of all")
        return []
    return [save_figure(cdf_figure(results, title, answers), path)]


def _coverage(results: list[EvaluationResult], path: Path) -> list[Path]:
    """What was stated beside what was found; none where no policy states a covariance."""
    figure = coverage_figure(results)
    return [] if figure is None else [save_figure(figure, path)]


if __name__ == "__main__":
    run_hydra(main, "evaluate")
