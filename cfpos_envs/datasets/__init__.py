"""Public measured data sets as the suite's own types: ``load_dataset(name, folder)``; see docs/measured.md."""

from .base import MeasuredSet, Recording, Source
from .loading import LAYOUTS, load_dataset, scenes

__all__ = ["LAYOUTS", "MeasuredSet", "Recording", "Source", "load_dataset", "scenes"]
