"""One scene with its radio: long-term averages of its base stations, and snapshots of CSI as they estimate them."""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs import draws
from cfpos_envs.channels.scene import EccSceneConfig
from cfpos_envs.channels.sources import CsiSource, Users
from cfpos_envs.measurements.ecc import CsiSystem
from cfpos_envs.physics.ecc import csi as chain
from cfpos_envs.physics.ecc.estimation import lmmse_estimate, lmmse_filter, long_term_covariance, ls_estimate
from cfpos_envs.physics.ecc.features import csi_features, slot_average
from cfpos_envs.scenarios.ecc.mobility import draw_ways
from cfpos_envs.scenarios.ecc.options import EccOptions
from cfpos_envs.scenarios.ecc.snapshots import Snapshots, World
from cfpos_envs.scenarios.ecc.state import EccState
from cfpos_envs.streams import Streams

CALIBRATION_USERS = 1024
GAIN_USERS = 512
CHUNK_SNAPSHOTS = 256
"""Snapshots made at once; larger ones leave the caches."""
_LEAST_STD = 1e-3


class CsiWorld:
    """Scene, radio and long-term averages; everything in here is the same for training and test.

    Attributes:
        settings, source, system: what it was made of, and what the network knows.

    Args:
        settings: scene and radio.
        device: where the tensors live.
    """

    def __init__(self, settings: EccSceneConfig, device: torch.device | str = "cpu") -> None:
        self.settings, self.device = settings, torch.device(device)
        self.source = make_source(settings, device)
        streams = Streams(settings.scene_seed, "calibrate", device)
        # Constant-modulus pilots; their phases are known and do not matter.
        self._pilots = torch.full((settings.num_subcarriers,), settings.pilot_power_w**0.5, device=device).to(
            torch.complex64
        )
        users = self.source.draw_users(streams["drop"], CALIBRATION_USERS, "calibrate")
        still = torch.zeros(CALIBRATION_USERS, 1, 3, device=device)
        self._orientation = self.source.bs_orientation_rad
        self._filter: Tensor | None = None
        if settings.estimator == "lmmse":
            # Paths once more instead of in one go with the gains below: 0.1 s, and the averages stay independent.
            channels = self._channel(self.source.paths(users, still), None)[:, 0, :, 0]
            covariance = long_term_covariance(channels)
            self._filter = lmmse_filter(covariance, self._pilots, settings.noise_power_w).unsqueeze(-4)
        mean, std = self._log_gain(streams, self.source.draw_users(streams["drop"], GAIN_USERS, "calibrate"))
        self.system = CsiSystem(
            carrier_hz=settings.carrier_hz,
            subcarrier_spacing_hz=settings.kept_spacing_hz,
            num_subcarriers=settings.num_subcarriers,
            num_slots=settings.num_slots,
            array_shape=(settings.array_rows, settings.array_columns),
            spacing_wavelengths=settings.spacing_wavelengths,
            num_bs=len(self.source.bs_positions_m),
            area_min_m=self.source.area_min_m,
            area_max_m=self.source.area_max_m,
            pilot_power_w=settings.pilot_power_w,
            noise_power_w=settings.noise_power_w,
            log_gain_mean=tuple(mean.tolist()),
            log_gain_std=tuple(std.clamp(min=_LEAST_STD).tolist()),
        )

    def measure(self, streams: Streams, users: Users, displacement_m: Float[Tensor, "U S 3"]) -> Snapshots:
        """Estimated CSI of users at S moments.

        Args:
            streams: ``fading`` draws the slots' phases and jitter, ``clock`` the users' clocks, ``noise`` the rest.
            users: U users of this world's source.
            displacement_m: from where they were drawn.
        """
        step = max(1, CHUNK_SNAPSHOTS // displacement_m.shape[1])
        parts = [
            self._measure_chunk(
                streams.of(slice(start, start + step)),
                Users(users.position_m[start : start + step], users.index[start : start + step]),
                displacement_m[start : start + step],
            )
            for start in range(0, len(displacement_m), step)
        ]
        return Snapshots(torch.cat([csi for csi, _ in parts]), torch.cat([valid for _, valid in parts]))

    def _measure_chunk(self, streams: Streams, users: Users, displacement_m: Tensor) -> tuple[Tensor, Tensor]:
        settings = self.settings
        paths = self.source.paths(users, displacement_m)
        if settings.clock_offset_ns > 0:
            share = draws.uniform(streams["clock"], len(users.index), 1, 1, 1)
            offset_s = 1e-9 * settings.clock_offset_ns * (2 * share - 1)
            paths = chain.CsiPaths(paths.gain, paths.delay_s + offset_s, paths.direction)
        shape = paths.gain.shape
        slots = chain.slot_gains(
            streams["fading"], tuple(shape[:-1]), settings.num_slots, shape[-1], settings.slot_jitter_rad
        )
        valid = (paths.gain != 0).any(dim=-1)
        received = chain.receive_pilots(
            streams["noise"], self._channel(paths, slots), self._pilots, settings.noise_power_w
        )
        csi = ls_estimate(received, self._pilots) if self._filter is None else lmmse_estimate(received, self._filter)
        return csi * valid[..., None, None, None], valid

    def _channel(self, paths: chain.CsiPaths, slots: Tensor | None) -> Tensor:
        s = self.settings
        return chain.channel(
            paths,
            self._orientation,
            (s.array_rows, s.array_columns),
            s.spacing_wavelengths,
            s.num_subcarriers,
            s.kept_spacing_hz,
            slots,
        )

    def _log_gain(self, streams: Streams, users: Users) -> tuple[Tensor, Tensor]:
        """[L] mean and standard deviation of log10 g over the links with a path."""
        still = torch.zeros(len(users.index), 1, 3, device=self.device)
        taken = self.measure(streams, users, still)
        log_gain = chain.side_gain(taken.csi[:, 0]).clamp(min=1e-30).log10()
        weight = taken.valid[:, 0].to(log_gain.dtype)
        count = weight.sum(dim=0).clamp(min=1.0)
        mean = (weight * log_gain).sum(dim=0) / count
        return mean, ((weight * (log_gain - mean).square()).sum(dim=0) / count).sqrt()


def draw_state(config: EccOptions, world: World, streams: Streams, num_envs: int) -> EccState:
    """Users, their ways and all snapshots of ``num_envs`` episodes.

    Args:
        config: the game.
        world: of its site.
        streams: ``drop`` and ``mobility`` draw users and ways, ``lost`` the silent base stations; the rest see
            ``CsiWorld.measure``.
        num_envs: B.
    """
    system, users = world.system, config.num_ues
    each = streams.parts(users)
    drawn, displacement = draw_ways(config, world.source, each, num_envs * users)
    taken = world.measure(each, drawn, displacement)
    order = draws.uniform(streams["lost"], num_envs, system.num_bs).argsort(dim=1)
    heard = order >= config.lost_bs

    def by_episode(values: Tensor) -> Tensor:
        """[B, S, J, ...] of [B J, S, ...]."""
        return values.unflatten(0, (num_envs, users)).transpose(1, 2)

    valid = by_episode(taken.valid) & heard[:, None, None]
    csi = by_episode(taken.csi) * valid[..., None, None, None]
    mean = slot_average(csi)
    # Second-order features are made of the average anyway.
    seen = csi if config.features == "stabilised" else mean
    return EccState(
        true_position_m=by_episode(drawn.position_m.unsqueeze(1) + displacement),
        sequence_csi=csi,
        sequence_mean_csi=mean.squeeze(-3),
        sequence_valid=valid,
        sequence_features=csi_features(seen, config.features, system.array_shape, config.stabilise),
        sequence_gain=chain.side_gain(csi),
        site_ids=torch.zeros(num_envs, dtype=torch.long, device=world.device),
        consensus_m=torch.tensor(system.centre_m, device=world.device).expand(num_envs, users, 3).clone(),
        round=torch.zeros(num_envs, dtype=torch.long, device=world.device),
        fronthaul_bits_per_snapshot=torch.full((num_envs,), float(system.lossless_bits), device=world.device),
        fronthaul_bits_so_far=torch.zeros(num_envs, device=world.device),
    )


def make_source(settings: EccSceneConfig, device: torch.device | str) -> CsiSource:
    """The scene behind ``settings.source``."""
    if settings.source == "embedded":
        from cfpos_envs.channels.embedded import EmbeddedCity

        return EmbeddedCity(settings, device)
    from cfpos_envs.channels.tracing.source import RaytracedSource

    return RaytracedSource(settings, device)


@lru_cache(maxsize=8)
def shared_world(settings: EccSceneConfig, device: str) -> CsiWorld:
    """The world of these settings, made once: it holds no random state, so that many games may share it."""
    return CsiWorld(settings, device)
