"""Train ecc-fast in a small city, then compare it and its bits with every estimator from CSI on unseen users.

Leaves ``results.json``, ``cdf.png``, ``spiral.png``, the trained networks and a TensorBoard folder.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from tqdm import tqdm

from cfpos.agents import load_agent, make_agent
from cfpos.agents.ecc.weights import weights
from cfpos.baselines import make_policy
from cfpos.scripts import reports
from cfpos.scripts.cli import Parser, UsageError, user_errors
from cfpos.scripts.workers import default_workers, finished
from cfpos_envs import make_env
from cfpos_envs.drawing.figures import draw_cdf, save_figure
from cfpos_envs.evaluation import EvaluationResult, evaluate_many
from cfpos_envs.tracking import track

ENV_ID = "ecc-urban-small-v0"
AGENT = "ecc-fast"
LEARNED = ("csi-scalar-q", "transformer", "adcpm", "mfcnet")
OTHERS = ("csi-knn", "music")
# Every estimator learns for about a minute of a core; small batches, because few steps would leave them far from what
# they can reach.
TRAIN_STEPS = {"csi-scalar-q": 3000, "transformer": 2000, "adcpm": 800, "mfcnet": 3000}
BATCH_SIZE = 64
EVALUATION_SEED = 7
_SPIRAL_ROUNDS = 60


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much the demo computes.

    Attributes:
        episodes: unseen users.
        agent: overrides of the agent's settings.
        options: of the learned estimators, over the above.
        env: environment overrides.
        learned, others: estimators to compare with.
    """

    episodes: int = 500
    agent: dict[str, Any] = dataclasses.field(default_factory=dict)
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    env: dict[str, Any] = dataclasses.field(default_factory=dict)
    learned: tuple[str, ...] = LEARNED
    others: tuple[str, ...] = OTHERS

    @classmethod
    def quick(cls) -> Plan:
        """Seconds instead of minutes: shows that everything runs; its numbers mean nothing."""
        return cls(
            episodes=4,
            agent={"pool": 300, "validation": 50, "samples": 1024, "evaluations": 1, "encoder_hidden": 8},
            options={"train_samples": 256, "train_steps": 2, "batch_size": 256},
            env={"num_slots": 2},
            learned=LEARNED[:1],
            others=OTHERS[1:],
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Train, evaluate, print the table, say where everything is."""
    arguments = _parser().parse_args(argv)
    with user_errors(arguments.debug):
        if arguments.workers < 1:
            raise UsageError(f"--workers={arguments.workers} must be at least 1")
        plan = Plan.quick() if arguments.quick else Plan()
        torch.set_num_threads(1)
        folder = reports.check_writable(arguments.out or Path("outputs/ecc-demo") / time.strftime("%Y-%m-%d_%H-%M-%S"))
        run(plan, folder, arguments.seed, arguments.workers, arguments.trained)


def run(plan: Plan, folder: Path, seed: int, workers: int, trained: bool) -> list[EvaluationResult]:
    """The whole demo.

    Args:
        plan: how much.
        folder: where everything is written.
        seed: of training.
        workers: networks trained at the same time, one core each.
        trained: take the network that comes with the repository instead of training one.

    Returns:
        One result per policy.
    """
    began = time.perf_counter()
    jobs = [*([] if trained else [AGENT]), *plan.learned]
    with tqdm(total=len(jobs), unit="network", desc="training", dynamic_ncols=True) as bar:
        for name, seconds in trainings(jobs, plan, folder, seed, workers):
            bar.write(f"{name}: {seconds:.0f} s of processor time", file=sys.stderr)
            bar.update()
    after = time.perf_counter()
    env = make_env(ENV_ID, num_envs=1, seed=0, split="test", **plan.env)
    env.reset()
    policies: dict[str, object] = {AGENT: load_agent(weights(f"{AGENT}-small") if trained else folder / AGENT, env)}
    policies |= {name: make_policy(name, env, weights=str(folder / f"{name}.pt")) for name in plan.learned}
    policies |= {name: make_policy(name, env) for name in plan.others}
    found = evaluate_many(env, list(policies.values()), plan.episodes, EVALUATION_SEED)
    results = [dataclasses.replace(result, policy=name) for name, result in zip(policies, found, strict=True)]
    lossless = float(env.measurements.system.lossless_bits)
    print(f"\n{ENV_ID}: {plan.episodes} unseen users; errors in metres; bits per base station and user, as counted")
    print(reports.table([_line(result, lossless) for result in results]))
    print(f"\ntraining {after - began:.0f} s, evaluation {time.perf_counter() - after:.0f} s")
    for path in write_report(plan, folder, results, policies[AGENT], lossless):
        print(f"wrote {path}")
    if not trained:
        print(f"network and TensorBoard files: {folder / AGENT}")
    return results


def trainings(jobs: Sequence[str], plan: Plan, folder: Path, seed: int, workers: int) -> Iterator[tuple[str, float]]:
    """Every job with the processor seconds that it took, as they end; arguments as in ``run``."""
    yield from finished(partial(train, plan=plan, folder=folder, seed=seed), jobs, workers)


def train(name: str, plan: Plan, folder: Path, seed: int) -> float:
    """One network, written below ``folder``; returns the processor seconds that it took."""
    began = time.process_time()
    env = make_env(ENV_ID, num_envs=64, seed=seed, **plan.env)
    if name == AGENT:
        make_agent(AGENT, env, seed=seed, **plan.agent).train(log_dir=folder / AGENT, progress=False)
    else:
        options = {"train_steps": TRAIN_STEPS[name], "batch_size": BATCH_SIZE, **plan.options}
        policy: Any = make_policy(name, env, seed=seed, **options)
        policy.train(progress=False)
        policy.save(folder / f"{name}.pt")
    return time.process_time() - began


def write_report(
    plan: Plan, folder: Path, results: Sequence[EvaluationResult], agent: Any, lossless_bits: float
) -> list[Path]:
    """``results.json``, ``cdf.png`` and ``spiral.png``."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    draw_cdf(axes, {row.policy: row.errors for row in results})
    axes.set(title=f"{ENV_ID}, {plan.episodes} unseen users", xlabel="3-D error [m]", xlim=(0.02, None))
    rows = [{**reports.result_row(row.policy, row), **_line(row, lossless_bits)} for row in results]
    followed = track(ENV_ID, agent, rounds=_SPIRAL_ROUNDS, **plan.env)
    print(f"along a spiral of {_SPIRAL_ROUNDS} points {AGENT} errs by {followed.mean_error_m:.2f} m on average")
    content = {"env": ENV_ID, "overrides": plan.env, "rows": rows, "spiral_mean_error_m": followed.mean_error_m}
    return [
        reports.write_json(folder / "results.json", content),
        save_figure(figure, folder / "cdf.png"),
        save_figure(followed.figure(), folder / "spiral.png"),
    ]


def _line(result: EvaluationResult, lossless_bits: float) -> dict[str, Any]:
    return {
        "policy": result.policy,
        "mean": result.mean,
        "median": result.median,
        "p90": result.p90,
        "bits": f"{result.fronthaul_bits:.0f}",
        "% of lossless": 100 * result.fronthaul_bits / lossless_bits,
        "ms/user": result.latency_ms,
    }


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="of training")
    parser.add_argument(
        "--workers", type=int, default=default_workers(), help="networks trained at the same time, one core each"
    )
    parser.add_argument("--trained", action="store_true", help=f"use the {AGENT} that comes along")
    parser.add_argument("--out", type=Path, help="folder (default: a new one below outputs/ecc-demo)")
    parser.add_argument("--quick", action="store_true", help="tiny networks; shows that everything runs")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


if __name__ == "__main__":
    main()
