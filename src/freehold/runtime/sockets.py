"""Sockets between machines: how the kernel is told what a silent link means.

A cut link is no death: it is for the head to say when it becomes one, ``dead_after`` seconds after
the last word of a node, and for ``Transport.fence`` to carry out. Until then the kernel holds the
bytes and sends them again. It does so after pauses that double, so that a cut of seven seconds
would last thirteen, too late for a head that waits ten: so it is told to try at least ten times in
``dead_after`` seconds (Linux 6.15 and newer; older ones have to be lucky with cuts of more than
half of it). With that its own end of a stream, after 15 attempts, comes at 1.4 ``dead_after``: the
head has spoken before. Idle streams are probed so that they end at about the same time.

A stream to or from the head also ends by TCP_USER_TIMEOUT, after ``patience``, or on an older
kernel a node would go on talking to a head whose machine is gone for a quarter of an hour. Other
streams must not have that option: it ends them, too, when the peer lives, answers every probe, and
does not read for as long, and user code may hold the interpreter longer than any such time.
"""

from __future__ import annotations

import contextlib
import errno
import resource
import socket
import struct
from collections.abc import Callable
from typing import Final, TypeVar

from freehold.core.membership import BEATS

#: Patience with a peer on another machine that does not answer, in parts of ``dead_after`` (so that
#: the head speaks first), and at least so many seconds: a machine under load may need some to
#: answer, however soon the head gives nodes up.
PATIENCE: Final = 1.5
LEAST_PATIENCE: Final = 10.0
#: What connecting fails with where the way is cut; anything else is an answer.
CUT: Final = {
    errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.ETIMEDOUT,
}  # fmt: skip
TCP_RTO_MAX_MS: Final = 44  # not in the ``socket`` of today's Python; 1000 is the least it takes


def patience(dead_after: float) -> float:
    """How long to wait for a peer on another machine to answer (seconds)."""
    return max(PATIENCE * dead_after, LEAST_PATIENCE)


def tcp_socket() -> socket.socket:
    """A socket for a connection to another machine."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    return sock


def tune(sock: socket.socket, dead_after: float, *, head: bool) -> None:
    """Set the above, and have no message wait for more to fill a packet. ``head``: the stream is
    the head's. Harmless for a unix socket.
    """
    if sock.family != socket.AF_INET:
        return
    idle = max(1, round(dead_after))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, idle // 4))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)
    if head:
        limit = round(patience(dead_after) * 1000)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit)
    with contextlib.suppress(OSError):  # an older kernel
        again = max(1000, round(dead_after * 1000 / BEATS))
        sock.setsockopt(socket.IPPROTO_TCP, TCP_RTO_MAX_MS, again)


def peer_uid(sock: socket.socket) -> int:
    """The user at the other end of a unix socket."""
    pid_uid_gid = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", pid_uid_gid)[1])


T = TypeVar("T")


def allow_descriptors() -> bool:
    """Let this process have as many descriptors as it may. Whether that is more than before.

    The usual limit is 1024, for the sake of programs that call select(). A daemon does this at its
    start: each worker takes four of its node. Workers and drivers keep the usual one until they
    need more (``with_descriptors``): they have one for each process that they talk to.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft != hard


def with_descriptors(make: Callable[[], T]) -> T:
    """Make what takes a descriptor. If this process has none left, allow it more and try again."""
    try:
        return make()
    except OSError as error:
        if error.errno != errno.EMFILE or not allow_descriptors():
            raise
    return make()
