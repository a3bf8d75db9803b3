"""Evaluate policies on the same unseen drops: a table, results.json, positions.csv, cdf.png, a picture of an episode.

``python scripts/evaluate.py env=dcp-jar policy=[fingerprint,music,joint-gn,RUN_DIR] episodes=200 seed=7``
``python scripts/evaluate.py policy=[RUN_DIR,music]`` plays the game of the run, with its settings.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from cfpos.scripts import reports
from cfpos.scripts.cli import output_folder, overrides_typed, run_hydra
from cfpos.scripts.policies import build_policy, labelled
from cfpos.scripts.runs import difference, followed, trained_game, warn
from cfpos.scripts.settings import check_counts, plain
from cfpos_envs import evaluate, make_env
from cfpos_envs.checks import one_of
from cfpos_envs.drawing.figures import cdf_figure, save_figure
from cfpos_envs.evaluation import EvaluationResult, format_table
from cfpos_envs.files.positions import Positions
from cfpos_envs.results import ANSWERS

TABLES = ("csv", "geojson", "npz", "parquet", "none")
"""Formats of the table of positions."""


def main(config: DictConfig) -> None:
    """Evaluate every policy named in ``config.policy`` and write the report into the run's folder."""
    check_counts(config, "episodes", "threads")
    one_of("positions", config.positions, TABLES)
    one_of("answers", config.answers, ANSWERS)
    torch.set_num_threads(config.threads)
    config.env = followed(config, overrides_typed())
    overrides = {**plain(config.env, "id"), "split": "test"}
    env = make_env(config.env.id, num_envs=1, seed=config.seed, device=config.device, **overrides)
    entries = labelled(OmegaConf.to_container(config.policy) if OmegaConf.is_config(config.policy) else config.policy)
    policies = {label: build_policy(entry, env) for label, entry in entries.items()}
    for game in filter(None, map(trained_game, entries.values())):
        if (otherwise := difference(game, config.env)) is not None:
            warn(otherwise)
    folder = reports.check_writable(output_folder())

    results: list[EvaluationResult] = []
    for label, policy in (bar := tqdm(policies.items(), unit="policy")):
        bar.set_description(label)
        measured = evaluate(env, policy, episodes=config.episodes, seed=config.seed)
        results.append(dataclasses.replace(measured, policy=label))

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
        reports.save_image(folder / "episode.png", frame),
    ]
    if config.settings_of is not None:
        print(f"{config.env.id} with the settings of {config.settings_of}")
    print(format_table(results))
    print("\n".join(f"wrote {path}" for path in written))


def _pictures(results: list[EvaluationResult], title: str, answers: str, path: Path) -> list[Path]:
    """Error distributions; none where no policy has a valid answer and only those are asked for."""
    if not any(result.answers.counted(answers).size for result in results):
        warn("no answer is valid: no picture of their errors; answers=all draws those of all")
        return []
    return [save_figure(cdf_figure(results, title, answers), path)]


if __name__ == "__main__":
    run_hydra(main, "evaluate")
