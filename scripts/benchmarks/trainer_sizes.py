"""The games on which trainers are compared. Needs nothing but Python: other people's interpreters read it too."""

from __future__ import annotations

from dataclasses import dataclass

from cfpos.scripts.benchmarks.common import Options

# One agent's observation and action, as a DCP game with about six users has them.
OBSERVATION, ACTION = 24, 12


@dataclass(frozen=True)
class Size:
    """Agents, joint transitions per update, and width of both hidden layers of every network."""

    agents: int
    batch: int
    hidden: int


def sizes(options: Options) -> list[Size]:
    """The sizes at which everybody is measured."""
    if options.quick:
        return [Size(2, 16, 8)]
    return [Size(agents, 256, 64) for agents in (3, 6, 12, 36)]
