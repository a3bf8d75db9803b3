"""What an estimator of this family answers, and from which pairs of UE and base station."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs.measurements.base import PositionEstimate
from cfpos_envs.measurements.ris import RisMeasurements

from .links import Links
from .stage1 import ChannelEstimate, ChannelOptions, estimate_channels

# Complex samples worked on at a time: the copies that the covariances need stay in the cache.
_CHUNK_SAMPLES = 1 << 21
# Blocks worked on at a time by stage 2, whose temporaries are small but many.
_CHUNK_LINKS = 256


@dataclass(frozen=True)
class RisEstimate(PositionEstimate):
    """Positions and clock biases.

    Attributes:
        bias_m: c times the clock bias of every UE against the first base station, the value nearest to zero of those
            that differ by the window c N / B; zero where the method tells none.
        bias_variance_m2: its variance; that of the uniform distribution over the window where nothing is known.
    """

    bias_m: Float[Tensor, "*batch K"]
    bias_variance_m2: Float[Tensor, "*batch K"]


def ris_measurements(measurements: Any, policy: str) -> RisMeasurements:
    """The argument itself, refused unless it is a ``RisMeasurements``.

    Raises:
        TypeError: measurements of another kind of scenario.
    """
    if not isinstance(measurements, RisMeasurements):
        raise TypeError(
            f"{policy} needs RisMeasurements (channels over surfaces), got {type(measurements).__name__}; "
            "use it with ris-v0"
        )
    return measurements


def pair_links(measurements: RisMeasurements) -> Links:
    """All pairs one after another: episode slowest, base station fastest."""
    episodes, ues, stations = measurements.received.shape[:3]
    surfaces = measurements.ris_positions_m.shape[1]
    bs = measurements.bs_positions_m.double().unsqueeze(1).expand(episodes, ues, stations, 3)
    ris = measurements.ris_positions_m.double()[:, None, None].expand(episodes, ues, stations, surfaces, 3)
    rotation = measurements.rotation.double().unsqueeze(2).expand(episodes, ues, stations, 3, 3)
    return Links(bs.reshape(-1, 3), ris.reshape(-1, surfaces, 3), rotation.reshape(-1, 3, 3))


def pair_channels(measurements: RisMeasurements, links: Links, options: ChannelOptions) -> ChannelEstimate:
    """Stage 1 on all pairs, a few at a time, so that memory does not grow with the batch."""
    received = measurements.received.flatten(0, 2)
    departures, system = links.departures, measurements.system
    size = max(1, _CHUNK_SAMPLES // received[0].numel()) if len(received) else 1
    found: ChannelEstimate = joined(
        in_chunks(
            len(received), lambda rows: estimate_channels(system, received[rows], departures[rows], options), size
        )
    )
    return found


def in_chunks(count: int, function: Callable[[slice], Any], size: int = _CHUNK_LINKS) -> list[Any]:
    """``function`` of slices of at most ``size`` that cover ``count`` pairs."""
    return [function(slice(low, low + size)) for low in range(0, max(count, 1), size)]


def select(value: Any, rows: slice) -> Any:
    """The same dataclass of tensors with some rows only."""
    return type(value)(**{name: tensor[rows] for name, tensor in value.__dict__.items()})


def joined(parts: list[Any]) -> Any:
    """Dataclasses of tensors one after another."""
    return type(parts[0])(**{name: torch.cat([getattr(part, name) for part in parts]) for name in parts[0].__dict__})


def answer(
    measurements: RisMeasurements,
    position_m: Float[Tensor, "B J 3"],
    covariance_m2: Float[Tensor, "B J 3 3"],
    valid: Bool[Tensor, "B J"],
    farthest_m: float,
    bias: tuple[Float[Tensor, "B J"], Float[Tensor, "B J"]] | None = None,
) -> RisEstimate:
    """The estimate, all of it finite: what is not known has the spread of the region that can be reached.

    Args:
        measurements: where it came from.
        position_m, covariance_m2, valid: the fix.
        farthest_m: longest distance of a UE from base station or surface; what is farther from all of them is no fix.
        bias: clock bias in metres and its variance; None: the method tells none.
    """
    window = measurements.system.window_m
    valid = valid & torch.isfinite(position_m).all(dim=-1) & torch.isfinite(covariance_m2).all(dim=-1).all(dim=-1)
    places = torch.cat((measurements.bs_positions_m, measurements.ris_positions_m), dim=1).double()
    valid = valid & (torch.cdist(position_m.nan_to_num(), places).amin(dim=-1) <= farthest_m)
    middle = places.mean(dim=1, keepdim=True).expand_as(position_m)
    nothing = torch.eye(3, dtype=position_m.dtype, device=position_m.device) * farthest_m**2
    blank = torch.zeros_like(position_m[..., 0])
    bias_m, variance = (blank, torch.full_like(blank, torch.inf)) if bias is None else bias
    told = valid & torch.isfinite(bias_m) & torch.isfinite(variance)
    return RisEstimate(
        position=torch.where(valid.unsqueeze(-1), position_m, middle),
        covariance=torch.where(valid[..., None, None], covariance_m2, nothing),
        valid=valid,
        bias_m=torch.where(told, bias_m, blank),
        bias_variance_m2=torch.where(told, variance, torch.full_like(blank, window**2 / 12)),
    )
