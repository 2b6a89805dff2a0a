"""Folders, modules and archives as packages: files under the digest of their contents.

A package is a zip file that two machines make alike from the same files: sorted names, no times,
modes reduced to the permissions. Its digest is its name, so that a file that was changed gives a
new package, and one that was not is neither written nor sent again. It is written into the folder
of the node's packages, from where other nodes fetch it (``core.environments``).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final

from freehold.api.ignoring import Pattern, ignored, parse
from freehold.wire.environments import AddPackage, Package, PackagePlace

if TYPE_CHECKING:
    from freehold.runtime.process import Process

#: The most that a package may hold (bytes, not compressed): Ray's figure. Code is a thousandth of
#: that; what is more is data, and belongs where every node can read the part that it needs.
LARGEST: Final = 512 << 20
#: How many files an error about the size names.
NAMED: Final = 5
#: What nobody wants to send: the histories, environments and caches of the usual tools.
ALWAYS: Final = (".git/", ".hg/", ".svn/", "__pycache__/", ".venv/", "venv/", ".mypy_cache/")
IGNORE_FILES: Final = (".gitignore", ".freeholdignore")


def put(process: Process, archive: Path, name: str, *, wheel: bool = False) -> Package:
    """Have a node keep an archive; it is moved there, unless the node has its like.

    Args:
        archive: a file in the folder that ``folder_of`` tells.
        name: what the user calls it.
    """
    digest = blake2b(digest_size=16)
    with archive.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    key, size = digest.digest(), archive.stat().st_size
    place: PackagePlace = process.ask(process.node, lambda request: AddPackage(request, key))
    if place.present:
        archive.unlink()
    else:
        archive.rename(Path(place.folder) / f"{key.hex()}.zip")
        process.ask(process.node, lambda request: AddPackage(request, key, size))
    return Package(key, name, size, process.node, wheel)


def folder_of(process: Process) -> Path:
    """Where this node's packages lie."""
    place: PackagePlace = process.ask(process.node, lambda request: AddPackage(request, b""))
    return Path(place.folder)


def pack_folder(
    process: Process, folder: Path, excludes: Sequence[str], *, within: str = ""
) -> Package:
    """The files of a folder.

    Args:
        excludes: patterns of files that stay behind, beside those of ignore files.
        within: the folder of the package to have them in.

    Raises ValueError if there is too much, naming the largest files; OSError for what cannot be
    read.
    """
    files = list(walk(folder, excludes))
    total = sum(size for _, _, size in files)
    if total > LARGEST:
        files.sort(key=lambda file: -file[2])
        largest = "\n  ".join(f"{size:>13,} bytes  {name}" for name, _, size in files[:NAMED])
        raise ValueError(
            f"{folder} has {total:,} bytes in {len(files):,} files, more than the {LARGEST:,} of a "
            f"package. The largest are:\n  {largest}\n"
            "Leave out what the tasks do not need, with runtime_env={'excludes': [...]} or a "
            ".freeholdignore file (patterns as in .gitignore), and put data where nodes can read it"
        )
    entries = [(f"{within}/{name}" if within else name, path) for name, path, _ in files]
    return put(process, write(process, entries), str(folder))


def pack_file(process: Process, file: Path) -> Package:
    """One module."""
    return put(process, write(process, [(file.name, file)]), str(file))


def pack_archive(process: Process, archive: Path, *, wheel: bool = False) -> Package:
    """A zip file as it is. Raises ValueError for what is none, or holds too much."""
    import zipfile  # (0.3 MiB in each daemon, and seldom used)

    try:
        with zipfile.ZipFile(archive) as file:
            total = sum(info.file_size for info in file.infolist())
    except zipfile.BadZipFile as error:
        raise ValueError(f"{archive} is no zip file: {error}") from None
    if total > LARGEST:
        raise ValueError(f"{archive} holds {total:,} bytes, more than the {LARGEST:,} of a package")
    copy = folder_of(process) / f"{os.urandom(8).hex()}.new.zip"
    copy.write_bytes(archive.read_bytes())
    return put(process, copy, str(archive), wheel=wheel)


def pack_module(process: Process, module: ModuleType, excludes: Sequence[str]) -> Package:
    """An imported module: its file, or the folder of a package."""
    paths = list(getattr(module, "__path__", ()))
    if len(paths) > 1:
        raise ValueError(
            f"py_modules: {module.__name__} is spread over {len(paths)} folders; give each by path"
        )
    if paths:
        return pack_folder(process, Path(paths[0]), excludes, within=module.__name__)
    file = getattr(module, "__file__", None)
    if file is None or not file.endswith(".py"):
        raise ValueError(f"py_modules: {module.__name__} has no source file that could be sent")
    return pack_file(process, Path(file))


def write(process: Process, entries: list[tuple[str, Path]]) -> Path:
    """A zip file of these entries, beside the node's packages."""
    import zipfile  # (0.3 MiB in each daemon, and seldom used)

    path = folder_of(process) / f"{os.urandom(8).hex()}.new.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, file in sorted(entries):
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (stat.S_IFREG | (file.stat().st_mode & 0o777)) << 16
            archive.writestr(info, file.read_bytes(), compresslevel=1)
    return path


def walk(root: Path, excludes: Sequence[str]) -> Iterator[tuple[str, Path, int]]:
    """The files below a folder that do not stay behind: relative name, path and size.

    Links are followed, to a folder once; sockets, pipes and devices are passed over.
    """
    yield from _walk(root, "", [*parse(ALWAYS), *parse(excludes)], {os.path.realpath(root)})


def _walk(
    root: Path, base: str, patterns: list[Pattern], seen: set[str]
) -> Iterator[tuple[str, Path, int]]:
    here = root / base
    for name in IGNORE_FILES:
        if (here / name).is_file():
            lines = (here / name).read_text(errors="replace").splitlines()
            patterns = [*patterns, *parse(lines, base)]
    for entry in sorted(os.scandir(here), key=lambda entry: entry.name):
        path = base + entry.name
        folder = entry.is_dir()
        if ignored(path, patterns, folder=folder):
            continue
        if folder:
            real = os.path.realpath(entry.path)
            if real not in seen:
                yield from _walk(root, path + "/", patterns, seen | {real})
        elif entry.is_file():
            yield path, Path(entry.path), entry.stat().st_size
