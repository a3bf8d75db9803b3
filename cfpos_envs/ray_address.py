"""Whether a Ray cluster answers at an address: Ray itself would try for minutes."""

from __future__ import annotations

import socket

_PATIENCE_S = 5.0


def check_listening(address: str | None) -> None:
    """Do nothing if HOST:PORT answers, or if the address is none of that kind (``auto``, ``local``).

    Args:
        address: as ``ray.init`` takes it: ``HOST:6379``, ``ray://HOST:10001``, ``auto``, None.

    Raises:
        ConnectionError: nothing answers there.
    """
    host, separator, port = (address or "").rpartition("://")[2].rpartition(":")
    if not separator or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE_S).close()
    except (OSError, OverflowError) as error:
        raise ConnectionError(f"no Ray cluster at {address} ({error}); start one: ray start --head") from None
