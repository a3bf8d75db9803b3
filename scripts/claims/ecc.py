"""Claims of the paper on edge-cloud positioning by quantised CSI."""

from __future__ import annotations

from cfpos.scripts.claims.common import Claim, Finding, falling, figure, figures, rows, value, verdict

_SETTINGS = ("lossless CSI, no encoder", "Q = 10", "Q = 8", "Q = 6", "Q = 4")
_SHORT = "ecc-fast, batches of 64, 120 000 snapshots seen"


def _column(name: str, key: str, names: tuple[str, ...], column: str = "mean_m") -> list[float]:
    return [value(name, column, {key: entry}) for entry in names]


def _payload() -> Finding:
    percents = _column("ecc-table2", "setting", _SETTINGS[1:], "percent")
    bits = _column("ecc-table2", "setting", _SETTINGS[1:], "bits_per_bs")
    text = f"{figures(bits, ' / ')} bits per station: {figures(percents, ' / ')} %"
    return Finding(text, verdict(percents == [6.25, 5.0, 3.75, 2.5]))


def _headline() -> Finding:
    own = [value("ecc-table2", column, {"setting": "Q = 10"}) for column in ("mean_m", "p90_m")]
    city = [value("ecc-trained", column, {"network": "ecc-fast-urban"}) for column in ("mean_m", "p90_m")]
    traced = min(rows("ecc-positions"), key=lambda row: row["mean_m"])
    text = (
        f"the paper's network, hardly trained, {figures(own, ' / ')} m; `ecc-fast` at 393 bits "
        f"{figures(city, ' / ')} m in the "
        f"embedded city, {figures([traced['mean_m'], traced['p90_m']], ' / ')} m in the ray-traced one"
    )
    return Finding(text, verdict(own[0] <= 0.48, traced["mean_m"] <= 0.48))


def _bits() -> Finding:
    sizes = (4, 6, 8, 10)
    own = [value("ecc-strategy-bits", "mean_m", {"strategy": "local-joint", "Q": size}) for size in sizes]
    table = _column("ecc-table2", "setting", _SETTINGS[:0:-1])
    text = (
        f"Q = 4 / 6 / 8 / 10: {figures(own, ' / ')} m at reduced size, {figures(table, ' / ')} m with the paper's sizes"
    )
    return Finding(text, verdict(falling(own), falling(table)))


def _lossless() -> Finding:
    table = _column("ecc-table2", "setting", _SETTINGS[:2])
    names = ("encoder without quantiser", "scratch", "raw CSI at the CU")
    small = _column("ecc-strategies", "strategy", names)
    city = _column("ecc-munich", "policy", ("ecc-fast, not quantised", "ecc-fast, Q 10"))
    text = (
        f"without and with quantiser: {figures(small[:2], ' / ')} m at reduced size, {figures(city, ' / ')} "
        "m in the ray-traced city; "
        f"against raw CSI: {figures([small[2], small[1]], ' / ')} m at reduced size, "
        f"{figures(table, ' / ')} m with the paper's sizes"
    )
    holds = (small[1] < 1.2 * small[0], city[1] < 1.2 * city[0], small[1] < 1.2 * small[2], table[1] < 1.2 * table[0])
    return Finding(text, verdict(*holds))


def _strategies() -> Finding:
    names = ("scratch", "local-split", "local-joint")
    scratch, split, joint = (value("ecc-strategies", "mean_m", {"strategy": name}) for name in names)
    text = (
        f"joint after Stage I {figure(joint)} m, from scratch {figure(scratch)} m, encoders frozen "
        f"after Stage I {figure(split)} m"
    )
    return Finding(text, verdict(joint < scratch, joint < split))


def _baselines() -> Finding:
    names = ("csi-scalar-q", "adcpm", "transformer", "mfcnet", "music")
    ours = value("ecc-munich", "mean_m", {"policy": _SHORT})
    theirs = dict(zip(names, _column("ecc-munich", "policy", names)))
    listed = ", ".join(f"`{name}` {figure(error)}" for name, error in theirs.items())
    text = f"ray-traced city, mean: `ecc-fast` {figure(ours)} m; {listed} m"
    return Finding(text, verdict(*(ours < error for error in theirs.values())))


def _mask() -> Finding:
    names = ("scratch", "no gain mask (transformer)")
    masked, plain = _column("ecc-strategies", "strategy", names)
    return Finding(f"with the gain mask {figure(masked)} m, without {figure(plain)} m", verdict(masked < plain))


def _subcarriers() -> Finding:
    found = rows("ecc-subcarriers", {"estimate": "one network, read after n"})
    wanted = (1, 4, 8, 16, 24)
    errors = [value("ecc-subcarriers", "mean_m", {"estimate": found[0]["estimate"], "subcarriers": n}) for n in wanted]
    own = value("ecc-subcarriers", "mean_m", {"estimate": "a network of its own for n", "subcarriers": 3})
    text = (
        f"one network after {figures(wanted, ' / ')} subcarriers {figures(errors, ' / ')} m; a "
        f"network of its own for 3 {figure(own)} m"
    )
    return Finding(text, verdict(falling(errors[:4]), errors[4] <= errors[3]))


def _convergence() -> Finding:
    last = rows("ecc-convergence")[-1]
    text = (
        f"cosine {figure(last['(22), unseen'])} after {last['Stage I, snapshots']} snapshots, "
        f"{figure(last['mean_m, Q 10'])} m "
        f"at Q = 10 after {last['Stage II, snapshots']}"
    )
    return Finding(text, "not comparable")


def _tracking() -> Finding:
    ways = dict(zip(("ecc-fast", "mfcnet"), _column("ecc-ways", "policy", ("ecc-fast", "mfcnet"))))
    longer = value("ecc-tracking", "mean_m", {"policy": "ecc-fast"})
    best = value("ecc-tracking", "best_way_mean_m", {"policy": "ecc-fast"})
    text = (
        f"`ecc-fast` {figure(ways['ecc-fast'])} m, `mfcnet` {figure(ways['mfcnet'])} m after as many "
        "snapshots; `ecc-fast` trained "
        f"longer {figure(longer)} m over ten ways, {figure(best)} m on the best"
    )
    return Finding(text, verdict(ways["ecc-fast"] < ways["mfcnet"], longer <= 0.4))


CLAIMS = (
    Claim(
        "Q = 10 / 8 / 6 / 4 bits per latent number are 6.25 / 5 / 3.75 / 2.5 % of lossless CSI",
        "Table II",
        ("ecc-table2",),
        _payload,
        "Counted, without gain and flag as there.",
    ),
    Claim(
        "At 6.25 % of the bits the mean error is 0.48 m, its 90th percentile 0.83 m",
        "abstract, Table II",
        ("ecc-table2", "ecc-trained", "ecc-positions"),
        _headline,
        "The scene is another, and the paper's network saw thousands of snapshots here instead of several "
        "hundred thousand.",
    ),
    Claim(
        "The error falls with Q, from 0.56 m at 4 bits to 0.48 m at 10",
        "Table II, Fig. 10",
        ("ecc-strategy-bits", "ecc-table2"),
        _bits,
        "Networks this far from converged are limited by training; from 4 bits on, differences are within "
        "their errors.",
    ),
    Claim(
        "Q = 10 comes close to lossless CSI (0.48 m beside 0.42 m)",
        "Table II, Fig. 9",
        ("ecc-strategies", "ecc-munich", "ecc-table2"),
        _lossless,
        "The quantiser costs next to nothing; whether raw CSI is better depends on how far each network was trained.",
    ),
    Claim(
        "Local then joint training beats training from scratch, and beats frozen encoders",
        "Fig. 9, Fig. 10",
        ("ecc-strategies",),
        _strategies,
        "Frozen encoders lose; Stage I brings nothing that Stage II does not learn by itself in our runs.",
    ),
    Claim(
        "ECCNet is the most accurate of all methods (no figure in the text); AOA by MUSIC is poor without "
        "line of sight",
        "Fig. 11",
        ("ecc-munich",),
        _baselines,
        "Ours is `ecc-fast`, not ECCNet, against every baseline after short training; plain scalar "
        "quantisation is level "
        "with it at about four times the bits.",
    ),
    Claim(
        "The channel mask of the attention helps: ECCNet is ahead of the same network without it",
        "Fig. 11, baseline Transformer",
        ("ecc-strategies",),
        _mask,
        "One seed and short training in a benign scene; the mask may matter where gains differ more.",
    ),
    Claim(
        "The error falls fast with the number of subcarriers, then stays",
        "Fig. 12",
        ("ecc-subcarriers",),
        _subcarriers,
        "It falls and flattens; at the last ones it rises a little, and a network made for few does as well.",
    ),
    Claim(
        "Stage I settles after some 380 epochs, Stage II at Q = 10 near 0.5 m after some 210, of 3 000 snapshots each",
        "Figs. 7 and 8",
        ("ecc-convergence",),
        _convergence,
        "Ours are smaller networks and were stopped after a few per cent of that.",
    ),
    Claim(
        "A spiral is tracked to 0.40 m, by MFCNet to 1.37 m",
        "Fig. 14",
        ("ecc-ways", "ecc-tracking"),
        _tracking,
        "The order is the same; the scene is another, and both saw few snapshots.",
    ),
)
