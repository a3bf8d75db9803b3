"""Builds the kernels on first use, in seconds, and keeps the library in the user's cache folder.

Only a C++ compiler is needed: the files include nothing but the standard library. A library is found again by a hash of
sources, compiler, flags and processor, so that a home directory shared by different machines holds one for each.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

_FOLDER = Path(__file__).parent
_ENVIRONMENTS = (_FOLDER / "dcp.cpp", _FOLDER / "channel.cpp", _FOLDER / "random.cpp")
# Loops become vector instructions of this very processor. No -ffast-math: infinities and the order of sums that are
# written down must stay; roundings and square roots need not report errors.
_FLAGS = (
    "-std=c++17",
    "-O3",
    "-march=native",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fopenmp-simd",
    "-fPIC",
    "-shared",
    "-pthread",
)
# ``LANES`` of lanes.hpp.
_LANES = 16
_COMPILERS = ("g++", "clang++", "c++")
_SECONDS = 300
_PRIVATE = 0o700


class KernelUnavailableError(RuntimeError):
    """The kernels cannot be built here; the message says why in one line."""


def library(sources: tuple[Path, ...] = _ENVIRONMENTS) -> ctypes.CDLL:
    """Compiled kernels, built if need be; what failed once in a process is not tried again.

    Args:
        sources: C++ files of one library; those of the environments by default. Headers are found beside them and
            among those of the environments.

    Raises:
        KernelUnavailableError: no compiler, or it fails.
    """
    found = _found(sources)
    if isinstance(found, KernelUnavailableError):
        raise found
    return found


@cache
def _found(sources: tuple[Path, ...] = _ENVIRONMENTS) -> ctypes.CDLL | KernelUnavailableError:
    try:
        compiler = _compiler()
        path = cache_folder() / f"kernels-{_key(compiler, sources)}.so"
        if not path.is_file():
            _build(compiler, sources, path)
        return ctypes.CDLL(str(path))
    except KernelUnavailableError as error:
        return error
    except OSError as error:
        return KernelUnavailableError(f"cannot build or load the kernels: {error}")


def address(tensor: Tensor) -> ctypes.c_void_p:
    """Where a contiguous tensor on the CPU lies; the caller has to keep the tensor alive meanwhile."""
    return ctypes.c_void_p(tensor.data_ptr())


def padded_rows(values: Tensor) -> Tensor:
    """[..., n] with zeros behind each row: at least one, and as many as fill whole vectors."""
    size = values.shape[-1]
    return torch.nn.functional.pad(values, (0, (size // _LANES + 1) * _LANES - size)).contiguous()


def cache_folder() -> Path:
    """Where libraries are kept: ``$CFPOS_CACHE``, else ``cfpos`` in the user's cache folder; private to the user."""
    chosen = os.environ.get("CFPOS_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(chosen) if chosen else Path(base) / "cfpos"
    folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
    # What lies there is loaded into the process.
    if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
        raise OSError(f"{folder} belongs to another user; set CFPOS_CACHE to a folder of your own")
    return folder


def _compiler() -> str:
    wanted = os.environ.get("CXX")
    for name in (wanted,) if wanted else _COMPILERS:
        path = shutil.which(name)
        if path is not None:
            return path
    raise KernelUnavailableError(
        f"no C++ compiler named {wanted or ', '.join(_COMPILERS)}; install one or set CXX to its name"
    )


def _key(compiler: str, sources: tuple[Path, ...]) -> str:
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    parts = [version, *_FLAGS, platform.machine(), platform.processor(), _processor_flags()]
    headers = {header for folder in _folders(sources) for header in folder.glob("*.hpp")}
    files = (*sources, *sorted(headers))
    digest = hashlib.sha256("\x1f".join(parts).encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:32]


def _processor_flags() -> str:
    listing = Path("/proc/cpuinfo")
    if not listing.is_file():
        return ""
    lines = listing.read_text(errors="replace").splitlines()
    return "\n".join(next((line for line in lines if line.startswith(word)), "") for word in ("model name", "flags"))


def _folders(sources: tuple[Path, ...]) -> list[Path]:
    """Where headers may lie."""
    return sorted({source.parent for source in sources} | {_FOLDER})


def _build(compiler: str, sources: tuple[Path, ...], path: Path) -> None:
    """Compile into ``path``; processes that do so at the same time do not disturb each other."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        headers = (f"-I{folder}" for folder in _folders(sources))
        command = [compiler, *_FLAGS, *headers, *(str(source) for source in sources), "-o", str(made)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise KernelUnavailableError(f"{compiler} took more than {_SECONDS} s") from None
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if "error" in line] or ["no reason given"]
            raise KernelUnavailableError(f"{compiler} fails: {lines[0].strip()}")
        os.replace(made, path)
