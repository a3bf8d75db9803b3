"""Sites of access points: where they stand, the pool that episodes take turns on, and users that move there."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfpos_envs import draws
from cfpos_envs.physics import geometry
from cfpos_envs.scenarios.site_files import SiteFile
from cfpos_envs.streams import Streams

CIRCLE_SHARE = 0.4
"""Radius of the layout ``circle`` over the side of the area."""


@runtime_checkable
class ApSiteConfig(Protocol):
    """What every game of access points says of its sites."""

    @property
    def num_aps(self) -> int:
        """M."""

    @property
    def num_sites(self) -> int:
        """Sites that the episodes take turns on."""

    @property
    def side_m(self) -> float:
        """Side of the square area."""

    @property
    def layout(self) -> str:
        """``uniform``, ``grid`` or ``circle``."""

    @property
    def min_spacing_m(self) -> float:
        """Smallest distance of two APs, for ``uniform``."""

    @property
    def height_diff_m(self) -> float:
        """AP minus UE height."""


@dataclass(frozen=True)
class Places:
    """Where the access points of one site stand; the base of every game's site.

    Attributes:
        ap_positions_m [M, 2], ap_orientation_rad [M] (direction of the array axis), height_diff_m [M]: as the network
            believes.
    """

    ap_positions_m: Float[Tensor, "M 2"]
    ap_orientation_rad: Float[Tensor, " M"]
    height_diff_m: Float[Tensor, " M"]


def draw_places(
    settings: ApSiteConfig,
    site_file: SiteFile | None,
    ue_height_m: float,
    generator: draws.Source,
    wrap: bool = False,
    orientation_deg: float | None = None,
) -> Places:
    """Layout and array directions of a site; what its file says stands.

    Args:
        settings, site_file, ue_height_m: of the game's config.
        generator: gives positions, then directions.
        wrap: whether distances go around the edges.
        orientation_deg: of all arrays; None draws them.
    """
    device = generator.device
    positions = _positions(settings, site_file, generator, wrap).to(device)
    orientation = draws.uniform(generator, settings.num_aps) * (2 * math.pi) - math.pi
    height = torch.full((settings.num_aps,), settings.height_diff_m, device=device)
    if orientation_deg is not None:
        orientation = torch.full_like(orientation, math.radians(orientation_deg))
    if site_file is not None and site_file.orientation_rad is not None:
        orientation = site_file.orientation_rad.float().to(device)
    if site_file is not None and site_file.ap_height_m is not None:
        height = site_file.ap_height_m.float().to(device) - ue_height_m
    return Places(positions, orientation, height)


def _positions(settings: ApSiteConfig, site_file: SiteFile | None, generator: draws.Source, wrap: bool) -> Tensor:
    if site_file is not None:
        return site_file.ap_positions_m.float()
    if settings.layout == "grid":
        return geometry.grid_layout(settings.num_aps, settings.side_m)
    if settings.layout == "circle":
        azimuth = torch.arange(settings.num_aps, device=generator.device) * (2 * math.pi / settings.num_aps)
        return settings.side_m * (0.5 + CIRCLE_SHARE * geometry.unit_vectors(azimuth))
    return geometry.uniform_layout(generator, settings.num_aps, settings.side_m, wrap, settings.min_spacing_m)


SiteT = TypeVar("SiteT")


class SitePool(Generic[SiteT]):
    """The sites of one seed and split, each drawn when first asked for and always the same.

    Args:
        draw: makes site number ``index`` from the streams, which give every index its own numbers.
        streams: source of the seeds.
    """

    def __init__(self, draw: Callable[[Streams, int], SiteT], streams: Streams) -> None:
        self._draw = draw
        self._key = (streams.seed, streams.split)
        self._streams = streams.restarted()
        self._sites: dict[int, SiteT] = {}

    def belongs_to(self, streams: Streams) -> bool:
        """Whether the pool was drawn from the same seed and split."""
        return self._key == (streams.seed, streams.split)

    def __getitem__(self, index: int) -> SiteT:
        """Site number ``index``."""
        if index not in self._sites:
            self._sites[index] = self._draw(self._streams, index)
        return self._sites[index]

    def stack(self, indices: Int[Tensor, " B"], name: str) -> Tensor:
        """Attribute ``name`` of the site of every episode, [B, ...]."""
        unique, inverse = torch.unique(indices, return_inverse=True)
        return self.table(unique, name)[inverse]

    def table(self, indices: Int[Tensor, " N"], name: str) -> Tensor:
        """Attribute ``name`` of some sites, [N, ...]."""
        values = [torch.as_tensor(getattr(self[i], name), device=indices.device) for i in indices.tolist()]
        return torch.stack(values)


def trajectories(
    start_m: Float[Tensor, "B K 2"],
    speed_m_s: float,
    times_s: Float[Tensor, " rounds"],
    side_m: float,
    wrap: bool,
    streams: Streams,
) -> Float[Tensor, "B T K 2"]:
    """Ways of users who go straight on with random headings; T = 1 for a speed of 0.

    On the torus they go around, else they are reflected at the border. Headings come from the stream ``mobility``.
    """
    start = start_m.unsqueeze(1)
    if speed_m_s == 0.0:
        return start
    batch, num_ues = start_m.shape[:2]
    heading = draws.uniform(streams["mobility"], batch, 1, num_ues) * (2 * math.pi)
    moved = start + times_s.view(1, -1, 1, 1) * speed_m_s * geometry.unit_vectors(heading)
    if wrap:
        return geometry.into_area(moved, side_m, wrap=True)
    folded = torch.remainder(moved, 2 * side_m)
    return torch.minimum(folded, 2 * side_m - folded)
