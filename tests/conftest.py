"""Checks that hold for every test: array shapes and types are enforced, one arithmetic thread, no window system."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")

from jaxtyping import install_import_hook

# Must come before the first import of these packages: every jaxtyping annotation becomes a run-time check.
install_import_hook(["cfpos_envs", "agents", "baselines"], "beartype.beartype")

import torch  # noqa: E402

torch.set_num_threads(1)
