"""Fingerprints of measured distances, alone or beside powers.

A range is taken as a nearness, its negative: like a power it is larger close by, and the weakest reading of an access
point is the farthest one. Powers go beside ranges in metres, divided by ``db_per_m``: at 10 m an indoor power changes
by 1 to 2 dB per metre, but multipath moves it by several dB from step to step; on held-out places of surveyed rooms a
metre of range says as much as 5 to 12 dB. An exchange that fails says nothing about the distance.
"""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from .fingerprint_options import FingerprintOptions
from .survey import Survey


def readings(
    rss_dbm: Float[Tensor, "*batch M"], range_m: Float[Tensor, "*batch M"], options: FingerprintOptions
) -> Float[Tensor, "*batch C"]:
    """What is compared, metres: C = M nearnesses, or with powers M scaled powers before them.

    Args:
        rss_dbm, range_m: NaN where there is none.
        options: feature and scale.
    """
    if options.feature == "range":
        return -range_m
    return torch.cat((rss_dbm / options.db_per_m, -range_m), dim=-1)


def doubled(flags: Tensor, options: FingerprintOptions) -> Tensor:
    """Flags [..., M] of access points for every column of ``readings``."""
    return flags if options.feature == "range" else torch.cat((flags, flags), dim=-1)


def ranged(survey: Survey, options: FingerprintOptions) -> Survey:
    """The survey with ``readings`` in the place of its powers.

    Raises:
        ValueError: it has no ranges.
    """
    if survey.range_m is None:
        raise ValueError(
            f"feature {options.feature!r} compares ranges but the survey has none; add columns range_<ap>, or use "
            "feature='rss-db'"
        )
    unknown = survey.unknown
    if unknown is not None:
        powers_only = torch.cat((unknown, torch.zeros_like(unknown)), dim=-1)
        unknown = None if options.feature == "range" else powers_only
    return dataclasses.replace(
        survey, rss_dbm=readings(survey.rss_dbm, survey.range_m, options), range_m=None, unknown=unknown
    )
