"""``freehold explain`` as a user types it, with real daemons and programs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from freehold.cli.main import main
from processes.programs import Program, left_after, until

PROGRAM = """
@fh.remote
def train():
    return 1

@fh.remote
def prepare():
    return fh.get(train.options(num_gpus=1).remote())

@fh.remote(num_returns=2)
def nap():
    time.sleep(60)

if __name__ == "__main__":
    fh.init(address=sys.argv[1])
    refs = [prepare.remote(), *nap.remote(), fh.put(1)]
    say(*(ref.hex() for ref in refs))
    time.sleep(60)
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home folder for this test alone; whatever it started is stopped."""
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("FREEHOLD_HOME", str(folder))
    monkeypatch.delenv("FREEHOLD_TOKEN", raising=False)
    yield folder
    monkeypatch.setenv("FREEHOLD_HOME", str(folder))
    freehold("stop", "--all")
    assert left_after(folder) == []


def freehold(*arguments: object) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def start_head(*arguments: object) -> str:
    """Start a cluster of three CPUs. Returns the head's address."""
    started = freehold("start", "--head", "--num-cpus", 3, *arguments)
    assert started.exit_code == 0, started.output
    match = re.search(r"Started a cluster at (\S+):", started.output)
    assert match is not None
    return match[1].rstrip(":")


def test_whatever_has_the_id(home: Path) -> None:
    """Goal: an id is found from outside by its first digits, as messages print it, in full, in
    brackets, and for any result of a task; the text goes on to what the task waits for in another
    process. Method: a program on a second node, whose task is blocked in get of one that needs
    what no node has."""
    address = start_head()
    freehold("start", "--address", address, "--num-cpus", 1)
    with Program(home, PROGRAM, address) as program:
        blocked, nap, nap_too, value = program.line().split()

        def text(name: str) -> str:
            shown = freehold("explain", name)
            return shown.output if shown.exit_code == 0 else ""

        until(lambda: "waits in get()" in text(blocked) and "GPU 1 is needed" in text(blocked))
        lines = text(blocked).splitlines()
        assert lines[0] == f"{blocked}, of driver {program.pid}:"
        assert re.match(
            rf"  prepare\(\) \[{blocked[:8]}\] was sent to worker \d+ on node", lines[1]
        )
        assert re.match(r"    train\(\) \[\w{8}\], submitted by worker \d+, is queued at", lines[2])
        inner = re.search(r"train\(\) (\[\w{8}\])", lines[2])
        assert inner is not None
        assert "GPU 1 is needed" in text(inner[1]).splitlines()[1]
        for name in (blocked[:8], blocked[:32], blocked.upper(), f"[{blocked[:8]}]"):
            assert text(name).splitlines()[1].startswith(f"  prepare() [{blocked[:8]}]"), name
        until(lambda: "in nap()" in text(nap))
        for name in (nap, nap_too, nap[:32], f"ObjectRef({nap})"):
            assert f"nap() [{nap[:8]}] was sent to worker" in text(name)
        assert "is done" in text(value)
        assert freehold("explain", value[:8], "--address", address).output == text(value)


MANY = """
if __name__ == "__main__":
    fh.init(address=sys.argv[1])
    refs = [fh.put(number) for number in range(65537)]
    say(refs[0].hex(), refs[-1].hex())
    time.sleep(60)
"""


def test_an_id_that_several_have(home: Path) -> None:
    """Goal: where the digits are not enough, all that begin with them are listed in full. Method:
    a program whose first value and the 65,537th have the first four digits in common."""
    address = start_head()
    with Program(home, MANY, address) as program:
        first, last = program.line().split()
        assert first[:4] == last[:4]
        shown = freehold("explain", first[:4])
        assert shown.exit_code == 1
        head, *rows = shown.output.splitlines()
        assert head == f"Error: 2 ids begin with {first[:4]}: give more digits"
        assert sorted(row.split(",")[0].strip() for row in rows) == sorted([first, last])
        assert shown.output.count(f", of driver {program.pid}") == 2
        assert freehold("explain", last).output.startswith(f"{last}, of driver {program.pid}:")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("yesterday", "'yesterday' is not an id: ids are hex digits, as in f() [0a1b2c3d]"),
        ("", "'' is not an id"),
        ("[]", "'[]' is not an id"),
        ("01f", "'01f' has 3 digits: give 4 to 40"),
        ("0" * 41, "has 41 digits: give 4 to 40"),
    ],
)
def test_what_is_no_id(home: Path, name: str, words: str) -> None:
    """Goal: a slip is told as such, before any cluster is asked."""
    shown = freehold("explain", name)
    assert (shown.exit_code, words in shown.output) == (1, True)


def test_where_nobody_knows_it(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: no cluster, no such head, no token, no program and no such id are different errors,
    each with status 1."""

    def fails(*arguments: object) -> str:
        shown = freehold("explain", "0123abcd", *arguments)
        assert shown.exit_code == 1
        return shown.output

    assert "No cluster runs on this machine" in fails()
    address = start_head()
    nothing = "Error: no task or value with an id that begins with 0123abcd: "
    until(lambda: "none of the 3 processes there has it: it may have been freed" in fails())
    assert fails().startswith(nothing)
    monkeypatch.setenv("FREEHOLD_TOKEN", "not the token of this one")
    assert "our token is not that of the cluster" in fails()
    monkeypatch.delenv("FREEHOLD_TOKEN")
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    monkeypatch.setenv("FREEHOLD_HOME", str(other))
    assert f"no token for {address}: give --token-file" in fails("--address", address)
    monkeypatch.setenv("FREEHOLD_HOME", str(home))
