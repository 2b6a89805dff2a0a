"""A link between two machines is cut, for a while and for too long.

Two network namespaces stand for the machines and a third for the router between them. A cut is a
rule in the router that drops every packet: neither machine is told anything, as with a switch that
has lost its power. The head's patience says what follows: less than it, and the bytes arrive late;
more, and the far node is dead, and comes back as another.

Root is needed to make namespaces: where the kernel forbids it the tests are skipped, and say so.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from processes.programs import Program, left_after

NEAR, FAR = "10.201.1.1", "10.201.2.1"
GATES = {NEAR: "10.201.1.2", FAR: "10.201.2.2"}
COMMAND = (sys.executable, "-c", "from freehold.cli.main import main; main()")

PROGRAM = """
fh.init(address=sys.argv[1], log_to_driver=False)
marks = sys.argv[2]

@fh.remote(resources={"far": 1})
def far(number, seconds, payload):
    with open(marks, "a") as file:
        file.write(f"{number}\\n")
    time.sleep(seconds)
    return number, len(payload), fh.get_runtime_context().get_node_id()

@fh.remote(resources={"far": 1})
def large(size):
    return bytes(size)

say("up", fh.get(far.remote(0, 0, b""))[2])
for line in sys.stdin:
    number, seconds = line.split()
    began = time.monotonic()
    payload = fh.put(bytes(10 << 20))
    answer = far.remote(int(number), float(seconds), payload)
    value = large.remote(10 << 20)
    say(*fh.get(answer), len(fh.get(value)), time.monotonic() - began)
"""


class Machines:
    """Two machines and a router, each a network namespace."""

    def __init__(self) -> None:
        self.near, self.far, self.router = (f"fh{os.getpid()}{end}" for end in "nfr")

    def make(self) -> None:
        """Raises CalledProcessError where the kernel forbids it."""
        for name in (self.near, self.far, self.router):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        for name, address in ((self.near, NEAR), (self.far, FAR)):
            link = f"{name}r"
            ip("link", "add", "up0", "netns", name, "type", "veth", "peer", link)
            ip("link", "set", link, "netns", self.router)
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "up0")
            ip("-n", name, "link", "set", "up0", "up")
            ip("-n", self.router, "addr", "add", f"{GATES[address]}/24", "dev", link)
            ip("-n", self.router, "link", "set", link, "up")
            ip("-n", name, "route", "add", "default", "via", GATES[address])
        forward = "echo 1 > /proc/sys/net/ipv4/ip_forward"
        run("ip", "netns", "exec", self.router, "sh", "-c", forward)

    def remove(self) -> None:
        for name in (self.near, self.far, self.router):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Nothing passes the router."""
        ip("-n", self.router, "rule", "add", "priority", "1", "blackhole")
        try:
            yield
        finally:
            ip("-n", self.router, "rule", "del", "priority", "1")

    def on(self, name: str) -> tuple[str, ...]:
        """The beginning of a command that is to run on a machine."""
        return ("ip", "netns", "exec", name)


def run(*words: str, **environment: str) -> str:
    done = subprocess.run(
        words, check=True, capture_output=True, text=True, env={**os.environ, **environment}
    )
    return done.stdout


def ip(*words: str) -> None:
    run("ip", *words)


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    made = Machines()
    try:
        made.make()
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        made.remove()
        why = getattr(error, "stderr", None) or str(error)
        pytest.skip(f"network namespaces cannot be made here: {why.strip()}")
    yield made
    made.remove()


class Pair:
    """A cluster of two nodes on two machines, and a program on the near one."""

    def __init__(self, machines: Machines, folder: Path, patience: float) -> None:
        self.machines = machines
        self.homes = {name: folder / name for name in (machines.near, machines.far)}
        for home in self.homes.values():
            home.mkdir(mode=0o700)
        self.marks = folder / "marks"
        self.marks.touch()
        head = ("start", "--head", "--host", NEAR, "--num-cpus", "1")
        out = self.freehold(machines.near, *head, "--dead-after", str(patience))
        self.address = out.partition("Started a cluster at ")[2].split()[0].rstrip(":")
        (token,) = self.homes[machines.near].glob("s-*/token")
        joining = ("start", "--address", self.address, "--host", FAR, "--num-cpus", "1")
        resources = ("--resources", '{"far": 1}', "--token-file", str(token))
        self.freehold(machines.far, *joining, *resources)

    def freehold(self, name: str, *words: str) -> str:
        home = str(self.homes[name])
        return run(*self.machines.on(name), *COMMAND, *words, FREEHOLD_HOME=home)

    def status(self) -> str:
        return self.freehold(self.machines.near, "status")

    def stop(self) -> None:
        for name in self.homes:
            self.freehold(name, "stop")
        for home in self.homes.values():
            assert left_after(home) == []


@contextmanager
def pair(machines: Machines, folder: Path, patience: float) -> Iterator[tuple[Pair, Program]]:
    """A pair with its program."""
    made = Pair(machines, folder, patience)
    try:
        near = machines.near
        with Program(
            made.homes[near], PROGRAM, made.address, made.marks, before=machines.on(near)
        ) as program:
            yield made, program
    finally:
        made.stop()


def ask(program: Program, number: int, seconds: float) -> None:
    """Have the program send a task to the far node, and values both ways."""
    assert program.process.stdin is not None
    program.process.stdin.write(f"{number} {seconds}\n".encode())
    program.process.stdin.flush()


@pytest.mark.timeout(110)
def test_a_short_cut_costs_its_time(machines: Machines, tmp_path: Path) -> None:
    """Goal: a cut of 3 s, with the usual patience of 10, delays and loses nothing: no task runs
    twice, no node is another. Method: cut in the middle of a task; then cut before a task is sent,
    so that the values to and from it have to wait as well."""
    with pair(machines, tmp_path, patience=10.0) as (cluster, program):
        up, node = program.line().split()
        assert up == "up"
        ask(program, 1, 2.0)
        time.sleep(1.0)
        with machines.cut():
            time.sleep(3.0)
        number, size, where, large, took = program.line(20).split()
        assert (number, size, where, large) == ("1", str(10 << 20), node, str(10 << 20))
        assert 2.0 < float(took) < 15.0
        with machines.cut():
            ask(program, 2, 0.0)
            time.sleep(3.0)
        number, size, where, large, took = program.line(20).split()
        assert (number, size, where, large) == ("2", str(10 << 20), node, str(10 << 20))
        assert 2.5 < float(took) < 15.0
        assert cluster.marks.read_text().split() == ["0", "1", "2"]
        assert "2 nodes, 1 job" in cluster.status()
        assert "gone" not in cluster.status()


@pytest.mark.timeout(110)
def test_a_long_cut_is_a_death(machines: Machines, tmp_path: Path) -> None:
    """Goal: a cut of 10 s, with a patience of 3: the far node is declared dead after 3 s, what it
    still does counts for nothing, and it is back as another node a moment after the link is.
    Method: a task that only it can run is cut off; the answer must come from the new node."""
    with pair(machines, tmp_path, patience=3.0) as (cluster, program):
        up, node = program.line().split()
        assert up == "up"
        ask(program, 1, 4.0)
        time.sleep(1.0)
        with machines.cut():
            began = time.monotonic()
            while f"gone: node {node}" not in cluster.status():
                assert time.monotonic() - began < 8.0
                time.sleep(0.1)
            assert time.monotonic() - began > 2.0
            assert "said nothing for 3 s" in cluster.status()
            time.sleep(max(0.0, began + 10.0 - time.monotonic()))
        number, size, where, large, _ = program.line(40).split()
        assert (number, size, large) == ("1", str(10 << 20), str(10 << 20))
        assert where != node
        assert cluster.marks.read_text().split() == ["0", "1", "1"]
        assert "2 nodes, 1 job" in cluster.status()
