"""Where record files are: a path, or a URL in an object store.

Theory of operation
-------------------
A *place* is a ``Path`` or, for a URL (``s3://bucket/prefix``), a ``Remote``: the same few verbs on
an object store, through fsspec and what it finds for the scheme (s3fs for S3). ``files.py`` asks a
place which kind it is, and nobody else does. A Remote is a value: it travels in a task, and each
process opens its own connections, with the credentials that it finds where the library looks for
them (environment, configuration files, instance roles).

Reads are ranges of ``RANGE`` bytes, several on the way at once, since one stream of an object store
brings 50-100 MB/s. A write is a multi-part upload: the object appears when the last part is
confirmed, so it is whole or not there, as a renamed file is. A write that fails is taken back; what
a killed process had uploaded is not visible, and ``abort_uploads`` removes it.

Races considered: two runs of one task write the same object; the later one replaces it by the same
bytes. Listings and sizes are not cached, here or in the library.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

#: Bytes of a ranged read and of an uploaded part. S3 takes 5 MiB to 5 GiB, and 10,000 parts.
RANGE = 8 << 20

#: Ranges on the way at once: they are in memory beside the buffer that they go to.
RANGES_AT_ONCE = 4


#: What a missing input is answered with.
GIVE_A_FOLDER = "give a folder of record files"


class RecordFileError(ValueError):
    """A file or folder is not what the job needs. The message names it and says what to do."""


@dataclass(frozen=True, slots=True, order=True)
class Remote:
    """An object, or a folder of objects, by its URL without a slash at the end."""

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> Remote:
        return Remote(f"{self.url}/{name}")

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def parent(self) -> Remote:
        return Remote(self.url.rpartition("/")[0])

    def entries(self) -> list[Remote]:
        """The objects of a folder in order of name, without those of folders in it; [] if there is
        no such folder. Raises RecordFileError if the bucket does not exist.
        """
        with self._told("read") as (system, path):
            try:
                found = system.ls(path, detail=True, refresh=True)
            except FileNotFoundError:
                if not system.exists(path.partition("/")[0]):
                    raise
                return []
        names = [str(entry["name"]) for entry in found if entry["type"] == "file"]
        return sorted(self / name.rpartition("/")[2] for name in names if name != path)

    def size(self) -> int:
        """Bytes of an object."""
        with self._told("read") as (system, path):
            system.invalidate_cache(path)
            size: int = system.size(path)
        return size

    def read(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Some stretches of an object, (from, to) each, asked for at the same time."""
        begins, ends = [begin for begin, _ in ranges], [end for _, end in ranges]
        with self._told("read") as (system, path):
            found: list[bytes] = system.cat_ranges(
                [path] * len(ranges), begins, ends, on_error="raise"
            )
        return found

    def read_into(self, offset: int, view: memoryview) -> int:
        """Fill a buffer from a byte on; returns how much there was."""
        edges = [*range(0, len(view), RANGE), len(view)]
        pieces, place = list(pairwise(edges)), 0
        for at in range(0, len(pieces), RANGES_AT_ONCE):
            wanted = pieces[at : at + RANGES_AT_ONCE]
            for part in self.read([(offset + begin, offset + end) for begin, end in wanted]):
                view[place : place + len(part)] = part
                place += len(part)
        return place

    def write(self, buffers: Iterable[Any]) -> int:
        """Write an object, which appears complete or not at all. Returns the bytes written."""
        with self._told("write") as (system, path):
            file = system.open(path, "wb", block_size=RANGE)
            try:
                written = sum(int(file.write(buffer)) for buffer in buffers)
                file.close()
            except BaseException:
                file.discard()
                file.closed = True  # or its finalizer would try to complete it
                raise
        return written

    def remove(self, names: Sequence[str]) -> None:
        """Delete objects of a folder."""
        if not names:
            return  # (or the library would complain that there is nothing)
        with self._told("write in") as (system, path):
            system.rm([f"{path}/{name}" for name in names])

    def abort_uploads(self, beginning: str) -> None:
        """Forget uploads to objects of this folder that nobody has completed, by how their names
        begin. Only S3 is asked; other stores forget them after some days.
        """
        with self._told("write in") as (system, path):
            if not hasattr(system, "call_s3"):
                return
            bucket, _, key = path.partition("/")
            prefix = f"{key}/{beginning}" if key else beginning
            said = system.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix)
            for upload in said.get("Uploads", ()):
                named = {"Bucket": bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
                system.call_s3("abort_multipart_upload", **named)

    @contextmanager
    def _told(self, verb: str) -> Iterator[tuple[Any, str]]:
        """The file system and our path in it; its errors become ones that say what to do."""
        try:
            from fsspec.core import url_to_fs
        except ImportError:
            raise RecordFileError(f"cannot {verb} {self}: {_INSTALL}") from None
        try:
            yield url_to_fs(self.url)
        except RecordFileError:
            raise
        except Exception as error:  # each store's library has its own
            raise RecordFileError(f"cannot {verb} {self}: {_reason(error)}") from error


Place = Path | Remote

_INSTALL = "URLs need the storage extra: pip install 'freehold[storage]'"


def place(where: Place | str) -> Place:
    """The place that a path or URL names; a relative path is made absolute."""
    if isinstance(where, str) and "://" in where:
        return Remote(where.rstrip("/"))
    return where if isinstance(where, Remote) else Path(where).absolute()


def existing(folder: Path, missing: str) -> Path:
    """The folder. Raises RecordFileError, which says what to do (``missing``), if it is none."""
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise RecordFileError(f"{folder} {what}: {missing}")
    return folder


def _reason(error: Exception) -> str:
    """What happened, and the remedy where we know one."""
    kind = type(error).__name__
    if isinstance(error, ImportError):
        return f"{error}; {_INSTALL}"
    if isinstance(error, FileNotFoundError):
        return "the bucket or the object does not exist: create it, or correct the URL"
    if "Credential" in kind or isinstance(error, PermissionError):
        return (
            f"access was denied ({error}): give credentials that may, in AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY or a profile, on every node"
        )
    if "EndpointConnection" in kind or isinstance(error, ConnectionError):
        return f"{error}: is AWS_ENDPOINT_URL right, and the network up?"
    return f"{kind}: {error}"
