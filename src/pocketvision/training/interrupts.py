"""Ctrl-C and SIGTERM, noted instead of raised, so that a step is never torn in the middle."""

import os
import signal
import threading
from types import FrameType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """While entered, the first SIGINT or SIGTERM only sets ``received``; a second one acts as it always does.

    With ``patient`` the later ones do nothing: torchrun sends a SIGTERM after Ctrl-C has reached everyone already, and
    after 30 seconds a SIGKILL. Outside of the main thread, where Python allows no handlers, it does nothing.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self.received, self.patient = False, patient
        self._previous: dict[signal.Signals, Any] = {}
        self._process = os.getpid()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or not self.patient:  # torchrun's SIGTERM must not come before this process has said its error
            self._restore()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() == self._process:
            self.received = True
            if not self.patient:
                self._restore()
        elif number == signal.SIGTERM:  # a forked data worker, which inherits the handler; its parent handles SIGINT
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
