"""The programs in the concept pages run, and print what the pages say they print."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import freehold as fh

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PRINTS = re.compile(r"^ *print\(.*\) +# (.*)$", re.MULTILINE)
PRINT = re.compile(r"^ *print\(", re.MULTILINE)


@pytest.mark.parametrize(
    "page",
    ["tasks", "objects", "actors", "environments", "cancellation", "streams", "async", "util"],
)
def test_a_page_of_programs_runs(page: str, tmp_path: Path) -> None:
    """Goal: what a newcomer copies works. Method: all Python blocks of a page as one program; each
    line that prints says in a comment what, and the output is just that."""
    blocks = BLOCK.findall((DOCS / f"{page}.md").read_text())
    program = "\n".join(blocks)
    expected = PRINTS.findall(program)
    assert len(blocks) > 2
    assert len(expected) == len(PRINT.findall(program))
    path = tmp_path / f"{page}.py"
    path.write_text(program)
    done = subprocess.run(
        [sys.executable, str(path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.splitlines() == expected, done.stderr
    assert done.returncode == 0, done.stderr


def test_names_in_the_table_for_ray_users_exist() -> None:
    """Goal: the page does not promise what is not there. Method: each ``fh.name`` in it is a name
    of the package, each ``fh.errors.name`` and each name in the column of errors one of ours."""
    text = (DOCS / "ray.md").read_text()
    names = set(re.findall(r"\bfh\.(?!errors\b)(\w+)", text))
    section = text.partition("## Exceptions")[2].partition("\n## ")[0]
    ours = " ".join(line.split("|")[2] for line in section.splitlines() if line.count("|") == 3)
    errors = set(re.findall(r"`(\w+Error)`", ours) + re.findall(r"\bfh\.errors\.(\w+)", text))
    assert len(names) > 12
    assert len(errors) > 15
    assert [name for name in sorted(names) if not hasattr(fh, name)] == []
    assert [name for name in sorted(errors) if not hasattr(fh.errors, name)] == []
