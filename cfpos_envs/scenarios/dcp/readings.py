"""What follows from one round's measurements and the site alone, kept while they last."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from cfpos_envs.physics.arrays import angle_profile, normalised_spectra
from cfpos_envs.physics.dcp.innovations import distance_from_rss, nominal_bearing_scale
from cfpos_envs.physics.dcp.model import RadioModel
from cfpos_envs.physics.lazy import lazy
from cfpos_envs.physics.similarity import shares
from cfpos_envs.scenarios.dcp.config import DcpConfig


@dataclass(frozen=True)
class Evidence:
    """This round's measurements laid out for comparison with predictions at R points per UE: [B, K, 1, M].

    APs come last, so that everything is contiguous along the sums. What a game does not use is None.

    Attributes:
        rss_dbm, bearing_rad, nominal_rad: measurements, and the nominal scale of the bearings.
        profile_start: where each link's angle profile begins in the flattened profiles.
        ap_x_m, ap_y_m, height_square_m2, axis_x, axis_y [B, 1, 1, M], shadowing_maps [B, M, G, G]: the site.
        rss_scale_db [B, K, 1, 1 or M], bearing_scale_rad: scales of the residuals, for ``robust``.
        use_radial, use_tangential: [B, 1, 1] whether RSS and AOA count this round; None: their stage lasts for ever.
    """

    rss_dbm: Tensor
    bearing_rad: Tensor | None
    nominal_rad: Tensor | None
    profile_start: Tensor | None
    ap_x_m: Tensor
    ap_y_m: Tensor
    height_square_m2: Tensor
    axis_x: Tensor
    axis_y: Tensor
    shadowing_maps: Tensor | None
    rss_scale_db: Tensor | None = None
    bearing_scale_rad: Tensor | None = None
    use_radial: Tensor | None = None
    use_tangential: Tensor | None = None

    def rows(self, rows: slice) -> Evidence:
        """Only some of the episodes."""
        changes: dict[str, Any] = {}
        for entry in dataclasses.fields(self):
            value = getattr(self, entry.name)
            changes[entry.name] = None if value is None else value[rows]
        return dataclasses.replace(self, **changes)


@dataclass
class Readings:
    """Quantities of one round's measurements, each computed when first asked for.

    They do not depend on the estimate: all states of a static episode share one object.

    Attributes:
        rss_dbm, bearing_rad, angular_power, fused, ap_positions_m, ap_orientation_rad, height_diff_m, shadowing_maps:
            see ``DcpState``.
        bearing_std_rad: of the front end; None: the nominal scale.
        known_profiles: what ``profiles`` gives, where it is known already.
    """

    rss_dbm: Tensor
    bearing_rad: Tensor
    angular_power: Tensor
    fused: Tensor
    ap_positions_m: Tensor
    ap_orientation_rad: Tensor
    height_diff_m: Tensor
    shadowing_maps: Tensor | None
    bearing_std_rad: Tensor | None = None
    known_profiles: Tensor | None = None

    def __post_init__(self) -> None:
        self._implied_m: Tensor | None = None
        self._full_evidence: Evidence | None = None

    @lazy
    def judge_shares(self) -> Tensor:
        """[B, K, 1, M] equal weights of the APs that were left out, which judge the fused point."""
        return shares(~self.fused.transpose(1, 2)).unsqueeze(2)

    @lazy
    def fused_shares(self) -> Tensor:
        """[B, K, 1, M] equal weights of the APs that take part in fusion and broadcasts."""
        return shares(self.fused.transpose(1, 2)).unsqueeze(2)

    @lazy
    def nominal_rad(self) -> Tensor:
        """[B, M, K] scale of the bearings: what the front end states, or the nominal one."""
        return self.bearing_std_rad if self.bearing_std_rad is not None else nominal_bearing_scale(self.bearing_rad)

    def profiles(self, config: DcpConfig) -> Tensor:
        """[B, M, K, A] cosine similarity of this round's spectra with every direction's."""
        if self.known_profiles is None:
            power = self.angular_power
            self.known_profiles = angle_profile(power, direction_spectra(config, power.device).to(power))
        return self.known_profiles

    def implied_m(self, radio: RadioModel) -> Tensor:
        """[B, M, K] horizontal distance that the RSS implies."""
        if self._implied_m is None:
            self._implied_m = distance_from_rss(radio, self.rss_dbm, self.height_diff_m)
        return self._implied_m

    def evidence(self, config: DcpConfig) -> Evidence:
        """All of it, laid out for comparison; without angles in a game of RSS alone."""
        if config.stage == "rss":
            return self._rss_evidence
        if self._full_evidence is None:
            self._full_evidence = dataclasses.replace(
                self._rss_evidence,
                bearing_rad=aps_last(self.bearing_rad),
                nominal_rad=aps_last(self.nominal_rad),
                profile_start=aps_last(_profile_starts(self.profiles(config))),
            )
        return self._full_evidence

    @lazy
    def _rss_evidence(self) -> Evidence:
        return Evidence(
            rss_dbm=aps_last(self.rss_dbm),
            bearing_rad=None,
            nominal_rad=None,
            profile_start=None,
            ap_x_m=_of_aps(self.ap_positions_m[..., 0]),
            ap_y_m=_of_aps(self.ap_positions_m[..., 1]),
            height_square_m2=_of_aps(self.height_diff_m.square()),
            axis_x=_of_aps(torch.cos(self.ap_orientation_rad)),
            axis_y=_of_aps(torch.sin(self.ap_orientation_rad)),
            shadowing_maps=self.shadowing_maps,
        )


@lru_cache(maxsize=16)
def direction_spectra(config: DcpConfig, device: torch.device) -> Tensor:
    """[A, L] normalised spectrum of every direction: the table behind angle profiles."""
    radio = config.radio
    return normalised_spectra(
        config.num_angles, radio.num_antennas, radio.spacing_wavelengths, radio.angular_spread_rad, device
    )


def aps_last(per_link: Tensor) -> Tensor:
    """[B, M or 1, K] to contiguous [B, K, 1, M or 1]."""
    return per_link.transpose(1, 2).unsqueeze(2).contiguous()


def _of_aps(per_ap: Tensor) -> Tensor:
    """[B, M] to contiguous [B, 1, 1, M]."""
    return per_ap[:, None, None, :].contiguous()


def _profile_starts(profile: Tensor) -> Tensor:
    """[B, M, K] index of the first entry of every link's profile in the flattened profiles."""
    links = profile[..., 0].numel()
    return (torch.arange(links, device=profile.device) * profile.shape[-1]).view(profile.shape[:-1])
