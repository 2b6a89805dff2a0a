"""The one process core of this process: set by ``init`` or by a worker's start, asked for by
everything in ``api``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from freehold.runtime.context import ObjectRef
    from freehold.runtime.process import Process

_process: Process | None = None


def process() -> Process | None:
    """The core, or None before ``init``."""
    return _process


def forget_after_fork() -> None:
    """In a forked child: the sockets belong to the parent, the threads are gone. Start anew."""
    global _process
    if _process is not None:
        _process.abandon()
        _process = None


os.register_at_fork(after_in_child=forget_after_fork)


def set_process(process: Process | None) -> None:
    """Set or clear the core."""
    global _process
    _process = process


def ref_type() -> type[ObjectRef]:
    """The reference type that user code sees. It lives in ``api``, above the runtime, hence found
    late.
    """
    from importlib import import_module

    return import_module("freehold.api.refs").ObjectRef  # type: ignore[no-any-return]
