"""Bulk copies: every path gives the same bytes, and every failure is loud."""

from __future__ import annotations

import random
import threading
from typing import Any

import numpy as np
import pytest

from freehold import copying
from freehold.copying import SMALL, copy

GUARD = 64


def noise(size: int) -> bytearray:
    return bytearray(random.Random(size).randbytes(size))


def check_copy(source: memoryview, offset: int = GUARD) -> None:
    """Copy into the middle of a larger buffer: the bytes arrive, those around them stay."""
    target = bytearray(b"\xaa" * (offset + source.nbytes + GUARD))
    copy(memoryview(target), offset, source)
    assert target[offset : offset + source.nbytes] == source.tobytes()
    assert target[:offset] == b"\xaa" * offset
    assert target[offset + source.nbytes :] == b"\xaa" * GUARD


@pytest.mark.parametrize("size", [0, 1, SMALL - 1, SMALL, SMALL + 1, 1 << 20, (1 << 20) + 4097])
@pytest.mark.parametrize("offset", [0, 13])
def test_bytes_arrive_and_neighbours_stay(
    size: int, offset: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: slice, single and split copies agree. Method: sizes at each border, odd offsets."""
    monkeypatch.setattr(copying, "SPLIT", 1 << 20)
    monkeypatch.setattr(copying.os, "sched_getaffinity", lambda pid: {0, 1})
    check_copy(memoryview(bytes(noise(size))), offset)


@pytest.mark.parametrize("rows", [3, 3000])
def test_source_may_have_any_shape_and_format(rows: int) -> None:
    """Goal: a two-dimensional array of doubles is copied as its bytes, small or large."""
    check_copy(memoryview(np.arange(rows * 10.0).reshape(rows, 10)))


@pytest.mark.parametrize("size", [10, 2 * SMALL])
def test_what_does_not_fit_is_refused(size: int) -> None:
    """Goal: no byte beyond the target is written. Method: one byte too many; a negative offset."""
    target = memoryview(bytearray(size))
    for offset in (1, -1):
        with pytest.raises(ValueError, match=f"{size} bytes at offset {offset} do not fit"):
            copy(target, offset, memoryview(bytes(size)))


@pytest.mark.parametrize("size", [10, 2 * SMALL])
def test_read_only_target_and_scattered_source_are_refused(size: int) -> None:
    """Goal: both kinds of bad buffer raise on the short and on the long path."""
    with pytest.raises((TypeError, BufferError)):
        copy(memoryview(bytes(size)), 0, memoryview(bytes(size)))
    scattered = memoryview(bytes(2 * size))[::2]
    with pytest.raises((TypeError, BufferError)):
        copy(memoryview(bytearray(size)), 0, scattered)


def test_no_second_thread_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: at the limit of threads the copy is made all the same. Method: starting one fails."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(copying, "SPLIT", SMALL)
    monkeypatch.setattr(copying.os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(threading.Thread, "start", refuse)
    check_copy(memoryview(noise(3 * SMALL)))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_failure_of_the_helper_is_made_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a half that the helper did not copy is not silently missing.

    Method: the copy fails in any thread but this one."""
    move = copying._move

    def fail_elsewhere(*arguments: Any) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise MemoryError
        move(*arguments)

    monkeypatch.setattr(copying, "SPLIT", SMALL)
    monkeypatch.setattr(copying.os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(copying, "_move", fail_elsewhere)
    check_copy(memoryview(noise(3 * SMALL)))


def test_interrupt_waits_for_the_other_half() -> None:
    """Goal: Ctrl-C never leaves a thread behind that still writes into the target.

    Method: a helper whose first join is interrupted; the interrupt is raised once it has ended."""

    class Helper:
        joins = 0

        def is_alive(self) -> bool:
            return self.joins < 2

        def join(self) -> None:
            self.joins += 1
            if self.joins == 1:
                raise KeyboardInterrupt

    helper: Any = Helper()
    with pytest.raises(KeyboardInterrupt):
        copying._join(helper)
    assert helper.joins == 2
