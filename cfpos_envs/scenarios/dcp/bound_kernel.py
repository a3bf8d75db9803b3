"""Position error bounds of the DCP games in compiled code, for what ``infos`` and evaluation ask after every reset."""

from __future__ import annotations

import ctypes
import math

import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.native import border
from cfpos_envs.native.build import address, library
from cfpos_envs.physics.dcp.bounds import measurement_statistics
from cfpos_envs.scenarios.dcp.config import DcpConfig
from cfpos_envs.scenarios.dcp.state import DcpState


class _Law(ctypes.Structure):
    """``Law`` of native/bound.cpp."""

    _fields_ = [
        *(
            (name, ctypes.c_int32)
            for name in ("num_aps", "num_ues", "wrap", "uses_rss", "uses_aoa", "num_snrs", "num_angles")
        ),
        *(
            (name, ctypes.c_double)
            for name in (
                "side_m", "intercept_db", "slope_db", "snr_of_unit_gain_db", "first_snr_db", "snr_step_db",
            )
        ),
    ]  # fmt: skip


class _Precision(ctypes.Structure):
    """``Precision`` of native/bound.cpp."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("variance_db2", "information_per_rad2")]


class _Places(ctypes.Structure):
    """``Places`` of native/bound.cpp."""

    _fields_ = [
        (name, ctypes.c_void_p)
        for name in ("ap_positions_m", "ap_orientation_rad", "height_diff_m", "positions_m", "shadowing_std_db")
    ]


class BoundKernel:
    """Position error bounds of one game: those of ``DcpScenario.fisher`` to rounding in double precision.

    Args:
        config: a game whose radio maps are not known.

    Raises:
        KernelUnavailableError: there is no compiler, or it fails.
    """

    def __init__(self, config: DcpConfig) -> None:
        self._library, self._config = library(), config
        radio, statistics = config.radio, measurement_statistics(config.radio)
        self._logs = [logs.contiguous() for logs in statistics.logs]
        self._precision = _Precision(*(logs.data_ptr() for logs in self._logs))
        self._law = _Law(
            num_aps=config.settings.num_aps,
            num_ues=config.num_ues,
            wrap=radio.wrap,
            uses_rss=config.stage != "aoa",
            uses_aoa=config.stage != "rss",
            num_snrs=len(statistics.snr_db),
            num_angles=len(statistics.angle_rad),
            side_m=radio.side_m,
            intercept_db=radio.path_loss_intercept_db,
            slope_db=radio.path_loss_slope_db,
            snr_of_unit_gain_db=10 * math.log10(radio.tx_power_w * radio.num_pilots / radio.noise_power_w),
            first_snr_db=float(statistics.snr_db[0]),
            snr_step_db=float(statistics.snr_db[1] - statistics.snr_db[0]),
        )
        aps, users = (self._law.num_aps,), (self._law.num_ues,)
        shapes = ((*aps, 2), aps, aps, (*users, 2), ())
        self._wanted = [(entry[0], shape) for entry, shape in zip(_Places._fields_, shapes, strict=True)]

    def __reduce__(self) -> tuple[type[BoundKernel], tuple[DcpConfig]]:
        # Addresses mean nothing in another process.
        return BoundKernel, (self._config,)

    def bound_m(self, state: DcpState, positions_m: Float[Tensor, "B K 2"]) -> Float[Tensor, "B K"]:
        """Bounds at the true positions, metres, in double precision; infinite where a position is not determined."""
        batch = positions_m.shape[0]
        given = (
            state.ap_positions_m,
            state.ap_orientation_rad,
            state.height_diff_m,
            positions_m,
            state.true_shadowing_db,
        )
        tensors = border.dense(given, [(name, (batch, *shape), torch.float32) for name, shape in self._wanted])
        bounds = torch.empty(batch, self._law.num_ues, dtype=torch.float64)
        self._library.cfpos_dcp_bound(
            ctypes.byref(self._law),
            ctypes.byref(self._precision),
            ctypes.byref(_Places(*(tensor.data_ptr() for tensor in tensors if tensor is not None))),
            address(bounds),
            ctypes.c_int64(batch),
            torch.get_num_threads(),
        )
        return bounds
