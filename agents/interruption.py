"""What all training runs do alike around their loop: Ctrl-C, settings of a run that goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Collection, Iterator, Mapping
from types import FrameType

_WAITING = b"\nstopping after a checkpoint; press Ctrl-C once more to stop without one\n"
_STANDARD_ERROR = 2
_MOST_PATIENT = 2
"""So many signals wait for the checkpoint: one key press may arrive twice, from the terminal and from a launcher."""


class Interruption:
    """Whether a run was asked to stop.

    Attributes:
        asked: set by the first Ctrl-C, or another of the noted signals.
    """

    def __init__(self) -> None:
        self.asked = False
        self._times = 0

    @contextlib.contextmanager
    def noted(self, *more: signal.Signals) -> Iterator[None]:
        """Let Ctrl-C only set ``asked``, so that a step and its checkpoint stay whole; a third one stops at once.

        Args:
            more: signals to treat alike.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {number: signal.getsignal(number) for number in (signal.SIGINT, *more)}

        def note(number: int, frame: FrameType | None) -> None:
            self.asked = True
            self._times += 1
            if self._times == _MOST_PATIENT:
                # Not by print: the signal may have come in the middle of another one.
                os.write(_STANDARD_ERROR, _WAITING)
            if self._times > _MOST_PATIENT:
                signal.signal(number, previous[signal.Signals(number)])
                signal.raise_signal(number)

        for number in previous:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def check_same_settings(stored: Mapping[str, object], here: Mapping[str, object], free: Collection[str]) -> None:
    """Refuse to go on with other settings.

    Args:
        stored: settings that the run was started with.
        here: those of the agent that is to go on.
        free: names that may differ, because they change nothing that is computed.

    Raises:
        ValueError: some other setting differs.
    """
    for name, value in stored.items():
        if name not in free and here.get(name) != value:
            raise ValueError(
                f"the run was started with {name}={value}, this agent has {here.get(name)}; "
                "resume with the run's settings or start a new run."
            )
