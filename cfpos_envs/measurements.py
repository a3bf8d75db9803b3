"""What the central unit receives and what an estimator answers; the meeting point of environments and baselines."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor


@dataclass(frozen=True)
class RadioModel:
    """The constants of the radio that everybody in the network knows. Defaults live in the scenario's config.

    Attributes:
        side_m: side of the square area.
        wrap: distances on the torus (nearest image) if true.
        path_loss_intercept_db, path_loss_slope_db: gain at 1 m and dB per decade: beta = intercept - slope*log10(d).
        tx_power_w, num_pilots: UE power p and pilot length tau_p; the RSS is p*tau_p*||h||^2, eq. (4).
        noise_power_w: noise power per antenna in the signal bandwidth.
        num_antennas, spacing_wavelengths: the ULA of every AP.
        angular_spread_rad, num_paths, snapshots: local scattering (Laplacian standard deviation), paths, T_s.
    """

    side_m: float
    wrap: bool
    path_loss_intercept_db: float
    path_loss_slope_db: float
    tx_power_w: float
    num_pilots: int
    noise_power_w: float
    num_antennas: int
    spacing_wavelengths: float
    angular_spread_rad: float
    num_paths: int
    snapshots: int


@dataclass(frozen=True)
class RadioMeasurements:
    """One batch of episodes as the central unit sees them after the fronthaul; no true position is in here.

    B episodes, M APs, K UEs, L antennas. Orientations are those the network believes in.

    Attributes:
        radio: the known constants.
        ap_positions_m, ap_orientation_rad, height_diff_m: the known site (array axis direction; AP minus UE height).
        rss_dbm: measured RSS (eq. 4), dBm.
        angular_power: measured angular power spectrum of the LS channel estimate (eq. 5), linear.
        covariance: sample covariance of the LS estimate (eq. 3), for estimators that want more than the spectrum.
        shadowing_maps: [B, M, G, G] dB on a regular grid over the area if the radio map is known, else None.
        shadowing_std_db: standard deviation of the shadowing that the network has been told (0 if none).
        site_ids: one integer per episode; equal integers mean the same site (for caching radio maps).
    """

    radio: RadioModel
    ap_positions_m: Float[Tensor, "B M 2"]
    ap_orientation_rad: Float[Tensor, "B M"]
    height_diff_m: Float[Tensor, "B M"]
    rss_dbm: Float[Tensor, "B M K"]
    angular_power: Float[Tensor, "B M K L"]
    covariance: Complex[Tensor, "B M K L L"]
    shadowing_maps: Float[Tensor, "B M G G"] | None
    shadowing_std_db: float
    site_ids: torch.Tensor

    def select(self, index: slice | Tensor) -> RadioMeasurements:
        """The measurements of some episodes only."""
        chosen: dict[str, Any] = {
            name: value[index] for name, value in self.__dict__.items() if isinstance(value, Tensor)
        }
        return dataclasses.replace(self, **chosen)


@dataclass(frozen=True)
class PositionEstimate:
    """What ``estimator.locate(measurements)`` returns.

    Attributes:
        position: [..., K, 2] (or 3) metres.
        covariance: [..., K, 2, 2] square metres, or None where the method has none.
        valid: [..., K] false where the method could not answer; the position is then finite but meaningless.
    """

    position: Float[Tensor, "*batch K D"]
    covariance: Float[Tensor, "*batch K D D"] | None
    valid: Bool[Tensor, "*batch K"]
