"""The compiled kernel of the DCP games: when it serves, and how tensors get there and back."""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

import torch
from torch import Tensor

from cfpos_envs.native import border
from cfpos_envs.native.build import KernelUnavailableError, address, library, padded_rows
from cfpos_envs.scenarios.ap_game import Played
from cfpos_envs.scenarios.dcp import fusion
from cfpos_envs.scenarios.dcp.config import DcpConfig
from cfpos_envs.scenarios.dcp.drop_kernel import MOST_ANTENNAS, DropKernel
from cfpos_envs.scenarios.dcp.observe import round_table
from cfpos_envs.scenarios.dcp.readings import direction_spectra
from cfpos_envs.scenarios.dcp.similarity import rss_law
from cfpos_envs.scenarios.dcp.state import DcpState

Kernel = TypeVar("Kernel")

# In the order of the enumerations in native/dcp_links.hpp.
_ACTIONS = ("gain", "confidence", "confidence-correction")
_FUSIONS = ("mean", "line-search", "information")
_SIMILARITIES = ("log", "robust", "cauchy")
_LOCAL, _SHARED, _CREDIT = range(3)
_LAW_TERMS = 4


class _Game(ctypes.Structure):
    """``Game`` of native/dcp_links.hpp."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("num_aps", "num_ues", "num_antennas", "num_angles", "num_features")),
        *((name, ctypes.c_int32) for name in ("uses_rss", "uses_aoa", "wrap", "holds_out")),
        *((name, ctypes.c_int32) for name in ("action", "action_size", "fusion", "reward", "similarity")),
        *((name, ctypes.c_int32) for name in ("rounds", "stage_one_rounds", "quartile", "has_short_law")),
        ("law", ctypes.c_float * _LAW_TERMS),
        *((name, ctypes.c_float) for name in ("side_m", "at_one_metre_dbm", "noise_dbm", "slope_db")),
        *((name, ctypes.c_float) for name in ("confidence_scale", "correction_db", "correction_rad")),
        *((name, ctypes.c_float) for name in ("max_step_m", "ridge")),
    ]


class _Pointers(ctypes.Structure):
    """Tensors by name; a subclass names them in the kernel's order."""

    @classmethod
    def to(cls, *tensors: Tensor | None) -> _Pointers:
        return cls(*(None if tensor is None else tensor.data_ptr() for tensor in tensors))


class _State(_Pointers):
    _fields_ = [
        (name, ctypes.c_void_p)
        for name in (
            "ap_positions_m",
            "ap_orientation_rad",
            "height_diff_m",
            "rss_dbm",
            "bearing_rad",
            "peak",
            "angular_power",
            "implied_m",
            "fused",
            "consensus_m",
            "spread_m",
            "round",
            "bearing_std_rad",
            "power_std_db",
        )
    ]


_TYPES = {"fused": torch.bool, "round": torch.int64}
"""Of what is no float32."""


class _Tables(_Pointers):
    _fields_ = [(name, ctypes.c_void_p) for name in ("inverse_scales", "spectra", "spectra_by_beam")]


class _Result(_Pointers):
    _fields_ = [
        (name, ctypes.c_void_p)
        for name in ("consensus_m", "spread_m", "entity_rewards", "rewards", "objective", "similarity", "score")
    ]


def kernel_for(config: DcpConfig, device: torch.device) -> DcpKernel | None:
    """The kernel that plays a game, or None where torch has to.

    Raises:
        ValueError: ``kernel="native"`` is asked for where it cannot be had.
    """
    return _made(DcpKernel, config, _refusal(config, device))


def drop_kernel_for(config: DcpConfig, device: torch.device) -> DropKernel | None:
    """The kernel that starts its episodes, or None where torch has to; the game decides what is an error."""
    radio = config.radio
    if device.type != "cpu" or not radio.num_antennas <= min(radio.snapshots, MOST_ANTENNAS):
        return None
    return _made(DropKernel, config, None)


def _made(kernel: Callable[[DcpConfig], Kernel], config: DcpConfig, refusal: str | None) -> Kernel | None:
    if config.kernel == "torch":
        return None
    if refusal is None:
        try:
            return kernel(config)
        except KernelUnavailableError as error:
            refusal = str(error)
            if config.kernel == "auto":
                _warn_once(refusal)
    if config.kernel == "native":
        raise ValueError(f"kernel='native' is unavailable: {refusal}; use kernel='auto' or 'torch'")
    return None


def _refusal(config: DcpConfig, device: torch.device) -> str | None:
    """Why a game is left to torch."""
    if device.type != "cpu":
        return f"it runs on the CPU, not on {device}"
    if config.shadowing_known:
        return "it has no shadowing_known=True"
    for name, served in (("action", _ACTIONS), ("similarity", _SIMILARITIES)):
        if getattr(config, name) not in served:
            return f"it has no {name}={getattr(config, name)!r}"
    if config.credits_counterfactual and (config.fusion != "information" or config.similarity == "log"):
        return f"reward={config.reward!r} needs fusion='information' and similarity='robust' or 'cauchy' there"
    return None


@lru_cache(maxsize=1)
def _warn_once(reason: str) -> None:
    warnings.warn(f"rounds are computed by torch, several times slower than compiled: {reason}", stacklevel=2)


def takes(state: DcpState, actions: Tensor | None = None) -> bool:
    """Whether the kernel can work on these tensors: single precision, and no gradients or graph are needed."""
    given = (state.consensus_m, state.sequence_rss_dbm, state.angular_power, *(() if actions is None else (actions,)))
    if any(tensor.dtype != torch.float32 for tensor in given) or torch.compiler.is_compiling():
        return False
    return not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given))


class DcpKernel:
    """Rounds and observations of one game in compiled code; the same numbers as torch to rounding.

    Args:
        config: a game without ``shadowing_known``, ``polar`` actions and the similarity ``paper``.

    Raises:
        KernelUnavailableError: there is no compiler, or it fails.
    """

    def __init__(self, config: DcpConfig) -> None:
        self._library = library()
        self._config, radio, law = config, config.radio, rss_law(config, config.radio)
        self._num_aps, self._num_ues = config.settings.num_aps, config.num_ues
        scales = [row.scale for row in round_table(config)]
        self._num_features = len(scales)
        coefficients = law.coefficients or ()
        self._action_size = self._num_ues * (4 if config.action == "confidence-correction" else 2)
        links, users = (self._num_aps, self._num_ues), (self._num_ues,)
        shapes = ((*links[:1], 2), links[:1], links[:1], *(links,) * 3, (*links, radio.num_antennas), *(links,) * 2)
        names = [entry[0] for entry in _State._fields_]
        self._border = border.Batches(
            [
                (name, shape, _TYPES.get(name, torch.float32))
                for name, shape in zip(names, (*shapes, (*users, 2), users, (), links, links), strict=True)
            ]
        )
        self._game = _Game(
            num_aps=self._num_aps,
            num_ues=self._num_ues,
            num_antennas=radio.num_antennas,
            num_angles=config.num_angles,
            num_features=self._num_features,
            uses_rss=config.stage != "aoa",
            uses_aoa=config.stage != "rss",
            wrap=radio.wrap,
            holds_out=config.num_held_out > 0,
            action=_ACTIONS.index(config.action),
            action_size=4 if config.action == "confidence-correction" else 2,
            fusion=_FUSIONS.index(config.fusion),
            reward=_CREDIT if config.credits_counterfactual else _LOCAL if config.reward == "local" else _SHARED,
            similarity=_SIMILARITIES.index(config.similarity),
            rounds=config.rounds,
            stage_one_rounds=config.stage_one_rounds if config.stage == "chained" else 0,
            quartile=round(0.25 * (self._num_ues - 1)),
            has_short_law=law.coefficients is not None,
            law=(ctypes.c_float * _LAW_TERMS)(*coefficients),
            side_m=radio.side_m,
            at_one_metre_dbm=law.at_one_metre_dbm,
            noise_dbm=law.noise_dbm,
            slope_db=radio.path_loss_slope_db,
            confidence_scale=config.confidence_scale,
            correction_db=config.correction_db,
            correction_rad=config.correction_rad,
            max_step_m=config.max_step_m,
            ridge=fusion.RIDGE,
        )
        spectra = direction_spectra(config, torch.device("cpu")).contiguous()
        self._table_values = (
            torch.tensor([1.0 / scale for scale in scales]),
            spectra,
            padded_rows(spectra.transpose(0, 1)),
        )
        self._tables = _Tables.to(*self._table_values)

    def __reduce__(self) -> tuple[type[DcpKernel], tuple[DcpConfig]]:
        # Addresses mean nothing in another process.
        return DcpKernel, (self._config,)

    def observe(self, state: DcpState) -> Tensor:
        """[B, M, K * F] observations."""
        episodes, tensors = state.round.shape[0], self._tensors(state)
        observations = torch.empty(episodes, self._num_aps, self._num_ues * self._num_features)
        self._library.cfpos_dcp_observe(
            ctypes.byref(self._game),
            ctypes.byref(_State.to(*tensors)),
            ctypes.byref(self._tables),
            address(observations),
            ctypes.c_int64(episodes),
            torch.get_num_threads(),
        )
        return observations

    def step(self, state: DcpState, actions: Tensor) -> Played:
        """One round from ``state`` with ``actions`` [B, M, K * A].

        Raises:
            ValueError: a tensor of another shape or type, actions that are not finite.
        """
        episodes, aps, ues = state.round.shape[0], self._num_aps, self._num_ues
        tensors = self._tensors(state)
        (checked,) = border.dense((actions,), (("actions", (episodes, aps, self._action_size), torch.float32),))
        assert checked is not None
        moved = {"consensus_m": torch.empty(episodes, ues, 2), "spread_m": torch.empty(episodes, ues)}
        played = Played(
            moved=moved,
            entity_rewards=torch.empty(episodes, aps, ues),
            objective=torch.empty(episodes, ues),
            similarity=torch.empty(episodes),
            score=torch.empty(episodes),
            rewards=torch.empty(episodes, aps),
        )
        result = _Result.to(
            *moved.values(),
            played.entity_rewards,
            played.rewards,
            played.objective,
            played.similarity,
            played.score,
        )
        finite = self._library.cfpos_dcp_step(
            ctypes.byref(self._game),
            ctypes.byref(_State.to(*tensors)),
            ctypes.byref(self._tables),
            address(checked),
            ctypes.byref(result),
            ctypes.c_int64(episodes),
            torch.get_num_threads(),
        )
        if not finite:
            raise ValueError("actions contain NaN or infinity; every entry must be finite and is clipped to [-1, 1]")
        return played

    def _tensors(self, state: DcpState) -> tuple[Tensor | None, ...]:
        """The fields of ``_State``, which must be kept alive while their addresses are in use."""
        # Kept with the readings, so that it need not be looked at in every round.
        readings = state.readings
        tensors = (
            state.ap_positions_m,
            state.ap_orientation_rad,
            state.height_diff_m,
            readings.rss_dbm,
            state.bearing_rad,
            state.peak,
            state.angular_power,
            readings.implied_m(self._config.radio) if self._config.action == "gain" else None,
            state.fused,
            state.consensus_m,
            state.spread_m,
            state.round,
            state.bearing_std_rad,
            state.power_std_db,
        )
        return tuple(self._border.dense(tensors, state.round.shape[0]))
