"""Claims of the paper on positioning over reconfigurable surfaces by weighted least squares."""

from __future__ import annotations

from typing import Any

from cfpos.scripts.claims.common import Claim, Finding, falling, figure, figures, rows, value, verdict

_OURS, _PAPER, _EQUAL = "ris-wls", "ris-wls-paper", "ris-ls"


def _ratios(name: str, policy: str, where: dict[str, Any], column: str = "rmse/bound") -> list[float]:
    return [row[column] for row in rows(name, {**where, "policy": policy})]


def _over_snr() -> Finding:
    levels = [-20.0, -10.0, 0.0, 10.0, 20.0]
    parts, near = [], []
    for policy in (_OURS, _PAPER):
        found = [value("ris-snr", "rmse/bound", {"surfaces": 2, "snr_db": level, "policy": policy}) for level in levels]
        near += [ratio < 1.15 for ratio in found]
        parts.append(f"`{policy}` {figures(found, ' / ')}")
    text = f"RMSE over bound, two surfaces, {figures(levels, ' / ')} dB: {'; '.join(parts)}"
    return Finding(text, verdict(*near))


def _clock() -> Finding:
    where = {"snr_db": 10.0, "policy": _PAPER}
    one, two = (rows("ris-snr", {**where, "surfaces": surfaces})[0] for surfaces in (1, 2))
    text = (
        f"`{_PAPER}` at 10 dB {figures([one['clock_mm'], two['clock_mm']], ' / ')} mm with one / two surfaces, "
        f"{figures([one['clock/bound'], two['clock/bound']], ' / ')} bounds"
    )
    return Finding(text, verdict(two["clock_mm"] < one["clock_mm"], max(one["clock/bound"], two["clock/bound"]) < 1.15))


def _beside_others() -> Finding:
    names = (_PAPER, _EQUAL, "ris-siso")
    parts, holds = [], []
    for surfaces in (1, 2):
        errors = [value("ris-snr", "rmse_mm", {"surfaces": surfaces, "snr_db": 20.0, "policy": name}) for name in names]
        parts.append(f"{figures(errors, ' / ')} mm with {surfaces}")
        holds += [errors[0] < errors[1], errors[0] < errors[2]]
    return Finding(f"20 dB, `{'` / `'.join(names)}`: {', '.join(parts)} surfaces", verdict(*holds))


def _bias() -> Finding:
    ours = _ratios("ris-clock", _PAPER, {}, "rmse_mm")
    trusting = _ratios("ris-clock", "ris-aoa-toa", {}, "rmse_mm")
    text = (
        f"biases of -100 to 250 ns: `{_PAPER}` {figures([min(ours), max(ours)], ' to ')} mm, `ris-aoa-toa` "
        f"{figures([min(trusting), max(trusting)], ' to ')} mm"
    )
    return Finding(text, verdict(max(ours) < 1.15 * min(ours), max(trusting) > 100 * min(trusting)))


def _falls(name: str, what: str, policies: tuple[str, ...]) -> Finding:
    found = {policy: _ratios(name, policy, {}, "rmse_mm") for policy in policies}
    ends = "; ".join(f"`{policy}` {figures([errors[0], errors[-1]], ' to ')} mm" for policy, errors in found.items())
    return Finding(f"{what}: {ends}", verdict(*(falling(errors) for errors in found.values())))


def _surfaces() -> Finding:
    parts = [f"`{name}` {figures(_ratios('ris-surfaces', name, {}), ' / ')}" for name in (_OURS, _PAPER)]
    equal = _ratios("ris-surfaces", _EQUAL, {}, "rmse_mm")
    published = _ratios("ris-surfaces", _PAPER, {})
    text = f"1 / 2 / 3 / 4 surfaces, bounds: {'; '.join(parts)}; `{_EQUAL}` {figures(equal, ' / ')} mm"
    return Finding(text, verdict(falling(published[::-1]), not falling(equal)))


def _rician() -> Finding:
    found = {name: _ratios("ris-rician", name, {}) for name in (_OURS, _PAPER, _EQUAL)}
    parts = [f"`{name}` {figures([min(ratios), max(ratios)], ' to ')}" for name, ratios in found.items()]
    return Finding(f"bounds, 0 to 20 dB: {', '.join(parts)}", verdict(max(found[_PAPER]) < 1.2))


def _exponent() -> Finding:
    one, two = (_ratios("ris-los", _PAPER, {"surfaces": surfaces}, "rmse_mm") for surfaces in (1, 2))
    text = (
        f"`{_PAPER}`, exponents 2 to 6: one surface {figures([one[0], min(one), one[-1]], ', ')} mm (first, "
        "least, last), "
        f"two {figures([two[0], min(two), two[-1]], ', ')} mm"
    )
    return Finding(text, verdict(min(one) < min(one[0], one[-1]), falling(two)))


def _phases() -> Finding:
    where = {"sector_deg": 5.0, "box_m": 0.0}
    designed, drawn = (value("ris-phases", "error_median_mm", {**where, "design": name}) for name in ("svd", "random"))
    wide_deg = 20.0
    found = [row for row in rows("ris-phases", {"sector_deg": wide_deg}) if row["box_m"] > 0]
    broad = {row["design"]: row["error_median_mm"] for row in found}
    text = (
        f"median error, designed / random: {figures([designed, drawn], ' / ')} mm in a sector of 5 degrees, "
        f"{figures([broad['svd'], broad['random']], ' / ')} mm in one of {figure(wide_deg)} with "
        "users all over it"
    )
    return Finding(text, verdict(designed < drawn, broad["svd"] < broad["random"]))


def _cooperation() -> Finding:
    names = ("base station 1", "base station 2", "both")
    found = [rows("ris-cooperation", {"snr_db": 10.0, "who": name})[0] for name in names]
    errors, ratio = [row["rmse_mm"] for row in found], found[2]["rmse/bound"]
    text = (
        f"10 dB: {figures(errors[:2], ' / ')} mm with either station, {figure(errors[2])} mm with "
        f"both ({figure(ratio)} bounds)"
    )
    return Finding(text, verdict(errors[2] < min(errors[:2]), ratio < 1.15))


CLAIMS = (
    Claim(
        "Weighted least squares approaches the bound at every SNR, with one surface and with several",
        "section VII-A, Fig. 4",
        ("ris-snr",),
        _over_snr,
        "The published pipeline needs about 5 dB, since MUSIC over one axis throws information away; our "
        "estimator does not.",
    ),
    Claim(
        "The clock bias is estimated nearly as well as its bound allows, better with more surfaces",
        "section VII-A, Fig. 7",
        ("ris-snr",),
        _clock,
        "The fusion estimates both together.",
    ),
    Claim(
        "It is more accurate than equal weights (LS) and than single antennas (SISO)",
        "section VII-A, Fig. 4",
        ("ris-snr",),
        _beside_others,
        "Weights and arrays carry the information that the others leave out.",
    ),
    Claim(
        "The error does not depend on the clock bias; that of AOA and TOA with a trusted clock does",
        "section VII-A",
        ("ris-clock",),
        _bias,
        "Whoever trusts the clock is off by the bias times the speed of light.",
    ),
    Claim(
        "More pilots, less error, for LS as well",
        "section VII-B",
        ("ris-slots",),
        lambda: _falls("ris-slots", "64 to 1024 slots", (_PAPER, _EQUAL)),
        "Noise is averaged; fading is not, so that the gain ends.",
    ),
    Claim(
        "More elements per surface, less error, for all methods",
        "section VII-C, Fig. 9",
        ("ris-elements",),
        lambda: _falls("ris-elements", "6 x 6 to 28 x 28", (_PAPER, _EQUAL)),
        "The reflected power grows with the elements.",
    ),
    Claim(
        "With more surfaces the gap to the bound widens, and LS does not improve steadily",
        "section VII-C, Fig. 9",
        ("ris-surfaces",),
        _surfaces,
        "The published pipeline suffers from paths that interfere; our estimator fits them together and "
        "keeps to the bound.",
    ),
    Claim(
        "It is very close to the bound whatever the Rician factor of the line of sight",
        "section VII-D, Fig. 11",
        ("ris-rician",),
        _rician,
        "Fusion leans on the paths that are good.",
    ),
    Claim(
        "Over the path-loss exponent of the line of sight the error falls and rises with one surface, only "
        "falls with two",
        "section VII-D, Fig. 11",
        ("ris-los",),
        _exponent,
        "In our scene it rises again with two surfaces too, once the line of sight is weak; "
        "the source's range of exponents is missing in our copy.",
    ),
    Claim(
        "Designed phase profiles (SVD) are better than random ones",
        "section VII-E, Fig. 13",
        ("ris-phases",),
        _phases,
        "Where users may be far beside the focus of the beam a narrow design loses; a chirp does not.",
    ),
    Claim(
        "Two base stations and two users come close to the bound and improve on one",
        "section VII-F, Fig. 13",
        ("ris-cooperation",),
        _cooperation,
        "Two stations see the user from two sides.",
    ),
)
