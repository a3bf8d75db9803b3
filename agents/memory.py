"""How the C library deals with the memory of tensors."""

from __future__ import annotations

import ctypes
import sys

# glibc's numbers of these settings, see mallopt(3); the second cannot be set higher.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT_BYTES, _LARGEST_KEPT_BYTES = 1 << 30, 32 << 20


def keep_freed_memory() -> None:
    """Let this process reuse the memory of freed tensors instead of giving it back to the system at once.

    An update of 36 agents makes some forty tensors of 2 MB. One in memory that is fresh from the system is written ten
    times slower than one in memory that was in use before, because the system fills in the pages one by one. Up to
    1 GiB of freed memory stays with the process; what it holds at its peak does not change. Only glibc is set, larger
    tensors and other devices are unaffected.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)
