"""Claims of the paper on distributed collaborative positioning with MADDPG."""

from __future__ import annotations

import json

from cfpos.scripts.claims.common import Claim, Finding, falling, figure, figures, rows, value, verdict
from cfpos.scripts.cli import ROOT

_OVER = {"fig3": ("num_aps", (16, 36, 64)), "fig4": ("num_antennas", (4, 8, 16))}
_FINE, _COARSE, _AGENTS = "fingerprint, 0.5 m", "fingerprint, 2.5 m", "MADDPG"


def _over(name: str, policy: str) -> list[float]:
    """RMSE of a policy over the APs (``fig3``) or the antennas (``fig4``), metres."""
    column, sizes = _OVER[name]
    return [value(name, "rmse_m", {column: size, "policy": policy}) for size in sizes]


def saved(name: str) -> list[float]:
    """By how many per cent points every 0.5 m have a lower RMSE than points every 2.5 m."""
    return [100 * (1 - fine / coarse) for fine, coarse in zip(_over(name, _FINE), _over(name, _COARSE))]


def _convergence(other: str, claimed: float) -> Finding:
    ours, theirs = rows("fig2", {"state": "JAR"})[0], rows("fig2", {"state": other})[0]
    episodes = theirs["episodes to converge"]
    if not episodes:
        text = (
            f"{other} never improves: {figure(theirs['untrained_m'])} m untrained and at best; a rate cannot be given"
        )
        return Finding(text, "not comparable")
    percent = 100 * (1 - ours["episodes to converge"] / episodes)
    text = (
        f"{figure(ours['episodes to converge'])} episodes instead of {figure(episodes)}: {figure(percent)} % fewer; "
        f"best {figure(ours['best_m'])} m (untrained {figure(ours['untrained_m'])}) instead of "
        f"{figure(theirs['best_m'])} m (untrained {figure(theirs['untrained_m'])})"
    )
    return Finding(text, verdict(percent >= claimed))


def _spacing(name: str, letter: str) -> Finding:
    _, sizes = _OVER[name]
    percents = saved(name)
    grid = [coarse**2 - fine**2 for fine, coarse in zip(_over(name, _FINE), _over(name, _COARSE))]
    listed = ", ".join(f"{figure(percent)} % at {letter} = {size}" for size, percent in zip(sizes, percents))
    text = f"{listed}; difference of the squared RMSE {figures(grid)} m^2"
    return Finding(text, verdict(min(percents) > 51.58))


def _beside_fingerprint(name: str, letter: str) -> Finding:
    _, sizes = _OVER[name]
    ours, theirs = _over(name, _AGENTS), _over(name, _FINE)
    text = (
        f"{letter} = {figures(sizes, ' / ')}: {figures(ours, ' / ')} m, fingerprint {figures(theirs, ' / ')} m, "
        f"ratio {figures([a / b for a, b in zip(ours, theirs)], ' / ')}"
    )
    approaches = all(a >= b for a, b in zip(ours, theirs))
    return Finding(text, verdict(falling(ours), approaches))


def _printed_game() -> Finding:
    printed = value("ablation", "rmse_m", {"policy": "paper's game, plain MADDPG"})
    changed = value("ablation", "rmse_m", {"policy": "+ information fusion"})
    site = {"site": "shadowed", "policy": _FINE}
    text = (
        f"default site, the game as printed {figure(printed)} m, with our changes {figure(changed)} m; "
        "fingerprint at 0.5 m "
        f"{figure(value('presets', 'rmse_m', site))} m on `shadowed`"
    )
    fingerprint = value("presets", "rmse_m", site)
    return Finding(text, verdict(printed < fingerprint, changed < fingerprint))


def _stages() -> Finding:
    parts, holds = [], []
    for site in ("clean", "shadowed"):
        agents, plain = (rows("chain", {"site": site, "policy": name})[0] for name in (_AGENTS, "untrained"))
        parts.append(
            f"{site}: {figures([agents['start_m'], agents['stage_1_m'], agents['stage_2_m']], ', then ')} m "
            f"(untrained {figure(plain['stage_2_m'])} m)"
        )
        holds += [agents["stage_1_m"] < agents["start_m"], agents["stage_2_m"] < agents["stage_1_m"]]
    return Finding("; ".join(parts), verdict(*holds))


def _complexity() -> Finding:
    text = (ROOT / "docs" / "results" / "benchmark.json").read_text(encoding="utf-8")
    table = json.loads(text)["parts"]["locating"]["tables"]["locating"]
    spent = {row["method"]: row["us/user"] / 1000 for row in table}
    alone = {row["method"]: row["policy alone us/user"] / 1000 for row in table}
    fine, coarse, agents = "fingerprint 0.5 m", "fingerprint 2.5 m", "MADDPG, random weights"
    where = {"num_aps": 36}
    fig3 = [value("fig3", "ms/user", {**where, "policy": name}) for name in (_FINE, _COARSE, _AGENTS)]
    said = (
        f"ms per user, M = 36, benchmark: {figures([spent[fine], spent[coarse]], ' (0.5 m) and ')} (2.5 m) "
        "for fingerprints, "
        f"{figure(spent[agents])} for agents ({figure(alone[agents])} without the game); "
        f"fig3: {figures(fig3[:2], ' and ')}, agents {figure(fig3[2])}"
    )
    return Finding(said, verdict(spent[agents] < spent[fine], fig3[2] < fig3[0]))


CLAIMS = (
    Claim(
        "Agents that see RSS and AOA (JAR) converge 92.33 % faster than with RSS alone",
        "Fig. 2",
        ("fig2",),
        lambda: _convergence("RSS", 92.33),
        "Our agents begin as estimators and RSS agents do not get beyond that; the source does not define its rate.",
    ),
    Claim(
        "JAR converges 79.32 % faster than AOA alone",
        "Fig. 2",
        ("fig2",),
        lambda: _convergence("AOA", 79.32),
        "JAR begins at what it can reach, so that its count is of a tiny improvement; the error says more.",
    ),
    Claim(
        "Fingerprint points every 0.5 m instead of 2.5 m lower the RMSE by over 51.58 %, over the APs",
        "Fig. 3, section V",
        ("fig3",),
        lambda: _spacing("fig3", "M"),
        "The grid adds the same squared error at every M; the noise of the readings, which no grid "
        "removes, is more with "
        "few APs.",
    ),
    Claim(
        "The same, over the antennas",
        "Fig. 4, section V",
        ("fig4",),
        lambda: _spacing("fig4", "L"),
        "As above; our fingerprints average four neighbours, which already repairs much of a coarse grid.",
    ),
    Claim(
        "The error of the agents falls with M and comes towards that of fingerprints at 0.5 m from above",
        "Fig. 3",
        ("fig3",),
        lambda: _beside_fingerprint("fig3", "M"),
        "The error falls with M, but our agents are ahead of the fingerprints from the start: game and "
        "reward were changed.",
    ),
    Claim(
        "The same over the antennas",
        "Fig. 4",
        ("fig4",),
        lambda: _beside_fingerprint("fig4", "L"),
        "As above.",
    ),
    Claim(
        "The agents are more accurate than conventional fingerprints",
        "abstract",
        ("ablation", "presets"),
        _printed_game,
        "The printed reward hardly follows the error; with a reward and actions of our own the statement holds.",
    ),
    Claim(
        "Two stages, powers first and angles second, bring the accuracy",
        "section V, Fig. 1",
        ("chain",),
        _stages,
        "The second stage always helps; the first makes the start worse under unknown shadowing, and "
        "training adds little.",
    ),
    Claim(
        "Less computation than fingerprinting (no figure is given)",
        "sections I and VI",
        ("fig3",),
        _complexity,
        "The two tables differ: `fig3` times evaluated episodes with their simulation, the benchmark what it takes to "
        "locate. Training is not counted; against a grid of 2.5 m only the benchmark shows an advantage.",
        command="python scripts/benchmark.py --parts locating",
    ),
)
