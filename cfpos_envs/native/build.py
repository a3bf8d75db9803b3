"""Builds the kernels on first use, in seconds, and keeps the library in the user's cache folder.

Only a C++ compiler is needed: the files include nothing but the standard library. A library is found again by a hash of
sources, compiler, flags and processor, so that a home directory shared by different machines holds one for each.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from cfpos_envs.locks import exclusive
from cfpos_envs.native.kept import cache_folder, keep_library, kept_library

_FOLDER = Path(__file__).parent
_ENVIRONMENTS = tuple(_FOLDER / f"{name}.cpp" for name in ("dcp", "channel", "random", "episode", "bound"))
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
_PARTS = ".building-"
_COMPILERS = ("g++", "clang++", "c++")
_SECONDS = 300


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


def library_if_any(sources: tuple[Path, ...] = _ENVIRONMENTS) -> ctypes.CDLL | None:
    """``library``, or None where it cannot be built."""
    found = _found(sources)
    return None if isinstance(found, KernelUnavailableError) else found


@cache
def _found(sources: tuple[Path, ...] = _ENVIRONMENTS) -> ctypes.CDLL | KernelUnavailableError:
    try:
        compiler = _compiler()
        folder, key = cache_folder(), _key(compiler, sources)
        path = kept_library(folder, key)
        if path is None:
            with _alone(folder, key):
                # Another process may have built it while this one waited.
                path = kept_library(folder, key) or _build(compiler, sources, folder, key)
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


@contextlib.contextmanager
def _alone(folder: Path, key: str) -> Iterator[None]:
    """Of several processes that need a library one builds it, and the others wait."""
    with contextlib.ExitStack() as stack:
        # Where nobody can lock, or one takes very long, several build at the same time and do not disturb each other.
        with contextlib.suppress(OSError, ValueError):
            stack.enter_context(exclusive(folder, f".{key}.lock", _SECONDS))
            for left in folder.glob(f"{_PARTS}{key}-*"):
                shutil.rmtree(left, ignore_errors=True)
        yield


def _build(compiler: str, sources: tuple[Path, ...], kept: Path, key: str) -> Path:
    """Compile into the folder ``kept``, and say so: it takes long enough to wonder."""
    print(f"building compiled kernels ({', '.join(_names(sources))}) once, into {kept}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=kept, prefix=f"{_PARTS}{key}-") as folder:
        made = Path(folder) / "kernels.so"
        headers = (f"-I{folder}" for folder in _folders(sources))
        command = [compiler, *_FLAGS, *headers, *(str(source) for source in sources), "-o", str(made)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise KernelUnavailableError(f"{compiler} took more than {_SECONDS} s") from None
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if "error" in line] or ["no reason given"]
            raise KernelUnavailableError(f"{compiler} fails: {lines[0].strip()}")
        return keep_library(made, kept, key)


def _names(sources: tuple[Path, ...]) -> list[str]:
    return [source.name for source in sources]
