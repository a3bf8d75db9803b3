"""Checks that hold for every test: array shapes and types are enforced, one arithmetic thread, no window system."""

import os
import sys
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")
# The import hook finds the checker by its module name.
sys.path.insert(0, str(Path(__file__).parent))

from jaxtyping import install_import_hook

# Must come before the first import of these packages: every jaxtyping annotation becomes a run-time check.
install_import_hook(["cfpos_envs", "agents", "baselines"], "type_checker.checked")

import torch  # noqa: E402

torch.set_num_threads(1)
