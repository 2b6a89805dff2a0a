"""The floor: two processes and a unix socket, with nothing in between. Standard library only.

What no runtime of the same shape can beat: one blocking round trip (two cross-CPU wake-ups), and a
batch of pickled calls written, run and answered with no bookkeeping. Each process has a CPU of its
own, as a worker must that is to run beside its caller. Both on one, a round trip takes 13-17 us and
not 57-93; left alone the kernel puts them there or not, and the floor moved by a factor of three.
"""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from struct import Struct

from bench.clock import batch_rate, rate

MESSAGE = bytes(128)
"""About the size of an encoded task without arguments."""

_LENGTH = Struct("<I")
_CHUNK = 1 << 16  # (for more, malloc asks the kernel for memory each time: 17-21 us)


@contextmanager
def partner(serve: Callable[[socket.socket], None]) -> Iterator[socket.socket]:
    """A socket whose other end is served by `serve` in a forked process until this end closes."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    allowed = os.sched_getaffinity(0)
    here, *others = sorted(allowed)

    def run() -> None:
        near.close()
        os.sched_setaffinity(0, others or allowed)
        serve(far)

    process = get_context("fork").Process(target=run, daemon=True)
    process.start()
    far.close()
    os.sched_setaffinity(0, {here})
    try:
        yield near
    finally:
        os.sched_setaffinity(0, allowed)
        near.close()
        process.join(5)


def echo(connection: socket.socket) -> None:
    """Send every message back as it came."""
    while message := connection.recv(_CHUNK):
        connection.sendall(message)


def call_pickled(connection: socket.socket) -> None:
    """Unpickle framed `(function, arguments)`, call, and answer with the framed, pickled result."""
    waiting = b""
    while chunk := connection.recv(_CHUNK):
        frames, waiting = split(waiting + chunk)
        answers = []
        for frame in frames:
            function, arguments = pickle.loads(frame)
            answers.append(frame_of(function(*arguments)))
        connection.sendall(b"".join(answers))


def frame_of(value: object) -> bytes:
    """`value` pickled, behind its length as four bytes, little-endian."""
    body = pickle.dumps(value, 5)
    return _LENGTH.pack(len(body)) + body


def split(stream: bytes) -> tuple[list[bytes], bytes]:
    """Cut a stream into its whole frames and the rest."""
    frames = []
    at = 0
    while at + 4 <= len(stream):
        end = at + 4 + _LENGTH.unpack_from(stream, at)[0]
        if end > len(stream):
            break
        frames.append(stream[at + 4 : end])
        at = end
    return frames, stream[at:]


def calls(connection: socket.socket, function: Callable[..., object], count: int) -> None:
    """Have the partner call `function` `count` times, all in flight, and read every result."""
    connection.sendall(b"".join(frame_of((function, ())) for _ in range(count)))
    waiting, done = b"", 0
    while done < count:
        frames, waiting = split(waiting + connection.recv(_CHUNK))
        for frame in frames:
            pickle.loads(frame)
        done += len(frames)


def round_trips() -> float:
    """Round trips a second, one message there and back at a time, on a unix socket."""
    with partner(echo) as connection:

        def round_trip() -> None:
            connection.sendall(MESSAGE)
            connection.recv(len(MESSAGE), socket.MSG_WAITALL)

        return rate(round_trip)


def batches(function: Callable[[], object], size: int) -> float:
    """Pickled calls a second of one process on another, `size` in flight, no bookkeeping."""
    with partner(call_pickled) as connection:
        return batch_rate(lambda: calls(connection, function, size), size)


def forked(count: int, body: Callable[[], None]) -> list[int]:
    """Fork `count` processes that run `body`, wait for all, and return their process ids."""
    pids = []
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            body()
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    return pids
