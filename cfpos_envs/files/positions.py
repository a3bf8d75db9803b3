"""Positions as a table, one row per user and epoch: what ``locate`` and ``evaluate`` write and colleagues read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from numpy.typing import ArrayLike
from torch import Tensor

from cfpos_envs.checks import nearest
from cfpos_envs.files import position_formats
from cfpos_envs.files.coordinates import GeoOrigin
from cfpos_envs.measurements.base import PositionEstimate, Reason
from cfpos_envs.results import Answers, EvaluationResult

REASONS = tuple(reason.name.lower() for reason in Reason)
"""How a file says why an answer is not valid, or ``valid``; empty where the method does not say."""
_AXES = "xyz"
_RADII = ("radius_50", "radius_90")
_NUMBERS = ("time_s", "chi_squared", "error_m", "bound_m", *_RADII)
_TEXTS = ("policy", "epoch", "floor")


@dataclass(frozen=True, eq=False)
class Positions:
    """n positions with what is known about each. In memory as in files everything is in metres and seconds.

    Attributes:
        position_m: estimates; finite but meaningless where not ``valid``.
        valid: whether the method stands by the answer.
        user: names or numbers, as text.
        episode: number of the game or recording; users are told apart within one.
        reason: one of ``REASONS``, or empty.
        covariance_m2: as the method states it; NaN or None where it states none.
        time_s, epoch: when, in seconds and by name or number; NaN or None where unknown.
        policy: what made the estimate.
        floor: of a building.
        chi_squared, degrees_of_freedom: of the residuals, see ``PositionEstimate``.
        radius_50, radius_90: of the regions that hold half and nine tenths of the truths, see ``PositionEstimate``; NaN
            or None: those of a Gaussian.
        truth_m: where the user was.
        error_m: distance to the truth; follows from ``truth_m`` unless the area wraps around its edges.
        bound_m: position error bound.
        geo_origin: where these metres lie on earth; None where nobody knows. CSV files do not keep it.

    Raises:
        ValueError: arrays of other lengths, or a name with a line break or blanks around it.
    """

    position_m: Float[np.ndarray, "n D"]
    valid: Bool[np.ndarray, " n"]
    user: Shaped[np.ndarray, " n"]
    episode: Int[np.ndarray, " n"]
    reason: Shaped[np.ndarray, " n"]
    covariance_m2: Float[np.ndarray, "n D D"] | None = None
    time_s: Float[np.ndarray, " n"] | None = None
    epoch: Shaped[np.ndarray, " n"] | None = None
    policy: Shaped[np.ndarray, " n"] | None = None
    floor: Shaped[np.ndarray, " n"] | None = None
    chi_squared: Float[np.ndarray, " n"] | None = None
    degrees_of_freedom: Int[np.ndarray, " n"] | None = None
    truth_m: Float[np.ndarray, "n D"] | None = None
    error_m: Float[np.ndarray, " n"] | None = None
    bound_m: Float[np.ndarray, " n"] | None = None
    radius_50: Float[np.ndarray, " n"] | None = None
    radius_90: Float[np.ndarray, " n"] | None = None
    geo_origin: GeoOrigin | None = None

    def __post_init__(self) -> None:
        rows, axes = self.position_m.shape
        square = {"covariance_m2": (rows, axes, axes), "truth_m": (rows, axes), "position_m": (rows, axes)}
        for name, value in self._arrays().items():
            wanted = square.get(name, (rows,))
            if value.shape != wanted:
                raise ValueError(f"{name} has shape {value.shape}; with {rows} positions it must be {wanted}")
        for name in ("user", "reason", *_TEXTS):
            for text in () if getattr(self, name) is None else np.unique(getattr(self, name)):
                if text != " ".join(text.splitlines()).strip():
                    raise ValueError(f"{name} {text!r} has a line break or blanks around it; files would lose them")
        if self.truth_m is not None and self.error_m is None:
            distance = np.linalg.norm(self.position_m - self.truth_m, axis=1)
            object.__setattr__(self, "error_m", distance)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.position_m)

    @property
    def radii(self) -> Float[np.ndarray, "n 2"] | None:
        """``radius_50`` and ``radius_90`` side by side."""
        if self.radius_50 is None or self.radius_90 is None:
            return None
        return np.stack((self.radius_50, self.radius_90), axis=1)

    @property
    def answers(self) -> Answers:
        """Errors and validity of the rows whose truth is known."""
        errors = np.full(len(self), np.nan) if self.error_m is None else self.error_m
        known = np.isfinite(errors)
        return Answers(errors[known], self.valid[known])

    @classmethod
    def from_estimate(
        cls,
        estimate: PositionEstimate,
        *,
        user: ArrayLike | None = None,
        episode: ArrayLike | None = None,
        geo_origin: GeoOrigin | None = None,
        **known: ArrayLike | Tensor | str | None,
    ) -> Positions:
        """From what ``locate`` returned.

        Args:
            estimate: positions [K, D] or [B, K, D]; rows come episode after episode.
            user: K names or numbers, or one per row; None counts from 0.
            episode: one number per row; None counts B.
            geo_origin: of the coordinates.
            known: further columns by name, one entry per row (any leading shape of the estimate's) or one for all:
                ``time_s``, ``epoch``, ``policy``, ``floor``, ``truth_m``, ``error_m``, ``bound_m``.

        Raises:
            ValueError: a column of another length, or an unknown one.
        """
        *batch, users, axes = estimate.position.shape
        episodes = int(np.prod(batch, dtype=int))
        rows = episodes * users
        unknown = [name for name in known if name not in (*_TEXTS, "time_s", "truth_m", "error_m", "bound_m")]
        if unknown:
            raise ValueError(f"no column {unknown[0]!r} of positions{nearest(unknown[0], [*_NUMBERS, *_TEXTS])}")
        names = np.arange(users) if user is None else np.asarray(user).reshape(-1)
        told: dict[str, Any] = {
            "position_m": _array(estimate.position).reshape(rows, axes).astype(np.float64),
            "valid": _array(estimate.valid).reshape(rows),
            "user": _texts(np.tile(names, episodes) if len(names) == users else names),
            "episode": np.repeat(np.arange(episodes), users) if episode is None else _array(episode).reshape(rows),
            "reason": _reasons(estimate).reshape(rows),
        }
        if estimate.covariance is not None:
            told["covariance_m2"] = _array(estimate.covariance).reshape(rows, axes, axes).astype(np.float64)
        if estimate.chi_squared is not None and estimate.degrees_of_freedom is not None:
            told["chi_squared"] = _array(estimate.chi_squared).reshape(rows).astype(np.float64)
            told["degrees_of_freedom"] = _array(estimate.degrees_of_freedom).reshape(rows).astype(np.int64)
        told.update(_radii(estimate.radii, rows))
        for name, value in known.items():
            if value is not None:
                shape = (rows, axes) if name == "truth_m" else (rows,)
                told[name] = _column(name, value, shape)
        return cls(**told, geo_origin=geo_origin)

    @classmethod
    def from_evaluation(cls, result: EvaluationResult) -> Positions:
        """The positions that an evaluation kept, with truth, error and bound.

        Raises:
            ValueError: it kept none (read from a file of an older version).
        """
        if result.positions_m is None or result.valid is None:
            raise ValueError(f"the evaluation of {result.policy} holds errors but no positions; evaluate it again")
        episodes, users, axes = result.positions_m.shape
        rows = episodes * users
        covariance, radii = result.covariance_m2, _radii(result.radii, rows)
        return cls(
            position_m=result.positions_m.reshape(rows, axes),
            valid=result.valid.reshape(rows),
            user=_texts(np.tile(np.arange(users), episodes)),
            episode=np.repeat(np.arange(episodes), users),
            reason=_texts(_named(result.reason, result.valid).reshape(rows)),
            covariance_m2=None if covariance is None else covariance.reshape(rows, axes, axes),
            policy=_texts(np.full(rows, result.policy)),
            truth_m=None if result.truth_m is None else result.truth_m.reshape(rows, axes),
            error_m=result.errors.reshape(rows),
            bound_m=None if result.bounds is None else result.bounds.reshape(rows),
            radius_50=radii.get("radius_50"),
            radius_90=radii.get("radius_90"),
        )

    @classmethod
    def joined(cls, parts: Sequence[Positions]) -> Positions:
        """Tables one below the other; a column that some lack is empty there.

        Raises:
            ValueError: no table, or positions in the plane and in space.
        """
        axes = {part.position_m.shape[1] for part in parts}
        if len(axes) != 1:
            raise ValueError(f"{len(parts)} tables with {sorted(axes)} coordinates; give some of one kind")
        columns = [part.columns() for part in parts]
        names = dict.fromkeys(name for found in columns for name in found)
        filled = {
            name: np.concatenate([found.get(name, _empty(name, len(part))) for found, part in zip(columns, parts)])
            for name in names
        }
        origins = {part.geo_origin for part in parts}
        return cls.from_columns(filled, origins.pop() if len(origins) == 1 else None)

    def select(self, rows: Int[np.ndarray, " m"] | Bool[np.ndarray, " n"]) -> Positions:
        """Some rows only."""
        return dataclasses.replace(self, **{name: value[rows] for name, value in self._arrays().items()})

    def _arrays(self) -> dict[str, np.ndarray]:
        entries = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        return {name: value for name, value in entries.items() if isinstance(value, np.ndarray)}

    def columns(self) -> dict[str, np.ndarray]:
        """The table as files hold it: name -> one number or text per row; what is None is left out."""
        used = _AXES[: self.position_m.shape[1]]
        found: dict[str, np.ndarray] = {"episode": self.episode, "user": self.user}
        found.update(_given(self, "policy", "epoch", "time_s"))
        found.update({f"{axis}_m": self.position_m[:, i] for i, axis in enumerate(used)})
        found.update(_given(self, "valid", "reason", "floor"))
        if self.covariance_m2 is not None:
            found.update({name: self.covariance_m2[:, i, j] for name, i, j in _covariances(len(used))})
        found.update(_given(self, *_RADII, "chi_squared", "degrees_of_freedom"))
        if self.truth_m is not None:
            found.update({f"truth_{axis}_m": self.truth_m[:, i] for i, axis in enumerate(used)})
        found.update(_given(self, "error_m", "bound_m"))
        return found

    @classmethod
    def from_columns(cls, columns: Mapping[str, np.ndarray], geo_origin: GeoOrigin | None = None) -> Positions:
        """What ``columns`` gives; columns of other names are passed over.

        Raises:
            KeyError: a column that must be there is missing.
        """
        missing = [name for name in ("x_m", "y_m", "valid", "user", "episode", "reason") if name not in columns]
        if missing:
            raise KeyError(f"no column {' and '.join(missing)}")
        axes = 3 if "z_m" in columns else 2
        told: dict[str, Any] = {name: columns[name] for name in ("valid", "user", "episode", "reason")}
        told["position_m"] = np.stack([columns[f"{axis}_m"] for axis in _AXES[:axes]], axis=1)
        for name in (*_NUMBERS, *_TEXTS, "degrees_of_freedom"):
            told[name] = columns.get(name)
        if "cov_xx_m2" in columns:
            told["covariance_m2"] = np.empty((len(told["valid"]), axes, axes))
            for name, i, j in _covariances(axes):
                told["covariance_m2"][:, i, j] = told["covariance_m2"][:, j, i] = columns[name]
        if "truth_x_m" in columns:
            told["truth_m"] = np.stack([columns[f"truth_{axis}_m"] for axis in _AXES[:axes]], axis=1)
        return cls(**told, geo_origin=geo_origin)

    def write(self, path: str | PathLike[str]) -> Path:
        """Write a file, whole or not at all; its ending chooses the format: .csv, .geojson, .npz or .parquet.

        Every number is kept to the last bit. A number that is not known is an empty cell (CSV) or null (GeoJSON). The
        points of a GeoJSON are in latitude and longitude; without ``geo_origin`` it has no points, which could only be
        in WGS 84 (RFC 7946), and the local metres stand in the properties as always.

        Raises:
            ValueError: another ending, no rows; .parquet without the package that writes it.
            ModuleNotFoundError: .geojson with an origin, without the package that converts; names the command.
            OSError: the folder cannot be written.
        """
        if not len(self):
            raise ValueError(f"there are no positions to write into {path}")
        return position_formats.write(Path(path), self.columns(), self.geo_origin)

    @classmethod
    def read(cls, path: str | PathLike[str]) -> Positions:
        """Read what ``write`` wrote.

        Raises:
            ValueError: another ending, or no table of positions; the message names file and, in a CSV, line.
            OSError: it cannot be read.
        """
        file = Path(path)
        try:
            return cls.from_columns(*position_formats.read(file))
        except (KeyError, TypeError) as error:
            told = error.args[0] if error.args else error
            raise ValueError(f"{file.name} is no table of positions ({told}); write it with Positions.write") from None


def _given(owner: Positions, *names: str) -> dict[str, np.ndarray]:
    return {name: getattr(owner, name) for name in names if getattr(owner, name) is not None}


def _radii(given: ArrayLike | Tensor | None, rows: int) -> dict[str, np.ndarray]:
    if given is None:
        return {}
    return dict(zip(_RADII, _array(given).reshape(rows, len(_RADII)).astype(np.float64).T))


def _covariances(axes: int) -> list[tuple[str, int, int]]:
    """Column, row and column of the matrix, for its upper half."""
    return [(f"cov_{_AXES[i]}{_AXES[j]}_m2", i, j) for i in range(axes) for j in range(i, axes)]


def _empty(name: str, rows: int) -> np.ndarray:
    kind = position_formats.kind(name)
    if kind is str:
        return np.full(rows, "", dtype=np.str_)
    return np.zeros(rows, dtype=np.int64) if kind is int else np.full(rows, np.nan)


def _array(values: ArrayLike | Tensor) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _texts(values: ArrayLike) -> np.ndarray:
    return np.asarray(values).astype(np.str_)


def _column(name: str, value: ArrayLike | Tensor, shape: tuple[int, ...]) -> np.ndarray:
    array = _array(value)
    if array.ndim == 0:
        array = np.full(shape, array)
    if array.size != np.prod(shape, dtype=int):
        raise ValueError(f"{name} has {array.size} entries; {shape[0]} positions need {np.prod(shape, dtype=int)}")
    array = array.reshape(shape)
    return _texts(array) if name in _TEXTS else array.astype(np.float64)


def _reasons(estimate: PositionEstimate) -> np.ndarray:
    given = None if estimate.reason is None else _array(estimate.reason)
    return _named(given, _array(estimate.valid))


def _named(reason: np.ndarray | None, valid: np.ndarray) -> np.ndarray:
    """Reasons as text; without any, what is valid is so and the rest says nothing."""
    if reason is None:
        return np.where(valid, REASONS[Reason.VALID], "")
    return np.array(REASONS)[reason.astype(int)]
