"""What the tests of the public API share: a session for a module, and a look at what is left.

Most modules use ``two_cpus``: one local cluster for all tests of the file, because a start costs a
third of a second. ``tables`` counts what this process and the node still hold; a test that drops
its references waits until they are back to what they were.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import freehold as fh
from freehold.runtime import current
from freehold.wire.messages import DescribeNode

#: Seconds that anything asynchronous may take on a loaded two-core machine.
PATIENCE = 20.0


@pytest.fixture(scope="module")
def two_cpus() -> Iterator[fh.Session]:
    """A local cluster of one node with two CPUs for the whole module."""
    session = fh.init(num_cpus=2, infeasible_grace=1, log_to_driver=False)
    yield session
    fh.shutdown()


@pytest.fixture
def disconnected() -> Iterator[None]:
    """No session before the test, and none after it."""
    fh.shutdown()
    yield
    fh.shutdown()


def until(true: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Wait until ``true()`` is, and return what it returned; the last value when time is over."""
    deadline = time.monotonic() + seconds
    while not (found := true()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


def tables() -> dict[str, int]:
    """What this process's owner and its node hold: references, tasks, pins, stored bytes."""
    process = current.process()
    assert process is not None
    with process.lock:
        process.settle()
        counts = process.role.counts()
        process.transport.flush()
    node = process.ask(process.node, DescribeNode)
    here = {f"owner {name}": count for name, count in counts.items() if name != "leases"}
    return {**here, **{f"node {name}": count for name, count in node.counts.items()}}


def returns_to(before: dict[str, int], names: str, seconds: float = PATIENCE) -> dict[str, int]:
    """Wait until tables whose name contains one of ``names`` hold no more than ``before``; what
    exceeds. (Less is no leak: what was freed late stood in ``before`` still.)
    """

    def exceeding() -> dict[str, int]:
        now = tables()
        return {
            name: count
            for name, count in now.items()
            if count > before.get(name, 0) and any(word in name for word in names.split())
        }

    until(lambda: not exceeding(), seconds)
    return exceeding()


def run_script(
    folder: Path, program: str, *args: str, seconds: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run a program of its own, as a user would: ``python prog.py`` in ``folder``."""
    path = folder / "prog.py"
    path.write_text(textwrap.dedent(program))
    return subprocess.run(
        [sys.executable, str(path), *args],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
