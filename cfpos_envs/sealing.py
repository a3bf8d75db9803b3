"""Archives of torch with a digest at their end: a flipped bit or a cut is found before anything in them is read.

The seal is the comment of the zip archive that ``torch.save`` writes, so sealed files stay ordinary ones for everybody
else: ``torch.load(path, weights_only=True)`` reads them.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path
from typing import IO

_MARK = b"cfpos sha256 "
_SEAL_BYTES = len(_MARK) + hashlib.sha256().digest_size
_NO_COMMENT = b"\x00\x00"
"""The end of an archive without a comment: how long it is."""
_CHUNK_BYTES = 1 << 20


class SealingFile:
    """A file that an archive is written into piece by piece, and whose end is its seal.

    An error of the disk waits for ``seal``: whoever writes archives hides it, or ends the process.

    Args:
        file: opened for writing bytes.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._digest = file, hashlib.sha256()
        self._last = b""
        self._error: OSError | None = None

    def write(self, piece: bytes | memoryview) -> int:
        """Take the next bytes."""
        # The last two wait: they are the length of the comment that is to come.
        if len(piece) < len(_NO_COMMENT):
            whole = self._last + bytes(piece)
            self._put(whole[: -len(_NO_COMMENT)])
            self._last = whole[-len(_NO_COMMENT) :]
        else:
            self._put(self._last)
            self._put(piece[: -len(_NO_COMMENT)])
            self._last = bytes(piece[-len(_NO_COMMENT) :])
        return len(piece)

    def flush(self) -> None:
        """Nothing: ``seal`` does."""

    def seal(self) -> None:
        """Write the digest of everything, and force the file to the disk.

        Raises:
            OSError: something could not be written.
        """
        if self._error is None and self._last != _NO_COMMENT:
            raise ValueError("only an archive without a comment can be sealed")
        self._put(_SEAL_BYTES.to_bytes(2, "little") + _MARK)
        self._put(self._digest.digest())
        if self._error is not None:
            raise self._error
        self._file.flush()
        os.fsync(self._file.fileno())

    def _put(self, piece: bytes | memoryview) -> None:
        if self._error is None:
            self._digest.update(piece)
            try:
                self._file.write(piece)
            except OSError as error:
                self._error = error


def is_whole(path: Path) -> bool | None:
    """Whether a file is as it was written; None: it has no seal, but the checksums of an archive hold.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size > _SEAL_BYTES:
            file.seek(size - _SEAL_BYTES)
            seal = file.read()
            if seal.startswith(_MARK):
                return seal == _MARK + _digest_of(file, size - _SEAL_BYTES + len(_MARK))
    return None if _checksums_hold(path) else False


def _digest_of(file: IO[bytes], size: int) -> bytes:
    """Of the first ``size`` bytes."""
    digest = hashlib.sha256()
    file.seek(0)
    while size > 0 and (chunk := file.read(min(size, _CHUNK_BYTES))):
        digest.update(chunk)
        size -= len(chunk)
    return digest.digest()


def _checksums_hold(path: Path) -> bool:
    """Of an archive of the builds before; torch writes checksums but does not look at them."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (PermissionError, MemoryError):
        raise
    # Whatever a damaged directory of an archive makes of the parser: seeks before the file, names that are no text.
    except Exception:
        return False
