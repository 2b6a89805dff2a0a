"""What type checkers make of programs: right calls pass with known types, wrong ones do not.

The programs are ``tests/typing/right.py`` and ``wrong.py``, and those in ``examples/``. mypy and
pyright read them as a user's would be read, from outside; mypy with ``--strict``.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / "tests" / "typing"
EXAMPLES = sorted(ROOT.glob("examples/*.py"))
REPORT = re.compile(r"^(?P<path>[^:]+):(?P<line>\d+): error: .*\[(?P<code>[\w-]+)\]$")
MARK = re.compile(r"# expect: (?P<codes>[\w, -]+)$")
#: What pyright may call what mypy calls so. (It reports an argument that fits no overload twice.)
PYRIGHT = {
    "arg-type": {"reportArgumentType", "reportCallIssue", "reportAssignmentType"},
    "assignment": {"reportAssignmentType"},
    "call-arg": {"reportCallIssue"},
    "call-overload": {"reportArgumentType", "reportCallIssue"},
    "list-item": {"reportAssignmentType"},
}

Reports = dict[int, set[str]]  # line -> codes


def mypy(program: Path, cache: Path) -> Reports:
    """What mypy reports. Fails if it reports on any other file."""
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary"]
    done = subprocess.run(
        [*command, f"--cache-dir={cache}", program.name],
        cwd=program.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr, done.stderr
    found: Reports = defaultdict(set)
    for line in done.stdout.splitlines():
        if ": note: " in line:
            continue
        report = REPORT.match(line)
        assert report, line
        assert report["path"] == program.name, line
        found[int(report["line"])].add(report["code"])
    return dict(found)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all runs: each after the first takes a second."""
    return tmp_path_factory.mktemp("mypy")


@pytest.fixture(scope="module")
def pyright(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reports]:
    """What pyright reports, by file: one run, because it keeps no cache."""
    programs = [*PROGRAMS.glob("*.py"), *EXAMPLES]
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run(
        [*command, *map(str, programs)],
        cwd=tmp_path_factory.mktemp("pyright"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["summary"]["filesAnalyzed"] == len(programs)
    found: dict[str, Reports] = defaultdict(lambda: defaultdict(set))
    for report in result["generalDiagnostics"]:
        line = report["range"]["start"]["line"] + 1
        found[Path(report["file"]).name][line].add(report.get("rule", report["message"]))
    return found


def expected() -> Reports:
    """The marks of the wrong program."""
    lines = (PROGRAMS / "wrong.py").read_text().splitlines()
    marks = {number: MARK.search(line) for number, line in enumerate(lines, 1)}
    return {number: set(m["codes"].split(", ")) for number, m in marks.items() if m}


def test_right_calls_are_accepted_with_their_types(cache: Path) -> None:
    """Goal: annotations of a function reach ``remote``, ``get`` and ``await``. Method: a file of
    ``assert_type``; no error."""
    assert mypy(PROGRAMS / "right.py", cache) == {}


def test_wrong_calls_are_rejected(cache: Path) -> None:
    """Goal: a wrong call is found before it runs. Method: each marked line has exactly the marked
    error, no other line has one."""
    assert len(expected()) > 45
    assert mypy(PROGRAMS / "wrong.py", cache) == expected()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_accepted(example: Path, cache: Path) -> None:
    """Goal: what a stranger copies passes the strictest checks."""
    assert mypy(example, cache) == {}


def test_pyright_agrees(pyright: dict[str, Reports]) -> None:
    """Goal: the other checker knows the same. Method: no error in the right program and the
    examples; in the wrong one each marked line has an error of the marked kind, no other line."""
    wrong = pyright.pop("wrong.py")
    assert pyright == {}
    assert wrong.keys() == expected().keys()
    for line, codes in expected().items():
        allowed = set().union(*(PYRIGHT[code] for code in codes))
        assert wrong[line] <= allowed, line
