"""Bulk copies that leave the interpreter to others.

Knows      how to move bytes between two buffers quickly.
Must not   know what the bytes are.

``dst[a:b] = src`` holds the interpreter lock for the whole copy: 17 ms for 200 MiB, during which
no heartbeat is answered. ``memmove`` through ctypes runs at the same speed without the lock, but
getting at the two addresses costs 3 us; hence the slice below `SMALL`. NumPy's copyto would do as
well, at 66 ms of start-up time for every process that imports it.

Races: while the lock is free another thread may run, so the exports of both buffers are held for
the whole copy (a bytearray cannot be resized, a mapping cannot go away). When a copy is split, the
call ends only after both halves have: a Ctrl-C must not hand back a block that is still written.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from typing import Final

SMALL: Final = 64 << 10
"""Bytes below which the copy is a slice assignment: at most 5 us under the interpreter lock."""
SPLIT: Final = 64 << 20
"""Bytes from which two threads share the copy: starting a thread costs 0.1 ms, 64 MiB 5-7 ms.
100 MiB into a warm arena, two cores: 10.5 GiB/s by one thread, 12-14.5 by two."""


class _Buffer(ctypes.Structure):
    """``Py_buffer``; its layout is part of the stable ABI since Python 3.11."""

    _fields_ = [
        ("address", ctypes.c_void_p),
        ("owner", ctypes.py_object),
        ("nbytes", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    ]
    address: int | None
    nbytes: int


_CONTIGUOUS = 0  # PyBUF_SIMPLE
_WRITABLE = 1  # PyBUF_WRITABLE
_acquire = ctypes.pythonapi.PyObject_GetBuffer
_acquire.argtypes = [ctypes.py_object, ctypes.POINTER(_Buffer), ctypes.c_int]
_release = ctypes.pythonapi.PyBuffer_Release
_release.argtypes = [ctypes.POINTER(_Buffer)]
_release.restype = None


def copy(dst: memoryview, dst_offset: int, src: memoryview) -> None:
    """Copy all of ``src`` into ``dst`` from byte ``dst_offset`` on.

    Args:
        dst: writable, one-dimensional, of bytes (format ``B``).
        dst_offset: in bytes.
        src: any C-contiguous buffer; its shape and format do not matter. It may overlap ``dst``
            only where the copy is below `SPLIT` bytes.

    Raises:
        ValueError: ``src`` does not fit.
        TypeError, BufferError: ``dst`` is read-only, or a buffer is not contiguous.
    """
    size = src.nbytes
    if dst_offset < 0 or dst_offset + size > dst.nbytes:
        raise ValueError(f"{size} bytes at offset {dst_offset} do not fit into {dst.nbytes} bytes")
    if size == 0:
        return
    plain = src.format == "B" and src.ndim == 1 and src.c_contiguous
    if size < SMALL and plain:
        dst[dst_offset : dst_offset + size] = src
    elif size < SPLIT or len(os.sched_getaffinity(0)) == 1:
        _move(dst, dst_offset, src, 0, size)
    else:
        _move_split(dst, dst_offset, src, size)


def _move(dst: memoryview, dst_offset: int, src: memoryview, start: int, size: int) -> None:
    """Copy ``size`` bytes of ``src`` from ``start``, without the interpreter lock."""
    source, target = _Buffer(), _Buffer()
    _acquire(src, source, _CONTIGUOUS)
    try:
        _acquire(dst, target, _WRITABLE)
        try:
            assert source.address is not None
            assert target.address is not None
            ctypes.memmove(target.address + dst_offset, source.address + start, size)
        finally:
            _release(target)
    finally:
        _release(source)


def _move_split(dst: memoryview, dst_offset: int, src: memoryview, size: int) -> None:
    half = size // 2 & ~4095
    moved = threading.Event()

    def first_half() -> None:
        _move(dst, dst_offset, src, 0, half)
        moved.set()

    by_two(
        first_half, lambda: _move(dst, dst_offset + half, src, half, size - half), "freehold-copy"
    )
    if not moved.is_set():  # the helper failed; do its half here, or fail here, never silently
        _move(dst, dst_offset, src, 0, half)


def by_two(there: Callable[[], None], here: Callable[[], None], name: str) -> None:
    """Do ``here`` in this thread and ``there`` in another of that name, or after it if no thread is
    to be had. Returns, or raises what ``here`` has, when both have ended.
    """
    helper = threading.Thread(target=there, name=name, daemon=True)
    try:
        helper.start()
    except RuntimeError:  # a limit, or the interpreter is ending
        here()
        there()
        return
    try:
        here()
    finally:
        _join(helper)


def _join(helper: threading.Thread) -> None:
    """Wait for the helper, whatever signals arrive; a Ctrl-C is raised when it is done."""
    interrupted: KeyboardInterrupt | None = None
    while helper.is_alive():
        try:
            helper.join()
        except KeyboardInterrupt as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted
