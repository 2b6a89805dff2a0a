"""The keeper: the part of a node daemon that starts the head again when it was killed.

The daemon that forked the head is its parent, so it alone learns at once that it has ended (pidfd),
and how. A head that ended in good order, or by SIGTERM before it could do so, was meant to end. Any
other end was not: a new one is started on the same socket and the same journal, 0.2 s later most of
it Python's own start. One that had lived for ``STEADY`` seconds is replaced at once; for one that
ends sooner the pause doubles each time up to ``LONGEST_PAUSE``: a cause that goes away (a full
disk) leaves a cluster with a head, and one that does not costs little.

If this daemon ends, the head lives on and nobody keeps it: ``freehold start --head --session`` by
hand brings it back.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from typing import Final

import msgspec

from freehold.runtime.settings import Kept
from freehold.runtime.transport import Transport

log = logging.getLogger("freehold")

#: Seconds after which a head has proved that it can live: it has started (in 0.2 s, or seconds on
#: an overloaded machine), read its journal and met its nodes.
STEADY: Final = 5.0
#: Seconds before the second start of a head that ends at once, and at most: 1 % of a core.
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 20.0


class Keeper:
    """Watches one head."""

    def __init__(self, transport: Transport, kept: Kept) -> None:
        self.transport = transport
        self.kept = kept
        self.started = transport.now()
        self.pause = 0.0
        self.watch()

    def watch(self) -> None:
        """Hear of the head's end."""
        pidfd = os.pidfd_open(self.kept.pid)
        self.transport.watch(pidfd, lambda events: self.ended(pidfd))

    def ended(self, pidfd: int) -> None:
        """It has ended: start it again, unless it was meant to."""
        self.transport.unwatch(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(self.kept.pid, 0)
        killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        if status == 0 or killed == signal.SIGTERM:
            self.close_door()
            return
        how = f"killed by signal {killed}" if killed else f"exit {os.WEXITSTATUS(status)}"
        now = self.transport.now()
        quick = now - self.started < STEADY
        self.pause = min(max(2 * self.pause, FIRST_PAUSE), LONGEST_PAUSE) if quick else 0.0
        log.warning("the head has ended (%s); started again in %.1f s", how, self.pause)
        self.transport.call_at(now + self.pause, self.start)

    def start(self) -> None:
        """A new head, on the socket of the old one."""
        settings = self.kept.settings
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "freehold.runtime.headd",
                msgspec.json.encode(settings).decode(),
            ],
            pass_fds=[fd for fd in (settings.listener, settings.lifeline) if fd >= 0],
            start_new_session=True,
        )
        self.kept.pid = process.pid
        process.returncode = 0  # we wait for it ourselves
        self.started = self.transport.now()
        self.watch()

    def close_door(self) -> None:
        """Whoever calls the head is refused from now on."""
        os.close(self.kept.settings.listener)
