"""Whether this machine can trace rays: the extra ``[raytracing]`` and a recent LLVM, checked before they are loaded."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

from cfpos_envs.extras import install_command

MIN_LLVM = 19
"""Oldest LLVM that works; with 15 and 16 the compiler of the ray tracer ends the whole process."""

_PROBE = "import drjit.llvm, drjit; print('llvm', *drjit.detail.llvm_version())"
_PROBE_TIMEOUT_S = 120


class RayTracingUnavailableError(RuntimeError):
    """The ray tracer cannot run here; the message says what to install."""


def missing_packages() -> tuple[str, ...]:
    """The packages of the extra ``[raytracing]`` that are not installed; nothing is imported."""
    return tuple(name for name in ("sionna.rt", "mitsuba", "drjit") if not _is_installed(name))


def llvm_version(python: str = sys.executable) -> tuple[int, ...]:
    """Version of the LLVM that the ray tracer would load, found in a process of its own; empty if it finds none.

    Args:
        python: interpreter that has the extra.
    """
    try:
        answer = subprocess.run(
            [python, "-c", _PROBE], capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    lines = [line.split()[1:] for line in answer.stdout.splitlines() if line.startswith("llvm ")]
    if answer.returncode != 0 or not lines:
        return ()
    return tuple(int(part) for part in lines[-1])


def require_ray_tracing() -> None:
    """Do nothing if rays can be traced here.

    Raises:
        RayTracingUnavailableError: the extra is missing, or LLVM is missing or too old.
    """
    missing = missing_packages()
    if missing:
        raise RayTracingUnavailableError(
            f"the ray tracer is not installed ({', '.join(missing)} missing); run: {install_command('raytracing')}"
        )
    version = llvm_version()
    if not version or version[0] < MIN_LLVM:
        found = f"LLVM {'.'.join(map(str, version))} was found" if version else "no usable LLVM was found"
        raise RayTracingUnavailableError(
            f"the ray tracer needs LLVM {MIN_LLVM} or newer, {found}; run: apt-get install -y libllvm{MIN_LLVM} "
            f"(macOS: brew install llvm), or let DRJIT_LIBLLVM_PATH name the library"
        )


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
