"""The tables of ``docs/claims.md``."""

from __future__ import annotations

from cfpos.scripts.claims import dcp, ecc, ris, survey
from cfpos.scripts.claims.common import Claim, table_row

CLAIMS: dict[str, tuple[Claim, ...]] = {
    "dcp": dcp.CLAIMS,
    "survey": survey.CLAIMS,
    "ecc": ecc.CLAIMS,
    "ris": ris.CLAIMS,
}


def claim_rows(source: str) -> list[dict[str, str]]:
    """Every claim of a source beside what the kept results say.

    Raises:
        ValueError: the source has no claims here, or a kept result lacks what a claim needs.
    """
    if source not in CLAIMS:
        raise ValueError(f"no claims of {source!r}; known: {', '.join(CLAIMS)}")
    return [table_row(claim) for claim in CLAIMS[source]]


def counted() -> list[dict[str, str]]:
    """How many claims of every source agree, agree in part, differ or have nothing beside them."""
    header = ("agrees", "in part", "differs", "not comparable")
    lines = []
    for source, claims in CLAIMS.items():
        found: list[str] = [claim.finding().verdict for claim in claims]
        lines.append({"source": source, **{name: str(found.count(name)) for name in header}})
    return lines
