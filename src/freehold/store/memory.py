"""The few system calls of the arena, and a mapping that unmaps itself.

Knows      addresses, file descriptors and the kernel's flags.
Must not   know what is stored.

Why not the standard `mmap` module: an `mmap.mmap` cannot be placed on a 2 MiB boundary, holds one
protection, and refuses to close while a view lives. Here the mapping is an object; each view holds
it, and it unmaps itself when the last reference goes. There is no count to get wrong.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import sys
from collections.abc import Callable
from typing import Final

PAGE: Final = mmap.PAGESIZE
HUGE: Final = 2 << 20
"""Bytes of a huge page (x86-64, and arm64 with 4 KiB pages)."""

# Numbers of linux/mman.h that Python 3.11 does not name. They are the same on every architecture
# CPython supports, save the two MAP flags on alpha, mips and parisc.
MAP_FIXED: Final = 0x10
MAP_NORESERVE: Final = 0x4000
MADV_POPULATE_WRITE: Final = 23  # Linux 5.14
MADV_COLLAPSE: Final = 25  # Linux 6.1
MFD_CLOEXEC, MFD_ALLOW_SEALING = 1, 2
F_ADD_SEALS: Final = 1033
F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW = 1, 2, 4

_libc = ctypes.CDLL(None, use_errno=True)  # a CDLL call releases the interpreter lock
_mmap = _libc.mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
_munmap = _libc.munmap
_munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_madvise = _libc.madvise
_madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_memfd_create = _libc.memfd_create  # not `os.memfd_create`: absent in Pythons built on old glibc
_memfd_create.argtypes = [ctypes.c_char_p, ctypes.c_uint]

_FAILED = ctypes.c_void_p(-1).value


class Mapping:
    """A range of mapped memory; it is unmapped when the last reference to it goes.

    Attributes:
        address: of the first byte.
        length: in bytes.
    """

    __slots__ = ("_reserved", "address", "length")

    def __init__(self, address: int, length: int, reserved: tuple[int, int]) -> None:
        self.address = address
        self.length = length
        self._reserved = reserved

    # Defaults, because module globals may be gone when the interpreter shuts down. Then nothing is
    # unmapped: the process is about to end, and a daemon thread may still be reading.
    def __del__(
        self,
        unmap: Callable[[int, int], int] = _munmap,
        finalizing: Callable[[], bool] = sys.is_finalizing,
    ) -> None:
        if not finalizing():
            unmap(*self._reserved)


class File:
    """A file descriptor that is closed when the last reference to it goes.

    A thread that works on the file holds it, so that a `close` elsewhere cannot hand its number to
    another file in between.
    """

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(
        self,
        close: Callable[[int], None] = os.close,
        finalizing: Callable[[], bool] = sys.is_finalizing,
    ) -> None:
        if not finalizing():
            close(self.fd)


def create_file(length: int) -> int:
    """Return a new anonymous file (memfd) of ``length`` zero bytes; its length is sealed.

    A process that shrank the file would kill every other one by SIGBUS.

    Raises:
        OSError: the kernel refused.
    """
    fd = int(_memfd_create(b"freehold-arena", MFD_CLOEXEC | MFD_ALLOW_SEALING))
    if fd < 0:
        raise _system_error("cannot create shared memory")
    try:
        os.ftruncate(fd, length)
        fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
    except OSError:
        os.close(fd)
        raise
    return fd


def map_shared(fd: int, length: int, writable: bool) -> Mapping:
    """Map ``length`` bytes (a multiple of `HUGE`) of ``fd``, shared, at a 2 MiB boundary.

    The kernel can only use huge pages where address and file offset agree modulo 2 MiB, so we
    reserve 2 MiB too much and map over the aligned part.

    Raises:
        OSError: the kernel refused, e.g. ENOMEM when address space is limited (ulimit -v).
    """
    reserved = length + HUGE
    base = _map(None, reserved, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    aligned = -(-base // HUGE) * HUGE
    mapping = Mapping(aligned, length, (base, reserved))
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    _map(aligned, length, protection, mmap.MAP_SHARED | MAP_FIXED, fd, 0)
    # A crashing worker must not dump gigabytes of everybody's objects into its core file.
    advise(aligned, length, mmap.MADV_DONTDUMP)
    return mapping


def map_private(fd: int, offset: int, length: int) -> Mapping:
    """Map ``length`` bytes of ``fd`` from ``offset`` (a multiple of `PAGE`), copy-on-write."""
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    address = _map(None, length, protection, mmap.MAP_PRIVATE, fd, offset)
    return Mapping(address, length, (address, length))


def advise(address: int, length: int, advice: int) -> bool:
    """``madvise``; True if the kernel took the advice."""
    return bool(_madvise(address, length, advice) == 0)


def has_page(fd: int, offset: int, length: int) -> bool:
    """Whether any page of that range of a memfd is in memory already (0.6 us).

    Asked by SEEK_DATA, which stops at the first page; ``mincore`` over 100 MiB takes 1.4 ms in a
    process that has not touched it. The file position this moves is used by nobody.
    """
    try:
        return os.lseek(fd, offset, os.SEEK_DATA) < offset + length
    except OSError as error:
        if error.errno != errno.ENXIO:  # ENXIO: no page from here to the end
            raise
        return False


def touch(address: int) -> None:
    """Read one byte, which makes the kernel provide its page."""
    ctypes.string_at(address, 1)


def _map(address: int | None, length: int, protection: int, flags: int, fd: int, at: int) -> int:
    result = _mmap(address, length, protection, flags, fd, at)
    if result is None or result == _FAILED:
        raise _system_error(f"cannot map {length} bytes of memory")
    return int(result)


def _system_error(what: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, f"{what}: {os.strerror(code)}")
