"""Environments at a node: which are ready, being made, failed; and what they are made of.

A request for a lease names an environment by its key. It is granted when the environment is ready;
``ready`` is asked then, and begins what has to be done. The life of an environment: asked for
(its owner describes it) -> its pieces are made -> ready, or failed: then every request that waits
for it is refused, it is forgotten, and the next request tries anew.

A *piece* is what several environments may share: an unpacked package, a virtual environment, or a
zygote, which is made last because it begins with the others in place. A package is first pulled,
part by part, from the node where it was put, or else from that of the owner that asked. A piece
that nobody uses stays for the next, until the pieces together are too large or the zygotes too
many; then the ones longest out of use go. An *archive* is a package as it travels. It stays while
a process that put it here lives, or the piece made from it.

Nothing is made twice at once: who comes later waits for what is under way. The time that an
environment may take is its own (``setup_seconds``); what goes on when that is over may still end
well, for others.

It must not know how a piece is made, nor what a worker is: whether an environment is in use it asks
(``in_use``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from freehold.core.world import World
from freehold.ids import NodeId, ProcessId
from freehold.wire.environments import (
    PART_BYTES,
    AddPackage,
    DescribeEnvironment,
    Environment,
    EnvironmentDescribed,
    Furnished,
    Installation,
    Package,
    PackagePart,
    PackagePlace,
    PullPackage,
    key_of,
)
from freehold.wire.messages import Address

#: Bytes that unpacked packages and archives may take on a node's disk before idle ones go: Ray's
#: figure for each kind of its caches.
KEPT_BYTES: Final = 10 << 30
#: Zygotes beside the node's own that stay without use: each holds 30 MB, or what it has preloaded.
KEPT_ZYGOTES: Final = 8

PACKAGE, VENV, ZYGOTE = "package", "venv", "zygote"


class Maker(Protocol):
    """What has to be done. Each is answered later, never from within the call, by ``made`` or
    ``failed`` of the machine with the key given, or as it says.
    """

    def package_folder(self) -> str:
        """Where archives lie, as DIGEST.zip."""

    def unpack(self, key: bytes, package: Package) -> None:
        """Unpack an archive that is here."""

    def install(self, key: bytes, installation: Installation, seconds: float) -> None:
        """Make a virtual environment, within that time."""

    def start_zygote(self, key: bytes, furnished: Furnished, venv: str) -> None:
        """Have workers forked with this in place from now on."""

    def discard_piece(self, key: bytes, kind: str) -> None:
        """Remove what was made; a zygote ends."""

    def discard_archive(self, digest: bytes) -> None:
        """Remove an archive."""

    def write_part(self, part: PackagePart) -> None:
        """Add to an archive; answered by ``written``. The last part makes it whole."""

    def read_part(self, digest: bytes, offset: int, answer: Callable[[bytes], None]) -> None:
        """Read a part of an archive."""


class Piece:
    """What is made, and how far it is. ``path`` is None until it is there."""

    __slots__ = ("key", "kind", "needs", "path", "size", "used_at")

    def __init__(self, key: bytes, kind: str, now: float) -> None:
        self.key = key
        self.kind = kind
        self.path: str | None = None
        self.size = 0
        self.used_at = now


class Archive:
    """A package that is here, or (``received`` < ``size``) on its way. ``keepers``: the processes
    here that have put it.
    """

    __slots__ = ("keepers", "received", "size", "sources")

    def __init__(self, size: int) -> None:
        self.size = size
        self.received = 0
        self.keepers: set[ProcessId] = set()
        self.sources: list[Address] = []  # whom to ask, the first being asked now


class Made:
    """One environment at this node. ``environment`` is None until it has been described."""

    __slots__ = ("environment", "key", "owner", "pieces", "ready", "since", "workers", "zygote")

    def __init__(self, key: bytes, owner: Address, now: float) -> None:
        self.key = key
        self.owner = owner
        self.since = now
        self.environment: Environment | None = None
        self.pieces: dict[bytes, str] = {}  # key -> kind; the zygote apart, for it is the last
        self.zygote = b""  # the zygote of its workers, b"" for the node's own
        self.workers = False  # have some ready
        self.ready = False


class Environments:
    """The environments of one node."""

    def __init__(self, world: World, maker: Maker) -> None:
        self.world = world
        self.maker = maker
        self.table: dict[bytes, Made] = {}
        self.pieces: dict[bytes, Piece] = {}
        self.archives: dict[bytes, Archive] = {}
        self.node_of: Callable[[NodeId], Address | None]  # the role's: where a living node is
        self.in_use: Callable[[], set[bytes]]  # the role's: keys that workers or requests have
        self.changed: Callable[[Made], None]  # the role's: one is ready
        self.refused: Callable[[bytes, str], None]  # the role's: one cannot be made

    # ------------------------------------------------------------------ from request to ready

    def ready(self, key: bytes, owner: Address) -> bool:
        """Whether workers can be had in this environment. If not, it is seen to."""
        made = self.table.get(key)
        if made is None:
            self.table[key] = Made(key, owner, self.world.now())
            self.world.send(owner, DescribeEnvironment(key))
            return False
        if made.ready and any(piece not in self.pieces for piece in self.all_of(made)):
            made.ready = False  # its zygote has died, or a piece was evicted
            self.advance(made)
        return made.ready

    def on_described(self, message: EnvironmentDescribed, owner: Address) -> None:
        """The owner's answer, or a driver's announcement."""
        made = self.table.get(message.key)
        if made is None:
            made = self.table[message.key] = Made(message.key, owner, self.world.now())
        if made.environment is not None:
            return
        environment = made.environment = message.environment
        made.workers = message.workers
        for package in environment.packages():
            made.pieces[package.digest] = PACKAGE
        if environment.installation is not None:
            made.pieces[key_of(environment.installation)] = VENV
        made.zygote = zygote_of(environment)
        made.since = self.world.now()
        self.world.call_at(made.since + environment.setup_seconds, lambda: self.time_over(made))
        self.advance(made)

    def advance(self, made: Made) -> None:
        """Begin what is missing; when nothing is, the environment is ready."""
        environment = made.environment
        if environment is None:
            return
        for package in environment.packages():
            if package.digest not in self.pieces:
                self.begin_package(package, made.owner)
        if environment.installation is not None:
            key = key_of(environment.installation)
            if key not in self.pieces:
                self.pieces[key] = Piece(key, VENV, self.world.now())
                self.maker.install(key, environment.installation, environment.setup_seconds)
        if not self.are_there(made.pieces):
            return
        if made.zygote and made.zygote not in self.pieces:
            self.pieces[made.zygote] = Piece(made.zygote, ZYGOTE, self.world.now())
            venv = next((key for key, kind in made.pieces.items() if kind == VENV), b"")
            self.maker.start_zygote(
                made.zygote, self.furnished(made), (venv and self.pieces[venv].path) or ""
            )
        if not made.zygote or self.are_there([made.zygote]):
            made.ready = True
            self.changed(made)

    def are_there(self, keys: dict[bytes, str] | list[bytes]) -> bool:
        """Whether all these pieces are made."""
        return all(key in self.pieces and self.pieces[key].path is not None for key in keys)

    def all_of(self, made: Made) -> list[bytes]:
        """The keys of all pieces of an environment."""
        return [*made.pieces, *([made.zygote] if made.zygote else [])]

    def furnished(self, made: Made) -> Furnished:
        """What a worker in the environment is told."""
        environment = made.environment
        assert environment is not None
        paths = [self.pieces[package.digest].path or "" for package in environment.packages()]
        return Furnished(environment, paths[0] if environment.working_dir else "", paths)

    def binding(self, key: bytes) -> Furnished | None:
        """The same by key: None for that of a process without one."""
        made = self.table.get(key)
        if made is None or made.environment is None:
            return None
        now = self.world.now()
        for piece in self.all_of(made):
            if piece in self.pieces:
                self.pieces[piece].used_at = now
        return self.furnished(made)

    def zygote(self, key: bytes) -> bytes:
        """The key of the zygote of the environment's workers."""
        made = self.table.get(key)
        return made.zygote if made is not None else b""

    def why(self, key: bytes) -> str:
        """What a request waits for that names this environment."""
        made = self.table.get(key)
        if made is None or made.environment is None:
            return "waits for its owner to describe its runtime environment"
        doing = {PACKAGE: "its packages to arrive", VENV: "its requirements to be installed"}
        for piece, kind in made.pieces.items():
            if not self.are_there([piece]):
                seconds = self.world.now() - made.since
                return f"waits for {doing[kind]} (runtime environment, {seconds:.0f} s so far)"
        return "waits for the zygote of its runtime environment"

    # ------------------------------------------------------------------ ends of the making

    def made(self, key: bytes, path: str, size: int) -> None:
        """A piece is there."""
        piece = self.pieces.get(key)
        if piece is None:
            return
        piece.path, piece.size, piece.used_at = path, size, self.world.now()
        for made in self.users(key):
            if not made.ready:
                self.advance(made)
        self.evict()

    def failed(self, key: bytes, words: str) -> None:
        """A piece cannot be made, or a zygote is gone: so are the environments that wait for it."""
        piece = self.pieces.pop(key, None)
        if piece is None:
            return
        for made in self.users(key):
            if not made.ready:
                self.give_up(made, words)

    def users(self, key: bytes) -> list[Made]:
        """The environments that have this piece."""
        return [made for made in self.table.values() if key in made.pieces or key == made.zygote]

    def give_up(self, made: Made, words: str) -> None:
        """The environment cannot be had."""
        if self.table.get(made.key) is made:
            del self.table[made.key]
            self.refused(made.key, words)

    def time_over(self, made: Made) -> None:
        """It has had its time."""
        environment = made.environment
        if environment is not None and not made.ready:
            self.give_up(
                made,
                f"it was not ready after {environment.setup_seconds:g} s "
                f"(config['setup_timeout_seconds']): it still {self.why(made.key)}",
            )

    def process_lost(self, process: ProcessId) -> None:
        """A process is gone: what it kept nobody keeps, what it was to describe others must."""
        for digest, archive in list(self.archives.items()):
            if process in archive.keepers:
                archive.keepers.discard(process)
                self.drop_if_useless(digest)
        for made in list(self.table.values()):
            if made.environment is None and made.owner.process == process:
                del self.table[made.key]

    def node_lost(self, node: NodeId) -> None:
        """A node is gone: ask another for what it was sending."""
        for digest, archive in list(self.archives.items()):
            if archive.sources and archive.sources[0].node == node:
                self.ask_next(digest, archive, "the node that sent it has died")

    # ------------------------------------------------------------------ packages

    def on_add(self, message: AddPackage, peer: Address) -> None:
        """A process here has a package, or wants to know whether we have."""
        archive = self.archives.get(message.digest)
        if archive is None and message.size >= 0:
            archive = self.archives[message.digest] = Archive(message.size)
            archive.received = message.size
        present = archive is not None and archive.received == archive.size
        if archive is not None and present:
            archive.keepers.add(peer.process)
        folder = self.maker.package_folder()
        self.world.send(peer, PackagePlace(message.request, folder, present))

    def begin_package(self, package: Package, owner: Address) -> None:
        """Have a package unpacked, and before that brought here."""
        self.pieces[package.digest] = Piece(package.digest, PACKAGE, self.world.now())
        archive = self.archives.get(package.digest)
        if archive is None:
            archive = self.archives[package.digest] = Archive(package.size)
            here = self.world.address.node
            for node in dict.fromkeys((package.home.node, owner.node)):
                source = self.node_of(node)
                if source is not None and node != here:
                    archive.sources.append(source)
            archive.sources.insert(0, self.world.address)  # ask_next goes on from there
            self.world.call_at(self.world.now(), lambda: self.ask_next(package.digest, archive, ""))
        elif archive.received == archive.size:
            self.maker.unpack(package.digest, package)

    def ask_next(self, digest: bytes, archive: Archive, why: str) -> None:
        """Begin anew with the next node that may have it."""
        if self.archives.get(digest) is not archive or not archive.sources:
            return
        archive.sources.pop(0)
        archive.received = 0
        if archive.sources:
            self.world.send(archive.sources[0], PullPackage(digest, 0))
            return
        del self.archives[digest]
        name = self.name_of(digest)
        self.failed(
            digest,
            f"the package of {name} could not be brought here: "
            f"{why or 'the node where it was put is gone'}",
        )

    def name_of(self, digest: bytes) -> str:
        """What the user calls a package."""
        package = self.package(digest)
        return package.name if package is not None else digest.hex()

    def package(self, digest: bytes) -> Package | None:
        """A package by its digest, as an environment describes it."""
        for made in self.table.values():
            for package in made.environment.packages() if made.environment else ():
                if package.digest == digest:
                    return package
        return None

    def on_pull(self, message: PullPackage, peer: Address) -> None:
        """Another node wants a part."""
        archive = self.archives.get(message.digest)
        if archive is None or archive.received != archive.size:
            self.world.send(peer, PackagePart(message.digest, message.offset, -1))
            return
        size = archive.size

        def answer(data: bytes) -> None:
            whole = min(PART_BYTES, size - message.offset) == len(data)
            part = PackagePart(message.digest, message.offset, size if whole else -1, data)
            self.world.send(peer, part)

        self.maker.read_part(message.digest, message.offset, answer)

    def on_part(self, message: PackagePart, peer: Address) -> None:
        """A part has come."""
        archive = self.archives.get(message.digest)
        if archive is None or not archive.sources or archive.sources[0] != peer:
            return
        if message.size < 0:
            self.ask_next(message.digest, archive, "the node where it was put has dropped it")
        elif message.offset == archive.received:
            archive.size = message.size
            self.maker.write_part(message)

    def written(self, part: PackagePart, error: str) -> None:
        """A part has been written: ask for the next, or go on with the whole."""
        archive = self.archives.get(part.digest)
        if archive is None or not archive.sources or part.offset != archive.received:
            return
        if error:
            archive.sources = archive.sources[:1]  # (another's bytes would not fit here either)
            self.ask_next(part.digest, archive, error)
            return
        archive.received += len(part.data)
        if archive.received < archive.size:
            self.world.send(archive.sources[0], PullPackage(part.digest, archive.received))
            return
        archive.sources.clear()
        package = self.package(part.digest)
        if package is not None:
            self.maker.unpack(part.digest, package)
        else:
            self.pieces.pop(part.digest, None)
            self.drop_if_useless(part.digest)

    # ------------------------------------------------------------------ eviction

    def evict(self) -> None:
        """Let go of what has been idle longest, while there is too much."""
        used = self.in_use()
        needed = {piece for key in used if key in self.table for piece in self.pieces_of(key)}
        idle = sorted(
            (p for p in self.pieces.values() if p.path is not None and p.key not in needed),
            key=lambda piece: piece.used_at,
        )
        size = sum(piece.size for piece in self.pieces.values() if piece.kind == PACKAGE)
        size += sum(archive.size for archive in self.archives.values())
        zygotes = sum(1 for piece in idle if piece.kind == ZYGOTE)
        for piece in idle:
            if piece.kind == ZYGOTE and zygotes > KEPT_ZYGOTES:
                zygotes -= 1
                self.discard(piece)
            elif piece.kind == PACKAGE and size > KEPT_BYTES:
                size -= piece.size
                self.discard(piece)

    def pieces_of(self, key: bytes) -> list[bytes]:
        """The pieces of an environment; with a zygote goes all that it was begun with."""
        return self.all_of(self.table[key])

    def discard(self, piece: Piece) -> None:
        """It goes, and so does the knowledge of the environments that have it."""
        for made in self.users(piece.key):
            del self.table[made.key]
        del self.pieces[piece.key]
        self.maker.discard_piece(piece.key, piece.kind)
        self.drop_if_useless(piece.key)

    def drop_if_useless(self, digest: bytes) -> None:
        """An archive that nobody keeps and nothing was made of goes."""
        archive = self.archives.get(digest)
        if archive is not None and not archive.keepers and digest not in self.pieces:
            del self.archives[digest]
            self.maker.discard_archive(digest)

    def counts(self) -> dict[str, int]:
        """Sizes of the tables."""
        return {
            "environments": len(self.table),
            "pieces": len(self.pieces),
            "archives": len(self.archives),
        }


def zygote_of(environment: Environment) -> bytes:
    """The key of the zygote that an environment's workers need: b"" where a worker of the node's
    own will do. What it has preloaded may come from packages, so that these are part of it then.
    """
    early = sorted(environment.early().items())
    if not (environment.installation or early or environment.preload):
        return b""
    parts: list[object] = [environment.installation, early, environment.preload]
    if environment.preload:
        parts += [environment.python_path, [package.digest for package in environment.packages()]]
    return key_of(parts)
