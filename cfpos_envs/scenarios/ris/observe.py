"""What a UE sees: the received block in one of three views, and what the network sends; every entry in [-1, 1].

All views are taken *around the present estimate*: the phases that the estimated position and clock predict are removed
from the block first, so what the estimate explains lies at offset zero and everything else is what is left unexplained.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from cfpos_envs.measurements.ris import RisSystem
from cfpos_envs.physics.ris.geometry import RisPaths, ris_cosines, trace_paths
from cfpos_envs.physics.ris.modes import steering
from cfpos_envs.physics.ris.phases import array_gain
from cfpos_envs.scenarios.features import Feature, evaluate
from cfpos_envs.scenarios.ris.config import RisGameConfig
from cfpos_envs.scenarios.ris.fusion import scaled
from cfpos_envs.scenarios.ris.reward import loaded_solve, orthogonal_part
from cfpos_envs.scenarios.ris.state import RisState, pair_geometry, pair_parameters

_COARSE = 4.0
"""Offsets are given in units of the round's reach and, so that far ones are distinguished too, in units of 4 of it."""
_LOADING = 0.05
_LARGEST_SAMPLE = 4.0


@dataclass(frozen=True)
class RisView:
    """What the parts of an observation are computed from.

    Attributes:
        config, system, state: the game, its radio and its state.
        paths: to the estimate.
        at_ue: every path's samples, separated at the base station, predicted phases removed.
        at_bs: the block without what the surfaces sent, predicted phases of the line of
            sight at the base station removed.
    """

    config: RisGameConfig
    system: RisSystem
    state: RisState
    paths: RisPaths
    at_ue: Complex[Tensor, "B J I L U1 U2 N"]
    at_bs: Complex[Tensor, "B J I U1 U2 B1 B2 N"]

    @cached_property
    def arrival_lags(self) -> Complex[Tensor, "B J I L 3"]:
        """Lag-one correlations along both UE axes and the subcarriers."""
        return torch.stack([lag_one(self.at_ue, axis, 3) for axis in (-3, -2, -1)], dim=-1)

    @cached_property
    def departure_lags(self) -> Complex[Tensor, "B J I 2"]:
        """Lag-one correlations along both axes of the base station, line of sight."""
        return torch.stack([lag_one(self.at_bs, axis, 5) for axis in (-3, -2)], dim=-1)


def make_view(config: RisGameConfig, state: RisState) -> RisView:
    """Separate the paths by their departure and turn everything back by what the estimate predicts."""
    system = config.system
    vectors = steering(system.sizes, system.slopes, pair_parameters(state, state.position_m, state.bias_m))
    v1, v2, b1, b2, d = vectors
    departures = (b1.unsqueeze(-1) * b2.unsqueeze(-2)).flatten(-2).mT  # [B, J, I, NB, L]
    block = state.received.flatten(-3, -2)
    gram = departures.mH @ departures
    # A little loading: a hypothesised line of sight near a surface's direction must not blow up the noise.
    filters = loaded_solve(gram, departures.mH, _LOADING * departures.shape[-2])
    at_ue = torch.einsum("...lb,...ijbn->...lijn", filters, block)
    at_ue = at_ue * v1.conj()[..., :, None, None] * v2.conj()[..., None, :, None] * d.conj()[..., None, None, :]
    by_antenna = block.movedim(-2, -4).flatten(-3)
    rest = orthogonal_part(departures[..., 1:], by_antenna) * departures[..., :1].conj()
    u1, u2, _, _, n = system.sizes
    at_bs = rest.unflatten(-1, (u1, u2, n)).movedim(-4, -2).unflatten(-2, system.bs_shape)
    ue, bs, ris, _ = pair_geometry(state, state.position_m)
    return RisView(config, system, state, trace_paths(ue, bs, ris), at_ue, at_bs)


def observe(
    features: tuple[Feature[RisView], ...], config: RisGameConfig, state: RisState
) -> Float[Tensor, "B J entries"]:
    """What every UE sees, in [-1, 1]."""
    return evaluate(features, make_view(config, state), state.position_m.shape[:2])


def features_of(config: RisGameConfig) -> tuple[Feature[RisView], ...]:
    """The entries of an observation in order."""
    return (*_RECEIVED[config.observation](config), *_network(config))


def _correlations(config: RisGameConfig) -> tuple[Feature[RisView], ...]:
    stations, paths = config.num_bs, (config.num_ris + 1) * config.num_bs
    offsets: tuple[tuple[str, str, Callable[[RisView], Tensor], int], ...] = (
        ("across", "per path: metres (x, y, z) by which its arrival places the UE elsewhere", _across, 3 * paths),
        ("departure", "line of sight: metres (y, z) by which its departure does so", _departure, 2 * stations),
        ("along", "per path: metres by which it is longer than predicted, clock included", _along, paths),
    )
    fine = (Feature(n, f"{meaning}; / reach", partial(_in_reach, f, 1.0), size=s) for n, meaning, f, s in offsets)
    text = f"the same / {_COARSE:g} reach"
    coarse = (Feature(f"{n}, coarse", text, partial(_in_reach, f, _COARSE), size=s) for n, _, f, s in offsets)
    modulus = "modulus of the lag-one correlations that these come from"
    return (*fine, *coarse, Feature("coherence", modulus, _coherence, size=3 * paths + 2 * stations), _fit_of(config))


def _bins_of_spectra(config: RisGameConfig) -> tuple[Feature[RisView], ...]:
    (u1, u2, b1, b2, n), paths = config.system.sizes, config.num_ris + 1
    meaning = "per path and axis: share of the energy in every DFT bin, the estimate at bin 0"
    size = ((u1 + u2 + n) * paths + b1 + b2) * config.num_bs
    return Feature("spectra", meaning, _spectra, size=size), _fit_of(config)


def _all_samples(config: RisGameConfig) -> tuple[Feature[RisView], ...]:
    meaning = "real and imaginary parts of all samples, in units of their root mean square"
    size = 2 * math.prod(config.system.sizes) * config.num_bs
    return (Feature("samples", meaning, _samples, _LARGEST_SAMPLE, size),)


def _fit_of(config: RisGameConfig) -> Feature[RisView]:
    paths = (config.num_ris + 1) * config.num_bs
    return Feature("fit", "per path: share of its energy that the estimate explains", _fit, size=paths)


def _network(config: RisGameConfig) -> tuple[Feature[RisView], ...]:
    surfaces, stations, half_window_m = config.num_ris, config.num_bs, config.system.window_m / 2
    places = surfaces + stations
    directions = "unit vectors from base stations and surfaces to the estimate"
    gains = "share of its full gain that every surface's known profile has towards the estimate"
    return (
        Feature("direction", directions, _direction, size=3 * places),
        Feature("distance", "m, their distances", _distance, half_window_m, places),
        Feature("orientation", "x' and y' axes of the UE's array in the global frame", _orientation, size=6),
        Feature("places", "m, base stations and surfaces from the area's middle", _places, half_window_m, 3 * places),
        Feature("surfaces", gains, _surfaces, size=surfaces * stations),
        Feature("estimate", "the estimate in the area and in the clock's range", _estimate, size=3 + stations),
        Feature("progress", "rounds played / rounds, and log10(reach / m) / 3", _progress, size=2),
    )


_RECEIVED = {"correlations": _correlations, "spectra": _bins_of_spectra, "tensor": _all_samples}


# The received block ------------------------------------------------------------------------------------------------


def lag_one(samples: Complex[Tensor, "*samples"], axis: int, axes: int) -> Complex[Tensor, "*batch"]:
    """Correlation of neighbouring samples along ``axis``, pooled over the last ``axes`` ones: modulus at most 1.

    sum conj(z_i) z_{i+1} / sum |z_i|^2. Its angle over the axis' slope is how far the parameter lies from what was
    removed, without ambiguity over the whole axis; its modulus says how far one path dominates.
    """
    size = samples.shape[axis]
    left, right = samples.narrow(axis, 0, size - 1), samples.narrow(axis, 1, size - 1)
    pooled = tuple(range(-axes, 0))
    energy = (left.abs().square().sum(pooled) * right.abs().square().sum(pooled)).sqrt()
    return (left.conj() * right).sum(pooled) / energy.clamp(min=1e-12)


def _across(view: RisView) -> Tensor:
    """[B, J, ...] metres across every path by which the UE lies elsewhere, judged by the path's arrival."""
    slopes = view.system.slopes
    cosines = view.arrival_lags[..., :2].angle() / slopes[0]
    rotation = pair_geometry(view.state, view.state.position_m)[3]
    return (-view.paths.range_m.unsqueeze(-1) * (cosines @ rotation[..., :2].mT)).flatten(2)


def _departure(view: RisView) -> Tensor:
    """[B, J, 2 I] metres along y and z by which the line of sight's departure says that the UE lies elsewhere."""
    cosines = view.departure_lags.angle() / view.system.slopes[2]
    return (view.paths.range_m[..., :1] * cosines).flatten(2)


def _along(view: RisView) -> Tensor:
    """[B, J, L I] metres by which every path is longer than predicted, clock included."""
    return (view.arrival_lags[..., 2].angle() / view.system.slopes[4]).flatten(2)


def _coherence(view: RisView) -> Tensor:
    return torch.cat((view.arrival_lags.abs().flatten(2), view.departure_lags.abs().flatten(2)), dim=-1)


def _spectra(view: RisView) -> Tensor:
    """Share of a path's energy in every DFT bin along one axis, pooled over the others; the estimate is bin 0."""
    found = [_bins(view.at_ue, axis, 3).flatten(2) for axis in (-3, -2, -1)]
    found += [_bins(view.at_bs, axis, 5).flatten(2) for axis in (-3, -2)]
    return torch.cat(found, dim=-1)


def _bins(samples: Tensor, axis: int, axes: int) -> Tensor:
    power = torch.fft.fft(samples, dim=axis, norm="ortho").abs().square()
    others = tuple(a for a in range(-axes, 0) if a != axis)
    pooled = power.sum(others)
    return pooled / pooled.sum(dim=-1, keepdim=True).clamp(min=1e-12)


def _samples(view: RisView) -> Tensor:
    return torch.view_as_real(view.state.received).flatten(2)


def _fit(view: RisView) -> Tensor:
    """[B, J, L I] share of every separated path's energy that the estimate explains."""
    summed = view.at_ue.sum(dim=(-3, -2, -1)).abs().square()
    energy = view.at_ue.abs().square().sum(dim=(-3, -2, -1))
    return (summed / (energy * view.at_ue.shape[-3:].numel()).clamp(min=1e-12)).flatten(2)


def _in_reach(values: Callable[[RisView], Tensor], factor: float, view: RisView) -> Tensor:
    """Values in units of ``factor`` times the reach of the round."""
    return values(view) / (factor * view.config.reach_in(view.state.round)[:, None, None])


# What the network sends, and the estimate --------------------------------------------------------------------------


def _direction(view: RisView) -> Tensor:
    """Unit vectors from every base station and surface to the estimate."""
    direction = view.paths.direction
    return torch.cat((direction[:, :, :, 0].flatten(2), direction[:, :, 0, 1:].flatten(2)), dim=-1)


def _distance(view: RisView) -> Tensor:
    length = view.paths.range_m
    return torch.cat((length[:, :, :, 0], length[:, :, 0, 1:]), dim=-1)


def _orientation(view: RisView) -> Tensor:
    return view.state.rotation[..., :2].flatten(2)


def _places(view: RisView) -> Tensor:
    """Base stations and surfaces relative to the middle of the area."""
    state, aim = view.state, view.config.aim_m.to(view.state.bs_m)
    return (torch.cat((state.bs_m, state.ris_m), dim=1) - aim).flatten(1).unsqueeze(1)


def _surfaces(view: RisView) -> Tensor:
    """Share of its full gain that every surface's profile has towards the estimate."""
    ue, bs, ris, _ = pair_geometry(view.state, view.state.position_m)
    incoming, outgoing = ris_cosines(ue, bs, ris)
    gain = array_gain(view.state.phases[:, None, None], outgoing, incoming, view.system.ris_shape)
    return (gain.abs() / view.system.num_ris_elements).flatten(2)


def _estimate(view: RisView) -> Tensor:
    """Where the estimate lies in the area and in the clock's range."""
    return scaled(view.config, view.state)


def _progress(view: RisView) -> Tensor:
    state, config = view.state, view.config
    reach = torch.log10(config.reach_in(state.round)) / 3.0
    return torch.stack((state.round.to(reach) / config.rounds, reach), dim=-1).unsqueeze(1)
