from __future__ import annotations

from collections.abc import Callable

import pytest

from cfpos_envs import list_envs
from tests.conformance.checks import CHECKS
from tests.front_ends.toy import register_toy

register_toy()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("env_id", list_envs())
def test_environment(env_id: str, check: Callable[[str], None]) -> None:
    check(env_id)
