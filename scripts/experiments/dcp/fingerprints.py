"""Fingerprinting by criterion, matching and reference spacing, beside the estimators that need no database."""

from __future__ import annotations

from typing import Any

from cfpos.scripts.experiments.common import Effort, Outcome, baselines, compare, progress
from cfpos_envs.drawing.figures import draw_convergence, new_figure

ENV_ID = "dcp-jar-v0"
SPACINGS_M = (2.5, 1.0, 0.5)
CRITERIA = {"RSS dB": "rss-db", "eq. 7": "eq7", "joint dB": "joint-db", "AOA eq. 8": "aoa"}
SITES: dict[str, dict[str, Any]] = {
    "no shadowing": {"site": "clean"},
    "4 dB, not in the database": {"site": "shadowed"},
    "4 dB, in the database": {"site": "shadowed", "shadowing_known": True},
}
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "rss-gn": ("rss-gn", {}),
    "joint-gn": ("joint-gn", {}),
    "joint-gn, MUSIC bearings": ("joint-gn", {"links": "music"}),
    "music": ("music", {}),
    "beamscan": ("beamscan", {}),
    "direct-search": ("direct-search", {}),
    "centroid": ("centroid", {}),
}
_SURVEYED = ("joint dB, noisy survey", {"feature": "joint-db", "database": "surveyed"})


def run(effort: Effort) -> Outcome:
    """Nearest neighbour / mean of the four nearest by weight, RMSE in metres, on the same unseen drops."""
    rows: list[dict[str, Any]] = []
    for site, env in progress(list(SITES.items())[: 1 if effort.is_quick else None], "fingerprints"):
        for spacing in effort.chosen(SPACINGS_M):
            wanted: dict[str, tuple[str, dict[str, Any]]] = {}
            named = {label: {"feature": feature} for label, feature in CRITERIA.items()} | dict([_SURVEYED])
            for label, options in named.items():
                for matching in ("nn", "wknn"):
                    wanted[f"{label}/{matching}"] = (
                        "fingerprint",
                        {**options, "matching": matching, "spacing": spacing},
                    )
            results = compare(ENV_ID, baselines(ENV_ID, effort, wanted, env), effort, env)
            cells = {
                label: f"{results[f'{label}/nn'].rmse:.2f} / {results[f'{label}/wknn'].rmse:.2f}" for label in named
            }
            rows.append({"site": site, "method": f"fingerprint, {spacing:g} m", **cells})
        others = compare(ENV_ID, baselines(ENV_ID, effort, OTHERS, env), effort, env)
        blank = dict.fromkeys([*CRITERIA, _SURVEYED[0]], "")
        rows += [
            {"site": site, "method": label, **blank, "joint dB": f"{result.rmse:.3f}"}
            for label, result in others.items()
        ]
    with new_figure(7.0, 4.5) as (figure, axes):
        lines = [row for row in rows if row["site"] == "no shadowing" and row["method"].startswith("fingerprint")]
        curves = {
            label: (list(effort.chosen(SPACINGS_M)), [float(str(row[label]).split(" / ")[1]) for row in lines])
            for label in CRITERIA
        }
        draw_convergence(axes, curves, xlabel="reference spacing [m]")
    remark = f"{ENV_ID}, {effort.episodes} unseen episodes; nearest neighbour / 4-WKNN; other methods in one column."
    return Outcome(rows, figure, [remark])
