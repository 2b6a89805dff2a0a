"""The arena: views that see the right bytes, end when they should, and harm nobody."""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from freehold.store import memory
from freehold.store.arena import Arena
from freehold.store.memory import HUGE

CAPACITY = 16 * HUGE

# From Python 3.12 on, a fork beside threads (of xdist) warns; our children only touch memory.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def arena() -> Iterator[Arena]:
    arena = Arena.create(CAPACITY)
    yield arena
    arena.close()


class Releases:
    """Counts how often it is called."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def nothing() -> None:
    """For views whose end does not matter."""


def mappings() -> int:
    gc.collect()  # arenas of earlier tests
    return Path("/proc/self/maps").read_text().count("freehold-arena")


def in_child(body: object) -> int:
    """Run ``body`` in a forked child and return its wait status, 0 if it returned."""
    pid = os.fork()
    if pid == 0:
        try:
            faulthandler.disable()
            body()  # type: ignore[operator]
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1]


def test_what_one_process_writes_another_reads(arena: Arena) -> None:
    """Goal: an attached arena is the same memory. Method: a child attaches and writes."""

    def write() -> None:
        Arena.attach(os.dup(arena.fd), CAPACITY).write_view(1000, 5)[:] = b"hello"

    assert in_child(write) == 0
    assert arena.read_view(1000, 5, nothing) == b"hello"


def test_mappings_lie_on_huge_page_boundaries(arena: Arena) -> None:
    """Goal: the kernel can use huge pages. Method: look at both addresses."""
    assert arena._reader.address % HUGE == arena._writer.address % HUGE == 0


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4096, HUGE - 1, HUGE, CAPACITY])
def test_views_have_the_size_asked_for(arena: Arena, size: int) -> None:
    """Goal: exporters come in powers of two, views do not. Method: sizes around such powers."""
    offset = CAPACITY - size
    for view in (
        arena.write_view(offset, size),
        arena.read_view(offset, size, nothing),
        arena.private_view(offset, size, nothing),
    ):
        assert (view.nbytes, view.format, view.ndim) == (size, "B", 1)
        assert view.tobytes() == bytes(size)


@pytest.mark.parametrize(("offset", "size"), [(-1, 1), (0, -1), (0, CAPACITY + 1), (CAPACITY, 1)])
def test_ranges_outside_are_refused(arena: Arena, offset: int, size: int) -> None:
    """Goal: no view reaches beyond the arena. Method: each kind, each way of being outside."""
    for look in (
        lambda: arena.write_view(offset, size),
        lambda: arena.read_view(offset, size, nothing),
        lambda: arena.private_view(offset, size, nothing),
        lambda: arena.punch(offset, offset + size),
        lambda: arena.warm(offset, offset + size),
    ):
        with pytest.raises(ValueError, match="lie outside the arena"):
            look()


def test_read_view_cannot_be_written(arena: Arena) -> None:
    """Goal: a sealed value cannot change. Method: by the view, and by an array made of it."""
    view = arena.read_view(0, 100, nothing)
    with pytest.raises(TypeError):
        view[0] = 1
    array = np.frombuffer(view, np.uint8)
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.flags.writeable = True


def test_writing_through_a_pointer_kills_the_writer_and_changes_nothing(arena: Arena) -> None:
    """Goal: even C code cannot change another process's value through a read view.

    Method: a child stores through the address of one and dies by SIGSEGV."""
    view = arena.read_view(0, 100, nothing)
    address = np.frombuffer(view, np.uint8).ctypes.data
    status = in_child(lambda: ctypes.memset(address, 1, 1))
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGSEGV
    assert view[0] == 0


@pytest.mark.parametrize("kind", ["read_view", "private_view"])
def test_release_is_told_once_after_the_last_derived_view(arena: Arena, kind: str) -> None:
    """Goal: the pin lasts exactly as long as anything made of the view.

    Method: a slice of an array of a slice outlives all that it came from."""
    released = Releases()
    view = getattr(arena, kind)(64, 8000, released)
    array = np.frombuffer(view[800:1600], np.float64)
    part = array[3:5]
    del view, array
    assert released.count == 0
    del part
    assert released.count == 1


def test_release_by_the_garbage_collector(arena: Arena) -> None:
    """Goal: a view in a reference cycle is released too. Method: a list that holds itself."""
    released = Releases()
    cycle: list[object] = [arena.read_view(0, 10, released)]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert released.count == 1


def test_release_in_another_thread(arena: Arena) -> None:
    """Goal: the last holder may be any thread. Method: hand the only reference to one."""
    released = Releases()
    views = [arena.read_view(0, 10, released)]
    thread = threading.Thread(target=views.pop)
    thread.start()
    thread.join()
    assert released.count == 1


def test_private_view_is_nobody_elses(arena: Arena) -> None:
    """Goal: changes stay private, and the bytes are those of the object, at any offset.

    Method: an object in the middle of a page, crossing into the next one."""
    arena.write_view(4000, 200)[:] = bytes(range(200))
    view = arena.private_view(4000, 200, nothing)
    assert view == bytes(range(200))
    view[:] = bytes(200)
    assert arena.read_view(4000, 200, nothing) == bytes(range(200))
    assert view == bytes(200)


def test_views_outlive_close_and_are_not_reported() -> None:
    """Goal: close pulls no memory from under anybody. Method: one view of each kind lives on;
    the mappings go with the last of them, and no release is reported."""
    before = mappings()
    released = Releases()
    arena = Arena.create(CAPACITY)
    written = arena.write_view(0, 100)
    views = [arena.read_view(0, 100, released), arena.private_view(0, 100, released)]
    arena.close()
    arena.close()

    written[:] = b"x" * 100
    assert views[0] == b"x" * 100
    assert mappings() > before
    del written, views
    assert mappings() == before
    assert released.count == 0


def test_closed_arena_gives_no_views(arena: Arena) -> None:
    """Goal: use after close is an error that says so."""
    arena.close()
    for look in (
        lambda: arena.write_view(0, 1),
        lambda: arena.read_view(0, 1, nothing),
        lambda: arena.private_view(0, 1, nothing),
        lambda: arena.warm(0, 1),
        lambda: arena.punch(0, 1),
    ):
        with pytest.raises(ValueError, match="the arena is closed"):
            look()


def test_forked_child_does_not_release_its_parents_pins(arena: Arena) -> None:
    """Goal: the parent's pin is the parent's. Method: the child drops the inherited view; a
    release there would make it exit with 1."""
    views = [arena.read_view(0, 10, lambda: os._exit(1))]
    assert in_child(views.clear) == 0
    arena.close()  # and so the parent drops its own in silence


def test_nothing_is_reported_at_interpreter_shutdown() -> None:
    """Goal: a view held until the end neither reports nor crashes.

    Method: a program that ends with views in a module and in a cycle."""
    program = """
import os
from freehold.store.arena import Arena
arena = Arena.create(1 << 22)
released = lambda: os.write(1, b"released")
view = arena.read_view(0, 10, released)
cycle = [arena.private_view(0, 10, released)]
cycle.append(cycle)
del cycle
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_attach_refuses_a_short_file_and_leaves_it_open() -> None:
    """Goal: reading past the end of a file would be SIGBUS; it is an error instead."""
    fd = memory.create_file(HUGE)
    with pytest.raises(ValueError, match=f"no arena of {HUGE + 1} bytes"):
        Arena.attach(fd, HUGE + 1)
    os.close(fd)


def test_nobody_can_shrink_the_arena(arena: Arena) -> None:
    """Goal: one process cannot kill the others by SIGBUS. Method: it tries to truncate."""
    with pytest.raises(PermissionError):
        os.ftruncate(arena.fd, 0)


@pytest.mark.parametrize("capacity", [0, -1])
def test_capacity_must_be_positive(capacity: int) -> None:
    """Goal: a meaningless capacity is refused with its value."""
    with pytest.raises(ValueError, match=str(capacity)):
        Arena.create(capacity)


def test_warm_provides_memory_and_changes_no_byte(arena: Arena) -> None:
    """Goal: warming fills exactly the fresh pieces. Method: one byte written in the middle one."""
    arena.write_view(3 * HUGE + 5, 1)[:] = b"x"
    assert arena.warm(HUGE + 1, 5 * HUGE) == 5 * HUGE
    assert all(memory.has_page(arena.fd, piece * HUGE, HUGE) for piece in range(1, 5))
    assert not memory.has_page(arena.fd, 0, HUGE)
    assert not memory.has_page(arena.fd, 5 * HUGE, HUGE)
    assert arena.resident_bytes() >= 3 * HUGE
    seen = arena.read_view(HUGE, 4 * HUGE, nothing).tobytes()
    assert seen == bytes(2 * HUGE + 5) + b"x" + bytes(2 * HUGE - 6)


def test_warm_beside_writers_loses_nothing(arena: Arena) -> None:
    """Goal: prefaulting may run over memory that is being written.

    Method: a thread fills the arena while another warms it, again and again on fresh memory;
    whatever the order of things, every byte is as written."""
    pattern = bytes(range(1, 256)) * (HUGE // 255 // 8)
    for _ in range(5):
        arena.punch(0, CAPACITY)
        warmer = threading.Thread(target=arena.warm, args=(0, CAPACITY))
        warmer.start()
        for piece in reversed(range(0, CAPACITY, HUGE)):
            arena.write_view(piece + 100, len(pattern))[:] = pattern
        warmer.join()
        for piece in range(0, CAPACITY, HUGE):
            assert arena.read_view(piece + 100, len(pattern), nothing) == pattern


def test_warm_is_shared_by_two_threads(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: many fresh pieces are provided by two threads, each piece once.

    Method: the first thread that comes waits in its first piece until another has done all the
    rest."""
    provided: list[tuple[str, int]] = []
    others, piece_of = threading.Event(), arena._writer.address
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})

    def slow(reader: int, writer: int) -> bool:
        provided.append((threading.current_thread().name, (writer - piece_of) // HUGE))
        if len(provided) == 1:
            return others.wait(10)
        if len(provided) == CAPACITY // HUGE:
            others.set()
        return True

    monkeypatch.setattr("freehold.store.arena._warm_piece", slow)
    assert arena.warm(0, CAPACITY) == CAPACITY
    assert sorted(piece for _, piece in provided) == list(range(CAPACITY // HUGE))
    assert len({name for name, _ in provided}) == 2


def test_warm_says_how_far_both_threads_came(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: what lies below the result is warm. Method: the kernel refuses the third piece."""
    third = arena._writer.address + 2 * HUGE
    monkeypatch.setattr("freehold.store.arena._warm_piece", lambda _, writer: writer != third)
    assert arena.warm(0, CAPACITY) == 2 * HUGE


def test_warm_stops_when_asked(arena: Arena) -> None:
    """Goal: the background work ends within one piece. Method: the third question says stop."""
    answers = iter([False, False, True])
    assert arena.warm(0, CAPACITY, lambda: next(answers)) == 2 * HUGE
    assert arena.warm_mark == 2 * HUGE


def test_warm_falls_back(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: an older kernel gets small pages, an older one still nothing, and says so.

    Method: a kernel that refuses to collapse, then to populate as well."""
    advise = memory.advise
    refused = {memory.MADV_COLLAPSE}

    def older(address: int, length: int, advice: int) -> bool:
        return advice not in refused and advise(address, length, advice)

    monkeypatch.setattr(memory, "advise", older)
    assert arena.warm(0, HUGE) == HUGE
    refused.add(memory.MADV_POPULATE_WRITE)
    assert arena.warm(0, 3 * HUGE) == HUGE


def test_warm_ahead_keeps_a_margin(arena: Arena) -> None:
    """Goal: memory ahead of the highest used offset is warm; what is in use is left alone.

    Method: the margin moves with use, and after punching it is made again."""
    assert arena.warm_ahead(0, 2 * HUGE, lambda: False) == 2 * HUGE
    assert arena.warm_ahead(0, 2 * HUGE, lambda: True) == 2 * HUGE  # done: nobody is asked
    assert arena.warm_ahead(4 * HUGE, 2 * HUGE, lambda: False) == 6 * HUGE
    assert not memory.has_page(arena.fd, 2 * HUGE, 2 * HUGE)
    assert arena.warm_ahead(15 * HUGE, 2 * HUGE, lambda: False) == CAPACITY

    arena.punch(HUGE, CAPACITY)
    assert arena.warm_mark == HUGE
    assert arena.warm_ahead(HUGE, HUGE, lambda: False) == 2 * HUGE


def test_punch_gives_whole_pieces_back(arena: Arena) -> None:
    """Goal: memory returns to the system, and the bytes around the range stay.

    Method: fill five pieces, punch from inside the first to inside the last."""
    arena.write_view(0, 5 * HUGE)[:] = b"x" * (5 * HUGE)
    before = arena.resident_bytes()
    assert arena.punch(1, 5 * HUGE - 1) == 3 * HUGE
    assert before - arena.resident_bytes() == 3 * HUGE
    seen = arena.read_view(0, 5 * HUGE, nothing).tobytes()
    assert seen == b"x" * HUGE + bytes(3 * HUGE) + b"x" * HUGE
    assert arena.punch(1, HUGE) == 0
