"""What it costs to locate a user by channels over surfaces, and where the time goes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch

from cfpos.baselines import make_policy
from cfpos.baselines.ris import channel, kernels
from cfpos.baselines.ris.channel import ChannelOptions
from cfpos.baselines.ris.pairs import pair_channels, pair_geometry
from cfpos.baselines.ris.position import locate_pairs
from cfpos.baselines.ris.refine import refine
from cfpos.baselines.ris.separation import covariances, noise_variance, separate
from cfpos.scripts.benchmarks.common import Options, Rows, cpu_s
from cfpos.scripts.benchmarks.environments import SEED
from cfpos_envs.measurements.ris import RisMeasurements
from cfpos_envs.scenarios.ris.config import RisConfig
from cfpos_envs.scenarios.ris.world import draw_phases, draw_scene, measurements
from cfpos_envs.streams import Streams

EPISODES = 64
PRESETS = ("small", "default")
POLICIES = ("ris-wls", "ris-wls-paper", "ris-ls", "ris-aoa-toa", "ris-siso")
# Episodes of the table of stages: what stage 1 works on at a time.
STAGE_EPISODES = {"small": 64, "default": 14}


def run(options: Options) -> dict[str, Any]:
    """CPU time per estimate of every estimator, alone and in batches, and of the parts of ``ris-wls``."""
    presets = PRESETS[:1] if options.quick else PRESETS
    rows: Rows = []
    stages: Rows = []
    for preset in presets:
        print(f"  {preset}", file=sys.stderr, flush=True)
        rows += _policies(preset, options)
        stages += _stages(preset, options)
    remarks = [
        "RIS: scenes of RisConfig(preset=...) with two surfaces; drawing them is not counted. Estimates per second of",
        "CPU time, that is per thread that has a core for itself.",
    ]
    return {"tables": {"ris": rows, "ris stages": stages}, "remarks": remarks}


def drawn(preset: str, episodes: int) -> RisMeasurements:
    """What the estimators get in some episodes."""
    config, streams = RisConfig(preset=preset), Streams(SEED)
    scene = draw_scene(config, streams, episodes)
    return measurements(config, scene, draw_phases(config, streams, episodes))


def _policies(preset: str, options: Options) -> Rows:
    rows: Rows = []
    for episodes in (1, 3 if options.quick else EPISODES):
        received = drawn(preset, episodes)
        policies: dict[str, Any] = {name: make_policy(name) for name in POLICIES}
        for name, policy in policies.items():
            rows.append(_row(preset, name, episodes, cpu_s(_call(policy.locate, received), options)))
        first = POLICIES[0]
        with mock.patch.object(kernels, "_kernels", _nothing):
            seconds = cpu_s(_call(policies[first].locate, received), options)
        rows.append(_row(preset, f"{first}, torch alone", episodes, seconds))
    return rows


def _nothing() -> None:
    """What there is without a compiler."""


def _row(preset: str, policy: str, episodes: int, seconds: float) -> dict[str, Any]:
    each = seconds / episodes
    return {
        "preset": preset,
        "policy": policy,
        "at once": episodes,
        "ms/estimate": 1e3 * each,
        "estimates/s": 1.0 / each,
    }


def _stages(preset: str, options: Options) -> Rows:
    """Each part of ``ris-wls`` by itself, on what the parts before it hand over."""
    episodes = 3 if options.quick else STAGE_EPISODES[preset]
    received = drawn(preset, episodes)
    links, system = pair_geometry(received), received.system
    block, departures = received.received.flatten(0, 2), links.departures
    sizes, slopes = system.sizes, system.slopes
    present = torch.ones(episodes, departures.shape[1] + 1, dtype=torch.bool)
    matrices = covariances(block)
    columns = system.num_ue_antennas * system.num_subcarriers
    noise = noise_variance(matrices.bs, present.sum(dim=-1), columns)
    los = channel.line_of_sight(matrices, system, departures, present, "2d")
    departure = torch.cat((los, departures), dim=1)
    parts = separate(block, departure, present, slopes, noise)
    lists = channel.candidates(system, matrices, present)
    arrival, delay = channel.by_projection(system, lists, parts, present)
    start = torch.cat((arrival, departure, delay.unsqueeze(-1)), dim=-1)
    channels = pair_channels(received, links, ChannelOptions())
    work: dict[str, Callable[[], Any]] = {
        "covariances": lambda: covariances(block),
        "noise, departure": lambda: (
            noise_variance(matrices.bs, present.sum(dim=-1), columns),
            channel.line_of_sight(matrices, system, departures, present, "2d"),
        ),
        "separation": lambda: separate(block, departure, present, slopes, noise),
        "MUSIC": lambda: channel.candidates(system, matrices, present),
        "matching": lambda: channel.by_projection(system, lists, parts, present),
        "refinement": lambda: refine(block, sizes, slopes, start, present, 3),
        "position": lambda: locate_pairs(system, links, channels, "search", 60.0),
    }
    spent = {label: cpu_s(piece, options) / episodes for label, piece in work.items()}
    total = sum(spent.values())
    return [
        {"preset": preset, "part of ris-wls": label, "ms/estimate": 1e3 * seconds, "share": seconds / total}
        for label, seconds in spent.items()
    ]


def _call(function: Callable[[Any], Any], argument: Any) -> Callable[[], Any]:
    return lambda: function(argument)
