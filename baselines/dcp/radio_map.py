"""What a site is expected to measure at any point, the common ground of the model-based estimators."""

from __future__ import annotations

import functools
import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfpos_envs.measurements.base import Rows
from cfpos_envs.measurements.dcp import RadioMeasurements
from cfpos_envs.physics.arrays import angle_profile, normalised_spectra
from cfpos_envs.physics.dcp.innovations import predicted_rss_dbm
from cfpos_envs.physics.dcp.links import Links, link_geometry
from cfpos_envs.physics.dcp.model import RadioModel
from cfpos_envs.physics.propagation import sample_maps

Made = TypeVar("Made")

NUM_ANGLES = 721
"""Directions in the table of expected spectra: with 0.25 degree steps the cosine similarity is exact to 1e-4."""


@dataclass(frozen=True)
class RadioMap(Rows):
    """What the network knows about the places where it measures; any leading batch shape.

    Attributes:
        radio: the known constants.
        ap_positions_m: metres.
        ap_orientation_rad, height_diff_m: direction of the array's axis; AP minus UE height.
        maps_db: known shadowing maps on a regular grid over the area, or None.
    """

    radio: RadioModel
    ap_positions_m: Float[Tensor, "*batch M 2"]
    ap_orientation_rad: Float[Tensor, "*batch M"]
    height_diff_m: Float[Tensor, "*batch M"]
    maps_db: Float[Tensor, "*batch M G G"] | None

    @staticmethod
    def of(measurements: RadioMeasurements) -> RadioMap:
        """The sites of a batch of episodes."""
        return RadioMap(
            measurements.radio,
            measurements.ap_positions_m,
            measurements.ap_orientation_rad,
            measurements.height_diff_m,
            measurements.shadowing_maps,
        )

    def links(self, points_m: Float[Tensor, "*batch P 2"]) -> Links:
        """Geometry between every AP and every point, one per AP and point."""
        return link_geometry(
            self.ap_positions_m,
            self.ap_orientation_rad,
            self.height_diff_m,
            points_m,
            self.radio.side_m,
            self.radio.wrap,
        )

    def shadowing_db(self, points_m: Float[Tensor, "*batch P 2"]) -> Float[Tensor, "*batch M P"] | None:
        """Known shadowing in dB at the points; None where no map is known."""
        if self.maps_db is None:
            return None
        return sample_maps(self.maps_db, points_m, self.radio.side_m, self.radio.wrap)

    def rss_dbm(self, points_m: Float[Tensor, "*batch P 2"], links: Links | None = None) -> Float[Tensor, "*batch M P"]:
        """Expected RSS at the points, dBm, with the known shadowing."""
        links = self.links(points_m) if links is None else links
        return predicted_rss_dbm(self.radio, links, self.shadowing_db(points_m))


@functools.lru_cache(maxsize=16)
def spectrum_table(radio: RadioModel) -> Float[Tensor, "A L"]:
    """Unit-norm expected angular power of every direction of this radio, on the CPU."""
    return normalised_spectra(NUM_ANGLES, radio.num_antennas, radio.spacing_wavelengths, radio.angular_spread_rad)


def measured_profiles(measurements: RadioMeasurements) -> Float[Tensor, "B M K A"]:
    """Cosine similarity of every measured spectrum with that expected from every direction (one term of eq. 8)."""
    assert measurements.angular_power is not None
    table = spectrum_table(measurements.radio).to(measurements.angular_power.device)
    return angle_profile(measurements.angular_power, table)


def expected_profiles(radio: RadioModel, bearing_rad: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch A"]:
    """The same for the spectrum that is expected from a direction to the array's axis, in [0, pi]."""
    table = spectrum_table(radio).to(bearing_rad)
    nearest = (bearing_rad * ((NUM_ANGLES - 1) / math.pi)).round().long()
    return table[nearest] @ table.mT


class SiteCache(Generic[Made]):
    """The last few things made from sites (databases, fitted models), found again by the site's content.

    Args:
        capacity: how many are kept.
    """

    def __init__(self, capacity: int = 32) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[str, Made] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, site: RadioMap, make: Callable[[RadioMap], Made]) -> Made:
        """What ``make(site)`` gave for a site with the same content, made now if it is not kept."""
        key = _fingerprint(site)
        if key not in self._entries:
            self._entries[key] = make(site)
            if len(self._entries) > self._capacity:
                self._entries.popitem(last=False)
        self._entries.move_to_end(key)
        return self._entries[key]


def sites_with_rows(measurements: RadioMeasurements) -> Iterator[tuple[RadioMap, Int[Tensor, " n"]]]:
    """Every different site of a batch, on the CPU, with the episodes [n] that were measured there."""
    sites = RadioMap.of(measurements)
    for site_id in measurements.site_ids.unique():
        rows = torch.nonzero(measurements.site_ids == site_id).squeeze(-1)
        yield sites.select(int(rows[0])).to("cpu"), rows


def _fingerprint(site: RadioMap) -> str:
    digest = hashlib.blake2b(repr(site.radio).encode(), digest_size=16)
    for tensor in (site.ap_positions_m, site.ap_orientation_rad, site.height_diff_m, site.maps_db):
        digest.update(b"none" if tensor is None else tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
