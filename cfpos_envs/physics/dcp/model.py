"""The constants of the radio that predictions of received power and angles need."""

from __future__ import annotations

from dataclasses import dataclass


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
