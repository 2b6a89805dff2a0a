"""What a type checker makes of programs: right calls pass with known types, wrong ones do not.

The programs are ``tests/typing/right.py`` and ``wrong.py``; mypy reads them as a user's would be
read, from outside and with ``--strict``.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parents[1] / "typing"
REPORT = re.compile(r"^(?P<path>[^:]+):(?P<line>\d+): error: .*\[(?P<code>[\w-]+)\]$")
MARK = re.compile(r"# expect: (?P<codes>[\w, -]+)$")


def check(program: str, cache: Path) -> dict[int, set[str]]:
    """What mypy reports: line to error codes. Fails if it reports on any other file."""
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary"]
    done = subprocess.run(
        [*command, f"--cache-dir={cache}", program],
        cwd=PROGRAMS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr, done.stderr
    found: dict[int, set[str]] = defaultdict(set)
    for line in done.stdout.splitlines():
        if ": note: " in line:
            continue
        report = REPORT.match(line)
        assert report, line
        assert report["path"] == program, line
        found[int(report["line"])].add(report["code"])
    return dict(found)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for both runs: the second takes a second."""
    return tmp_path_factory.mktemp("mypy")


def test_right_calls_are_accepted_with_their_types(cache: Path) -> None:
    """Goal: annotations of a function reach ``remote``, ``get`` and ``await``. Method: a file of
    ``assert_type``; no error."""
    assert check("right.py", cache) == {}


def test_wrong_calls_are_rejected(cache: Path) -> None:
    """Goal: a wrong call is found before it runs. Method: each marked line has exactly the marked
    error, no other line has one."""
    lines = (PROGRAMS / "wrong.py").read_text().splitlines()
    marks = {number: MARK.search(line) for number, line in enumerate(lines, 1)}
    expected = {number: set(m["codes"].split(", ")) for number, m in marks.items() if m}
    assert len(expected) > 15
    assert check("wrong.py", cache) == expected
