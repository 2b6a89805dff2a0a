"""Modules of the driver's own that a worker cannot import: it asks the driver for their source.

A program imports ``helpers`` from the file beside it, and its tasks use it. A worker looks where
the driver looks (``AssignJob``), which is enough where both see the same files. Where they do
not, the last finder on ``sys.meta_path`` asks the driver, and the driver answers with the one
file that was asked for. So only what is used travels, also what is imported late; nothing has to
be declared, and nothing can be out of date: a worker belongs to one job, and the driver's files
are the job's.

Pickling such modules by value was considered and is worse: every pickle would bring a class of
its own, of which no other value is an instance, and the state of the module would be as many
times there. A package of the program's folder was considered too: nobody knows how much lies in
it.

What is installed (site-packages) is not sent: a library in Python alone may need its other half,
and the same version on each machine is a matter of installation. The answer then says which
version the driver has, for the error that follows. A module that cannot be found costs one
question to the driver, 0.3 ms on one machine; the answer is remembered.

The driver answers under its lock, in the turn in which it reads the question: it looks at files,
and runs no finder of the user's. A worker must not ask while it holds its own lock, and does
not.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import site
import sys
import sysconfig
import threading
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Final

from freehold import errors
from freehold.runtime.process import Process
from freehold.wire.environments import FindModule, ModuleFound
from freehold.wire.messages import Address

#: Seconds to wait for a driver's answer: it may hold the interpreter in native code for a while.
PATIENCE: Final = 10.0
#: The largest source file that is sent (bytes): it travels in one message.
SOURCE_BYTES: Final = 16 << 20

# ------------------------------------------------------------------------------- in the worker


class DriverFinder:
    """Finds what only the driver has. Comes last. (The base class of finders is in a module that
    takes 9 ms to import, and adds nothing.)
    """

    def __init__(self, process: Process, driver: Address) -> None:
        self.process = process
        self.driver = driver
        self.pid = os.getpid()
        self.reasons: dict[str, str] = {}
        self.asking = threading.local()

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        """What importing asks."""
        if fullname in self.reasons or not self.may_ask():
            return None
        self.asking.now = True  # (what answering imports is ours, and here)
        try:
            found = self.process.ask(
                self.driver, lambda request: FindModule(request, fullname), PATIENCE
            )
        except errors.ClusterUnreachableError:
            self.reasons[fullname] = "the driver, asked for it, has not answered"
            return None
        finally:
            self.asking.now = False
        assert isinstance(found, ModuleFound)
        if not found.file:
            self.reasons[fullname] = found.reason
            return None
        loader = DriverLoader(found)
        return importlib.util.spec_from_loader(
            fullname,
            loader,  # type: ignore[arg-type]  # it has no load_module, which is asked for no more
            is_package=found.package,
        )

    def may_ask(self) -> bool:
        """Whether this thread can wait for an answer: not one that is in a turn of ours, which
        would have to read it, nor in a child that user code has forked, which has no connection.
        """
        if self.pid != os.getpid() or getattr(self.asking, "now", False):
            return False
        return not self.process.lock._is_owned()  # type: ignore[attr-defined]  # RLocks have it

    def why(self, name: str) -> str:
        """Why a module could not be imported here, and what to do: for the error."""
        path = "\n  ".join(sys.path)
        reason = self.reasons.get(name, "")
        return (
            f"Module {name!r} was looked for on this worker's sys.path:\n  {path}\n"
            + (f"and at the driver: {reason}.\n" if reason else "")
            + "To have it there: runtime_env={'pip': [...]} (or 'uv') for what is installed, "
            "runtime_env={'py_modules': [...]} or {'working_dir': ...} for files of your own"
        )


class DriverLoader:
    """Runs a source that the driver has sent; tracebacks show its lines."""

    def __init__(self, found: ModuleFound) -> None:
        self.found = found

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """A module like any other."""

    def get_filename(self, fullname: str) -> str:
        """The file's name where the driver is."""
        return self.found.file

    def get_source(self, fullname: str) -> str:
        """The source."""
        return importlib.util.decode_source(self.found.source)

    def is_package(self, fullname: str) -> bool:
        """Whether it is a package."""
        return self.found.package

    def get_code(self, fullname: str) -> CodeType:
        """The source, compiled."""
        code: CodeType = compile(self.found.source, self.found.file, "exec", dont_inherit=True)
        return code

    def exec_module(self, module: ModuleType) -> None:
        """Run it as its own file would be run."""
        module.__file__ = self.found.file
        if self.found.package:
            module.__path__ = []  # (what is inside, the driver is asked for too)
        exec(self.get_code(module.__name__), module.__dict__)


def explain(error: BaseException, finder: DriverFinder | None) -> None:
    """Add to an error that a module is missing what was tried, and what helps."""
    if isinstance(error, ModuleNotFoundError) and error.name and finder is not None:
        note = finder.why(error.name)
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)


# ------------------------------------------------------------------------------- in the driver


def answer(question: FindModule) -> ModuleFound:
    """The source of a module of the driver's own, or why there is none."""
    name = question.name
    spec = _spec(name)
    if spec is None:
        return ModuleFound(question.request, reason="it cannot be imported there either")
    if spec.origin is None or not spec.has_location:
        return ModuleFound(question.request, reason="it has no source file there")
    file = Path(spec.origin)
    if _installed(file):
        return ModuleFound(question.request, reason=_version(name, file))
    if file.suffix != ".py":
        return ModuleFound(
            question.request, reason=f"{file} is no source, and cannot run elsewhere as it is"
        )
    try:
        source = file.read_bytes()
    except OSError as error:
        return ModuleFound(question.request, reason=f"{file} cannot be read there: {error}")
    if len(source) > SOURCE_BYTES:
        return ModuleFound(question.request, reason=f"{file} has {len(source):,} bytes")
    package = spec.submodule_search_locations is not None
    return ModuleFound(question.request, str(file), source, package)


def _spec(name: str) -> importlib.machinery.ModuleSpec | None:
    """Where a module is, found without running any of it, nor a finder of somebody else's."""
    module = sys.modules.get(name)
    known = getattr(module, "__spec__", None)
    if isinstance(known, importlib.machinery.ModuleSpec):
        return known
    parent = name.rpartition(".")[0]
    path = None
    if parent:
        above = _spec(parent)
        if above is None or above.submodule_search_locations is None:
            return None
        path = list(above.submodule_search_locations)
    return importlib.machinery.PathFinder.find_spec(name, path)


def _installed(file: Path) -> bool:
    """Whether a file belongs to what is installed, the interpreter's own library included."""
    folders = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]
    folders += [*site.getsitepackages(), site.getusersitepackages()]
    return any(file.is_relative_to(folder) for folder in folders)


def _version(name: str, file: Path) -> str:
    """That it is installed there, and in which version."""
    from importlib import metadata  # (it brings the whole of email, 1 MiB)

    top = name.partition(".")[0]
    for distribution in metadata.packages_distributions().get(top, [])[:1]:
        version = metadata.version(distribution)
        return f"it is installed there ({distribution}=={version}), which is not sent"
    return f"it is installed there ({file}), which is not sent"
