"""Write the interactive page: one HTML file with everything in it, which needs no server and no network.

``python scripts/explorer.py --out outputs/explorer.html``. All numbers are computed in the browser by
``scripts/explorer/bounds.js``; the constants come from the Python side, so that they stand in one place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.colors import to_hex

from cfpos.scripts.cli import Parser, UsageError, user_errors
from cfpos.scripts.plots.sites import (
    AP_ABOVE_USER_M,
    CARRIER_HZ,
    LOS_SCENARIO,
    REFERENCE_DISTANCE_M,
    SUBCARRIER_SPACING_HZ,
    DrawnSiteConfig,
)
from cfpos.scripts.plots.style import map_colours
from cfpos.scripts.reports import write_text
from cfpos_envs.extras import install_command
from cfpos_envs.physics.los import path_loss_constants
from cfpos_envs.physics.toa.ranging import SYNC_PRESETS

TEMPLATES = Path(__file__).resolve().parent / "explorer"
_FILES = {
    "STYLE": "style.css",
    "BOUNDS": "bounds.js",
    "LAYOUTS": "layouts.js",
    "DRAWING": "drawing.js",
    "APP": "app.js",
}
_BANDWIDTHS_MHZ = (5, 10, 20, 40, 100, 200, 400, 1000)
_SYNC_LABELS = {"perfect": "perfect", "white_rabbit": "White Rabbit", "gnss": "GNSS", "ptp": "PTP"}


def settings() -> dict[str, Any]:
    """What the page needs to know, in SI units unless the name says otherwise."""
    site = DrawnSiteConfig(family="tdoa", layout="circle", aps=6)
    return {
        "sideM": site.side_m,
        "radiusM": 0.4 * site.side_m,
        "subcarrierSpacingHz": SUBCARRIER_SPACING_HZ,
        "referenceDistanceM": REFERENCE_DISTANCE_M,
        "slopeDb": path_loss_constants(LOS_SCENARIO, CARRIER_HZ)[1],
        "processingErrorS": site.processing_error_ns * 1e-9,
        "bandwidthsMhz": _BANDWIDTHS_MHZ,
        "sync": {
            name: {"stdS": preset.std_s, "calibrated": preset.calibrated, "label": _sync_label(name, preset.std_s)}
            for name, preset in SYNC_PRESETS.items()
        },
        "colours": [[share, to_hex(map_colours()(share))] for share in (i / 16 for i in range(17))],
        "defaults": {
            "family": site.family,
            "layout": site.layout,
            "aps": site.aps,
            "height": AP_ABOVE_USER_M,
            "bandwidthMhz": site.bandwidth_mhz,
            "snrDb": site.snr_db,
            "pathloss": not site.equal_snr,
            "sync": site.sync,
            "fit": False,
            "user": {"x": 0.62 * site.side_m, "y": 0.36 * site.side_m},
        },
    }


def page() -> str:
    """The whole page.

    Raises:
        UsageError: plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError as error:
        raise UsageError(f"the page needs plotly: {install_command('explorer')}") from error
    parts = {name: (TEMPLATES / file).read_text(encoding="utf-8") for name, file in _FILES.items()}
    parts["PLOTLY"] = get_plotlyjs()
    parts["SETTINGS"] = json.dumps(settings())
    for name, text in parts.items():
        # The end of a script element is found by its letters, wherever they stand.
        if "</script" in text.lower() or (name == "STYLE" and "</style" in text.lower()):
            parts[name] = re.sub(r"</(script|style)", r"<\\/\1", text, flags=re.IGNORECASE)
    template = (TEMPLATES / "page.html").read_text(encoding="utf-8")
    return re.sub(r"/\*([A-Z]+)\*/", lambda match: parts[match[1]], template)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the page."""
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("outputs/explorer.html"), help="the file to write")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    arguments = parser.parse_args(argv)
    with user_errors(arguments.debug):
        if arguments.out.suffix.lower() not in (".html", ".htm"):
            raise UsageError(f"--out={arguments.out} must end in .html")
        path = write_text(arguments.out, page())
        print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB); open it in a browser")


def _sync_label(name: str, std_s: float) -> str:
    if name == "ota":
        return "over-the-air burst"
    return f"{_SYNC_LABELS.get(name, name)}, {std_s * 1e9:g} ns" if std_s else "perfect"


if __name__ == "__main__":
    main()
