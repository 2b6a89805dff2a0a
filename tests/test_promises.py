"""PROMISES.md says what is there: every check, planted bug and test that it names exists, and none
is left out."""

from __future__ import annotations

import ast
import functools
import re
from dataclasses import dataclass
from pathlib import Path

from freehold.sim.mutants import MUTANTS

ROOT = Path(__file__).resolve().parent.parent
SIM = ROOT / "src" / "freehold" / "sim"
HARNESS = "harness"  # what the simulator says of itself
COLUMNS = ["name", "promise", "checked by", "planted bugs", "tests"]


@dataclass(frozen=True)
class Row:
    """One promise."""

    name: str
    promise: str
    checks: list[str]
    bugs: list[str]
    tests: list[str]


@functools.cache
def rows() -> list[Row]:
    """The tables of PROMISES.md."""
    found = []
    for line in (ROOT / "PROMISES.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|") or cells == COLUMNS or set(line) <= set("|-"):
            continue
        assert len(cells) == len(COLUMNS), line
        name, promise, checks, bugs, tests = cells
        planted = [] if bugs == "none" else bugs.split("; ")
        found.append(Row(name, promise, ticked(checks), planted, ticked(tests)))
    return found


def ticked(cell: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`]+)`", cell)


def functions(path: Path) -> set[str]:
    """The names of all functions and methods of a file."""
    tree = ast.parse(path.read_text())
    return {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)
    }  # (none is async)


def raised() -> dict[str, set[str]]:
    """The names of all violations that the simulator can raise, and where: ``sim/file.py``."""
    found: dict[str, set[str]] = {}
    for path in SIM.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Violation":
                name = node.args[0]
                if isinstance(name, ast.Constant):
                    found.setdefault(name.value, set()).add(f"sim/{path.name}")
                else:  # step_until's, which is told the name of what it waits for
                    found.setdefault("", set()).add(f"sim/{path.name}")
    return found


def test_each_row_names_what_exists():
    """Goal: the page does not promise checks that are not there. Method: every function, planted
    bug and test of every row is looked up."""
    bugs = {mutant.name for mutant in MUTANTS}
    for row in rows():
        assert row.promise.endswith("."), row.name
        assert row.checks, f"{row.name}: nothing checks it"
        assert row.tests, f"{row.name}: no test is named"
        for check in row.checks:
            file, _, function = check.partition(":")
            path = ROOT / "src" / "freehold" / file
            assert function in functions(path), f"{row.name}: no {check}"
        for bug in row.bugs:
            assert bug in bugs, f"{row.name}: no planted bug {bug!r}"
        for test in row.tests:
            file, _, function = test.partition("::")
            path = ROOT / file
            assert path.exists(), f"{row.name}: no {file}"
            assert not function or function in functions(path), f"{row.name}: no {test}"


def test_no_check_is_left_out():
    """Goal: whatever can fail a run is a promise on the page. Method: the names of all violations
    in the simulator's sources, against the names of the rows, both ways."""
    found = raised()
    waited_for = {"every get ends", "comes to rest"}
    assert found.pop("") == {"sim/cluster.py"}
    del found[HARNESS]
    assert set(found) | waited_for == {row.name for row in rows()}
    for row in rows():
        where = {check.partition(":")[0] for check in row.checks}
        assert where >= found.get(row.name, set()), f"{row.name}: also raised in {found[row.name]}"


def test_no_planted_bug_is_left_out():
    """Goal: every planted bug breaks a promise of the page. Method: the table of the hunt, against
    the rows."""
    named = {bug for row in rows() for bug in row.bugs}
    assert {mutant.name for mutant in MUTANTS} == named


def test_names_are_told_once():
    """Goal: a name that is printed leads to one row. Method: count."""
    names = [row.name for row in rows()]
    assert len(names) == len(set(names))
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
