"""Pairs of a UE and a base station: where they are, their channels, and the answer that their fixes make together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfpos_envs.measurements.base import PositionEstimate, Reason, Rows, RowsT, first_reason
from cfpos_envs.measurements.ris import RisMeasurements
from cfpos_envs.physics.ris.geometry import BS_AXES
from cfpos_envs.physics.ris.information import covariance_bound

from ..validity import residuals_fit
from .channel import ChannelEstimate, ChannelOptions, estimate_channels

# Complex samples worked on at a time: the copies that the covariances need stay in the cache.
_CHUNK_SAMPLES = 1 << 21
# Blocks worked on at a time by stage 2, whose temporaries are small but many.
_CHUNK_LINKS = 256


@dataclass(frozen=True)
class PairGeometry(Rows):
    """T pairs of one UE and one base station; everything known, double precision.

    Attributes:
        bs_m, ris_m: positions.
        rotation: orientation of the UE.
    """

    bs_m: Float[Tensor, "T 3"]
    ris_m: Float[Tensor, "T R 3"]
    rotation: Float[Tensor, "T 3 3"]

    @property
    def first_hop_m(self) -> Float[Tensor, "T L"]:
        """D_l; 0 for the line of sight."""
        hops = torch.linalg.vector_norm(self.ris_m - self.bs_m.unsqueeze(-2), dim=-1)
        return torch.cat((torch.zeros_like(hops[..., :1]), hops), dim=-1)

    @property
    def departures(self) -> Float[Tensor, "T R 2"]:
        """Known cosines at the base station towards the surfaces."""
        hops = self.ris_m - self.bs_m.unsqueeze(-2)
        hops = hops / torch.linalg.vector_norm(hops, dim=-1, keepdim=True)
        return hops @ torch.tensor(BS_AXES, dtype=hops.dtype, device=hops.device).mT

    @property
    def sources_m(self) -> Float[Tensor, "T L 3"]:
        """Where each path's last hop begins: the base station, then the surfaces."""
        return torch.cat((self.bs_m.unsqueeze(-2), self.ris_m), dim=-2)


@dataclass(frozen=True, kw_only=True)
class RisEstimate(PositionEstimate):
    """Positions and clock biases.

    Attributes:
        bias_m: c times the clock bias of every UE against the first base station, the value nearest to zero of those
            that differ by the window c N / B; zero where the method gives none.
        bias_variance_m2: its variance; that of the uniform distribution over the window where nothing is known.
    """

    bias_m: Float[Tensor, "*batch K"]
    bias_variance_m2: Float[Tensor, "*batch K"]


def pair_geometry(measurements: RisMeasurements) -> PairGeometry:
    """All pairs one after another: episode slowest, base station fastest."""
    episodes, ues, stations = measurements.received.shape[:3]
    surfaces = measurements.ris_positions_m.shape[1]
    bs = measurements.bs_positions_m.double().unsqueeze(1).expand(episodes, ues, stations, 3)
    ris = measurements.ris_positions_m.double()[:, None, None].expand(episodes, ues, stations, surfaces, 3)
    rotation = measurements.rotation.double().unsqueeze(2).expand(episodes, ues, stations, 3, 3)
    return PairGeometry(bs.reshape(-1, 3), ris.reshape(-1, surfaces, 3), rotation.reshape(-1, 3, 3))


def pair_channels(measurements: RisMeasurements, links: PairGeometry, options: ChannelOptions) -> ChannelEstimate:
    """Stage 1 on all pairs, a few at a time, so that memory does not grow with the batch."""
    received = measurements.received.flatten(0, 2)
    departures, system = links.departures, measurements.system
    size = max(1, _CHUNK_SAMPLES // received[0].numel()) if len(received) else 1
    return in_chunks(
        len(received), lambda rows: estimate_channels(system, received[rows], departures[rows], options), size
    )


def in_chunks(count: int, function: Callable[[slice], RowsT], size: int = _CHUNK_LINKS) -> RowsT:
    """``function`` of slices of at most ``size`` that cover ``count`` pairs, joined."""
    parts = [function(slice(low, low + size)) for low in range(0, max(count, 1), size)]
    return parts[0].joined(parts)


@dataclass(frozen=True)
class Misfit:
    """How well the channel parameters of every UE's pairs, and their fixes, agree.

    Attributes:
        chi_squared: of all parameters at the pairs' fixes, and of the fixes around the UE's position.
        degrees_of_freedom: parameters and fixes less what was estimated from them.
        at_reach: a path is as long as was allowed, or no answer has paths so short.
    """

    chi_squared: Float[Tensor, "B J"]
    degrees_of_freedom: Int[Tensor, "B J"]
    at_reach: Bool[Tensor, "B J"]


def answer(
    measurements: RisMeasurements,
    position_m: Float[Tensor, "B J 3"],
    covariance_m2: Float[Tensor, "B J 3 3"],
    valid: Bool[Tensor, "B J"],
    farthest_m: float,
    bias: tuple[Float[Tensor, "B J"], Float[Tensor, "B J"]] | None = None,
    fit: Misfit | None = None,
) -> RisEstimate:
    """The estimate, all of it finite: what is not known has the spread of the region that can be reached.

    Args:
        measurements: where it came from.
        position_m, covariance_m2, valid: the fix.
        farthest_m: longest distance of a UE from base station or surface; what is farther from all of them is no fix.
        bias: clock bias in metres and its variance; None: the method gives none.
        fit: how well the measurements agree; None: the method cannot say.
    """
    answered = valid
    window = measurements.system.window_m
    valid = valid & torch.isfinite(position_m).all(dim=-1) & torch.isfinite(covariance_m2).all(dim=-1).all(dim=-1)
    places = torch.cat((measurements.bs_positions_m, measurements.ris_positions_m), dim=1).double()
    near = torch.cdist(position_m.nan_to_num(), places).amin(dim=-1) <= farthest_m
    failures = [
        (Reason.OUTSIDE, answered & ~near if fit is None else (answered & ~near) | fit.at_reach),
        (Reason.TOO_FEW_LINKS, ~answered),
        (Reason.POOR_GEOMETRY, answered & ~valid),
    ]
    if fit is not None:
        failures.append((Reason.LARGE_RESIDUALS, ~residuals_fit(fit.chi_squared, fit.degrees_of_freedom)))
    posed, valid = valid & near, ~torch.stack([failed for _, failed in failures]).any(dim=0)
    middle = places.mean(dim=1, keepdim=True).expand_as(position_m)
    nothing = torch.eye(3, dtype=position_m.dtype, device=position_m.device) * farthest_m**2
    blank = torch.zeros_like(position_m[..., 0])
    bias_m, variance = (blank, torch.full_like(blank, torch.inf)) if bias is None else bias
    known = posed & torch.isfinite(bias_m) & torch.isfinite(variance)
    return RisEstimate(
        position=torch.where(posed.unsqueeze(-1), position_m, middle),
        covariance=torch.where(posed[..., None, None], covariance_m2, nothing),
        valid=valid,
        reason=first_reason(valid, *failures),
        chi_squared=None if fit is None else fit.chi_squared,
        degrees_of_freedom=None if fit is None else fit.degrees_of_freedom,
        bias_m=torch.where(known, bias_m, blank),
        bias_variance_m2=torch.where(known, variance, torch.full_like(blank, window**2 / 12)),
    )


@dataclass(frozen=True)
class FusedPairs:
    """Positions of J UEs.

    Attributes:
        position_m, covariance_m2: joint least squares and its covariance (finite where ``valid``).
        valid: UEs that have a position of their own or are tied to one that has.
    """

    position_m: Float[Tensor, "B J 3"]
    covariance_m2: Float[Tensor, "B J 3 3"]
    valid: Bool[Tensor, "B J"]


def fuse(
    position_m: Float[Tensor, "B J I 3"],
    information: Float[Tensor, "B J I 3 3"],
    valid: Bool[Tensor, "B J I"],
    link_offset_m: Float[Tensor, "B _links 3"] | None,
    link_covariance_m2: Float[Tensor, "B _links 3 3"] | None,
) -> FusedPairs:
    """Joint weighted least squares over all pairs and links.

    The minimum of sum_ij |p_j - p_ij|^2_{W_ij} + sum_j |p_0 - p_j - Delta_j|^2_{S_j^-1}, found by elimination along the
    links, which all end at UE 0: what UE j knows arrives there as information (1 + W_j S_j)^-1 W_j, and goes back
    likewise. Nothing singular is inverted: exact links and UEs without a fix of their own are no exception.

    Args:
        position_m: p_ij of every pair.
        information: W_ij, without the pair's clock, 1/m^2.
        valid: pairs that count.
        link_offset_m, link_covariance_m2: Delta_j = p_0 - p_j as measured, and its covariance S_j (zero is allowed);
            None: UEs do not measure each other.
    """
    weights = torch.where(valid[..., None, None], information, 0.0)
    own = weights.sum(dim=2)
    pull = (weights @ torch.where(valid.unsqueeze(-1), position_m, 0.0).unsqueeze(-1)).sum(dim=2)
    if link_offset_m is not None and link_covariance_m2 is not None:
        own, pull = _along_links(own, pull, link_offset_m.to(own.dtype).unsqueeze(-1), link_covariance_m2.to(own.dtype))
    covariance = covariance_bound(own)
    located = torch.isfinite(covariance).all(dim=-1).all(dim=-1)
    finite = torch.where(located[..., None, None], covariance, 0.0)
    return FusedPairs((finite @ pull).squeeze(-1), covariance, located)


def _along_links(own: Tensor, pull: Tensor, offset: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
    """Information [B, J, 3, 3] of every UE and its product with the position, with what comes from the others."""
    others, pulls = own[:, 1:], pull[:, 1:]
    arriving, arriving_pull = _through(others, pulls + others @ offset, spread)
    first = own[:, :1] + arriving.sum(dim=1, keepdim=True)
    first_pull = pull[:, :1] + arriving_pull.sum(dim=1, keepdim=True)
    # What came from a UE itself does not count again.
    rest = first - arriving
    back, back_pull = _through(rest, first_pull - arriving_pull - rest @ offset, spread)
    return torch.cat((first, others + back), dim=1), torch.cat((first_pull, pulls + back_pull), dim=1)


def _through(information: Tensor, pull: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
    """Information W and W p after an error of covariance S: (1 + W S)^-1 times them."""
    eye = torch.eye(3, dtype=spread.dtype, device=spread.device)
    both = torch.linalg.solve_ex(eye + information @ spread, torch.cat((information, pull), dim=-1)).result
    return (both[..., :3] + both[..., :3].mT) / 2, both[..., 3:]


def average(
    position_m: Float[Tensor, "B J I 3"], covariance_m2: Float[Tensor, "B J I 3 3"], valid: Bool[Tensor, "B J I"]
) -> FusedPairs:
    """Equal weights over the base stations, for methods that have no better ones."""
    share = valid / valid.sum(dim=-1, keepdim=True).clamp(min=1)
    position = torch.where(valid.unsqueeze(-1), position_m, 0.0) * share.unsqueeze(-1)
    covariance = torch.where(valid[..., None, None], covariance_m2, 0.0) * share[..., None, None].square()
    return FusedPairs(position.sum(dim=2), covariance.sum(dim=2), valid.any(dim=-1))
