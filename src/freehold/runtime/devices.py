"""Devices: what a worker may use of the machine's GPUs and cores, told by its environment.

A lease names its GPUs by their numbers on the node. Libraries learn of them from variables
(``VISIBLE``), once, when they first look; so these are set before user code runs, and a worker
that has served a lease with some GPUs is never given other ones (``core.workers``). If the node was
itself started with a restricted view, number n is the n-th of what it sees. A lease without GPUs,
on a node that has some, sees none: what it could see others have been promised. On a node without
GPUs the variables are left alone.

How many threads a library for arithmetic starts it reads from variables too (``THREADS``), when it
is loaded. numpy is loaded in the zygote, before any lease is known: there the answer is one thread,
and OpenBLAS, which numpy comes with, is told anew by a call when a lease has more CPUs. Libraries
that user code loads find the variables. Whoever has set ``OMP_NUM_THREADS`` or one of the others in
the environment of the node, or sets it later, has decided for that one: it is not touched.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from freehold.resources import CPU, GPU, UNIT, Resources

#: NVIDIA's, and AMD's of the level at which programs are written. (ROCR_VISIBLE_DEVICES is applied
#: before that one, which would then number what is left.)
VISIBLE: Final = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
THREADS: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
#: OpenBLAS under the names that its builds give the same function.
SETTERS: Final = (
    "scipy_openblas_set_num_threads64_",
    "scipy_openblas_set_num_threads",
    "openblas_set_num_threads64_",
    "openblas_set_num_threads",
)

#: What we have set, so that what others set is told apart.
_ours: dict[str, str] = {}


def one_thread() -> None:
    """In a zygote, before anything is imported there: its workers begin with one thread each."""
    for name in THREADS:
        if name not in os.environ:
            _set(name, "1")


def _set(name: str, value: str) -> None:
    os.environ[name] = _ours[name] = value


class Devices:
    """What this worker has been given."""

    def __init__(self) -> None:
        self.seen = {name: os.environ[name] for name in VISIBLE if name in os.environ}
        self.gpus: Sequence[int] | None = None
        self.threads = 1

    def apply(self, lease: Resources, gpus: Sequence[int], node: Resources) -> None:
        """A lease begins that holds ``gpus``, on a node that offers ``node``."""
        if GPU in node and gpus != self.gpus:
            self.gpus = gpus
            for name in VISIBLE:
                os.environ[name] = ",".join(self.named(gpus, name))
        threads = max(1, lease.get(CPU, 0) // UNIT)
        if threads != self.threads:
            self.threads = threads
            self.use_threads(threads)

    def named(self, gpus: Sequence[int], variable: str = VISIBLE[0]) -> list[str]:
        """GPUs as ``variable`` names them."""
        seen = [name.strip() for name in self.seen.get(variable, "").split(",") if name.strip()]
        return [seen[number] if number < len(seen) else str(number) for number in gpus]

    def use_threads(self, count: int) -> None:
        """Have libraries for arithmetic use so many threads."""
        for name, value in list(_ours.items()):
            if os.environ.get(name) == value:
                _set(name, str(count))
        if os.environ.get("OPENBLAS_NUM_THREADS") == _ours.get("OPENBLAS_NUM_THREADS"):
            for setter in _openblas():
                setter(count)


def _openblas() -> list[ctypes._NamedFuncPointer]:
    """The setter of each OpenBLAS that is loaded in this process."""
    setters = []
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
        paths = {line.split(maxsplit=5)[-1] for line in lines if "openblas" in line}
        for path in sorted(paths):
            library = ctypes.CDLL(path)
            named = (getattr(library, name, None) for name in SETTERS)
            setters += [setter for setter in named if setter is not None][:1]
    return setters
