"""What a start brings along: modules, workers, and memory that is there once for all.

The figures themselves are measured by `python -m bench startup footprint`; here are what they rest
on, which a single import in the wrong place would undo.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import freehold as fh
from processes.programs import named, until

#: Modules of 3 to 100 ms each that a program has no need of before it uses what needs them.
LATE = "asyncio cloudpickle importlib.abc numpy shutil sqlite3 ssl subprocess tempfile".split()


def in_fresh_interpreter(code: str) -> str:
    """What a program prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_import_brings_nothing_slow() -> None:
    """Goal: `import freehold` loads no module that only some programs need. Method: ask a fresh
    interpreter which of them are there."""
    code = f"import sys, freehold; print([name for name in {LATE} if name in sys.modules])"
    assert in_fresh_interpreter(code) == "[]"


def test_util_is_there_without_its_own_import() -> None:
    """Goal: `freehold.util` works as an attribute, and loads when it is used. Method: look before
    and after in a fresh interpreter; a name that does not exist is an AttributeError still."""
    code = (
        "import sys, freehold; before = 'freehold.util' in sys.modules; "
        "print(before, freehold.util.Queue.__name__, hasattr(freehold, 'utils'))"
    )
    assert in_fresh_interpreter(code) == "False Queue False"


def test_all_workers_that_are_started_ahead_come_up(home: Path) -> None:
    """Goal: a worker that is forked at once finds what it needs of its node. Method: a node of four
    CPUs starts four workers, once; all are there."""
    fh.init(num_cpus=4)
    try:
        until(lambda: fh.nodes()[0]["Workers"] == 4)
        assert len(named(home, "freehold-worker")) == 4
    finally:
        fh.shutdown()


def private_and_resident(pid: int) -> tuple[int, int]:
    """KiB that a process has for itself, and all that it has in memory."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    kib = {name: int(value) for name, value in re.findall(r"^(\w+): +(\d+) kB", text, re.MULTILINE)}
    return kib["Private_Clean"] + kib["Private_Dirty"], kib["Rss"]


@pytest.mark.parametrize("which", ["freehold-head", "freehold-worker"])
def test_what_was_imported_is_shared(home: Path, which: str) -> None:
    """Goal: what the daemons have imported lies in memory once: no collection of the garbage
    collector writes to it after a fork. Method: compare what a process has for itself with all
    that it has; half of it would be a collection's doing (a fifth is usual)."""
    fh.init(num_cpus=1)
    try:
        until(lambda: bool(named(home, which)))
        private, resident = private_and_resident(named(home, which)[0])
        assert private < 0.4 * resident
    finally:
        fh.shutdown()
