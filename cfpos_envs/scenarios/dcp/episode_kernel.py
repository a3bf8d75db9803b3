"""A whole reset of the DCP games in compiled code, for ``rng=counter``: from numbers of episodes to their states."""

from __future__ import annotations

import ctypes
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfpos_envs.draws.counter import blocks_for, gamma_blocks_for
from cfpos_envs.native import border
from cfpos_envs.native.build import library
from cfpos_envs.physics.dcp.innovations import COARSE_AOA_SCALE
from cfpos_envs.scenarios.dcp.config import DcpConfig
from cfpos_envs.scenarios.dcp.readings import direction_spectra
from cfpos_envs.scenarios.dcp.world import DcpSite
from cfpos_envs.scenarios.sites import SitePool
from cfpos_envs.streams import EpisodeStreams

MOST_CANDIDATE_NUMBERS = 2**23
"""Spectra at the candidates of a site are kept where they are at most this many numbers."""

_LANES = 16
_BLOCKS = ("places", "blocked", "turns", "sides", "bearings", "paths", "below", "squares", "held_out")


class _Episode(ctypes.Structure):
    """``Episode`` of native/episode.cpp."""

    _fields_ = [
        *(
            (name, ctypes.c_int32)
            for name in (
                "num_aps", "num_ues", "num_antennas", "num_paths", "snapshots", "num_angles", "times", "wrap",
                "num_candidates", "num_held_out", "with_start", "with_rss", "with_aoa",
            )
        ),
        *(
            (name, ctypes.c_float)
            for name in (
                "side_m", "spread_rad", "spacing_wavelengths", "noise_over_power", "intercept_db", "slope_db",
                "nlos_loss_db", "nlos_loss_spread_db", "nlos_low_rad", "nlos_high_rad", "power_w", "per_rss_db",
                "per_aoa",
            )
        ),
        *((name, ctypes.c_int64) for name in _BLOCKS),
    ]  # fmt: skip


class _Site(ctypes.Structure):
    """``Site`` of native/episode.cpp."""

    _fields_ = [
        *(
            (name, ctypes.c_void_p)
            for name in (
                "ap_positions_m", "ap_orientation_rad", "height_diff_m", "true_axis", "rss_bias_db",
                "bearing_noise_rad", "shadowing_maps", "candidates_m", "candidate_rss_dbm", "candidate_spectra",
            )
        ),
        ("nlos_share", ctypes.c_float),
        ("shadowing_std_db", ctypes.c_float),
        ("map_size", ctypes.c_int32),
    ]  # fmt: skip


class _Pointers(ctypes.Structure):
    @classmethod
    def to(cls, *tensors: Tensor | None) -> _Pointers:
        return cls(*(None if tensor is None else tensor.data_ptr() for tensor in tensors))


class _Given(_Pointers):
    _fields_ = [
        (name, ctypes.c_void_p)
        for name in (
            "drop_keys", "fading_keys", "held_out_keys", "episodes", "sites", "site_rows", "positions_m", "waves",
            "spectra",
        )
    ]  # fmt: skip


class _Drawn(_Pointers):
    _fields_ = [
        (name, ctypes.c_void_p)
        for name in (
            "positions_m", "ap_positions_m", "ap_orientation_rad", "height_diff_m", "shadowing_std_db", "covariance",
            "rss_dbm", "angular_power", "bearing_rad", "peak", "fused", "start_m",
        )
    ]  # fmt: skip


class EpisodeKernel:
    """Resets of one game, the same as torch makes of the same numbers, to rounding; each episode for itself.

    Args:
        config: a game that ``DropKernel`` serves.
        uses_rss, uses_aoa: what the coarse start looks at; none: the first estimate is left to the caller.

    Raises:
        KernelUnavailableError: there is no compiler, or it fails.
    """

    def __init__(self, config: DcpConfig, uses_rss: bool, uses_aoa: bool) -> None:
        self._library = library()
        self._given = config, uses_rss, uses_aoa
        self._config = config
        radio, settings = config.radio, config.settings
        index = torch.arange(radio.num_antennas, dtype=torch.float64)
        turns = torch.outer(index, index) * (2 * torch.pi / radio.num_antennas)
        self._waves = torch.stack((turns.cos(), turns.sin()), dim=1).to(torch.float32).contiguous()
        self._spectra = direction_spectra(config, torch.device("cpu")).contiguous()
        self._links = settings.num_aps * config.num_ues
        self._episode = _Episode(
            num_aps=settings.num_aps,
            num_ues=config.num_ues,
            num_antennas=radio.num_antennas,
            num_paths=radio.num_paths,
            snapshots=radio.snapshots,
            num_angles=config.num_angles,
            wrap=settings.wrap,
            num_held_out=config.num_held_out,
            with_start=uses_rss or uses_aoa,
            with_rss=uses_rss,
            with_aoa=uses_aoa,
            side_m=settings.side_m,
            spread_rad=radio.angular_spread_rad,
            spacing_wavelengths=radio.spacing_wavelengths,
            noise_over_power=radio.noise_power_w / (radio.tx_power_w * radio.num_pilots),
            intercept_db=radio.path_loss_intercept_db,
            slope_db=radio.path_loss_slope_db,
            nlos_loss_db=settings.nlos_loss_db,
            nlos_loss_spread_db=settings.nlos_loss_spread_db,
            nlos_low_rad=math.radians(settings.nlos_offset_min_deg),
            nlos_high_rad=math.radians(settings.nlos_offset_max_deg),
            power_w=radio.tx_power_w * radio.num_pilots,
            per_rss_db=1.0 / config.coarse_rss_scale_db,
            per_aoa=1.0 / COARSE_AOA_SCALE,
        )
        self._pool: SitePool[DcpSite] | None = None
        self._kept: list[tuple[Tensor, ...]] = []
        self._rows: dict[tuple[int, int], int] = {}
        self._sites = (_Site * 0)()

    def __reduce__(self) -> tuple[type[EpisodeKernel], tuple[DcpConfig, bool, bool]]:
        # Addresses mean nothing in another process.
        return EpisodeKernel, self._given

    def begin(
        self,
        pool: SitePool[DcpSite],
        site_ids: Int[Tensor, " B"],
        streams: EpisodeStreams,
        positions_m: Float[Tensor, "B T K 2"] | None,
        drop: int = 0,
    ) -> dict[str, Tensor]:
        """Fields of the states of new episodes: what is known of the sites, what was measured, and the first estimate.

        Args:
            pool: of the sites.
            site_ids: site of every episode.
            streams: of the episodes; ``drop``, ``fading`` and ``held-out`` are drawn from.
            positions_m: users, where they move or keep a distance; None draws them.
            drop: its number on the sites, where faults drift.
        """
        config, batch, size = self._config, len(site_ids), self._episode.num_antennas
        aps, users, times = config.settings.num_aps, config.num_ues, 1 if positions_m is None else positions_m.shape[1]
        if positions_m is not None:
            border.check(positions_m, "positions_m", (batch, times, users, 2))
        rows = self._site_rows(pool, site_ids, drop)
        dropped, fading, held_out = (streams[name] for name in ("drop", "fading", "held-out"))
        each, links = self._links, times * self._links
        begins = {"places": -1 if positions_m is not None else dropped.claim(blocks_for(2 * users))}
        begins.update({name: dropped.claim(blocks_for(each)) for name in ("blocked", "turns", "sides", "bearings")})
        begins["paths"] = fading.claim(blocks_for(links * self._episode.num_paths))
        begins["below"] = fading.claim(blocks_for(links * size * (size - 1)))
        begins["squares"] = fading.claim(gamma_blocks_for(links * size))
        begins["held_out"] = held_out.claim(blocks_for(each))
        episode = _Episode.from_buffer_copy(self._episode)
        episode.times = times
        for name, block in begins.items():
            setattr(episode, name, block)
        drawn = {
            "true_position_m": torch.empty(batch, times, users, 2),
            "ap_positions_m": torch.empty(batch, aps, 2),
            "ap_orientation_rad": torch.empty(batch, aps),
            "height_diff_m": torch.empty(batch, aps),
            "true_shadowing_db": torch.empty(batch),
            "sequence_covariance": torch.empty(batch, times, aps, users, size, size, dtype=torch.complex64),
            "sequence_rss_dbm": torch.empty(batch, times, aps, users),
            "angular_power": torch.empty(batch, aps, users, size),
            "bearing_rad": torch.empty(batch, aps, users),
            "peak": torch.empty(batch, aps, users),
            "fused": torch.empty(batch, aps, users, dtype=torch.bool),
            "start_m": torch.zeros(batch, users, 2),
        }
        keys = (dropped.keys, fading.keys, held_out.keys, dropped.episodes)
        moved = None if positions_m is None else positions_m.contiguous()
        given = _Given.to(*keys, None, rows, moved, self._waves, self._spectra)
        given.sites = ctypes.addressof(self._sites)
        self._library.cfpos_dcp_begin(
            ctypes.byref(episode),
            ctypes.byref(given),
            ctypes.byref(_Drawn.to(*drawn.values())),
            ctypes.c_int64(batch),
            torch.get_num_threads(),
        )
        return drawn

    def _site_rows(self, pool: SitePool[DcpSite], site_ids: Int[Tensor, " B"], drop: int) -> Int[Tensor, " B"]:
        """Row of every episode's site in the table of sites and drops, which grows by those that are new."""
        if self._pool is not pool:
            self._pool, self._kept, self._rows = pool, [], {}
        keys = [(index, drop) for index in site_ids.tolist()]
        new = [key for key in dict.fromkeys(keys) if key not in self._rows]
        if new:
            self._episode.num_candidates = len(pool[new[0][0]].candidates_m)
        for key in new:
            self._kept.append(self._tables(pool[key[0]], drop, self._rows.get((key[0], 0))))
            self._rows[key] = len(self._kept) - 1
        if new:
            sites = [pool[index] for index, _ in self._rows]
            self._sites = (_Site * len(sites))(
                *(
                    _Site(
                        *(tensor.data_ptr() for tensor in kept),
                        site.nlos_share,
                        site.shadowing_std_db,
                        site.shadowing_maps.shape[-1],
                    )
                    for kept, site in zip(self._kept, sites)
                )
            )
        return torch.tensor([self._rows[key] for key in keys])

    def _tables(self, site: DcpSite, drop: int, first: int | None) -> tuple[Tensor, ...]:
        """In the order of ``_Site``; what does not drift is that of the row ``first`` of the site, if there is one."""
        orientation = site.ap_orientation_rad + site.orientation_error_rad[drop]
        axis = torch.stack((orientation.cos(), orientation.sin()), dim=-1)
        if first is not None:
            kept = self._kept[first]
            return (*kept[:3], axis.contiguous(), site.rss_bias_db[drop].contiguous(), *kept[5:])
        aps, last = self._config.settings.num_aps, self._config.num_angles - 1
        cells, places = site.shadowing_maps.shape[-1], self._episode.num_candidates
        nearest = (site.candidate_angle_rad.abs() * (last / math.pi)).round().long()
        spectra = self._spectra[nearest].transpose(1, 2) if self._episode.with_aoa else torch.zeros(1)
        tables: dict[str, tuple[Tensor, tuple[int, ...]]] = {
            "ap_positions_m": (site.ap_positions_m, (aps, 2)),
            "ap_orientation_rad": (site.ap_orientation_rad, (aps,)),
            "height_diff_m": (site.height_diff_m, (aps,)),
            "true_axis": (axis, (aps, 2)),
            "rss_bias_db": (site.rss_bias_db[drop], (aps,)),
            "bearing_noise_rad": (site.bearing_noise_rad, (aps,)),
            "shadowing_maps": (site.shadowing_maps, (aps, cells, cells)),
            "candidates_m": (site.candidates_m, (places, 2)),
            "candidate_rss_dbm": (_padded(site.candidate_rss_dbm), (aps, _padded_size(places))),
            "candidate_spectra": (_padded(spectra), (aps, self._episode.num_antennas, _padded_size(places))),
        }
        if not self._episode.with_aoa:
            tables["candidate_spectra"] = (torch.zeros(1), (1,))
        found = []
        for name, (table, shape) in tables.items():
            border.check(table, name, shape)
            found.append(table.contiguous())
        return tuple(found)


def episode_kernel_for(config: DcpConfig, uses_rss: bool, uses_aoa: bool) -> EpisodeKernel | None:
    """The kernel of a game that ``DropKernel`` serves, or None where its tables would take too much memory."""
    if config.start == "centroid":
        return EpisodeKernel(config, False, False)
    spacing_m = min(config.coarse_spacing_m, config.settings.side_m)
    candidates = max(1, round(config.settings.side_m / spacing_m)) ** 2
    numbers = config.settings.num_aps * config.radio.num_antennas * candidates
    return EpisodeKernel(config, uses_rss, uses_aoa) if numbers <= MOST_CANDIDATE_NUMBERS else None


def _padded(values: Tensor) -> Tensor:
    """Rows with zeros behind them, as many as ``padded`` of lanes.hpp says."""
    size = values.shape[-1]
    return torch.nn.functional.pad(values, (0, _padded_size(size) - size)).contiguous()


def _padded_size(size: int) -> int:
    return (size // _LANES + 1) * _LANES
