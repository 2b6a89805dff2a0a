"""A random program under random failures, then the search for what is left of it.

    python -m tests.chaos.nemesis --seed 7 --seconds 180 --tasks 2000 --period 1

The program is that of ``dag``: every value of it is known beforehand. While it runs, the nemesis
does one thing each period: kills a worker, the head (which comes back by itself) or a node (and
replaces it), or stops a worker, a node daemon or the head for a moment with SIGSTOP. Only the
program's own node daemon is never killed: its death ends the program by design. Then everything
must be right, nothing may fail, and when the program has dropped its references nothing may be
left: no object, pin, lease or spill file at any node, no entry in the program's own tables, no
traceback in any log.

The seed decides the program and the order of failures, not how they interleave: a failure is a
fact about the code, but not replayable as those of the simulator are. What is told of one: the
seed, the schedule with times, the wrong values and errors, and why what hangs does (``explain``).

Knows: test clusters, processes by name. Must not know: the protocols.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
from tests.chaos import dag

import freehold as fh
from freehold.observe.cluster import UNREACHABLE, conversation
from freehold.runtime import current, places
from freehold.testing import Cluster, ClusterNode
from freehold.wire.messages import DescribeNode, LogLines, NodeDescription

NODES: Final = 4
STORE_BYTES: Final = 96 << 20  # small, so that values are spilled
#: How often each kind of failure is chosen, in percent.
FAILURES: Final = {
    "kill worker": 40,
    "kill node": 15,
    "kill head": 5,
    "pause worker": 20,
    "pause node": 15,
    "pause head": 5,
}
PAUSE_SECONDS: Final = (0.1, 1.5)
#: Seconds that the last values may take once the failures have stopped.
PATIENCE: Final = 90.0
#: Seconds in which everything must be gone after the last reference. The children of a dead worker
#: may be claimed for 30 (``lineage.CLAIM_SECONDS``), and those of a worker that waits for such a
#: claim when the pool stops it, after 10, for 30 more; 40 were seen in most trials, never more.
SETTLE_SECONDS: Final = 90.0


class Nemesis(threading.Thread):
    """Does one bad thing each period, until told to stop."""

    def __init__(self, cluster: Cluster, seed: int, period: float) -> None:
        super().__init__(name="nemesis")
        self.cluster = cluster
        self.period = period
        self.chance = random.Random(seed)
        self.over = threading.Event()
        self.began = time.monotonic()
        self.schedule: list[str] = []
        self.done: Counter[str] = Counter()
        self.words: list[str] = []  # last words of daemons
        self.error: BaseException | None = None

    def run(self) -> None:
        actions: dict[str, Callable[[], str]] = {
            "kill worker": self.kill_worker,
            "kill node": self.kill_node,
            "kill head": self.kill_head,
            "pause worker": lambda: self.pause(self.worker()),
            "pause node": lambda: self.pause(self.chance.choice(self.living()).pid),
            "pause head": lambda: self.pause(self.head()),
        }
        try:
            while not self.over.wait(self.period):
                (name,) = self.chance.choices(list(FAILURES), list(FAILURES.values()))
                when = time.monotonic() - self.began
                self.schedule.append(f"{when:7.2f} s  {name}")
                with contextlib.suppress(ProcessLookupError):
                    self.schedule[-1] += f" {actions[name]()}"
                    self.done[name] += 1
        except BaseException as error:
            self.error = error

    def stop(self) -> None:
        """No more failures."""
        self.over.set()
        self.join()

    def living(self) -> list[ClusterNode]:
        return [node for node in self.cluster.nodes if node.alive]

    def worker(self) -> int:
        """A worker of any node. Raises ProcessLookupError if there is none."""
        nodes = self.living()
        found = [pid for node in nodes for pid in offspring(node.pid, "freehold-worker")]
        if not found:
            raise ProcessLookupError
        return self.chance.choice(found)

    def head(self) -> int:
        found = offspring(self.cluster.nodes[0].pid, "freehold-head")
        if not found:
            raise ProcessLookupError
        return found[0]

    def kill_worker(self) -> str:
        pid = self.worker()
        os.kill(pid, signal.SIGKILL)
        return str(pid)

    def kill_head(self) -> str:
        """The program's own node starts it again."""
        pid = self.head()
        os.kill(pid, signal.SIGKILL)
        return str(pid)

    def kill_node(self) -> str:
        """Any but the program's own; then another takes its place."""
        victim = self.chance.choice(self.living()[1:])
        self.words += tracebacks(victim)
        self.cluster.kill_node(victim)
        time.sleep(self.chance.uniform(0, self.period))
        fresh = self.cluster.add_node(num_cpus=2, object_store_memory=STORE_BYTES)
        return f"{victim.node_id[:8]}, replaced by {fresh.node_id[:8]}"

    def pause(self, pid: int) -> str:
        """Stop a process for a moment, as a swapping machine or a debugger would."""
        seconds = self.chance.uniform(*PAUSE_SECONDS)
        os.kill(pid, signal.SIGSTOP)
        try:
            self.over.wait(seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        return f"{pid} for {seconds:.2f} s"


def offspring(pid: int, name: str) -> list[int]:
    """Descendants of a process by the name of their main thread."""
    found = []
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error, OSError):
                if Path(f"/proc/{child.pid}/comm").read_text().strip() == name:
                    found.append(child.pid)
    return found


def tracebacks(node: ClusterNode) -> list[str]:
    """What a daemon's log says of errors."""
    log = node._started.folder / "logs" / "daemon.log"
    text = log.read_text(errors="replace") if log.exists() else ""
    at = text.find("Traceback")
    return [f"node {node.node_id[:8]} logged:\n{text[at : at + 3000]}"] if at >= 0 else []


# --- one trial -----------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What a trial found; ``failures`` is empty if all was well."""

    seed: int
    failures: list[str] = field(default_factory=list)
    schedule: list[str] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    checked: int = 0
    seconds: float = 0.0

    def report(self) -> str:
        """A page on it."""
        done = ", ".join(f"{count} x {name}" for name, count in sorted(self.done.items()))
        lines = [f"seed {self.seed}: {self.checked} values in {self.seconds:.0f} s under {done}"]
        if self.failures:
            lines += [*self.schedule, *self.failures, f"seed {self.seed} FAILED"]
        return "\n".join(lines)


class Listener:
    """Takes what workers print in place of the terminal: they print only if something is wrong."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def show(self, message: LogLines) -> None:
        self.lines += [f"(pid={message.pid}) {line}" for line in message.lines]

    def finish(self) -> None:
        """The session ends."""


def trial(seed: int, seconds: float, tasks: int, period: float) -> Outcome:
    """One program under failures, on a cluster of its own."""
    outcome = Outcome(seed)
    with Cluster(NODES, num_cpus=2, object_store_memory=STORE_BYTES) as cluster:
        fh.init(address=cluster.address, explain_after=None)
        listener = Listener()
        current.process().printer = listener  # type: ignore[union-attr]
        nemesis = Nemesis(cluster, seed, period)
        program = Program(seed, tasks, outcome)
        nemesis.start()
        try:
            program.run(seconds)
        finally:
            nemesis.stop()
            outcome.schedule, outcome.done = nemesis.schedule, nemesis.done
        program.finish()
        if not outcome.failures:
            outcome.failures += left_over(cluster)
        if nemesis.error is not None:
            outcome.failures.append(f"the nemesis itself failed: {nemesis.error!r}")
        outcome.failures += nemesis.words
        for node in nemesis.living():
            outcome.failures += tracebacks(node)
        if listener.lines:
            outcome.failures.append("workers printed:\n" + "\n".join(listener.lines[:100]))
    outcome.seconds = time.monotonic() - nemesis.began
    return outcome


class Program:
    """The driver's side: submits calls at an even pace, drops what is not needed, checks the
    rest.
    """

    def __init__(self, seed: int, tasks: int, outcome: Outcome) -> None:
        self.calls = dag.plan(seed, tasks)
        self.wanted = dag.expected(self.calls)
        self.refs: dict[dag.Output, Any] = {}
        self.outcome = outcome

    def run(self, seconds: float) -> None:
        """Submit all, over so many seconds; look at what is ready meanwhile."""
        began = time.monotonic()
        for call in self.calls:
            call.submit(self.refs)
            for output in call.last_use:
                del self.refs[output]
            if self.outcome.failures:
                return
            if call.index % 10 == 0 and self.refs:
                self.look_at_some(call.index)
            late = began + seconds * call.index / len(self.calls) - time.monotonic()
            if late > 0:
                time.sleep(late)

    def look_at_some(self, index: int) -> None:
        """Check a value that should be there by now, without insisting."""
        outputs = [output for output in self.refs if output[0] < index - 50]
        if outputs:
            output = outputs[index % len(outputs)]
            with contextlib.suppress(fh.errors.GetTimeoutError):
                self.check(output, 2.0)

    def check(self, output: dag.Output, timeout: float) -> None:
        """Compare a value with what it should be, all of it."""
        try:
            found = dag.read(fh.get(self.refs[output], timeout=timeout))
        except fh.errors.GetTimeoutError:
            raise
        except Exception as error:
            self.failed(output, f"{type(error).__name__}: {error}")
            return
        self.outcome.checked += 1
        if found != self.wanted[output]:
            self.failed(output, f"is {found.hex()}, should be {self.wanted[output].hex()}")

    def failed(self, output: dag.Output, how: str) -> None:
        call = self.calls[output[0]]
        self.outcome.failures.append(f"result {output[1]} of task {call.index}, {call}: {how}")

    def finish(self) -> None:
        """Check what was kept; then drop everything. (A get of a branch has no limit of its own:
        the thread that would hang in it is left to the end of the process.)
        """
        checker = threading.Thread(target=self.check_all, name="checker", daemon=True)
        checker.start()
        checker.join(PATIENCE)
        if checker.is_alive():
            self.outcome.failures.append(f"no end of it within {PATIENCE:g} s")
            for output, ref in list(self.refs.items())[:5]:
                self.outcome.failures.append(f"{output}: {fh.explain(ref, timeout=3.0)}")
        self.refs.clear()
        gc.collect()

    def check_all(self) -> None:
        for output in list(self.refs):
            try:
                self.check(output, PATIENCE)
            except fh.errors.GetTimeoutError as error:
                self.failed(output, str(error))
            if len(self.outcome.failures) >= 5:
                return
            del self.refs[output]


# --- what is left --------------------------------------------------------------------------------


def left_over(cluster: Cluster) -> list[str]:
    """What is still there when it should all be gone; nothing, one hopes."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while (found := list(leftovers(cluster))) and time.monotonic() < deadline:
        time.sleep(0.2)
    return [f"left over after {SETTLE_SECONDS:g} s: {line}" for line in found]


def leftovers(cluster: Cluster) -> Iterator[str]:
    """One line for each node, and for this program, if anything is left there."""
    process = current.process()
    assert process is not None
    with process.lock:
        process.settle()
        process.transport.flush()
        mine = {name: count for name, count in process.role.counts().items() if count}
    if mine:
        yield f"the program has {mine}"
    token = places.read_token(cluster.session)
    for node in cluster.nodes:
        if not node.alive:
            continue
        where = node._started.file.address
        try:
            answer = next(conversation(where, DescribeNode(1), NodeDescription, token, 2.0))
        except (StopIteration, *UNREACHABLE) as error:
            yield f"node {node.node_id[:8]} does not answer: {error}"
            continue
        counts = {
            name: answer.counts[name] for name in ("objects", "needs", "granted", "queued")
        } | {"store bytes": answer.info.store_used, "spilled bytes": answer.info.spilled_bytes}
        found = {name: count for name, count in counts.items() if count}
        if found:
            yield f"node {node.node_id[:8]} has {found}"
        for path in places.spill_folder(node._started.folder).rglob("*"):
            if path.is_file():
                yield f"node {node.node_id[:8]} has the spill file {path.name}"


def main() -> int:
    """The command line. Exits with 1 if a trial failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--trials", type=int, default=1, help="how many seeds, from --seed on")
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--period", type=float, default=1.0, help="seconds between failures")
    given = parser.parse_args()
    failed = False
    for seed in range(given.seed, given.seed + given.trials):
        outcome = trial(seed, given.seconds, given.tasks, given.period)
        sys.stdout.write(outcome.report() + "\n")
        sys.stdout.flush()
        failed |= bool(outcome.failures)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
