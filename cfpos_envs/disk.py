"""What is asked of a disk: that something is on it, and why it took no more."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_full(error: OSError) -> bool:
    """Whether there was no room: of the disk, of the user's share of it, or of one file."""
    return error.errno in _FULL


def sync(path: Path) -> None:
    """Force a file, or the names in a folder, to the disk, where the system can.

    Raises:
        OSError: a file for which there is no room.
    """
    with contextlib.ExitStack() as stack:
        if path.is_dir():
            stack.enter_context(contextlib.suppress(OSError))
        handle = os.open(path, os.O_RDONLY)
        stack.callback(os.close, handle)
        os.fsync(handle)
