"""Spill files in an object store: each is one object.

Knows      URLs, objects and ranges of them; fsspec, and what it finds for the scheme (s3fs for S3).
Must not   know what is in a file, or how many may be there.

Each `Bucket` writes below a prefix of its own, ``URL/freehold-spill-NAME/``, where NAME is that of
the node. Nothing there can be locked, so nobody removes what others have left: the node does when
it stops, its zygote when the node was killed (`remove_all`), and the user when the machine died.

An object up to ``PART`` bytes is one PUT, a longer one a multi-part upload of such parts, one after
the other: a batch is never in memory twice, two parts of it are. It appears whole or not at all.
Reads are ranges of ``RANGE`` bytes, several on the way at once, since one stream of an object store
brings 50-100 MB/s. The library tries again what may pass, for some seconds; then it is OSError,
which says what to do where we know it.

Races considered: `close` has writes that are under way give up at their next part, and waits for
them before it deletes; so a write either ends before that or leaves nothing itself. Both waits end
after ``PATIENCE`` seconds. A read beside a removal gets all its bytes or OSError.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Final, TypeVar

log = logging.getLogger("freehold")

PART: Final = 16 << 20  #: bytes of an uploaded part; S3 takes 10,000 of 5 MiB to 5 GiB
RANGE: Final = 8 << 20  #: bytes of a ranged read
RANGES_AT_ONCE: Final = 4  #: on the way, and in memory beside where they go
PATIENCE: Final = 2.0  #: seconds that each step of an end may take; `launch.stop` kills after 5
PROBE: Final = 10.0  #: seconds for the first write; a node that is not up after 20 is given up

_PREFIX: Final = "freehold-spill-"
_INSTALL: Final = "URLs need the storage extra: pip install 'freehold[storage]'"

Result = TypeVar("Result")


class Bucket:
    """A place in an object store: see `spill.Place`.

    Args:
        url: of the folder, such as ``s3://bucket/prefix``. The bucket must exist.
        name: of this node, part of what all its objects are called.

    Raises:
        OSError: nothing can be written there. It says why, and what to do.
    """

    def __init__(self, url: str, name: str) -> None:
        self.url = f"{url.rstrip('/')}/{_PREFIX}{name}"
        self.failed = False
        self._closed = False
        self._writes = 0
        self._changed = threading.Condition()
        self._system, self._root = _within(PROBE, lambda: _connected(self.url))

    def __str__(self) -> str:
        return self.url

    def write(self, number: int, pieces: Iterator[memoryview]) -> None:
        """Write a new object, or leave none."""
        with self._changed:
            self._writes += 1
        try:
            with _told():
                self._upload(self._object(number), pieces)
        finally:
            with self._changed:
                self._writes -= 1
                self._changed.notify_all()

    def _upload(self, path: str, pieces: Iterator[memoryview]) -> None:
        file = self._system.open(path, "wb", block_size=PART)
        try:
            for piece in pieces:
                for start in range(0, piece.nbytes, PART):
                    if self._closed:
                        raise OSError("the spill store was closed")
                    file.write(piece[start : start + PART])
            file.close()
        except BaseException:
            with contextlib.suppress(Exception):  # the first failure is the one to tell
                file.discard()
            file.closed = True  # or its finalizer would try to complete it
            raise

    @contextlib.contextmanager
    def opened(self, number: int, offset: int, size: int) -> Iterator[_RangeReader]:
        """Read a stretch of an object."""
        yield _RangeReader(self._system, self._object(number), offset, offset + size)

    def remove(self, number: int) -> None:
        """Delete an object. It may fail: then it is left for the end."""
        try:
            with _told():
                self._system.rm_file(self._object(number))
        except OSError as error:
            log.warning("cannot delete %s/%d before the node stops: %s", self, number, error)

    def clear(self) -> None:
        """Delete all objects of this store; a warning says so if they cannot be."""
        try:
            _within(PATIENCE, lambda: _remove_all(self._system, self._root))
        except OSError as error:
            log.warning("what was spilled to %s may remain there: %s", self, error)

    def close(self) -> None:
        """Have writes give up, then delete everything."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._writes, PATIENCE)
        self.clear()

    def _object(self, number: int) -> str:
        return f"{self._root}/{number}"


class _RangeReader:
    """Reads a stretch of an object from its beginning to its end, some ranges ahead."""

    def __init__(self, system: Any, path: str, begin: int, end: int) -> None:
        self.system = system
        self.path = path
        self.at = begin  # what was asked for ends here
        self.end = end
        self.ahead: deque[memoryview] = deque()

    def fill(self, views: Sequence[memoryview]) -> None:
        """The next bytes."""
        for view in views:
            rest = view.cast("B") if view.nbytes else view
            while rest.nbytes:
                if not self.ahead:
                    self.fetch()
                part = self.ahead.popleft()
                taken = min(rest.nbytes, part.nbytes)
                rest[:taken] = part[:taken]
                rest = rest[taken:]
                if taken < part.nbytes:
                    self.ahead.appendleft(part[taken:])

    def fetch(self) -> None:
        """Ask for the next ranges and wait for all of them."""
        last = min(self.end, self.at + RANGE * RANGES_AT_ONCE)
        begins = list(range(self.at, last, RANGE))
        ends = [min(begin + RANGE, last) for begin in begins]
        with _told():
            found = self.system.cat_ranges(
                [self.path] * len(begins), begins, ends, on_error="raise"
            )
        for begin, end, part in zip(begins, ends, found, strict=True):
            if len(part) != end - begin:
                there = begin + len(part)
                raise OSError(f"its file ends at byte {there}, before the object does")
            self.ahead.append(memoryview(part))
        self.at = last


def remove_all(url: str, name: str) -> None:
    """Remove what the store of this name left, if its process cannot any more."""
    bucket = f"{url.rstrip('/')}/{_PREFIX}{name}"
    with contextlib.suppress(OSError), _told():
        _within(PATIENCE, lambda: _remove_all(*_found(bucket)))


def _found(url: str) -> tuple[Any, str]:
    """The file system of a URL, which remembers no listings, and our path in it."""
    from fsspec.core import url_to_fs

    system, path = url_to_fs(url, use_listings_cache=False)
    return system, str(path)


def _connected(url: str) -> tuple[Any, str]:
    """The same, once an object has been written there and deleted."""
    with _told():
        system, path = _found(url)
        system.pipe_file(f"{path}/0", b"freehold looks whether it can spill here")
        system.rm_file(f"{path}/0")
        return system, path


def _remove_all(system: Any, path: str) -> None:
    with (
        _told(),
        contextlib.suppress(FileNotFoundError),
    ):  # of a bucket that is gone nothing remains
        names = system.find(path)
        if names:
            system.rm(names)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Every failure is an OSError that says what to do: each store's library has its own."""
    try:
        yield
    except Exception as error:
        raise OSError(_reason(error)) from error


def _reason(error: Exception) -> str:
    """What happened, and the remedy where we know one."""
    kind = type(error).__name__
    if isinstance(error, ImportError):
        return f"{error}; {_INSTALL}"
    if isinstance(error, FileNotFoundError):
        return "the bucket or the object does not exist: create the bucket, or correct the URL"
    if "Credential" in kind or isinstance(error, PermissionError):
        return (
            f"access was denied ({error}): give credentials that may read, write and delete, in "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a profile, where the node is started"
        )
    if "EndpointConnection" in kind or isinstance(error, ConnectionError):
        return f"{error}: is AWS_ENDPOINT_URL right, and the network up?"
    return str(error) if type(error) is OSError else f"{kind}: {error}"


def _within(seconds: float, action: Callable[[], Result]) -> Result:
    """Wait so long for ``action`` and no longer. Raises OSError if that is not enough."""
    future: Future[Result] = Future()

    def work() -> None:
        try:
            future.set_result(action())
        except BaseException as error:
            future.set_exception(error)

    # (An executor would have the process wait for the thread when it ends.)
    threading.Thread(target=work, daemon=True, name="freehold-spill").start()
    try:
        return future.result(seconds)
    except TimeoutError:
        raise OSError(f"no answer within {seconds:g} s: is the network up?") from None
