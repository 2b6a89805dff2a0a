"""Runtime environments: what tasks find around them, and how nodes come by it.

An environment is described once to each node. A request for a lease carries its key alone; a node
that does not know the key asks the owner that sent the request, fetches the packages from the
nodes that have them, part by part, makes what has to be made, and then grants. A package is an
archive of files under the digest of their contents; it lies at the node of the process that
packed it for as long as that process lives.
"""

from hashlib import blake2b
from typing import Final

import msgspec

from freehold.wire.records import Address, Record

#: Bytes of a package in one message: 1 MiB takes 1 ms on a 10 Gbit/s link, and other messages
#: between two nodes wait no longer than that.
PART_BYTES: Final = 1 << 20

#: Variables that a library or the interpreter reads once, when it is loaded: they need a process
#: that begins with them.
EARLY: Final = ("LD_", "PYTHON", "OMP_", "OPENBLAS_", "MKL_", "BLIS_", "NUMEXPR_", "VECLIB_")


class Package(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """Files under their digest. ``home``: the node at which they were put; ``name``: what the user
    calls them; ``size``: bytes of the archive; ``wheel``: it was built for installation.
    """

    digest: bytes
    name: str
    size: int
    home: Address
    wheel: bool = False


class Installation(Record):
    """What an installer, ``pip`` or ``uv``, has to put into a virtual environment."""

    installer: str
    requirements: list[str]
    options: list[str] = []
    check: bool = False  #: have the installer verify that the requirements agree


class Environment(Record):
    """The whole description. ``hook``: a pickled function that each worker runs first;
    ``preload``: modules that are imported before workers are forked, from ``python_path``.
    """

    env_vars: dict[str, str] = {}
    working_dir: Package | None = None
    py_modules: list[Package] = []
    installation: Installation | None = None
    hook: bytes = b""
    preload: list[str] = []
    python_path: list[str] = []
    setup_seconds: float = 600.0

    def packages(self) -> list[Package]:
        """All packages, those imported from first."""
        return [*([self.working_dir] if self.working_dir else []), *self.py_modules]

    def early(self) -> dict[str, str]:
        """The variables that have to be there before the process is."""
        return {k: v for k, v in self.env_vars.items() if k.startswith(EARLY)}


class Furnished(Record):
    """An environment as it is on one node. ``working_dir``: the folder to work in, "" for the
    job's; ``python_path``: what to import from first.
    """

    environment: Environment
    working_dir: str = ""
    python_path: list[str] = []


def key_of(described: Environment | Installation | list[object]) -> bytes:
    """The digest under which an environment, or what is made for several, is known."""
    return blake2b(msgspec.msgpack.encode(described), digest_size=16).digest()


class AddPackage(Record, tag=120):
    """Process to its node: keep this package for me, or (``size`` < 0) have you got it? Answer:
    PackagePlace.
    """

    request: int
    digest: bytes
    size: int = -1


class PackagePlace(Record, tag=121):
    """Node: ``present`` and kept for you, or not: write it to DIGEST.zip in ``folder``."""

    request: int
    folder: str
    present: bool


class PullPackage(Record, tag=122):
    """Node to node: the part of the package that begins at ``offset``, please."""

    digest: bytes
    offset: int


class PackagePart(Record, tag=123):
    """Node to node: at most ``PART_BYTES`` of the ``size`` that the archive has; -1: not here."""

    digest: bytes
    offset: int
    size: int
    data: bytes = b""


class DescribeEnvironment(Record, tag=124):
    """Node to owner: what is the environment that you ask workers for?"""

    key: bytes


class EnvironmentDescribed(Record, tag=125):
    """Owner to node: it is this. Unasked: I shall need it, prepare it and ``workers`` in it."""

    key: bytes
    environment: Environment
    workers: bool = False


class FindModule(Record, tag=126):
    """Worker to its job's driver: this module cannot be imported here. Have you got it?"""

    request: int
    name: str


class ModuleFound(Record, tag=127):
    """Driver: the module's source, or (no ``file``) why there is none."""

    request: int
    file: str = ""
    source: bytes = b""
    package: bool = False
    reason: str = ""
