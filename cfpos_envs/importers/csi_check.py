"""Which antenna order and which sign of the phase a file of CSI has, told from snapshots at known places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cfpos_envs.importers.arrays import CsiFile
from cfpos_envs.physics.ecc.conventions import ANTENNA_ORDERS, PHASES, antenna_permutation
from cfpos_envs.physics.ecc.csi import to_array_frame
from cfpos_envs.physics.units import SPEED_OF_LIGHT_M_S

LEAST_MARGIN = 2.0
"""The best convention must fit this many times as well as the next one, see ``Findings.margin``."""
LEAST_CORRELATION = 0.3
"""Below this none of the conventions fits."""
MOST_SNAPSHOTS = 512
_FLOOR = 0.02
_DELAYS_TELL, _DELAYS_DIFFER = 0.5, 0.1


@dataclass(frozen=True)
class Convention:
    """One way to read a file.

    Attributes:
        antenna_orders: names for ``antenna_order=`` that mean the same in this array; none where the file says itself
            where its antennas are.
        phase: for ``phase=``.
        correlation: mean of Re r_ab conj(p_ab) over all pairs of antennas a != b and the better half of the links,
            those that some convention explains best. r_ab is the measured coherence, p_ab the phase that a line of
            sight from the known place would have. 1: both agree everywhere; about 0: they have nothing to do with each
            other.
    """

    antenna_orders: tuple[str, ...]
    phase: str
    correlation: float


@dataclass(frozen=True)
class Findings:
    """What the snapshots say.

    Attributes:
        conventions: all that were tried, the best first.
        links: links that were looked at.
        delay_agreement: mean cosine between measured and expected turn from subcarrier to subcarrier, as the file is
            and conjugated; near 0 both where clocks are not synchronised.
    """

    conventions: tuple[Convention, ...]
    links: int
    delay_agreement: tuple[float, float]

    @property
    def best(self) -> Convention:
        """What fits best."""
        return self.conventions[0]

    @property
    def margin(self) -> float:
        """By how much: the ratio of the two best correlations, or of what the second and the best lack of 1.

        The latter tells more where orders differ in their rows alone and all places are at one height. Neither divides
        by less than 0.02.
        """
        best, second = (entry.correlation for entry in self.conventions[:2])
        return max(best / max(second, _FLOOR), (1 - second) / max(1 - best, _FLOOR))

    @property
    def doubt(self) -> str:
        """Empty, or what speaks against the sign of the best convention."""
        said, other = self.delay_agreement if self.best.phase == PHASES[0] else self.delay_agreement[::-1]
        if other > _DELAYS_TELL and other > said + _DELAYS_DIFFER:
            return (
                "the turn from subcarrier to subcarrier says the other sign: the antennas may be numbered backwards "
                "along both axes; give the permutation or element_positions_m"
            )
        return ""

    @property
    def verdict(self) -> str:
        """Empty where the best convention is the right one; else why nothing is decided, and what to do."""
        if self.best.correlation < LEAST_CORRELATION:
            return (
                f"no known convention fits (correlation {self.best.correlation:.2f} of 1): look at positions_m, "
                "bs_orientation_rad, the order of the base stations and the calibration of the antennas' phases, or "
                "choose places in line of sight"
            )
        if self.margin < LEAST_MARGIN:
            return (
                f"undecided: the best convention fits {self.margin:.2f} times as well as the next one, needed are "
                f"{LEAST_MARGIN:g}; give more places, in line of sight and aside of the arrays' broadside"
            )
        return ""


def find_conventions(file: CsiFile, rows: Sequence[int] | None = None) -> Findings:
    """Compare the phases between antennas with those of lines of sight from the known places.

    Orders that number the columns from the other side are not tried: along both axes they are the conjugate.

    Args:
        file: with places, read as if it had our conventions.
        rows: numbers of the snapshots to look at, best in line of sight; None: up to 512 evenly chosen ones.

    Raises:
        ValueError: no places, rows that are not there, one antenna per base station, or no link among them.
    """
    if file.positions_m is None:
        raise ValueError(f"{file.path}: the check needs known places; add positions_m, if only of a few snapshots")
    if rows is None:
        rows = np.unique(np.linspace(0, len(file) - 1, min(len(file), MOST_SNAPSHOTS)).astype(int)).tolist()
    wrong = [row for row in rows if not 0 <= row < len(file)]
    if wrong:
        raise ValueError(f"{file.path}: there is no snapshot {wrong[0]}; the file has {len(file)}, from 0")
    chosen = file.select(np.asarray(rows))
    antennas = chosen.csi.shape[-2]
    if antennas < 2:
        raise ValueError(f"{file.path}: every base station has one antenna; there is no order and no angle in this csi")
    coherence, expected = _coherence(chosen), _expected(chosen)
    if len(coherence) == 0:
        raise ValueError(f"{file.path}: no valid link among the snapshots {list(rows)[:5]}; choose others")
    tried = [
        (names, phase, turned[:, permutation][:, :, permutation])
        for permutation, names in _orders(file).items()
        for phase, turned in ((PHASES[0], coherence), (PHASES[1], coherence.conj()))
    ]
    fits = np.stack([_correlation(turned, expected) for _, _, turned in tried])
    # A link that no convention explains well has no line of sight; the better half decides, whichever convention it is.
    best = fits.max(axis=0)
    means = fits[:, best >= np.median(best)].mean(axis=1)
    found = [Convention(names, phase, float(mean)) for (names, phase, _), mean in zip(tried, means)]
    ranked = tuple(sorted(found, key=lambda entry: -entry.correlation))
    return Findings(ranked, len(coherence), _delay_agreement(chosen))


def _orders(file: CsiFile) -> dict[tuple[int, ...], tuple[str, ...]]:
    """Permutations to try, with the names that mean them."""
    if file.element_positions_m is not None:
        return {tuple(range(len(file.element_positions_m))): ()}
    orders: dict[tuple[int, ...], tuple[str, ...]] = {}
    for name in ANTENNA_ORDERS:
        permutation = antenna_permutation(name, file.array_shape)
        orders[permutation] = (*orders.get(permutation, ()), name)
    return orders


def _coherence(file: CsiFile) -> np.ndarray:
    """[links, A, A] covariance between antennas over slots and subcarriers, over the roots of their powers."""
    columns = file.csi[file.valid].transpose(0, 2, 1, 3)  # [links, A, T, N]
    columns = columns.reshape(*columns.shape[:2], -1).astype(complex)
    covariance = columns @ columns.conj().transpose(0, 2, 1)
    power = np.maximum(np.einsum("laa->la", covariance).real, np.finfo(float).tiny)
    return covariance / np.sqrt(power[:, :, None] * power[:, None])


def _expected(file: CsiFile) -> np.ndarray:
    """[links, A, A] phases between the antennas for lines of sight from the places."""
    assert file.positions_m is not None
    system = file.select(slice(0, 1)).measurements().system
    away = torch.from_numpy(file.positions_m[:, None] - file.bs_positions_m)
    unit = torch.nn.functional.normalize(away, dim=-1)[:, :, None]
    local = to_array_frame(unit, torch.from_numpy(file.bs_orientation_rad)).squeeze(-2)
    response = system.response(local[torch.from_numpy(file.valid)].float()).to(torch.complex128).numpy()
    return response[:, :, None] * response[:, None].conj()


def _correlation(coherence: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """[links] mean over the pairs of different antennas."""
    antennas = coherence.shape[-1]
    agreement = (coherence * expected.conj()).real.sum(axis=(1, 2)) - antennas
    return agreement / (antennas * (antennas - 1))


def _delay_agreement(file: CsiFile) -> tuple[float, float]:
    """Mean cosine between the measured turn of neighbouring subcarriers and that of the straight way, both signs."""
    assert file.positions_m is not None
    length_m = np.linalg.norm(file.positions_m[:, None] - file.bs_positions_m, axis=-1)[file.valid]
    csi = file.csi[file.valid].astype(complex)
    turn = np.angle((csi[..., 1:] * csi[..., :-1].conj()).sum(axis=(1, 2, 3)))
    expected = -2 * np.pi * file.subcarrier_spacing_hz * length_m / SPEED_OF_LIGHT_M_S
    return float(np.cos(turn - expected).mean()), float(np.cos(-turn - expected).mean())
