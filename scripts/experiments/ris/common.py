"""What the experiments with surfaces share: trials on common random numbers, table rows, curves beside the bounds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from torch import Tensor

from cfpos.baselines import make_policy
from cfpos.baselines.ris.pairs import RisEstimate
from cfpos.scripts.experiments.common import EVALUATION_SEED, Effort, Outcome, progress
from cfpos_envs.drawing.figures import OKABE_ITO
from cfpos_envs.measurements.ris import RisMeasurements
from cfpos_envs.scenarios.ris.config import RisConfig
from cfpos_envs.scenarios.ris.world import Scene, draw_phases, draw_scene, drop_bound, measurements
from cfpos_envs.streams import Streams

WITHOUT_CLOCK = ("ris-ls", "ris-aoa-toa")
"""Estimators that give no clock bias."""
METHODS = ("ris-wls", "ris-wls-paper", "ris-ls")
_LOOK = {
    "ris-wls": (0, "o-"),
    "ris-wls-paper": (1, "s--"),
    "ris-ls": (2, "^--"),
    "ris-aoa-toa": (3, "v--"),
    "ris-siso": (5, "D--"),
}
# Trials drawn at a time, so that the received blocks of a point need not all be in memory.
_CHUNK = 50
_OUTLIER = 5.0
_MOST_TICKS = 7
_SMALLEST_SPAN = 4.0


@dataclass(frozen=True)
class Trials:
    """Some trials of a scene; the hidden truth beside what estimators get.

    Attributes:
        config, scene, phases: the drop.
        measurements: what estimators get.
        peb_m [B, J], ceb_m [B, J]: bounds; the clock's against the first base station.
    """

    config: RisConfig
    scene: Scene
    phases: Tensor
    measurements: RisMeasurements
    peb_m: Tensor
    ceb_m: Tensor

    def error_m(self, estimate: RisEstimate) -> Tensor:
        """[B, J] distance from the true position."""
        return torch.linalg.vector_norm(estimate.position - self.scene.ue_m, dim=-1)

    def clock_error_m(self, estimate: RisEstimate) -> Tensor:
        """[B, J] error of the clock bias, which is known modulo the window only."""
        window = self.config.system.window_m
        off = estimate.bias_m - self.scene.bias_m[..., 0]
        return (torch.remainder(off + window / 2, window) - window / 2).abs()


def draw_trials(effort: Effort, **scene: Any) -> Iterator[Trials]:
    """``effort.episodes`` trials in pieces. The same random numbers for every scene of the same shape.

    Args:
        effort: quick mode uses the small preset.
        scene: fields of ``RisConfig``.
    """
    small = {"preset": "small"} if effort.is_quick else {}
    config = RisConfig(split="test", **{**small, **scene})
    streams = Streams(EVALUATION_SEED, "test")
    for low in range(0, effort.episodes, _CHUNK):
        batch = min(_CHUNK, effort.episodes - low)
        drawn, phases = draw_scene(config, streams, batch), draw_phases(config, streams, batch)
        peb, ceb = drop_bound(config, drawn, phases)
        yield Trials(config, drawn, phases, measurements(config, drawn, phases), peb, ceb[..., 0])


def compared(
    policies: Iterable[str], effort: Effort, first_columns: Mapping[str, Any], **scene: Any
) -> list[dict[str, Any]]:
    """One table row per estimator, all on the same trials.

    Args:
        policies: registered names.
        effort: number of trials.
        first_columns: first columns of the rows.
        scene: fields of ``RisConfig``.
    """
    made: dict[str, Any] = {name: make_policy(name) for name in policies}
    parts: dict[str, list[dict[str, Tensor]]] = {name: [] for name in made}
    for trials in draw_trials(effort, **scene):
        for name, policy in made.items():
            estimate = policy.locate(trials.measurements)
            found = {"error": trials.error_m(estimate), "peb": trials.peb_m, "ceb": trials.ceb_m}
            parts[name].append({**found, "clock": trials.clock_error_m(estimate), "valid": estimate.valid.double()})
    joined = {
        name: {key: torch.cat([part[key] for part in found]) for key in found[0]} for name, found in parts.items()
    }
    return [{**first_columns, "policy": name, **summary(found, name)} for name, found in joined.items()]


def summary(found: Mapping[str, Tensor], policy: str) -> dict[str, Any]:
    """Columns of a row; every estimate counts, those called invalid too.

    Args:
        found: ``error``, ``clock``, ``peb``, ``ceb`` in metres and ``valid``, one number per estimate.
        policy: decides whether there is a clock to judge.
    """
    error_m, peb_m, ceb_m = rms(found["error"]), rms(found["peb"]), rms(found["ceb"])
    clock_m = None if policy in WITHOUT_CLOCK else rms(found["clock"])
    return {
        "rmse_mm": 1e3 * error_m,
        "median_mm": 1e3 * float(found["error"].median()),
        "peb_mm": 1e3 * peb_m,
        "rmse/bound": error_m / peb_m,
        "outliers": float((found["error"] > _OUTLIER * found["peb"]).double().mean()),
        "clock_mm": None if clock_m is None else 1e3 * clock_m,
        "ceb_mm": 1e3 * ceb_m,
        "clock/bound": None if clock_m is None else clock_m / ceb_m,
        "valid": float(found["valid"].mean()),
    }


def sweep(
    effort: Effort,
    setting: str,
    values: Sequence[Any],
    xlabel: str,
    policies: Sequence[str] = METHODS,
    shown: str | None = None,
    log_x: bool = False,
    **scene: Any,
) -> Outcome:
    """RMSE and clock RMSE over one setting, with a picture.

    Args:
        effort: number of trials.
        setting: the field of ``RisConfig`` that is swept.
        values: what it is set to.
        xlabel: axis label with unit.
        policies: registered names.
        shown: column of the table, where pairs such as (8, 8) are named by their first number; None: ``setting``.
        log_x: logarithmic horizontal axis.
        scene: what is kept.
    """
    rows: list[dict[str, Any]] = []
    column = shown or setting
    for value in progress(effort.chosen(values), column):
        first_columns = {column: value[0] if isinstance(value, tuple) else value}
        rows += compared(policies, effort, first_columns, **{**scene, setting: value})
    return Outcome(rows, figure(rows, column, xlabel, policies, log_x), [trials_remark(effort)])


def trials_remark(effort: Effort) -> str:
    """How many trials stand behind a row, and what its columns mean."""
    return (
        f"{effort.episodes} trials a row, on the same draws for all estimators; every estimate counts; an outlier is "
        f"farther off than {_OUTLIER:g} position error bounds."
    )


def figure(
    rows: Sequence[Mapping[str, Any]], x: str, xlabel: str, policies: Sequence[str], log_x: bool = False
) -> Figure:
    """Position on the left, clock on the right, bounds dotted."""
    drawn, panels = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    draw_panel(panels[0], rows, x, "rmse_mm", "peb_mm", policies)
    draw_panel(panels[1], rows, x, "clock_mm", "ceb_mm", policies)
    for axes, title in zip(panels, ("position", "clock bias times c")):
        axes.set(xlabel=xlabel, ylabel="RMSE [mm]", title=title, xscale="log" if log_x else "linear")
        values = sorted({row[x] for row in rows})
        if len(values) <= _MOST_TICKS:
            axes.set_xticks(values, [f"{value:g}" for value in values])
            axes.xaxis.set_minor_formatter(NullFormatter())
    panels[0].legend(fontsize=8)
    return drawn


def draw_panel(
    axes: Axes, rows: Sequence[Mapping[str, Any]], x: str, column: str, bound: str, policies: Sequence[str]
) -> None:
    """Curves of all estimators that have the column, and the bound.

    Args:
        axes: where to draw.
        rows: of ``compared``.
        x: column of the horizontal axis.
        column, bound: columns of the error and of its bound.
        policies: registered names, in the order of the legend.
    """
    for policy in policies:
        chosen = [row for row in rows if row["policy"] == policy and row[column] is not None]
        if chosen:
            colour, style = _LOOK[policy]
            axes.plot(
                [row[x] for row in chosen],
                [row[column] for row in chosen],
                style,
                color=OKABE_ITO[colour],
                label=policy,
                markersize=4,
            )
    first = [row for row in rows if row["policy"] == policies[0]]
    axes.plot([row[x] for row in first], [row[bound] for row in first], ":", color="black", label="bound")
    readable_log(axes)
    axes.grid(True, which="major", color="#E4E4E4")


def readable_log(axes: Axes) -> None:
    """Logarithmic vertical axis with plain numbers, as many as there is room for.

    Args:
        axes: with everything drawn.
    """
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    if high < _SMALLEST_SPAN * low:
        # Scatter of a few per cent should not look like a trend.
        middle = (low * high) ** 0.5
        low, high = middle / _SMALLEST_SPAN**0.5, middle * _SMALLEST_SPAN**0.5
        axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 200 * low else (1.0,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def rms(values: Tensor) -> float:
    """Root mean square."""
    return float(values.square().mean().sqrt())
