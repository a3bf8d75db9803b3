"""What the APs measure, and the coarse start, in compiled code: the start of an episode."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from cfpos_envs import draws
from cfpos_envs.native import border
from cfpos_envs.native.build import address, library, padded_rows
from cfpos_envs.physics.dcp import channel
from cfpos_envs.physics.dcp.innovations import COARSE_AOA_SCALE
from cfpos_envs.scenarios.dcp.config import DcpConfig
from cfpos_envs.scenarios.dcp.readings import direction_spectra

# Beyond these the temporaries of one vector of links fall out of the cache.
MOST_ANTENNAS = 64


class _Channel(ctypes.Structure):
    """``Channel`` of native/channel.cpp."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("num_paths", "num_antennas", "snapshots")),
        *((name, ctypes.c_float) for name in ("spread_rad", "spacing_wavelengths", "noise_over_power")),
    ]


class _Coarse(ctypes.Structure):
    """``Coarse`` of native/channel.cpp."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("num_aps", "num_ues", "num_antennas", "num_angles", "num_candidates")),
        *((name, ctypes.c_float) for name in ("rss_scale_db", "aoa_scale")),
    ]


class DropKernel:
    """Sample covariances, spectra, bearings and first estimates; from the same random numbers the same as torch.

    Args:
        config: a game with at most ``MOST_ANTENNAS`` antennas and as many snapshots as antennas.

    Raises:
        KernelUnavailableError: there is no compiler, or it fails.
    """

    def __init__(self, config: DcpConfig) -> None:
        self._library = library()
        self._config, radio = config, config.radio
        self._num_antennas = radio.num_antennas
        self._channel = _Channel(
            num_paths=radio.num_paths,
            num_antennas=radio.num_antennas,
            snapshots=radio.snapshots,
            spread_rad=radio.angular_spread_rad,
            spacing_wavelengths=radio.spacing_wavelengths,
            noise_over_power=radio.noise_power_w / (radio.tx_power_w * radio.num_pilots),
        )
        index = torch.arange(radio.num_antennas, dtype=torch.float64)
        turns = torch.outer(index, index) * (2 * torch.pi / radio.num_antennas)
        # [L, 2, L and zeros]
        self._waves = padded_rows(torch.stack((turns.cos(), turns.sin()), dim=1).to(torch.float32))
        self._by_beam = padded_rows(direction_spectra(config, torch.device("cpu")).transpose(0, 1))

    def __reduce__(self) -> tuple[type[DropKernel], tuple[DcpConfig]]:
        return DropKernel, (self._config,)

    def sample(self, generator: draws.Source, angle_rad: Tensor, gain_db: Tensor) -> tuple[Tensor, Tensor]:
        """Sample covariances [..., L, L] of links with mean angles and gains [...], and their traces [...].

        Takes from ``generator`` what ``channel.path_angles`` and ``channel.draw_white`` take.
        """
        shape, size = gain_db.shape, self._num_antennas
        border.check(angle_rad, "angle_rad", shape)
        border.check(gain_db, "gain_db", shape)
        uniform = draws.inner(draws.uniform, generator, shape, self._channel.num_paths).contiguous()
        drawn = channel.draw_bartlett(generator, shape, size, self._channel.snapshots)
        below, square = (tensor.contiguous() for tensor in drawn)
        covariance = torch.empty(*shape, size, size, dtype=torch.complex64)
        trace = torch.empty(shape)
        angle_rad, gain_db = angle_rad.contiguous(), gain_db.contiguous()
        self._library.cfpos_sample_covariances(
            ctypes.byref(self._channel),
            *(address(tensor) for tensor in (uniform, angle_rad, gain_db, square, below, covariance, trace)),
            ctypes.c_int64(gain_db.numel()),
            torch.get_num_threads(),
        )
        return covariance, trace

    def hear(self, covariance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Angular power [..., L], bearing and peak [...] of covariances [..., L, L]."""
        shape, size = covariance.shape[:-2], self._num_antennas
        border.check(covariance, "covariance", (*shape, size, size), torch.complex64)
        covariance = covariance.contiguous()
        power, bearing, peak = torch.empty(*shape, self._num_antennas), torch.empty(shape), torch.empty(shape)
        self._library.cfpos_hear(
            self._num_antennas,
            self._config.num_angles,
            *(address(tensor) for tensor in (self._waves, self._by_beam, covariance, power, bearing, peak)),
            ctypes.c_int64(bearing.numel()),
            torch.get_num_threads(),
        )
        return power, bearing, peak

    def best_candidates(
        self,
        rss_dbm: Tensor,
        angular_power: Tensor,
        fused: Tensor,
        sites: Tensor,
        candidate_rss_dbm: Tensor,
        candidate_angle_rad: Tensor,
        rss_scale_db: float | None,
        uses_aoa: bool,
    ) -> Tensor:
        """[B, K] index of the best candidate, see ``coarse_joint_scores``.

        Args:
            rss_dbm [B, M, K], angular_power [B, M, K, L], fused [B, M, K]: of the state.
            sites: [B] which row of the candidates.
            candidate_rss_dbm, candidate_angle_rad: [sites, M, P].
            rss_scale_db: None leaves the RSS out.
            uses_aoa: whether bearings count.
        """
        coarse = _Coarse(
            num_aps=rss_dbm.shape[1],
            num_ues=rss_dbm.shape[2],
            num_antennas=self._num_antennas,
            num_angles=self._config.num_angles,
            num_candidates=candidate_rss_dbm.shape[-1],
            rss_scale_db=rss_scale_db or 0.0,
            aoa_scale=COARSE_AOA_SCALE if uses_aoa else 0.0,
        )
        best = torch.empty(rss_dbm.shape[0], rss_dbm.shape[2], dtype=torch.long)
        episodes, aps, ues = rss_dbm.shape
        predictions = (len(candidate_rss_dbm), aps, coarse.num_candidates)
        given = (rss_dbm, angular_power, fused, sites, candidate_rss_dbm, candidate_angle_rad)
        tensors = border.dense(
            given,
            (
                ("rss_dbm", (episodes, aps, ues), torch.float32),
                ("angular_power", (episodes, aps, ues, self._num_antennas), torch.float32),
                ("fused", (episodes, aps, ues), torch.bool),
                ("sites", (episodes,), torch.int64),
                ("candidate_rss_dbm", predictions, torch.float32),
                ("candidate_angle_rad", predictions, torch.float32),
            ),
        )
        if not 0 <= int(sites.min()) <= int(sites.max()) < len(candidate_rss_dbm):
            raise ValueError(f"sites must be rows of the {len(candidate_rss_dbm)} sites' candidates")
        self._library.cfpos_find_starts(
            ctypes.byref(coarse),
            *(address(tensor) for tensor in (self._by_beam, *(entry for entry in tensors if entry is not None), best)),
            ctypes.c_int64(len(best)),
            torch.get_num_threads(),
        )
        return best
