"""Interrupts: exceptions raised by signals, kept out of our own bookkeeping.

Python runs signal handlers between two bytecodes of the main thread, and that may be in the
middle of our tables being updated. So a handler that wants to raise (Ctrl-C in a driver, a
cancellation in a worker) asks ``may_raise`` first: yes in user code and while we sleep, no
anywhere else in this package; then the signal is sent again a millisecond later.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, Final

from freehold.runtime.transport import Transport

AGAIN: Final = 0.001
#: The packages that keep books. (``shuffle`` and the like are programs as any user's.)
BOOKKEEPERS: Final = tuple(
    f"freehold.{part}" for part in ("api", "core", "roles", "runtime", "store", "wire")
)
#: Functions that call user code: what they have called is not ours.
DOORS: Final = frozenset(
    {"run_batch", "run_one", "construct", "call_with", "local", "take_one", "step"}
)
#: Functions that sleep and hold nothing.
BEDS: Final = frozenset({"follow"})


def may_raise(frame: FrameType | None, transport: Transport | None) -> bool:
    """Whether an exception raised where the main thread stands would leave our tables whole."""
    if transport is not None and transport.sleeping == threading.get_ident():
        return True
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith(BOOKKEEPERS):
            return frame.f_code.co_name in DOORS | BEDS
        frame = frame.f_back
    return True


def again(number: int) -> None:
    """Send the signal to the main thread once more, soon."""
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(AGAIN, signal.pthread_kill, (main, number))
    timer.daemon = True
    timer.start()


class CtrlC:
    """Ctrl-C for a driver: KeyboardInterrupt as always, but never in the middle of our bookkeeping.

    Only where Python's own handler is in place: a program that has set its own keeps it.
    """

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.installed = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if self.installed:
            signal.signal(signal.SIGINT, self.on_signal)

    def on_signal(self, number: int, frame: FrameType | None) -> Any:
        """Raise, or have it come again."""
        if may_raise(frame, self.transport):
            signal.default_int_handler(number, frame)
        again(number)

    def remove(self) -> None:
        """Put Python's handler back, if ours still stands."""
        if (
            self.installed
            and threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) == self.on_signal
        ):
            signal.signal(signal.SIGINT, signal.default_int_handler)
