"""The process that ``launch`` starts: one interpreter for a whole local cluster.

It imports what head, node and workers need, forks the head (if this machine is to have it) and the
zygote, and becomes the node daemon: a fork costs milliseconds, an interpreter with its imports 150.
What was imported before stays in memory that the three share, as far as it is not written to: the
garbage collector, which would write to all of it, is told to leave it alone (``zygote.preload``).
That is 7 MiB less for each of them.
"""

from __future__ import annotations

import logging
import os
import signal
import sys

import msgspec

from freehold.runtime import headd, noded, places, sockets, zygote
from freehold.runtime.settings import HeadSettings, Kept, NodeSettings


def main() -> None:
    """The launched process."""
    zygote.preload()
    settings = msgspec.json.decode(sys.argv[1].encode(), type=NodeSettings)
    if settings.start_head:
        try:
            listener, settings.head = headd.listen(settings.head.host, settings.head.port)
        except OSError as error:
            sys.exit(f"the head cannot listen on {places.place(settings.head)}: {error.strerror}")
        head = HeadSettings(
            settings.session,
            settings.head,
            listener.detach(),
            settings.lifeline,
            settings.shared,
            settings.dead_after,
        )
        pid = os.fork()
        if pid == 0:
            os.setsid()
            os.close(settings.ready)
            headd.serve(head)
        settings.kept = Kept(pid, head)
    zygote.name_process("freehold-zygote")
    link, zygote_pid = noded.fork_zygote(settings)
    zygote.name_process("freehold-node")
    # (Not before the zygote is forked: workers' programs set up logging for themselves.)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    sockets.allow_descriptors()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    daemon = noded.NodeDaemon(settings, link, zygote_pid)
    try:
        daemon.try_places()
    except (OSError, ValueError) as error:
        sys.exit(f"the node does not start: {error}")
    daemon.run()
