"""Gaussian-process regression from fingerprints to positions."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.linalg import cho_solve
from scipy.spatial.distance import pdist, squareform
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Kernel, WhiteKernel
from torch import Tensor

from cfpos_envs.checks import SEEDS
from cfpos_envs.fields import Declared, Range
from cfpos_envs.measurements.base import Measurements, PositionEstimate
from cfpos_envs.measurements.dcp import RadioMeasurements
from cfpos_envs.physics.geometry import unit_vectors

from ..base import Estimator
from .database import GRIDS, reference_points
from .front_end import read_links
from .gauss_newton import link_observations, unknown_shadowing_db
from .judging import judged_by_powers
from .links import by_heard_aps, cleaned, require_arrays, usable_links
from .radio_map import RadioMap, SiteCache, measured_profiles, sites_with_rows
from .survey import simulate_survey

if TYPE_CHECKING:
    from ..base import Env

_FEATURES = ("rss-db", "aoa", "joint")
MAX_REFERENCES = 4000
"""The fit needs the cube of this many operations and its square in memory (128 MB)."""

_FEW_APS = 0.75
"""Share of the APs below which a regression from fewer of them tunes its own kernel."""

_MOST_REGRESSIONS = 64
_NOISE_DRAWS = 12
_LEAST_CHANGE_DB = 1e-3
_BLOCK_WEIGHTS = (0.1, 0.3, 1.0)
"""Weights of the angular block against the RSS block that are tried; the marginal likelihood chooses."""


@dataclass(frozen=True)
class GprOptions(Declared):
    """Options of ``gpr``.

    Attributes:
        feature: ``rss-db``, ``aoa`` (unit-norm angular power per AP) or ``joint`` (both, each block standardised).
        spacing: distance of the surveyed reference points, metres.
        grid: ``cells`` or ``border``, see ``fingerprint``.
        survey_seed: seed of the simulated survey.
        tuning_points: reference points (evenly picked) on which the kernel is tuned before the fit on all of them.
        restarts: further starts of the search for the kernel, drawn at random; the most likely end is taken.
    """

    ranges: ClassVar[Mapping[str, Range]] = {
        "spacing": (0.001, 1e5),
        "survey_seed": SEEDS,
        "tuning_points": (1, 100_000),
        "restarts": (0, 1000),
    }
    choices: ClassVar[Mapping[str, Collection[str]]] = {"feature": _FEATURES, "grid": GRIDS}

    feature: str = "joint"
    spacing: float = 5.0
    grid: str = "cells"
    survey_seed: int = 0
    tuning_points: int = 225
    restarts: int = 0


class GaussianProcess(Estimator[RadioMeasurements]):
    """Regression from fingerprints to positions: one Gaussian process per site, fitted to a simulated survey of it.

    The survey contains the site's shadowing where its map is known and none otherwise.

    Args:
        env, options: see ``Policy`` and ``GprOptions``.
    """

    name: ClassVar[str] = "gpr"
    measurement_type: ClassVar[type[Measurements]] = RadioMeasurements
    options_class: ClassVar[type] = GprOptions
    options: GprOptions

    def __init__(self, env: Env | None = None, options: GprOptions | None = None) -> None:
        super().__init__(env, options)
        self._cache: SiteCache[FittedProcess] = SiteCache()

    def _locate(self, measurements: RadioMeasurements) -> PositionEstimate:
        """Positions with the predictive covariance; ``judging`` compares them with the received powers.

        Raises:
            ValueError: more reference points than a Gaussian process can be fitted to, or powers that do not change
                with the place.
        """
        if self.options.feature != "rss-db":
            require_arrays(self.name, measurements)
        usable = usable_links(measurements, aoa=self.options.feature != "rss-db", covariance=True)
        clean = cleaned(measurements, usable)
        shadowing_db = unknown_shadowing_db(clean)
        episodes, _, num_ues = measurements.rss_dbm.shape
        positions, variances = torch.zeros(episodes, num_ues, 2), torch.zeros(episodes, num_ues)
        for site, rows in sites_with_rows(clean):
            process = self._cache.get(site, self._fit)
            power = clean.angular_power
            located, variance = process.predict(
                _queries(clean.rss_dbm[rows]),
                None if power is None else _queries(power[rows]),
                _queries(usable[rows]),
                shadowing_db,
            )
            positions[rows.cpu()] = located.reshape(len(rows), num_ues, 2).float()
            variances[rows.cpu()] = variance.reshape(len(rows), num_ues)
        device = measurements.rss_dbm.device
        covariance = (variances[..., None, None] * torch.eye(2)).to(device)
        powers = link_observations(clean, usable, shadowing_db, None)
        has_angles = clean.angular_power is not None and self.options.feature != "rss-db"
        readings = read_links(clean, "dft", measured_profiles(clean)) if has_angles else None
        told = link_observations(clean, usable, shadowing_db, readings)
        return judged_by_powers(measurements, RadioMap.of(clean), powers, positions.to(device), covariance, told)

    def _fit(self, site: RadioMap) -> FittedProcess:
        radio, options = site.radio, self.options
        points = reference_points(radio.side_m, options.spacing, options.grid)
        if len(points) > MAX_REFERENCES:
            raise ValueError(f"spacing {options.spacing} m makes {len(points)} references; gpr takes {MAX_REFERENCES}")
        survey = simulate_survey(site, points, options.survey_seed)
        assert survey.angular_power is not None
        if float(site.rss_dbm(points).std(dim=-1).max()) < _LEAST_CHANGE_DB:
            raise ValueError(
                "the received powers are the same everywhere, from which gpr can learn no position; "
                f"path_loss_slope_db={radio.path_loss_slope_db:g} must be above 0"
            )
        process = FittedProcess(options.feature, radio.side_m, radio.wrap, options.tuning_points, options.restarts)
        process.fit(survey.positions_m, survey.rss_dbm, survey.angular_power)
        return process


def _queries(values: Tensor) -> Tensor:
    """[n, M, K, ...] of some episodes as [n K, M, ...] on the CPU."""
    return values.transpose(1, 2).flatten(0, 1).cpu()


def _block_scales(blocks: list[np.ndarray], weight: float) -> list[tuple[np.ndarray, float]]:
    """Mean and scale per block: one scale keeps the geometry inside it; the second block counts ``weight``-fold."""
    weights = (1.0, weight)
    scales = [block.std() * math.sqrt(block.shape[1]) / factor for block, factor in zip(blocks, weights)]
    return [(block.mean(axis=0), float(scale)) for block, scale in zip(blocks, scales)]


def _refuse_useless(blocks: list[np.ndarray]) -> None:
    for block in blocks:
        if not np.isfinite(block).all():
            raise ValueError(
                "gpr cannot leave links out of a survey; Fingerprint.from_survey(..., matching='gpr') counts an AP "
                "that was not heard as one at its detection limit, and matching='wknn' needs no regression"
            )
        if not (np.ptp(block, axis=0) > 0).any():
            raise ValueError(
                f"all {len(block)} surveyed fingerprints are the same; gpr needs readings that differ between places"
            )


def _standardised(blocks: list[np.ndarray], scales: list[tuple[np.ndarray, float]]) -> np.ndarray:
    return np.hstack([(block - mean) / scale for block, (mean, scale) in zip(blocks, scales)])


class _RememberingRbf(RBF):
    """The library's kernel exp(-|a - b|^2 / (2 length_scale^2)) of one scale, with the distances of the inputs that it
    was asked about last: tuning asks about the same ones at every step."""

    def __call__(
        self, X: np.ndarray, Y: np.ndarray | None = None, eval_gradient: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        if Y is not None:
            return super().__call__(X, Y, eval_gradient)
        if getattr(self, "_inputs", None) is not X:
            self._inputs, self._squared = X, squareform(pdist(X, metric="sqeuclidean"))
        scaled = self._squared / self.length_scale**2
        kernel = np.exp(-0.5 * scaled)
        return (kernel, (kernel * scaled)[..., None]) if eval_gradient else kernel


def _tuned_process(inputs: np.ndarray, targets: np.ndarray, restarts: int) -> GaussianProcessRegressor:
    kernel = ConstantKernel(1.0, (1e-2, 1e3)) * _RememberingRbf(1.0, (1e-2, 1e2)) + WhiteKernel(1e-2, (1e-6, 1e0))
    with warnings.catch_warnings():
        # A hyper-parameter at its bound is a fine fit here; the warning would help no one.
        warnings.simplefilter("ignore", ConvergenceWarning)
        process = GaussianProcessRegressor(kernel, normalize_y=True, n_restarts_optimizer=restarts, random_state=0)
        return process.fit(inputs, targets)


class FittedProcess:
    """Standardised fingerprints -> position. On a torus, position -> point on two circles, so that there is no seam.

    Users whom only some APs heard are located by a regression from the fingerprints of those.

    Args:
        feature: see ``GprOptions``.
        side_m, wrap: the area.
        tuning_points, restarts: see ``GprOptions``.
    """

    def __init__(self, feature: str, side_m: float, wrap: bool, tuning_points: int, restarts: int = 0) -> None:
        self._feature, self._side_m, self._wrap, self._tuning_points = feature, side_m, wrap, tuning_points
        self._restarts = restarts
        self._by_aps: dict[tuple[int, ...], _Regression] = {}

    def fit(
        self,
        positions_m: Float[Tensor, "P D"],
        rss_dbm: Float[Tensor, "P M"],
        spectra: Float[Tensor, "P M L"],
    ) -> None:
        """Tune the kernel on some reference points, then condition on all of them.

        Raises:
            ValueError: fingerprints with gaps, or the same everywhere.
        """
        blocks = self._raw(rss_dbm, spectra)
        _refuse_useless(blocks)
        self._targets = self._encode(positions_m)
        self._references = rss_dbm, spectra
        picked = np.random.default_rng(0).permutation(len(self._targets))[: self._tuning_points]
        tuned: list[tuple[float, float, Kernel]] = []
        for weight in _BLOCK_WEIGHTS if len(blocks) > 1 else (1.0,):
            inputs = _standardised(blocks, _block_scales(blocks, weight))
            process = _tuned_process(inputs[picked], self._targets[picked], self._restarts)
            tuned.append((process.log_marginal_likelihood_value_, weight, process.kernel_))
        _, self._weight, self._kernel = max(tuned, key=lambda entry: entry[0])
        self._picked, self._all = picked, tuple(range(rss_dbm.shape[1]))
        self._by_aps = {self._all: _Regression.of(blocks, self._weight, self._kernel, self._targets)}

    def predict(
        self,
        rss_dbm: Float[Tensor, "Q M"],
        spectra: Float[Tensor, "Q M L"] | None,
        heard: Bool[Tensor, "Q M"] | None = None,
        shadowing_db: float = 0.0,
    ) -> tuple[Float[Tensor, "Q D"], Float[Tensor, " Q"]]:
        """Positions in metres and the variance of either coordinate, m^2.

        Args:
            rss_dbm, spectra: measured fingerprints.
            heard: APs that count, None all; users without any get the middle of the references.
            shadowing_db: deviation of the shadowing that the references do not contain.
        """
        mean = np.tile(self._targets.mean(axis=0), (len(rss_dbm), 1))
        variance = np.tile(self._targets.var(axis=0).mean(), len(rss_dbm))
        heard = torch.ones(rss_dbm.shape, dtype=torch.bool) if heard is None else heard
        for rows, columns in by_heard_aps(heard):
            blocks = self._raw(rss_dbm[rows][:, columns], None if spectra is None else spectra[rows][:, columns])
            regression = self._regression(tuple(columns.tolist()))
            noisy_db = 0.0 if self._feature == "aoa" else shadowing_db
            mean[rows.numpy()], variance[rows.numpy()] = regression.predict(blocks, noisy_db)
        targets, spread = torch.from_numpy(mean), torch.from_numpy(variance).float()
        if not self._wrap:
            # In double precision: a person's coordinates may be northings.
            return targets, spread
        targets = targets.float()
        turn = self._side_m / (2 * math.pi)
        angles = torch.stack([torch.atan2(targets[:, 1], targets[:, 0]), torch.atan2(targets[:, 3], targets[:, 2])], -1)
        return torch.remainder(angles * turn, self._side_m), spread * turn**2

    def left_out_error_m(self) -> float:
        """RMSE with which every reference is missed by the regression from the others; not on a torus."""
        residuals = self._by_aps[self._all].left_out_residuals(self._targets)
        return float(np.sqrt(np.square(residuals).sum(axis=1).mean()))

    def _regression(self, columns: tuple[int, ...]) -> _Regression:
        if columns not in self._by_aps:
            rss_dbm, spectra = self._references
            blocks, kernel = self._raw(rss_dbm[:, columns], spectra[:, columns]), self._kernel
            if len(columns) < _FEW_APS * len(self._all):
                # What so few fingerprints leave open is more than the kernel of all of them knows.
                inputs = _standardised(blocks, _block_scales(blocks, self._weight))
                process = _tuned_process(inputs[self._picked], self._targets[self._picked], self._restarts)
                kernel = process.kernel_
            if len(self._by_aps) >= _MOST_REGRESSIONS:
                self._by_aps = {self._all: self._by_aps[self._all]}
            self._by_aps[columns] = _Regression.of(blocks, self._weight, kernel, self._targets)
        return self._by_aps[columns]

    def _raw(self, rss_dbm: Tensor, spectra: Tensor | None) -> list[np.ndarray]:
        blocks = [] if self._feature == "aoa" else [rss_dbm]
        if self._feature != "rss-db":
            assert spectra is not None
            blocks.append(torch.nn.functional.normalize(spectra, dim=-1).flatten(1))
        return [block.double().numpy() for block in blocks]

    def _encode(self, positions_m: Tensor) -> np.ndarray:
        if not self._wrap:
            return positions_m.double().numpy()
        circles = unit_vectors(positions_m.double() * (2 * math.pi / self._side_m))
        return circles.flatten(1).numpy()


@dataclass(frozen=True)
class _Regression:
    """A Gaussian process over the fingerprints of some APs, with the scales of its blocks."""

    scales: list[tuple[np.ndarray, float]]
    process: GaussianProcessRegressor

    @classmethod
    def of(cls, blocks: list[np.ndarray], weight: float, kernel: Kernel, targets: np.ndarray) -> _Regression:
        """Condition a tuned kernel on all reference points."""
        scales = _block_scales(blocks, weight)
        process = GaussianProcessRegressor(kernel, optimizer=None, normalize_y=True)
        return cls(scales, process.fit(_standardised(blocks, scales), targets))

    def left_out_residuals(self, targets: np.ndarray) -> np.ndarray:
        """[P, T] target minus prediction of each reference from all others, without a further fit.

        (K^-1 y)_i / (K^-1)_ii, Rasmussen and Williams (5.12), with the mean of the targets taken from all.
        """
        factor = self.process.L_
        inverse = cho_solve((factor, True), np.eye(len(factor)))
        weights = inverse @ (targets - targets.mean(axis=0))
        return weights / np.diag(inverse)[:, None]

    def predict(self, blocks: list[np.ndarray], noise_db: float) -> tuple[np.ndarray, np.ndarray]:
        """Mean [Q, T] and variance [Q] of the targets; the first block, RSS, has ``noise_db`` that no reference has."""
        inputs = _standardised(blocks, self.scales)
        mean, deviation = self.process.predict(inputs, return_std=True)
        # One target comes back without its axis.
        mean, deviation = (values.reshape(len(inputs), -1) for values in (mean, deviation))
        variance = np.square(deviation).mean(axis=-1)
        if noise_db > 0:
            draws, size = np.random.default_rng(0), blocks[0].shape[1]
            moved = np.tile(inputs, (_NOISE_DRAWS, 1, 1))
            moved[..., :size] += draws.normal(0.0, noise_db / self.scales[0][1], (_NOISE_DRAWS, *blocks[0].shape))
            answers = np.stack([self.process.predict(some).reshape(mean.shape) for some in moved])
            variance = variance + np.square(answers - mean).mean(axis=(0, -1))
        return mean, variance
