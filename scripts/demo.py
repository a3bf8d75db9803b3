"""Train DCP-MADDPG without labels and compare it with every baseline on sites it has never seen.

Presets and policies are independent pieces, so every core has one of its own (``--workers``).

Leaves ``results.json``, ``cdf.png``, ``episode.png``, one checkpoint and one TensorBoard folder per site preset.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from tqdm import tqdm

from cfpos.agents import load_agent, make_agent
from cfpos.agents.maddpg.config import MaddpgConfig
from cfpos.baselines import make_policy
from cfpos.scripts import reports
from cfpos.scripts.cli import Parser, UsageError, user_errors
from cfpos.scripts.workers import default_workers, finished
from cfpos_envs import evaluate, make_env
from cfpos_envs.drawing.figures import bounds_by_name, draw_cdf, save_figure
from cfpos_envs.evaluation import EvaluationResult, format_table

ENV_ID = "dcp-jar-v0"
SITES = ("clean", "shadowed", "hard")
BASELINES: dict[str, tuple[str, dict[str, Any]]] = {
    "fingerprint 0.5 m": ("fingerprint", {"spacing": 0.5}),
    "fingerprint 2.5 m": ("fingerprint", {"spacing": 2.5}),
    "music": ("music", {}),
    "joint-gn": ("joint-gn", {}),
    "direct-search": ("direct-search", {}),
    "untrained": ("untrained", {}),
    "centroid": ("centroid", {}),
}
LEARNED = "DCP-MADDPG"
EVALUATION_SEED = 7


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much the demo computes.

    Attributes:
        steps: environment steps of training per site preset.
        episodes: unseen episodes per site preset.
        sites: presets.
        env: environment overrides; the paper's full scenario by default.
        agent: overrides of the agent's settings.
        baselines: names in ``BASELINES``.
    """

    steps: int = 30_000
    episodes: int = 50
    sites: tuple[str, ...] = SITES
    env: dict[str, Any] = dataclasses.field(default_factory=lambda: {"num_aps": 36, "num_ues": 6, "num_antennas": 8})
    agent: dict[str, Any] = dataclasses.field(default_factory=dict)
    baselines: tuple[str, ...] = tuple(BASELINES)

    @classmethod
    def quick(cls) -> Plan:
        """Seconds instead of minutes: shows that everything runs; its numbers mean nothing."""
        return cls(
            steps=96,
            episodes=4,
            sites=("clean", "hard"),
            env={"num_aps": 9, "num_ues": 2, "num_antennas": 4, "num_sites": 2, "side_m": 50.0},
            agent={"num_envs": 8, "warmup_steps": 16, "batch_size": 32, "evaluations": 2, "validation_envs": 4},
            baselines=("fingerprint 2.5 m", "joint-gn", "untrained", "centroid"),
        )


@dataclasses.dataclass(frozen=True)
class Job:
    """One policy on one site preset, a piece of work that needs nothing of the others.

    Attributes:
        plan: how much.
        folder: of the demo.
        site: preset.
        label: a key of ``BASELINES``, or ``LEARNED``: trained first.
        seed: of training.
    """

    plan: Plan
    folder: Path
    site: str
    label: str
    seed: int


def main(argv: Sequence[str] | None = None) -> None:
    """Train, evaluate, print the tables, say where everything is."""
    arguments = _parser().parse_args(argv)
    with user_errors(arguments.debug):
        plan = Plan.quick() if arguments.quick else Plan()
        if arguments.steps is not None:
            plan = dataclasses.replace(plan, steps=arguments.steps)
        if plan.steps < 1:
            raise UsageError(f"--steps={plan.steps} must be at least 1")
        if arguments.workers < 1:
            raise UsageError(f"--workers={arguments.workers} must be at least 1")
        folder = reports.check_writable(arguments.out or Path("outputs/demo") / time.strftime("%Y-%m-%d_%H-%M-%S"))
        run(plan, folder, arguments.seed, arguments.workers)


def run(plan: Plan, folder: Path, seed: int, workers: int) -> dict[str, list[EvaluationResult]]:
    """The whole demo.

    Args:
        plan: how much.
        folder: where everything is written.
        seed: of training.
        workers: pieces of it at the same time, one core each.

    Returns:
        Results by site preset.
    """
    began = time.perf_counter()
    print(
        f"training DCP-MADDPG on {ENV_ID}, site presets {', '.join(plan.sites)}; {workers} at a time", file=sys.stderr
    )
    results = measure_all(plan, folder, seed, workers)
    for site, rows in results.items():
        print(f"\n{site}: {plan.episodes} unseen episodes, {_scene(plan)}; metres")
        print(format_table(rows))
    print(f"\ntraining and evaluation {time.perf_counter() - began:.0f} s")
    for path in write_report(plan, folder, results):
        print(f"wrote {path}")
    print(f"checkpoints and TensorBoard files: {', '.join(str(folder / site) for site in plan.sites)}")
    print(f"look at the training: tensorboard --logdir {folder}")
    return results


def train(plan: Plan, site: str, log_dir: Path, seed: int) -> None:
    """One agent on the training sites of a preset; ``best.pt`` in ``log_dir`` is the policy to use."""
    num_envs = plan.agent.get("num_envs", MaddpgConfig.num_envs)
    env = make_env(ENV_ID, num_envs=num_envs, seed=seed, site=site, **plan.env)
    make_agent("maddpg", env, seed=seed, **plan.agent).train(total_steps=plan.steps, log_dir=log_dir, progress=False)


def measure_all(plan: Plan, folder: Path, seed: int, workers: int) -> dict[str, list[EvaluationResult]]:
    """Every policy on every preset; arguments as in ``run``."""
    labels = (*plan.baselines, LEARNED)
    # What takes longest begins first, so that no core waits for it at the end.
    longest_first = [*((site, LEARNED) for site in reversed(plan.sites))]
    longest_first += [(site, label) for label in plan.baselines for site in plan.sites]
    jobs = [Job(plan, folder, site, label, seed) for site, label in longest_first]
    found: dict[tuple[str, str], EvaluationResult] = {}
    with tqdm(total=len(jobs), unit="policy", dynamic_ncols=True) as bar:
        for job, (result, seconds) in finished(measure, jobs, workers):
            found[job.site, job.label] = result
            if job.label == LEARNED:
                bar.write(f"{job.site}: trained in {seconds:.0f} s of processor time", file=sys.stderr)
            bar.update()
    return {site: [found[site, label] for label in labels] for site in plan.sites}


def measure(job: Job) -> tuple[EvaluationResult, float]:
    """Train if need be, then play the unseen drops; also the processor seconds of the training."""
    began = time.process_time()
    log_dir = job.folder / job.site
    if job.label == LEARNED:
        train(job.plan, job.site, log_dir, job.seed)
    trained = time.process_time() - began
    env = make_env(ENV_ID, num_envs=1, seed=0, site=job.site, split="test", **job.plan.env)
    policy = load_agent(log_dir, env) if job.label == LEARNED else _baseline(job.label, env)
    result = evaluate(env, policy, episodes=job.plan.episodes, seed=EVALUATION_SEED)
    return dataclasses.replace(result, policy=job.label), trained


def write_report(plan: Plan, folder: Path, results: dict[str, list[EvaluationResult]]) -> list[Path]:
    """``results.json``, ``cdf.png`` and ``episode.png``."""
    figure, panels = plt.subplots(1, len(results), figsize=(5 * len(results), 4), squeeze=False, layout="constrained")
    for axes, (site, rows) in zip(panels[0], results.items()):
        draw_cdf(axes, {row.policy: row.errors for row in rows}, bounds_by_name(rows))
        axes.set(title=f"{site}, {_scene(plan)}", xlim=(0.02, None))
        if axes is not panels[0, -1]:
            axes.get_legend().remove()
    site = plan.sites[-1]
    env = make_env(ENV_ID, render_mode="rgb_array", seed=EVALUATION_SEED, site=site, split="test", **plan.env)
    frame = reports.episode_frame(env, load_agent(folder / site, env))
    sites = {site: [reports.result_row(row.policy, row) for row in rows] for site, rows in results.items()}
    content = {"env": ENV_ID, "overrides": plan.env, "training_steps": plan.steps, "sites": sites}
    return [
        reports.write_json(folder / "results.json", content),
        save_figure(figure, folder / "cdf.png"),
        reports.save_image(folder / "episode.png", frame),
    ]


def _baseline(label: str, env: Any) -> Any:
    name, options = BASELINES[label]
    return make_policy(name, env, **options)


def _scene(plan: Plan) -> str:
    return f"M = {plan.env['num_aps']}, K = {plan.env['num_ues']}, L = {plan.env['num_antennas']}"


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, help=f"training budget in environment steps per site ({Plan.steps})")
    parser.add_argument("--seed", type=int, default=0, help="of training")
    parser.add_argument("--workers", type=int, default=default_workers(), help="processes, one core each (all cores)")
    parser.add_argument("--out", type=Path, help="folder (default: a new one below outputs/demo)")
    parser.add_argument("--quick", action="store_true", help="a tiny scene; shows that everything runs")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


if __name__ == "__main__":
    main()
