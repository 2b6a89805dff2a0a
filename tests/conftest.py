"""What all tests share: a home of their own, markers by folder, and the search for leaks.

Every pytest process (each xdist worker is one) gets its own FREEHOLD_HOME in the temp folder
before Freehold is imported, so that a test can neither see nor touch a cluster that the user
runs.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

import leaks

# A shell that runs us in the background has SIGINT ignored, and what we start would inherit that:
# the programs in which tests press Ctrl-C must hear it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

TESTS = Path(__file__).parent

# The folders whose modules start processes, each searched for what it left behind.
LEAK_CHECKED = ("processes", "chaos", "shuffle")

# Folders that are markers too: `pytest -m "not chaos"` works without a line in any test.
MARKED = ("sim", "processes", "chaos")


def _own_home() -> Path:
    """Hide the user's settings, make a home and put it in the environment.

    The name is short: unix sockets live below it, and their paths must fit in 107 bytes.
    """
    for name in [name for name in os.environ if name.startswith("FREEHOLD_")]:
        del os.environ[name]
    home = Path(tempfile.mkdtemp(prefix="fh-"))
    os.environ["FREEHOLD_HOME"] = str(home)
    return home


HOME = _own_home()

# The same examples on every run, whatever the load of the machine: a failure is a fact, not an
# event.
hypothesis.settings.register_profile(
    "repeatable", derandomize=True, database=None, deadline=None, print_blob=True
)
hypothesis.settings.load_profile("repeatable")


def pytest_unconfigure() -> None:
    """Remove the home at the very end."""
    shutil.rmtree(HOME, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with the name of its folder, where that name is a marker."""
    for item in items:
        folder = _folder(item.path)
        if folder in MARKED:
            item.add_marker(folder)


@pytest.fixture(scope="module", autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each module that starts processes: nothing of it is left.

    It is set up before any other fixture of the module and so looks when all of them are torn down.
    """
    if _folder(request.path) not in LEAK_CHECKED:
        yield
        return
    before = leaks.look(HOME)
    yield
    found = leaks.left_behind(before, HOME)
    leaks.end_processes(before, HOME)
    if found:
        pytest.fail("left behind by this module:\n  " + "\n  ".join(found), pytrace=False)


def _folder(path: Path) -> str:
    """The folder directly under tests/ that ``path`` is in, or '' for any other file."""
    parts = path.relative_to(TESTS).parts if path.is_relative_to(TESTS) else ()
    return parts[0] if len(parts) > 1 else ""
