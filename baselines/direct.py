"""From arrays to positions in one call, without an environment: ``locate_ranges``, ``locate_tdoa``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from cfpos_envs.measurements.base import Measurements, PositionEstimate
from cfpos_envs.measurements.toa import TimingMeasurements

from .registry import list_policies, make_policy, policy_families

RANGES_POLICY, TDOA_POLICY = "toa-em", "tdoa-wls"
"""What locates where nobody says otherwise: links without line of sight are the rule, not the exception."""


@runtime_checkable
class Locator(Protocol):
    """Anything that turns measurements into positions: an estimator, or a trained agent."""

    def locate(self, measurements: Any) -> PositionEstimate:
        """Positions from what was received."""


def locate_ranges(
    ap_positions_m: Any, range_m: Any, std_m: Any, *, policy: str | Locator = RANGES_POLICY, **known: Any
) -> PositionEstimate:
    """Positions from measured distances (UWB two-way ranging, Wi-Fi FTM, arrival times with a common clock)::

        estimate = locate_ranges(aps, ranges_m, 0.3)
        estimate.position, estimate.valid          # [K, 2] metres in the frame of ``aps``, [K]

    Args:
        ap_positions_m: [M, 2] metres, or [M, 3] with ``user_height_m``.
        range_m: [K, M] metres, one row per user or epoch; NaN, None or masked where there is none.
        std_m: standard deviation, a number, [M] or [K, M], metres.
        policy: a name of ``list_policies("toa")`` or ``("rtt")``, or an estimator made by ``make_policy``.
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
    return _one_episode(chosen, measured)


def locate_tdoa(
    ap_positions_m: Any,
    tdoa_m: Any,
    std_m: Any,
    *,
    reference: int | None = None,
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
    found = policy.locate(measured)
    names = [entry.name for entry in dataclasses.fields(PositionEstimate)]
    values = {name: getattr(found, name) for name in names}
    first: dict[str, Any] = {name: None if value is None else value[0] for name, value in values.items()}
    return PositionEstimate(**first)
