"""From arrays to positions in one call, without an environment: ``locate_ranges``, ``_tdoa``, ``_rss``, ``_csi``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol, SupportsIndex, runtime_checkable

from torch import Tensor

from cfpos_envs.measurements.base import Measurements, PositionEstimate
from cfpos_envs.measurements.calibration import RangeCalibration
from cfpos_envs.measurements.dcp import RadioMeasurements
from cfpos_envs.measurements.ecc import CsiMeasurements
from cfpos_envs.measurements.toa import TimingMeasurements
from cfpos_envs.physics.geometry import nearest_inside

from .registry import list_policies, make_policy, policy_families

RANGES_POLICY, TDOA_POLICY, RSS_POLICY = "toa-em", "tdoa-wls", "rss-gn"
"""What locates where nobody says otherwise: links without line of sight are the rule, not the exception."""


@runtime_checkable
class Locator(Protocol):
    """Anything that turns measurements into positions: an estimator, or a trained agent."""

    def locate(self, measurements: Any) -> PositionEstimate:
        """Positions from what was received."""


def locate_ranges(
    ap_positions_m: Any,
    range_m: Any,
    std_m: Any,
    *,
    policy: str | Locator = RANGES_POLICY,
    calibrate: str | RangeCalibration = "none",
    truth_m: Any = None,
    devices: Sequence[Any] | None = None,
    hold_inside: bool = False,
    **known: Any,
) -> PositionEstimate:
    """Positions from measured distances (UWB two-way ranging, Wi-Fi FTM, arrival times with a common clock)::

        estimate = locate_ranges(aps, ranges_m, 0.3)
        estimate.position, estimate.valid          # [K, 2] metres in the frame of ``aps``, [K]

    Args:
        ap_positions_m: [M, 2] metres, or [M, 3] with ``user_height_m``.
        range_m: [K, M] metres, one row per user or epoch; NaN, None or masked where there is none.
        std_m: standard deviation, a number, [M] or [K, M], metres.
        policy: a name of ``list_policies("toa")`` or ``("rtt")``, or an estimator made by ``make_policy``.
        calibrate: "none"; "self" takes offsets of the APs from these ranges, if that pays, and their deviations;
            "labelled" from ``truth_m``; or what ``calibrate_ranges`` has found.
        truth_m: [K, 2] true positions, NaN where unknown, for "labelled".
        devices: [K] names of the devices that measured, for their offsets.
        hold_inside: answers beyond ``area_m`` are moved to its nearest point: nearer the truth where ranges are biased,
            and pulled inwards where they are not. Validity, reason and covariance stay.
        known: what else is known, see ``TimingMeasurements.from_arrays``: ``height_diff_m``, ``ap_height_m`` and
            ``user_height_m``, ``area_m``, ``nlos_mean_m``, ``on_bad``.

    Returns:
        Positions [K, 2] in double precision, covariance, validity with its reason, chi-squared of the residuals.
        ``Positions.from_estimate`` makes a table of NumPy arrays of it that can be written to files.

    Raises:
        ValueError, TypeError: arrays that do not fit together, entries that cannot be right, a policy that reads
            something else.
    """
    chosen, accepted = _chosen(policy, ("toa", "rtt"), "ranges")
    measured = TimingMeasurements.from_arrays(ap_positions_m, range_m, std_m, family=accepted, **known)
    uncalibrated = isinstance(calibrate, str) and calibrate == "none"
    if truth_m is not None and not (isinstance(calibrate, str) and calibrate == "labelled"):
        raise ValueError("truth_m is for calibrate='labelled' alone; say that, or leave it out")
    if devices is not None and uncalibrated:
        raise ValueError(
            "devices have offsets only where ranges are calibrated; say calibrate='self', or leave them out"
        )
    if uncalibrated:
        answer = _one_episode(chosen, measured)
    else:
        from .toa.calibration.ranges import calibration_of, located

        found = calibration_of(measured, calibrate, truth_m, devices)
        answer = _mapped(located(chosen, measured, found, devices), lambda value: value[0])
    return _held(answer, measured) if hold_inside else answer


def _held(answer: PositionEstimate, measured: TimingMeasurements) -> PositionEstimate:
    """Positions in the stated area."""
    if measured.area_m is None:
        raise ValueError("hold_inside=True needs area_m, inside of which the answers are to be held")
    place = answer.position
    corners = place.new_tensor(measured.area_m) + place.new_tensor(measured.origin_m)
    return dataclasses.replace(answer, position=nearest_inside(place, corners))


def locate_tdoa(
    ap_positions_m: Any,
    tdoa_m: Any,
    std_m: Any,
    *,
    reference: SupportsIndex | None = None,
    policy: str | Locator = TDOA_POLICY,
    **known: Any,
) -> PositionEstimate:
    """Positions from differences of arrival times, or from arrival times with an unknown clock offset.

    Args:
        ap_positions_m: [M, 2] metres, or [M, 3] with ``user_height_m``.
        tdoa_m: [K, M] c times the arrival times, of which only differences count; with ``reference`` the differences to
            that AP, positive where the AP is farther (its own column is ignored).
        std_m: standard deviation of one AP's arrival time times c, a number, [M] or [K, M], metres.
        reference: row of ``ap_positions_m``.
        policy: a name of ``list_policies("tdoa")``, or an estimator made by ``make_policy``.
        known: as in ``locate_ranges``.

    Returns:
        As ``locate_ranges``.

    Raises:
        ValueError, TypeError: as ``locate_ranges``.
    """
    chosen, accepted = _chosen(policy, ("tdoa",), "time differences")
    measured = TimingMeasurements.from_arrays(
        ap_positions_m, tdoa_m, std_m, family=accepted, reference=reference, **known
    )
    return _one_episode(chosen, measured)


def locate_rss(
    ap_positions_m: Any, rss_dbm: Any, *, policy: str | Locator = RSS_POLICY, **known: Any
) -> PositionEstimate:
    """Positions from received powers and a law of their decay, without a survey (with one: ``Fingerprint``).

    Args:
        ap_positions_m: [M, 2] metres, or [M, 3] with ``user_height_m``.
        rss_dbm: [K, M] dBm, one row per user or epoch; NaN, None or masked where an AP was not heard.
        policy: a name of ``list_policies("dcp")``, or an estimator made by ``make_policy``.
        known: what else is known, see ``RadioMeasurements.from_arrays``, above all ``rss_at_1m_dbm``,
            ``path_loss_slope_db`` and ``shadowing_std_db``; ``covariance`` of the APs' arrays for methods that use
            directions.

    Returns:
        As ``locate_ranges``, in the precision of the computation or of coordinates that are a map's.

    Raises:
        ValueError, TypeError: as ``locate_ranges``.
    """
    chosen, _ = _chosen(policy, ("dcp",), "powers")
    return _one_episode(chosen, RadioMeasurements.from_arrays(ap_positions_m, rss_dbm, **known))


def locate_csi(
    csi: Any, bs_positions_m: Any, bs_orientation_rad: Any, *, policy: Locator | None = None, **known: Any
) -> PositionEstimate:
    """Positions in space from channel state information, by MUSIC or a trained network.

    Args:
        csi: complex [K, L, A, N] or [K, L, T, A, N]: snapshots of one user each, stations, (slots,) antennas,
            subcarriers; links that are NaN, masked or zero are left out.
        bs_positions_m: [L, 3] metres.
        bs_orientation_rad: [L, 3] yaw, pitch and roll, or [L] yaws.
        policy: a trained agent or estimator (``load_agent``, ``make_policy(name, env)``), which needs
            ``system=env.scenario.system``; None: MUSIC, which needs no training.
        known: what else is known, see ``CsiMeasurements.from_arrays``: ``carrier_hz``, ``subcarrier_spacing_hz``,
            ``array_shape``, ``antenna_order``, ``phase`` and more.

    Returns:
        Positions [K, 3] and so on, see ``locate_ranges``.

    Raises:
        ValueError: arrays that do not fit together; a policy that reads something else.
    """
    from .ecc.music import Music3d

    measured = CsiMeasurements.from_arrays(csi, bs_positions_m, bs_orientation_rad, **known)
    return snapshots_located(Music3d() if policy is None else policy, measured)


def snapshots_located(policy: Locator, measured: CsiMeasurements) -> PositionEstimate:
    """Answers [K, 3] for measurements of one user per episode."""
    if not isinstance(policy, Locator):
        raise ValueError(f"policy is {policy!r}; give a trained agent or estimator, or None for MUSIC")
    return _mapped(policy.locate(measured), lambda value: value[:, 0])


def _chosen(policy: str | Locator, families: Sequence[str], content: str) -> tuple[Locator, str]:
    """The policy, and which of ``families`` it takes.

    Raises:
        ValueError: none of them; names policies that do.
    """
    accepted = policy_families(policy) if isinstance(policy, str) else tuple(getattr(policy, "families", ()))
    family = next((name for name in families if name in accepted), None)
    name = policy if isinstance(policy, str) else getattr(policy, "name", type(policy).__name__)
    locator = make_policy(policy) if isinstance(policy, str) else policy
    if family is None or not isinstance(locator, Locator):
        able = sorted({other for wanted in families for other in list_policies(wanted) if policy_families(other)})
        raise ValueError(f"policy {name!r} does not read {content}; choose one of {', '.join(able)}")
    return locator, family


def _one_episode(policy: Locator, measured: Measurements) -> PositionEstimate:
    """The answer without the axis of the episode, of which people's own arrays are one."""
    return _mapped(policy.locate(measured), lambda value: value[0])


def _mapped(found: PositionEstimate, take: Callable[[Tensor], Tensor]) -> PositionEstimate:
    """Part of every tensor; only what all estimates have."""
    names = [entry.name for entry in dataclasses.fields(PositionEstimate)]
    values = {name: getattr(found, name) for name in names}
    first: dict[str, Any] = {name: None if value is None else take(value) for name, value in values.items()}
    return PositionEstimate(**first)
