"""What answers of a mean of references or APs are worth: those to users that are simulated on the site as well."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs.physics.geometry import nearest_image
from cfpos_envs.streams import derive_seed

from ..neighbour_errors import ErrorModel, Neighbourhood
from .database import Database
from .fingerprint_options import FingerprintOptions
from .links import alike_counts, some_aps
from .matching import locate_by_matching
from .nearest import Queries
from .radio_map import RadioMap, SiteCache
from .survey import simulate_survey

_USERS = 128


class SimulatedErrors:
    """Error models of sites, learned when first asked for and kept.

    Args:
        learn: the errors on a site with so much shadowing that nobody knows, of users whom so many APs hear.
    """

    def __init__(self, learn: Callable[[RadioMap, float, int], ErrorModel]) -> None:
        self._learn = learn
        self._models: defaultdict[tuple[float, int], SiteCache[ErrorModel]] = defaultdict(SiteCache)

    def covariance_m2(
        self, site: RadioMap, shadowing_db: float, heard: Bool[Tensor, "Q M"], made_of: Neighbourhood
    ) -> Float[Tensor, "Q 2 2"]:
        """Covariances of answers to users whom the APs ``heard``: fewer of them leave more places alike."""
        counts = alike_counts(heard).clamp(min=1)
        covariance = made_of.spread_m2.double()
        for count in counts.unique().tolist():
            models = self._models[shadowing_db, count]
            model = models.get(site, lambda there, count=count: self._learn(there, shadowing_db, count))  # type: ignore[misc]
            mine = (counts == count).nonzero().squeeze(-1)
            covariance[mine] = model.covariance_m2(made_of.select(mine))
        return covariance


def simulated_errors(
    site: RadioMap, database: Database, options: FingerprintOptions, shadowing_db: float, heard_by: int
) -> ErrorModel:
    """Errors of answers to ``_USERS`` users anywhere in the area, measured as the network measures.

    Args:
        site: one site, without batch dimensions.
        database: its references.
        options: of the estimator.
        shadowing_db: standard deviation of the shadowing that the database does not know.
        heard_by: how many of the APs, other ones each time, hear a user: fewer leave more places alike.
    """
    side_m, wrap = site.radio.side_m, site.radio.wrap
    seed = derive_seed(options.survey_seed, "probes")
    draw = torch.Generator().manual_seed(seed)
    points = torch.rand(_USERS, 2, generator=draw) * side_m
    survey = simulate_survey(site, points, seed)
    rss = survey.rss_dbm + shadowing_db * torch.randn(survey.rss_dbm.shape, generator=draw)
    queries = Queries(rss, survey.angular_power)
    heard = some_aps(len(rss), rss.shape[1], heard_by, derive_seed(options.survey_seed, "heard"))
    found = locate_by_matching(database, queries, heard, options, side_m, wrap)
    error = nearest_image(found.position_m - points, side_m, wrap)
    model = ErrorModel.of(found.made_of, error, torch.tensor([float(options.spacing)]))
    assert model is not None
    return model
