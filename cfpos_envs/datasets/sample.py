"""A made-up set, drawn and not measured: what the measured game plays where nobody names data."""

from __future__ import annotations

import numpy as np

from cfpos_envs.datasets.base import MeasuredSet, Recording, Source
from cfpos_envs.datasets.path_loss import PathLoss

SOURCE = Source("made-up sample, drawn and not measured", "", "that of this package", "drawn")
_APS_M = np.array([[0.0, 0.0], [20.0, 0.0], [20.0, 12.0], [0.0, 12.0], [10.0, 14.0]])
_STD_M, _OFFSET_M, _EXCESS_M, _NLOS_SHARE = 0.5, 0.8, 3.0, 0.15
_LAW = PathLoss(np.full(len(_APS_M), -40.0), 28.0, 4.0)
_PLACES = {"train": 100, "test": 100}


def sample() -> MeasuredSet:
    """A hall of 20 m x 12 m with five access points: ranges of 0.5 m with offsets and blocked views, and powers."""
    generator = np.random.default_rng(0)
    offset = _OFFSET_M * generator.random(len(_APS_M))
    parts = {}
    for name, count in _PLACES.items():
        truth = generator.random((count, 2)) * [20.0, 12.0]
        distance = np.linalg.norm(truth[:, None] - _APS_M[None], axis=2)
        excess = generator.exponential(_EXCESS_M, distance.shape) * (generator.random(distance.shape) < _NLOS_SHARE)
        ranges = distance + offset + excess + _STD_M * generator.standard_normal(distance.shape)
        powers = _LAW.at_1m_dbm - _LAW.slope_db * np.log10(np.maximum(distance, 1.0))
        parts[name] = Recording(
            truth_m=truth,
            group=np.array([f"{name} {number}" for number in range(count)]),
            user=np.full(count, "0"),
            range_m=np.maximum(ranges, 0.1),
            rss_dbm=powers + _LAW.std_db * generator.standard_normal(distance.shape),
        )
    names = tuple(f"AP{number}" for number in range(1, len(_APS_M) + 1))
    return MeasuredSet("sample", SOURCE, names, _APS_M, None, _STD_M, parts["train"], parts["test"])
