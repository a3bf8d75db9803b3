"""Train an agent; checkpoints, full config and TensorBoard files go to ``outputs/train/...``.

``python scripts/train.py env=dcp-rss agent=maddpg agent.lr_actor=3e-4 seed=3``
``python scripts/train.py --multirun seed=0,1,2 agent=maddpg,maddpg-model``
``python scripts/train.py resume=RUN_DIR`` goes on with an interrupted run (bit for bit, where its agent can).
``python scripts/train.py env=measured env.data=FOLDER env.set=feng/office start_from=RUN_DIR`` goes on from a policy.
``torchrun --nproc-per-node 2 scripts/train.py env=ecc-urban agent=ecc`` shares every batch among two processes.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cfpos.agents import config_class, make_agent
from cfpos.agents.runs import best_of
from cfpos.scripts import reports
from cfpos.scripts.cli import UsageError, output_folder, overrides_given, run_hydra
from cfpos.scripts.runs import CONFIG_FILE, in_hydra, mend_config, options, run_config, write_config
from cfpos.scripts.settings import check_counts, plain, schema
from cfpos_envs import evaluate, make_env
from cfpos_envs.checkpoints import LAST, holds_run
from cfpos_envs.drawing.figures import cdf_figure, new_figure
from cfpos_envs.locks import exclusive
from cfpos_envs.registry import make_config
from cfpos_envs.supervised.processes import check_shared, launched

DEFAULT_STEPS = 30_000
RESULTS_FILE = "results.json"
_MAY_CHANGE = ("total_steps", "device", "threads", "debug", "resume")
_NEEDED = ("env", "agent.name", "seed", "device", "threads", "total_steps")
_FIGURE_EPISODES = 50


def main(config: DictConfig) -> None:
    """Train from the start, or go on with ``config.resume``."""
    if config.total_steps is None:
        config.total_steps = config.agent.get("samples", DEFAULT_STEPS)
    check_counts(config, "total_steps", "threads")
    folder = output_folder()
    if config.resume is not None:
        config = resumed_config(config)
    # A run that goes on keeps to its plan, which may have been changed since it began, unless another one is named.
    keeps_plan = config.resume is not None and "total_steps" not in overrides_given()
    total_steps = None if keeps_plan else config.total_steps
    overrides = plain(config.env, "id")
    env = make_env(config.env.id, num_envs=config.agent.num_envs, seed=config.seed, device=config.device, **overrides)
    agent = make_agent(config.agent.name, env, **plain(config.agent, "name"))
    if config.start_from is not None and config.resume is None:
        agent.begin_with(config.start_from)
    rank, processes = launched()
    if processes > 1:
        _check_processes(config, agent, processes)
    if rank > 0:
        # torchrun's first process alone writes; the others share its work.
        agent.train(total_steps=total_steps, resume=config.resume, progress=False)
        return
    # Whatever could be refused has been refused by now, so a wrong setting leaves no folder behind.
    reports.check_writable(folder)
    if config.resume is None:
        _refuse_used(folder)
    with exclusive(folder):
        if config.resume is None:
            # Again: another run may have begun and ended here while this one waited.
            _refuse_used(folder)
            write_config(folder / CONFIG_FILE, config)
        else:
            mend_config(folder)
        print(f"writing to {folder}  (watch: tensorboard --logdir {folder})")
        results = _unwritten_results(folder, total_steps) or agent.train(
            total_steps=total_steps,
            log_dir=folder,
            resume=config.resume,
            figures=lambda step: figures(config, agent, step),
            progress=True,
            note=OmegaConf.to_yaml(config, resolve=True),
        )
        reports.write_json(folder / RESULTS_FILE, results)
    print("  ".join(f"{name}={value:.4g}" for name, value in results.items()))
    print(f"evaluate: {evaluation_command(config, folder)}")


def evaluation_command(config: DictConfig, folder: Path) -> str:
    """The command that scores a run's policy in the game that it was trained in, quoted for a shell."""
    env_id = config.env.id
    default = options(schema({"id": env_id}, make_config(env_id)))
    changed = {name: value for name, value in options(config.env).items() if value != default.get(name)}
    words = [f"env.{name}={in_hydra(value)}" for name, value in changed.items()]
    policy = f"policy={in_hydra([str(folder)])}"
    return shlex.join(["cfpos", "evaluate", f"env={env_id.removesuffix('-v0')}", *words, policy])


def resumed_config(config: DictConfig) -> DictConfig:
    """The config saved in the run's folder, with the few settings that may change taken from the command line.

    Raises:
        UsageError: no run there, or a setting that would make it another run.
    """
    path = Path(config.resume) / CONFIG_FILE
    if not path.parent.is_dir() or not holds_run(path.parent):
        raise UsageError(
            f"resume={config.resume} holds no run ({CONFIG_FILE} and {LAST}); give a folder made by train.py"
        )
    given = overrides_given()
    fixed = [key for key in given if key not in _MAY_CHANGE]
    if fixed:
        raise UsageError(
            f"{fixed[0]}={given[fixed[0]]} cannot change while resuming; "
            f"allowed beside resume: {', '.join(_MAY_CHANGE[:-1])}; or start a new run"
        )
    saved = run_config(path.parent, _NEEDED)
    kept = {key: config[key] for key in _MAY_CHANGE if key in given}
    settings = {str(name): value for name, value in saved.agent.items() if name != "name"}
    completed = {"agent": config_class(saved.agent.name).completed(settings)}
    merged = OmegaConf.merge(completed, saved, kept)
    assert isinstance(merged, DictConfig)
    for key in ("device", "threads"):
        merged.agent[key] = merged[key]
    return merged


def figures(config: DictConfig, agent: Any, step: int) -> dict[str, Any]:
    """Pictures for TensorBoard at one evaluation: distribution of the errors on unseen drops, one episode."""
    result = evaluate(agent.env, agent, episodes=_FIGURE_EPISODES, seed=config.seed)
    overrides = {**plain(config.env, "id"), "split": "test"}
    env = make_env(config.env.id, render_mode="rgb_array", seed=config.seed, **overrides)
    with new_figure(6.4, 6.4) as (episode, axes):
        axes.imshow(reports.episode_frame(env, agent))
        axes.axis("off")
    return {"test/cdf": cdf_figure([result], f"after {step} steps"), "test/episode": episode}


def _unwritten_results(folder: Path, total_steps: int | None) -> dict[str, float] | None:
    """Those of a run that was killed when it had finished and only this file was missing.

    Args:
        folder: of the run.
        total_steps: how long it is to be; None: as it is.
    """
    if (folder / RESULTS_FILE).exists():
        return None
    results: dict[str, float] | None = (best_of(folder) or {}).get("results")
    return None if results is None or (total_steps or 0) > results["steps"] else results


def _check_processes(config: DictConfig, agent: Any, processes: int) -> None:
    if not agent.shares_batches:
        raise UsageError(f"agent={config.agent.name} trains in one process, not {processes}; start it without torchrun")
    check_shared(config.agent.batch_size, processes)


def _refuse_used(folder: Path) -> None:
    if holds_run(folder):
        raise UsageError(f"{folder} already holds a run; go on with resume={folder} or choose another folder")


if __name__ == "__main__":
    run_hydra(main, "train")
