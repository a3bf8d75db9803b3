"""Measurements that are wrong as a whole: what every estimator answers to them, and whether it says so."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

from cfpos.agents import load_agent
from cfpos.agents.ecc.weights import weights
from cfpos.baselines import make_policy
from cfpos_envs import make_env
from cfpos_envs.front_ends.vector import VectorEnv
from cfpos_envs.measurements.base import PositionEstimate, Reason

Spoil = Callable[[Any, torch.Generator], Any]
MOST_BEYOND = 0.01
"""Share of all answers that may be valid and off by more than ``BEYOND`` of their standard deviations."""
BEYOND = 5.0
STUCK_DBM = -200.0
_HEARD = 4
_RANGED = ("toa-wls", "toa-huber", "toa-em", "toa-mmse", "toa-nlos-drop", "tdoa-wls", "tdoa-chan")
_DIFFERENCES = ("tdoa-wls", "tdoa-chan", "toa-huber", "toa-em", "toa-nlos-drop")
_ROUND_TRIPS = ("rtt-wls", "toa-huber", "toa-em", "toa-mmse", "toa-nlos-drop")
_PLACED = ("rss-gn", "rss-mmse", "joint-gn", "joint-em", "direct-search", "music", "beamscan", "centroid")
_LEARNED = ("fingerprint", "gpr")
_POLICY_OPTIONS: Mapping[str, Mapping[str, Any]] = {"fingerprint": {"spacing": 2.0}, "csi-knn": {"references": 2048}}
_RADIO = {"num_aps": 16, "num_sites": 2, "wrap": False}


@dataclass(frozen=True)
class Case:
    """What is wrong, in which game, and who is asked.

    Attributes:
        what: in a few words.
        env_id, options: the game that is measured; options may make the fault by themselves.
        policies: names of policies or of trained networks.
        spoil: what is done to right measurements.
    """

    what: str
    env_id: str
    policies: Sequence[str]
    spoil: Spoil = lambda measured, draw: measured
    options: Mapping[str, Any] = field(default_factory=dict)


def ranges_stuck(value_m: float) -> Spoil:
    """Every range reads the same number."""

    def spoil(measured: Any, _: torch.Generator) -> Any:
        if hasattr(measured, "range_m"):
            return dataclasses.replace(measured, range_m=torch.full_like(measured.range_m, value_m))
        values = measured.values.clone()
        values[..., 0] = value_m
        return dataclasses.replace(measured, values=values)

    return spoil


def powers_stuck(measured: Any, _: torch.Generator) -> Any:
    """Every access point reports ``STUCK_DBM``; spectra and covariances stay."""
    return dataclasses.replace(measured, rss_dbm=torch.full_like(measured.rss_dbm, STUCK_DBM))


def heard_by(count: int) -> Spoil:
    """Only ``count`` access points, others for every episode, heard its users."""

    def spoil(measured: Any, draw: torch.Generator) -> Any:
        episodes, aps = measured.rss_dbm.shape[:2]
        rank = torch.rand(episodes, aps, generator=draw).argsort(dim=1).argsort(dim=1)
        rss = torch.where((rank < count).unsqueeze(-1), measured.rss_dbm, torch.nan)
        return dataclasses.replace(measured, rss_dbm=rss)

    return spoil


def one_station(measured: Any, draw: torch.Generator) -> Any:
    """All base stations but one, another for every user, heard nothing."""
    heard = torch.rand(measured.valid.shape, generator=draw) * measured.valid
    kept = torch.nn.functional.one_hot(heard.argmax(dim=-1), heard.shape[-1]).bool()
    valid = measured.valid & kept
    csi = torch.where(valid[..., None, None, None], measured.csi, torch.zeros_like(measured.csi))
    return dataclasses.replace(measured, csi=csi, valid=valid)


def noise_alone(measured: Any, draw: torch.Generator) -> Any:
    """Samples of noise as strong as what was received."""
    return dataclasses.replace(measured, received=_noise_like(measured.received, draw))


def responses_of_noise(measured: Any, draw: torch.Generator) -> Any:
    """Channel responses that are noise as strong as they were; ranges stay."""
    return dataclasses.replace(measured, cfr=_noise_like(measured.cfr, draw))


def cases() -> list[Case]:
    """Everything that is tried."""
    made = []
    for value_m in (0.0, -1e9):
        for env_id, asked in (("toa-v0", _RANGED), ("tdoa-v0", _DIFFERENCES), ("rtt-v0", _ROUND_TRIPS)):
            made.append(Case(f"all ranges {value_m:g} m", env_id, asked, ranges_stuck(value_m)))
        made.append(Case(f"all ranges {value_m:g} m", "hybrid-v0", ("hybrid-gn",), ranges_stuck(value_m)))
    dcp = "dcp-jar-v0"
    stuck = f"all powers {STUCK_DBM:g} dBm"
    made.append(Case(stuck, dcp, (*_PLACED, *_LEARNED), powers_stuck, _RADIO))
    made.append(Case("one AP alone", dcp, (*_PLACED, *_LEARNED), heard_by(1), _RADIO))
    made.append(Case("12 of 16 APs lost", dcp, (*_PLACED, *_LEARNED), heard_by(_HEARD), _RADIO))
    blocked = {"nlos_share": 1.0}
    made.append(Case("all links NLOS", "toa-v0", _RANGED, options=blocked))
    made.append(Case("all links NLOS", "tdoa-v0", _DIFFERENCES, options=blocked))
    made.append(Case("all links NLOS", "hybrid-v0", ("hybrid-gn",), options=blocked))
    made.append(Case("all links NLOS", dcp, (*_PLACED, *_LEARNED), options={**_RADIO, **blocked}))
    waveform = {"measurement": "waveform"}
    made.append(Case("all links NLOS", "toa-v0", ("joint-cp",), options={**waveform, **blocked}))
    made.append(Case("noise alone", "toa-v0", ("joint-cp",), responses_of_noise, waveform))
    learned = ("csi-knn", "music", "ecc-fast-urban")
    made.append(Case("5 of 6 stations lost", "ecc-urban-v0", learned, one_station))
    made.append(Case("3 of 4 stations lost", "ecc-urban-small-v0", ("ecc-small", "ecc-fast-small"), one_station))
    ris = ("ris-wls", "ris-wls-paper", "ris-ls", "ris-aoa-toa")
    return [*made, Case("noise alone", "ris-v0", ris, noise_alone)]


def asked() -> tuple[str, ...]:
    """Everyone who is asked in some case."""
    return tuple(dict.fromkeys(name for case in cases() for name in case.policies))


def asking(names: Sequence[str]) -> list[Case]:
    """The cases in which some are asked, and only these.

    Args:
        names: of ``asked()``; none: all.
    """
    kept = [(case, tuple(name for name in case.policies if name in (names or case.policies))) for case in cases()]
    return [dataclasses.replace(case, policies=policies) for case, policies in kept if policies]


def rows(chosen: Sequence[Case], users: int, seed: int) -> Iterator[dict[str, Any]]:
    """What every policy answers in every case.

    Args:
        chosen: cases.
        users: at least so many.
        seed: of the games and of what is lost.
    """
    for case in chosen:
        env = _env(case.env_id, tuple(case.options.items()), users, seed)
        measured = case.spoil(env.measurements, torch.Generator().manual_seed(seed))
        truth = env.truth()["true_position"]
        for name in case.policies:
            found = _locator(name, env).locate(measured)
            yield {"what is wrong": case.what, "game": case.env_id, "policy": name, **judged(found, truth)}


def too_confident(row: Mapping[str, Any]) -> bool:
    """Whether more answers are valid and far off than a share of ``MOST_BEYOND`` explains (three deviations)."""
    allowed = MOST_BEYOND * row["users"]
    return bool(row["users"] * row["valid"] * (row["beyond 5 std"] or 0.0) > allowed + 3.0 * math.sqrt(allowed))


def judged(found: PositionEstimate, truth_m: Tensor) -> dict[str, Any]:
    """Shares and the most frequent reason.

    An answer is beyond where its error is more than ``BEYOND`` times the root of the trace of its covariance; without
    one nothing is claimed, and the share is None.
    """
    error = torch.linalg.vector_norm(found.position.cpu().double() - truth_m.cpu().double(), dim=-1)
    valid, reason = found.valid.cpu(), found.reason
    std = None
    if found.covariance is not None:
        std = found.covariance.cpu().double().diagonal(dim1=-2, dim2=-1).sum(dim=-1).sqrt()
    some = bool(valid.any())
    told = Counter(Reason(int(code)).name for code in ([] if reason is None else reason[~found.valid].tolist()))
    return {
        "users": int(valid.numel()),
        "valid": float(valid.double().mean()),
        "beyond 5 std": float((error > BEYOND * std)[valid].double().mean()) if some and std is not None else None,
        "median error, m": float(error[valid].median()) if some else None,
        "median std, m": float(std[valid].median()) if some and std is not None else None,
        "reason": told.most_common(1)[0][0] if told else "-",
    }


def _noise_like(samples: Tensor, draw: torch.Generator) -> Tensor:
    power = samples.abs().square().mean()
    noise = torch.view_as_complex(torch.randn(*samples.shape, 2, generator=draw)) * (power / 2).sqrt()
    return noise.to(samples)


@cache
def _env(env_id: str, options: tuple[tuple[str, Any], ...], users: int, seed: int) -> VectorEnv:
    one = make_env(env_id, num_envs=1, seed=seed, **dict(options))
    one.reset(seed=seed)
    episodes = -(-users // one.truth()["true_position"].shape[1])
    env = make_env(env_id, num_envs=episodes, seed=seed, split="test", **dict(options))
    env.reset(seed=seed)
    return env


@cache
def _locator(name: str, env: VectorEnv) -> Any:
    if name.startswith("ecc"):
        return load_agent(weights(name), env)
    return make_policy(name, env, **_POLICY_OPTIONS.get(name, {}))
