"""The shared-memory arena of a node: one anonymous file, mapped by every process of the machine.

Knows      a memfd, the mappings of it in this process, and which of them are still looked at.
Must not   know which ranges are free (`allocator`), what an object is, or who pins it.

Life of an arena: the node daemon creates it; each process attaches the descriptor it was handed
and keeps two mappings, one writable, one read-only. Nothing has a name in the file system, so a
crash leaves nothing behind; the memory goes when the last process does.

Life of an object, as seen from here:

1. The creator copies into `write_view` of a range that the node daemon allocated.
2. Readers take a `read_view`. It lies in the read-only mapping: a write through any pointer to it
   is a segmentation fault in the process at fault, never a changed value in another one.
3. When the last view derived from it is gone (slices, NumPy arrays, Arrow buffers), the reader's
   ``on_release`` is called, once. The node daemon counts those pins and frees the range.

How the last view is noticed. Every buffer consumer keeps the *exporter* of the buffer alive, not
the memoryview it was given. So each read view has an exporter of its own, a ctypes array laid over
the mapping, and ``__del__`` of that exporter is the event. ctypes must build a type for every new
array length (10 us), hence one type per power of two and a slice to length: 1.2 us a view.

Races considered:

* *Prefaulting beside writers.* `warm` never writes. It reads a byte through the read-only mapping,
  which makes the kernel provide a zeroed page where there is none, and then asks for a huge page
  (MADV_COLLAPSE). The kernel copies what is there under the page lock with all mappings removed; a
  writer that comes along meanwhile waits in its page fault. If anybody holds a page, the kernel
  gives up and the small pages stay. MADV_POPULATE_WRITE makes pages writable but stores nothing.
  So `warm` is safe at any time over any range, live objects included; it skips 2 MiB pieces that
  have a page already only because collapsing those costs a copy.
* *Punching beside anything* destroys data. The node daemon punches only free ranges, in the same
  thread that allocates.
* *Closing beside views.* Views hold the mapping. `close` drops the arena's own hold; the last view
  to go unmaps. Views that outlive `close`, the interpreter, or a fork are not reported: there is
  nobody to report to, or it is the parent's pin.
* *Finalizers* run in whatever thread dropped the view, perhaps inside the garbage collector and
  with any lock held. ``on_release`` may therefore only do what is reentrant: append to a deque, put
  into a SimpleQueue, write a byte to a wake-up pipe.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Callable
from typing import Any, Final

from freehold.copying import by_two
from freehold.store import memory
from freehold.store.memory import HUGE, PAGE, File, Mapping

SHARED: Final = 8
"""Fresh pieces from which two threads provide them: starting a thread costs 0.1 ms, 8 pieces 1 ms
or more. 100 MiB that the host had to find: 0.45-0.57 GiB/s by one thread, 0.8-1.5 by two; no more
by four, on two cores."""


class _Reporting:
    """Whether releases of views are still told: until `close`, and only in this very process."""

    __slots__ = ("open", "process")

    def __init__(self) -> None:
        self.open = True
        self.process = os.getpid()


def _never() -> bool:
    return False


class Arena:
    """One process's sight of the shared memory. Thread-safe; make it with `create` or `attach`.

    Attributes:
        capacity: bytes that may be used.
        warm_mark: end of the memory known to be warm, see `warm_ahead`. A hint, never wrong data.
    """

    __slots__ = ("_reader", "_reporting", "_write_all", "_writer", "_file", "capacity", "warm_mark")

    def __init__(self, fd: int, capacity: int) -> None:
        length = _up(capacity, HUGE)
        self._writer = memory.map_shared(fd, length, writable=True)
        self._reader = memory.map_shared(fd, length, writable=False)
        self._reporting = _Reporting()
        # Write views are slices of this one (0.1 us each); together they hold its exporter, and
        # that holds the mapping.
        self._write_all = _view(self._writer, 0, length, None, self._reporting)
        self.capacity = capacity
        self.warm_mark = 0
        self._file = File(fd)  # last: if a mapping failed, the descriptor is still the caller's

    @classmethod
    def create(cls, capacity: int) -> Arena:
        """Make a new arena. Memory is used only as it is touched or warmed.

        Args:
            capacity: bytes. The file is rounded up to 2 MiB, `capacity` stays as given.

        Raises:
            ValueError: capacity is not positive.
            OSError: the kernel refused.
        """
        if capacity <= 0:
            raise ValueError(f"an arena needs a positive capacity in bytes, not {capacity}")
        fd = memory.create_file(_up(capacity, HUGE))
        try:
            return cls(fd, capacity)
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def attach(cls, fd: int, capacity: int) -> Arena:
        """Map an arena that another process created (40 us). Attach after a fork, not before.

        Args:
            fd: its memfd; from now on it belongs to the arena (on an error, still to the caller).
            capacity: as given to `create`.

        Raises:
            ValueError: ``fd`` is shorter than an arena of that capacity.
        """
        size = os.fstat(fd).st_size
        if capacity <= 0 or size < _up(capacity, HUGE):
            raise ValueError(f"descriptor {fd} has {size} bytes: no arena of {capacity} bytes")
        return cls(fd, capacity)

    @property
    def fd(self) -> int:
        """The memfd, to be handed to other processes; the arena closes it."""
        return self._file.fd

    def write_view(self, offset: int, size: int) -> memoryview:
        """Return a writable view of ``size`` bytes (format ``B``) that all processes share.

        Only the creator of an object may hold one, and only until the object is sealed. Call
        `warm` over the range before filling it: cold memory is filled at 0.3-1.3 GiB/s, and at
        4.6-6.1 when warmed first, both steps together; over warm memory the call costs 30 us per
        100 MiB.
        """
        self._check(offset, size)
        return self._write_all[offset : offset + size]

    def read_view(self, offset: int, size: int, on_release: Callable[[], None]) -> memoryview:
        """Return a read-only view of ``size`` bytes (format ``B``).

        Args:
            on_release: called exactly once, when the last view derived from the returned one is
                gone: in any thread, perhaps inside the garbage collector, so it must be cheap and
                reentrant. Not called after `close`, at interpreter shutdown, or in a forked child.
        """
        self._check(offset, size)
        return _view(self._reader, offset, size, on_release, self._reporting).toreadonly()

    def private_view(self, offset: int, size: int, on_release: Callable[[], None]) -> memoryview:
        """Return a writable view of ``size`` bytes whose changes no other process sees.

        The pages are shared until written (copy-on-write, 4 KiB at a time), so the object must
        stay pinned as long as the view lives: ``on_release`` is as in `read_view`.
        """
        self._check(offset, size)
        file = self._file
        start = offset - offset % PAGE
        length = max(PAGE, _up(offset + size - start, PAGE))
        mapping = memory.map_private(file.fd, start, length)
        return _view(mapping, offset - start, size, on_release, self._reporting)

    def warm(self, start: int, end: int, should_stop: Callable[[], bool] = _never) -> int:
        """Have the kernel provide the memory of ``[start, end)``, in huge pages where it can.

        Changes no byte and may run beside any reader or writer (see the module). 2 MiB pieces that
        have a page are passed over, at 0.6 us each. Fresh pieces take 0.13 ms, 4-7 ms on a
        virtual machine whose host has to find the memory first: many are shared by two threads.
        The interpreter lock is free meanwhile.

        Args:
            start, end: byte offsets within the capacity, widened to 2 MiB boundaries.
            should_stop: asked before each fresh piece. Given: there is no hurry, one thread does.

        Returns:
            The offset up to which memory is warm: `end`, or less if stopped, or if the kernel can
            neither collapse (Linux 6.1) nor populate (5.14).
        """
        self._check(start, end - start)
        file, reader, writer = self._file, self._reader, self._writer  # held, should we be closed
        every = range(start - start % HUGE, end, HUGE)
        fresh = [piece for piece in every if not memory.has_page(file.fd, piece, HUGE)]
        left, missed = iter(fresh), []  # (an iterator of a list gives each piece to one thread)

        def provide() -> None:
            for piece in left:
                if memory.has_page(file.fd, piece, HUGE):
                    continue  # a writer was quicker
                if should_stop() or not _warm_piece(reader.address + piece, writer.address + piece):
                    missed.append(piece)
                    return

        if len(fresh) < SHARED or should_stop is not _never or len(os.sched_getaffinity(0)) == 1:
            provide()
        else:
            by_two(provide, provide, "freehold-warm")
        return self._warmed(start, min(missed, default=end))

    def warm_ahead(self, used_end: int, ahead: int, should_stop: Callable[[], bool]) -> int:
        """Keep ``ahead`` bytes beyond ``used_end`` (the allocator's high water) warm.

        Costs nothing while `warm_mark` is there already. Memory below ``used_end`` is left to
        those who are writing it just now. Returns the new `warm_mark`.
        """
        target = min(used_end + ahead, self.capacity)
        self.warm_mark = max(self.warm_mark, used_end)
        if self.warm_mark < target:
            self.warm(self.warm_mark, target, should_stop)
        return self.warm_mark

    def punch(self, start: int, end: int) -> int:
        """Give the memory of ``[start, end)`` back to the kernel; those bytes read as zero then.

        The caller vouches that no object lies in the range. Only whole 2 MiB pieces inside it are
        given back, as anything less would split a huge page. 160 GiB/s or more.

        Returns:
            The number of bytes given back; 0 if the kernel refused.
        """
        self._check(start, end - start)
        first, last = _up(start, HUGE), end - end % HUGE
        if first >= last:
            return 0
        self.warm_mark = min(self.warm_mark, first)
        taken = memory.advise(self._writer.address + first, last - first, mmap.MADV_REMOVE)
        return last - first if taken else 0

    def resident_bytes(self) -> int:
        """Bytes of memory the arena occupies now, over all processes."""
        return os.fstat(self._file.fd).st_blocks * 512

    def close(self) -> None:
        """Let go of the arena. Views that still live stay valid; they are no longer reported."""
        if self._reporting.open:
            self._reporting.open = False
            del self._writer, self._reader, self._write_all, self._file

    def _check(self, offset: int, size: int) -> None:
        if not self._reporting.open:
            raise ValueError("the arena is closed")
        if offset < 0 or size < 0 or offset + size > self.capacity:
            raise ValueError(
                f"bytes {offset} to {offset + size} lie outside the arena of {self.capacity} bytes"
            )

    def _warmed(self, start: int, reached: int) -> int:
        if start <= self.warm_mark < reached:
            self.warm_mark = reached
        return max(start, reached)


def _warm_piece(reader: int, writer: int) -> bool:
    """Provide one 2 MiB piece, given its address in the read-only and the writable mapping."""
    memory.touch(reader)  # the kernel refuses to collapse a piece that has no page at all
    return memory.advise(writer, HUGE, memory.MADV_COLLAPSE) or memory.advise(
        writer, HUGE, memory.MADV_POPULATE_WRITE
    )


class _Reporter:
    """What is added to a ctypes array to make it the exporter of one view."""

    __slots__ = ()
    mapping: Mapping
    on_release: Callable[[], None] | None
    reporting: _Reporting

    def __del__(
        self,
        finalizing: Callable[[], bool] = sys.is_finalizing,
        process: Callable[[], int] = os.getpid,
    ) -> None:
        # Defaults, because module globals may be gone when the interpreter shuts down.
        reporting = self.reporting
        if (
            self.on_release is not None
            and reporting.open
            and not finalizing()
            and reporting.process == process()
        ):
            self.on_release()


_exporter_types: dict[int, Any] = {}  # power of two -> ctypes array type of that many bytes


def _exporter_type(power: int) -> Any:
    try:
        return _exporter_types[power]
    except KeyError:
        slots = {"__slots__": ("mapping", "on_release", "reporting")}
        made = type(f"Bytes{1 << power}", (_Reporter, ctypes.c_char * (1 << power)), slots)
        return _exporter_types.setdefault(power, made)


def _view(
    mapping: Mapping,
    offset: int,
    size: int,
    on_release: Callable[[], None] | None,
    reporting: _Reporting,
) -> memoryview:
    """Lay a buffer over part of a mapping; it holds the mapping and reports its own end.

    The exporter may reach beyond the mapping, being as long as a power of two. Nobody sees that
    part: every consumer goes by the length of the slice.
    """
    exporter = _exporter_type(size.bit_length()).from_address(mapping.address + offset)
    exporter.mapping, exporter.on_release, exporter.reporting = mapping, on_release, reporting
    return memoryview(exporter).cast("B")[:size]


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
