"""The mover: threads of the node daemon that move bytes. They decide nothing.

Between nodes: a bulk connection (its own handshake, purpose "bulk") carries one request after
another: 20 bytes of object id and one that says how it is asked for (``core.relaying``). The answer
is 9 bytes, a status and a size, then the bytes, sent from one arena and received straight into the
other; or the address of a node to ask instead. What is still arriving here is passed on as it
comes (``Arrival``). To disk: batches are written by ``store.spill``. Results are events for the
role, called on the daemon's thread.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import msgspec

from freehold.core.objects import Objects
from freehold.core.relaying import DIRECT, FIRST, RELAYED, Relaying, Sending
from freehold.errors import FreeholdError
from freehold.ids import NodeId, ObjectId, ProcessId
from freehold.runtime.descriptors import greet_blocking
from freehold.runtime.transport import Transport
from freehold.store.arena import Arena
from freehold.store.spill import SpillReadError, SpillSlot, SpillStore
from freehold.wire.handshake import BULK, NONCE, ClientSide, Hello
from freehold.wire.messages import Address

PULLS: Final = 4  #: pulls at once: enough to keep a link busy while one waits for its source
#: Values read at once from an object store, each of which waits for an answer: 30 of 1 MiB take
#: 2.1 s instead of 4.9 where an answer takes 0.1 s. A disk has more of one after the other.
FAR_READS: Final = 4
CHUNK: Final = 1 << 20
BUFFER: Final = 1 << 20  #: socket buffers; libraries.md section 2: 2-3 GiB/s on loopback with 1 MiB
REQUEST: Final = struct.Struct("<20sB")
ANSWER: Final = struct.Struct("<BQ")
GONE, COMING, ELSEWHERE, SOON = 0, 1, 2, 3  #: what an answer begins with
TIMEOUT: Final = 30.0  #: seconds without a byte until a pull tries elsewhere
STALL: Final = 5.0  #: the same from a node that gets the bytes itself just now
HOPS: Final = 16  #: nodes asked in a row until the complete copy has to do it: 2**16 leaves


class NotYetError(OSError):
    """The object is being written where it was asked for."""


class Arrival:
    """How much of an object is here: told by the thread that receives it, awaited by those that
    pass it on.
    """

    def __init__(self) -> None:
        self.have = 0
        self.failed = False
        self.changed = threading.Condition()

    def more(self, count: int) -> None:
        """Bytes have come."""
        with self.changed:
            self.have += count
            self.changed.notify_all()

    def fail(self) -> None:
        """The rest will not come."""
        with self.changed:
            self.failed = True
            self.changed.notify_all()

    def beyond(self, sent: int) -> int:
        """Wait until more than ``sent`` bytes are here. Raises ConnectionError if they will not
        come.
        """
        with self.changed:
            self.changed.wait_for(lambda: self.failed or self.have > sent, TIMEOUT)
            if self.failed or self.have <= sent:
                raise ConnectionError("the bytes stopped coming")
            return self.have


class ByteMover:
    """Implements ``core.objects.Mover`` with threads."""

    def __init__(
        self, transport: Transport, arena: Arena, spill: Callable[[], SpillStore], readers: int = 1
    ) -> None:
        self.transport = transport
        self.arena = arena
        self.make_spill = spill
        self._spill: SpillStore | None = None
        self.objects: Objects
        self.relaying: Relaying
        self.arrivals: dict[ObjectId, Arrival] = {}
        self.pulls = ThreadPoolExecutor(PULLS, thread_name_prefix="freehold-pull")
        self.disk = ThreadPoolExecutor(1, thread_name_prefix="freehold-disk")
        self.reads = ThreadPoolExecutor(readers, thread_name_prefix="freehold-read")
        self.links: dict[NodeId, queue.SimpleQueue[socket.socket]] = {}
        self.serving: dict[socket.socket, NodeId] = {}
        self.asking: dict[socket.socket, NodeId] = {}

    def open_spill(self) -> SpillStore:
        """Made when it is first needed: most sessions never spill."""
        if self._spill is None:
            self._spill = self.make_spill()
        return self._spill

    # ------------------------------------------------------------------ disk

    def spill(self, batch: Sequence[tuple[ObjectId, int, int]]) -> None:
        """Write a batch; then ``objects.spilled``."""

        def work() -> None:
            slots: Sequence[SpillSlot] = ()
            error = ""
            try:
                slots = self.open_spill().write(
                    [(key, self.arena.write_view(offset, size)) for key, offset, size in batch]
                )
            except FreeholdError as problem:
                error = problem.message
            except OSError as problem:
                error = str(problem)
            names = [key for key, _, _ in batch]
            self.transport.call_soon(lambda: self.objects.spilled(names, slots, error))

        self.disk.submit(work)

    def restore(self, object_id: ObjectId, slot: Any, offset: int, size: int) -> None:
        """Read one back; then ``objects.restored``."""

        def work() -> None:
            error = ""
            try:
                self.arena.warm(offset, offset + size)
                self.open_spill().read_into(slot, self.arena.write_view(offset, size))
            except (SpillReadError, FreeholdError, OSError) as problem:
                error = str(problem)
            self.transport.call_soon(lambda: self.objects.restored(object_id, error))

        self.reads.submit(work)

    def discard(self, slot: Any) -> None:
        """Free a slot, off the daemon's thread: unlinking 100 MB takes 5 ms."""
        self.disk.submit(self.open_spill().release, slot)

    # ------------------------------------------------------------------ pull

    def pull(self, object_id: ObjectId, source: Address, offset: int, size: int) -> None:
        """Copy from another node; then ``objects.pulled``."""

        def work() -> None:
            error, soon = "", False
            try:
                self.arena.warm(offset, offset + size)
                self.receive(object_id, source, self.arena.write_view(offset, size))
            except (OSError, FreeholdError) as problem:
                error = f"node {source.node.hex()[:8]} at {source.host}:{source.port}: {problem}"
                soon = isinstance(problem, NotYetError)
            self.transport.call_soon(lambda: self.pulled(object_id, error, soon))

        self.pulls.submit(work)

    def pulled(self, object_id: ObjectId, error: str, soon: bool) -> None:
        """On the daemon's thread: from now on the copy is as complete as its state says."""
        self.arrivals.pop(object_id, None)
        self.objects.pulled(object_id, error, soon)

    def receive(self, object_id: ObjectId, source: Address, target: memoryview) -> None:
        """Fetch one object's bytes, from ``source`` or from whom it names. Raises OSError."""
        asked, manner = source, FIRST
        for _ in range(HOPS):
            try:
                named = self.exchange(asked, object_id, manner, target)
            except OSError:
                if manner == FIRST:
                    raise
                break
            if named is None:
                return
            asked, manner = named, RELAYED
        self.exchange(source, object_id, DIRECT, target)

    def exchange(
        self, source: Address, object_id: ObjectId, manner: int, target: memoryview
    ) -> Address | None:
        """Ask one node. Returns whom to ask instead, if it does not send the bytes itself. A used
        connection may have died while idle: then once more on a new one.
        """
        links = self.links.setdefault(source.node, queue.SimpleQueue())
        link = None
        named = None
        with contextlib.suppress(queue.Empty, ConnectionError):
            used = links.get_nowait()
            named = self.request(used, object_id, manner, target)
            link = used
        if link is None:
            link = self.dial(source)
            named = self.request(link, object_id, manner, target)
        links.put(link)
        if source.node in self.transport.fenced:  # since we began
            self.hang_up(source.node, links)
        return named

    def dial(self, source: Address) -> socket.socket:
        """A bulk connection to a node."""
        if source.node in self.transport.fenced:
            raise ConnectionRefusedError("was declared dead")
        link = socket.create_connection((source.host, source.port), timeout=TIMEOUT)
        self.asking[link] = source.node
        try:
            tune(link)
            hello = Hello(self.transport.address, ProcessId(source.process), BULK)
            greeting = ClientSide(self.transport.token, os.urandom(NONCE), hello)
            greet_blocking(link, greeting, TIMEOUT)
            link.settimeout(None)  # from now on the kernel watches the time: see be_patient
        except BaseException:
            self.drop(link)
            raise
        return link

    def drop(self, link: socket.socket) -> None:
        """A connection of ours to a node is of no use any more."""
        self.asking.pop(link, None)
        link.close()

    def hang_up(self, node: NodeId, links: queue.SimpleQueue[socket.socket] | None) -> None:
        """Close the idle connections to a dead node: nobody will ask for one again."""
        self.links.pop(node, None)
        while links is not None:
            try:
                self.drop(links.get_nowait())
            except queue.Empty:
                return

    def fence(self, node: NodeId) -> None:
        """A node was declared dead: whoever waits for its bytes looks elsewhere at once."""
        self.hang_up(node, self.links.get(node))
        for link, other in [*self.asking.items(), *self.serving.items()]:
            if other == node:
                with_shutdown(link)

    def request(
        self, link: socket.socket, object_id: ObjectId, manner: int, target: memoryview
    ) -> Address | None:
        """Ask for an object and receive it into ``target``, or whom to ask instead. Raises OSError,
        and hangs up then.
        """
        arrival = self.arrivals[object_id] = Arrival()
        try:
            be_patient(link, STALL if manner == RELAYED else TIMEOUT)
            link.sendall(REQUEST.pack(object_id, manner))
            answer = bytearray(ANSWER.size)
            receive_exactly(link, memoryview(answer))
            status, size = ANSWER.unpack(answer)
            if status == GONE:
                raise FileNotFoundError("does not have it any more")
            if status == SOON:
                raise NotYetError("does not have it yet")
            if status == ELSEWHERE:
                name = bytearray(size)
                receive_exactly(link, memoryview(name))
                arrival.fail()
                return msgspec.msgpack.decode(name, type=Address)
            if size != len(target):
                raise ConnectionError(f"has {size} bytes of it, {len(target)} were expected")
            for start in range(0, size, CHUNK):
                part = target[start : start + CHUNK]
                receive_exactly(link, part)
                arrival.more(len(part))
        except OSError:
            arrival.fail()
            self.drop(link)
            raise
        return None

    # ------------------------------------------------------------------ serve

    def serve(self, link: socket.socket, hello: Hello) -> None:
        """Serve another node's pulls on a connection, in a thread of its own."""
        self.serving[link] = hello.caller.node
        threading.Thread(target=self.serve_link, args=(link, hello.caller), daemon=True).start()

    def serve_link(self, link: socket.socket, asker: Address) -> None:
        """Answer requests until the other end hangs up."""
        link.setblocking(True)
        tune(link)
        request = bytearray(REQUEST.size)
        try:
            while not self.transport.closed:
                receive_exactly(link, memoryview(request))
                key, manner = REQUEST.unpack(request)
                self.answer(link, ObjectId(key), asker, manner)
        except OSError:
            pass
        finally:
            self.serving.pop(link, None)
            link.close()

    def answer(self, link: socket.socket, object_id: ObjectId, asker: Address, manner: int) -> None:
        """Send one object, pinned meanwhile, or say who gets it just now."""
        sending, arrival = self.on_daemon(lambda: self.asked(object_id, asker, manner))
        if isinstance(sending, int):
            link.sendall(ANSWER.pack(sending, 0))
        elif isinstance(sending, Address):
            name = msgspec.msgpack.encode(sending)
            link.sendall(ANSWER.pack(ELSEWHERE, len(name)) + name)
        else:
            try:
                self.send(link, sending, arrival)
            finally:
                self.transport.call_soon(lambda: self.relaying.over(sending))

    def asked(
        self, object_id: ObjectId, asker: Address, manner: int
    ) -> tuple[Sending | Address | int, Arrival | None]:
        """On the daemon's thread: what the answer is, and how much of the object is here."""
        sending = self.relaying.ask(object_id, asker, manner)
        if sending is None:
            return SOON if self.objects.being_written(object_id) else GONE, None
        if isinstance(sending, Address) or not sending.arriving():
            return sending, None
        arrival = self.arrivals.get(object_id)
        if arrival is None:  # it waits for its turn, or for another round
            self.relaying.over(sending)
            return GONE, None
        return sending, arrival

    def send(self, link: socket.socket, sending: Sending, arrival: Arrival | None) -> None:
        """The bytes of one object: from the arena, from disk, or as they arrive here."""
        stored = sending.stored
        link.sendall(ANSWER.pack(COMING, stored.size))
        if sending.from_disk:
            try:
                for part in self.open_spill().parts(stored.slot, CHUNK):
                    link.sendall(part)
            except SpillReadError as problem:
                raise OSError(str(problem)) from None
            return
        view = self.arena.write_view(stored.offset, stored.size)
        sent = 0
        while sent < len(view):
            have = len(view) if arrival is None else arrival.beyond(sent)
            link.sendall(view[sent:have])
            sent = have

    def on_daemon(self, action: Callable[[], Any]) -> Any:
        """Call ``action`` on the daemon's thread and wait for its result."""
        future: Future[Any] = Future()
        self.transport.call_soon(lambda: future.set_result(action()))
        return future.result(TIMEOUT)

    def close(self) -> None:
        """Stop: hang up, and remove what was spilled."""
        for link in list(self.serving):
            with_shutdown(link)
        for links in self.links.values():
            while not links.empty():
                links.get().close()
        for pool in (self.pulls, self.disk, self.reads):
            pool.shutdown(wait=False, cancel_futures=True)
        if self._spill is not None:
            self._spill.close()


def with_shutdown(link: socket.socket) -> None:
    """Make a thread that is blocked on the socket return."""
    try:
        link.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def tune(link: socket.socket) -> None:
    """Big buffers for bulk bytes; no waiting to fill packets with requests."""
    link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def be_patient(link: socket.socket, seconds: float) -> None:
    """Have the kernel end a receive or send in which nothing moves for so long. (A timeout of
    Python's would make each receive two calls, and return with whatever a packet brought.)
    """
    whole = int(seconds)
    limit = struct.pack("@ll", whole, int((seconds - whole) * 1e6))
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def receive_exactly(link: socket.socket, target: memoryview) -> None:
    """Fill ``target``. Raises ConnectionError if the stream ends before, TimeoutError if it stalls
    (``be_patient``).
    """
    while target:
        try:
            count = link.recv_into(target, 0, socket.MSG_WAITALL)
        except BlockingIOError:
            raise TimeoutError("sent nothing for a while") from None
        if not count:
            raise ConnectionError("hung up in the middle")
        target = target[count:]
