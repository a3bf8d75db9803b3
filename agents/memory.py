"""How the C library deals with the memory of tensors."""

from __future__ import annotations

import torch

# glibc follows sizes up to 32 MiB (its DEFAULT_MMAP_THRESHOLD_MAX); a little is its own bookkeeping.
_LARGEST_FOLLOWED = (32 << 20) - (1 << 16)


def keep_freed_memory() -> None:
    """Let freed tensors be reused instead of given back to the system, which costs more than computing with them.

    An update of 36 agents makes some forty tensors of 2 MB; a block of this size that is fresh from the system is
    written ten times slower than one that was in use before, because its pages are filled in one by one. glibc keeps
    blocks up to the size of the largest that it has seen freed (see mallopt(3), M_MMAP_THRESHOLD): so one is freed
    here. It is never touched and takes no memory. Other C libraries and devices are unaffected.
    """
    torch.empty(_LARGEST_FOLLOWED, dtype=torch.uint8)
