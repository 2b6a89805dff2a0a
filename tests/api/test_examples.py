"""The programs in examples/ run as they stand, and a type checker accepts them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

#: What each prints, as a pattern.
PROGRAMS = {
    "one_platform": "".join(
        rf"(model {version}: (?:7|8|9)\d % of the answers are right\n)\{version}"
        for version in range(1, 6)
    ),
    "page_views": (
        r"batch: \d+\.\d\d s, most viewed en Page_0, en Page_1, en Page_2\n"
        r"first partial answer: \d+\.\d\d s, \d+\.\d % wrong\n"
        r"last of \d+: \d+\.\d\d s, equal to the batch\n"
    ),
    "parameter_server": r"160 updates; the worst weight is off by 0\.\d{4}\n",
    "pipeline": (
        r"50 documents; the commonest word half-way was '\w+'\n"
        r"in the end: \w+ \d+, \w+ \d+, \w+ \d+\n"
    ),
    "simulation": r"200 steps of 4 parts; all the heat: 1000\.000\nparts that are warm: 2\n",
}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=EXAMPLES,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_every_example_is_known_here() -> None:
    """Goal: none is forgotten. Method: the folder has the programs of the table and no other."""
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(PROGRAMS)


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_example_runs(program: str) -> None:
    """Goal: what a newcomer reads works. Method: run it; all that it prints."""
    done = run(f"{program}.py")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(PROGRAMS[program], done.stdout), done.stdout
    assert done.stderr == ""


def test_a_type_checker_accepts_the_examples(tmp_path: Path) -> None:
    """Goal: a user who runs ``mypy --strict`` needs no casts. Method: all examples at once."""
    programs = [f"{name}.py" for name in PROGRAMS]
    done = run("-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path}", *programs)
    assert done.returncode == 0, done.stdout + done.stderr
