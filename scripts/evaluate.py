"""Evaluate policies on the same unseen drops: a table, results.json, cdf.png and a picture of one episode.

``python scripts/evaluate.py env=dcp-jar policy=[fingerprint,music,joint-gn,RUN_DIR] episodes=200 seed=7``
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import torch
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from cfpos_envs import evaluate, make_env
from scripts import reports
from scripts.cli import output_folder, run_hydra
from scripts.policies import build_policy, labelled
from scripts.settings import plain, register_schemas

_BATCH = 32


def main(config: DictConfig) -> None:
    """Evaluate every policy named in ``config.policy`` and write the report into the run's folder."""
    torch.set_num_threads(config.threads)
    overrides = {**plain(config.env, "id"), "split": "test"}
    env = make_env(config.env.id, num_envs=_BATCH, seed=config.seed, device=config.device, **overrides)
    entries = OmegaConf.to_container(config.policy) if OmegaConf.is_config(config.policy) else config.policy
    policies = {name: build_policy(entry, env) for name, entry in labelled(entries).items()}
    folder = reports.check_writable(output_folder())

    results: dict[str, Any] = {}
    for name, policy in (progress := tqdm(policies.items(), unit="policy")):
        progress.set_description(name)
        results[name] = evaluate(env, policy, episodes=config.episodes, seed=config.seed)

    figure, axes = plt.subplots(figsize=(7, 4.5))
    bound = next(iter(results.values())).bound_rmse
    reports.plot_cdf(axes, {name: result.errors for name, result in results.items()}, bound)
    axes.set_title(f"{config.env.id}, {config.episodes} unseen episodes")
    rows = [reports.result_row(name, result) for name, result in results.items()]
    picture_env = make_env(config.env.id, render_mode="rgb_array", seed=config.seed, **overrides)
    *_, pictured = labelled(entries).values()
    written = [
        reports.write_text(folder / "config.yaml", OmegaConf.to_yaml(config, resolve=True)),
        reports.write_json(folder / "results.json", {"env": config.env.id, "seed": config.seed, "policies": rows}),
        reports.save_figure(folder / "cdf.png", figure),
        reports.save_episode_picture(folder / "episode.png", picture_env, build_policy(pictured, picture_env)),
    ]
    print(reports.table(rows))
    print("\n".join(f"wrote {path}" for path in written))


if __name__ == "__main__":
    register_schemas()
    run_hydra(main, "evaluate")
