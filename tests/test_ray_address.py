"""An address at which nobody listens is refused at once; Ray is not needed to find that out."""

from __future__ import annotations

import socket

import pytest

from cfpos_envs.ray_address import check_listening


def test_only_an_address_where_somebody_listens_passes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        check_listening(f"127.0.0.1:{port}")
        check_listening(f"ray://127.0.0.1:{port}")
    for prefix in ("", "ray://"):
        with pytest.raises(ConnectionError, match=rf"^no Ray cluster at {prefix}127.0.0.1:{port} .*ray start --head$"):
            check_listening(f"{prefix}127.0.0.1:{port}")


@pytest.mark.parametrize("address", [None, "auto", "local", "somewhere"])
def test_other_addresses_are_for_ray_to_judge(address: str | None) -> None:
    check_listening(address)
