"""What the central unit receives and what an estimator answers: the meeting point of environments and estimators."""

from cfpos_envs.measurements.base import Measurements, PositionEstimate, Reason
from cfpos_envs.measurements.dcp import RadioMeasurements
from cfpos_envs.measurements.ecc import CsiMeasurements, CsiSystem
from cfpos_envs.measurements.hybrid import HybridMeasurements
from cfpos_envs.measurements.ris import RisMeasurements, RisSystem
from cfpos_envs.measurements.toa import TimingMeasurements
from cfpos_envs.physics.dcp.model import RadioModel
from cfpos_envs.physics.toa.model import TimingModel

__all__ = [
    "CsiMeasurements",
    "CsiSystem",
    "HybridMeasurements",
    "Measurements",
    "PositionEstimate",
    "RadioMeasurements",
    "RadioModel",
    "Reason",
    "RisMeasurements",
    "RisSystem",
    "TimingMeasurements",
    "TimingModel",
]
