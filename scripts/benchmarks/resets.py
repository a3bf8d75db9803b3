"""What drawing an episode costs: running generators (``rng=stream``) beside counters (``rng=counter``), in one run.

The two are timed in turns, so that what else the machine does meets both. A reset's work is counted as a round's is in
``roofline``: what its mathematics needs, each quantity once.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from cfpos.scripts.benchmarks.common import Options, Played, Rows, episode_s
from cfpos.scripts.benchmarks.environments import HELD_OUT, RSS, Game, actions_for, make, modes, play
from cfpos.scripts.benchmarks.roofline import FLOAT_BYTES, Work, core_rates, limits
from cfpos_envs.scenarios.dcp.config import DcpConfig
from cfpos_envs.streams import COUNTER, RNGS, STREAM

_BATCHES = (32, 256)
_TURNS = 3

# Integer operations of Philox4x32-10 per word: per round and block two products, two shifts, four exclusive ors and two
# additions to the key, ten rounds, four words.
_WORD = Work(flops=10 * 10 / 4)
# Shifted, converted, scaled.
_UNIFORM = _WORD + Work(flops=3)
# Half of a pair: a logarithm and a root for two, an angle each.
_NORMAL = _WORD + Work(flops=6, logs=0.5, divisions=0.5, angles=1)
# Two words and half a pair's normal numbers; two logarithms decide, a root and a quotient make the proposal.
_GAMMA = _NORMAL + _WORD + Work(flops=16, logs=2, divisions=2)
# Complex product and sum.
_COMPLEX = Work(flops=8)


def reset_work(num_aps: int, num_ues: int, config: DcpConfig, num_candidates: int) -> Work:
    """Beginning one episode of users that stand still.

    Args:
        num_aps, num_ues: M and K.
        config: antennas L, paths N, directions A of the profile; whether access points are held out.
        num_candidates: P places of the coarse start; 0 for one that needs none.
    """
    radio = config.radio
    size, paths = radio.num_antennas, radio.num_paths
    links = num_aps * num_ues
    # Three uniform numbers and a normal one; distance, law, direction, obstruction, and four entries of a map.
    placed = _UNIFORM * 3 + _NORMAL + Work(flops=40, logs=1, angles=1, exps=1, divisions=1, gathers=4)
    # Angle of a path: a logarithm; its phase and the response of an antenna: three sines, then powers of one number.
    arriving = (_UNIFORM + Work(flops=12, logs=1, angles=3) + _COMPLEX * size) * paths
    drawn = _NORMAL * (size * (size - 1)) + _GAMMA * size + Work(divisions=size)
    factored = _COMPLEX * ((size - 1) * size * (size + 1) / 6) + Work(divisions=2 * size)
    # C A and its square, lower triangles.
    coloured = _COMPLEX * (2 * size * (size + 1) * (size + 2) / 6)
    # Beams by lags, then every direction's similarity and the largest of them.
    heard = Work(flops=4 * size**2 + 2 * size * config.num_angles + config.num_angles, logs=1, divisions=2)
    held_out = (_UNIFORM + Work(flops=2 * num_aps)) * (1 if config.num_held_out else 0)
    judged = 1 - config.num_held_out / num_aps
    # RSS of a candidate: difference, square, sum; its similarity; the product of both.
    per_candidate = 4 + (2 * size + 3 if config.stage != "rss" else 0)
    searched = Work(flops=per_candidate) * (judged * num_candidates) if num_candidates else Work()
    best = Work(flops=2, logs=1) * (num_ues * num_candidates)
    per_link = placed + arriving + drawn + factored + coloured + heard + held_out + searched
    return per_link * links + _UNIFORM * (2 * num_ues) + best


def reset_bytes(num_aps: int, num_ues: int, num_antennas: int) -> float:
    """What one reset must write at least, bytes: covariances, spectra, powers, bearings, places."""
    links = num_aps * num_ues
    return FLOAT_BYTES * (links * (2 * num_antennas**2 + num_antennas + 3 + 0.25) + 4 * num_aps + 8 * num_ues)


def run(options: Options) -> dict[str, Any]:
    """Resets, rounds and whole episodes by generator and front end, and a reset over its limits."""
    compared: Rows = []
    rates = core_rates(options)
    limited: Rows = []
    mode = modes(options)[-1]
    for game in (RSS, HELD_OUT):
        for front_end, batch in (
            ("parallel", 1),
            *(("vector", batch) for batch in ((3,) if options.quick else _BATCHES)),
        ):
            print(f"  {game.label}, {front_end}, B={batch}, {mode}", file=sys.stderr, flush=True)
            rows = _side_by_side(game, front_end, batch, mode, options)
            compared += rows
            if front_end == "vector":
                limited.append(_limited(game, rows[-1], rates, options))
    remarks = [
        "CPU time, stream and counter in turns; 'times' compares whole episodes, resets included, with rng=stream.",
        "Work of a reset as counted in scripts/benchmarks/resets.py, rates in float32.",
    ]
    return {"tables": {"resets": compared, "reset roofline": limited}, "remarks": remarks}


def _side_by_side(game: Game, front_end: str, batch: int, mode: str, options: Options) -> Rows:
    envs = {rng: make(game, options, None if front_end == "parallel" else batch, mode, rng=rng) for rng in RNGS}
    best = in_turns(envs, batch, options)
    rounds = envs[STREAM].rounds
    # A round does not know how its episode was drawn.
    round_s = min(seconds for _, seconds in best.values())
    before = best[STREAM][0] + rounds * round_s
    return [
        {
            "environment": game.label,
            "front end": front_end,
            "B": batch,
            "mode": mode,
            "rng": rng,
            "reset us/episode": 1e6 * reset_s / batch,
            "round us/episode": 1e6 * round_s / batch,
            "agent-steps/s": rounds * batch * options.num_aps / (reset_s + rounds * round_s),
            "times": before / (reset_s + rounds * round_s),
        }
        for rng, (reset_s, _) in best.items()
    ]


def in_turns(envs: Mapping[str, Any], batch: int, options: Options) -> dict[str, tuple[float, float]]:
    """CPU seconds of a reset and of a round of every game, the best of several turns in which all are timed.

    Args:
        envs: by name.
        batch: their episodes.
        options: see there.
    """
    actions = {name: actions_for(env) for name, env in envs.items()}
    best = {name: (float("inf"), float("inf")) for name in envs}
    for env, action in zip(envs.values(), actions.values()):
        # A site is drawn by the first episode there, which is no part of an episode's cost.
        for _ in range(-(-env.scenario.config.settings.num_sites // batch)):
            env.reset()
        play(env, action, Played())
    for _ in range(1 if options.quick else _TURNS):
        for name, env in envs.items():

            def episode(spent: Played, env: Any = env, action: Any = actions[name]) -> None:
                play(env, action, spent)

            reset_s, round_s = episode_s(episode, options)
            best[name] = (min(best[name][0], reset_s), min(best[name][1], round_s))
    return best


def _limited(game: Game, row: dict[str, Any], rates: dict[str, float], options: Options) -> dict[str, Any]:
    assert row["rng"] == COUNTER
    scenario = make(game, options, 1, row["mode"]).scenario
    config: DcpConfig = scenario.config
    candidates = 0
    if config.start != "centroid":
        candidates = max(1, round(config.settings.side_m / min(config.coarse_spacing_m, config.settings.side_m))) ** 2
    work = reset_work(options.num_aps, options.num_ues, config, candidates)
    least = limits(work, reset_bytes(options.num_aps, options.num_ues, config.radio.num_antennas), rates)
    seconds = 1e-6 * row["reset us/episode"]
    return {
        "environment": game.label,
        "B": row["B"],
        "mode": row["mode"],
        "measured us/reset": 1e6 * seconds,
        "fused limit us": 1e6 * least["fused"],
        "eager limit us": 1e6 * least["eager"],
        "times fused": seconds / least["fused"],
        "times eager": seconds / least["eager"],
    }
