"""What a database of a simulated site is worth: answers to users that are simulated as well."""

from __future__ import annotations

import torch

from cfpos_envs.physics.geometry import nearest_image
from cfpos_envs.streams import derive_seed

from ..neighbour_errors import ErrorModel
from .database import Database
from .fingerprint_options import FingerprintOptions
from .matching import locate_by_matching
from .nearest import Queries
from .radio_map import RadioMap
from .survey import simulate_survey

_USERS = 128


def simulated_errors(
    site: RadioMap, database: Database, options: FingerprintOptions, shadowing_db: float
) -> ErrorModel | None:
    """Errors of answers to ``_USERS`` users anywhere in the area, measured as the network measures.

    Args:
        site: one site, without batch dimensions.
        database: its references.
        options: of the estimator.
        shadowing_db: standard deviation of the shadowing that the database does not know.
    """
    side_m, wrap = site.radio.side_m, site.radio.wrap
    seed = derive_seed(options.survey_seed, "probes")
    draw = torch.Generator().manual_seed(seed)
    points = torch.rand(_USERS, 2, generator=draw) * side_m
    survey = simulate_survey(site, points, seed)
    rss = survey.rss_dbm + shadowing_db * torch.randn(survey.rss_dbm.shape, generator=draw)
    queries = Queries(rss, survey.angular_power)
    heard = torch.ones(rss.shape, dtype=torch.bool)
    found = locate_by_matching(database, queries, heard, options, side_m, wrap)
    error = nearest_image(found.position_m - points, side_m, wrap)
    return ErrorModel.of(found.made_of, error, torch.tensor([float(options.spacing)]))
