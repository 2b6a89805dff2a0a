"""Soak: hours in minutes. A cluster under churn must not grow.

    python -m bench.soak --minutes 20

One program lives all the time and works without pause: tasks of every kind (inline and stored
values, references nested, borrowed and given back, puts, children), each round checked and dropped.
Beside it short programs come and go, every third of them killed. A worker is killed every three
seconds; every twenty a node is killed and another started. Four processes live through it all: the
head, the long program, its node, and a second node that is spared.

Of those, every five seconds: private memory that is no file (RssAnon: the arena's pages are shared
memory and come and go with values) and open descriptors. After a warm-up of a third of the time a
line is fitted by the median of all slopes between two samples (Theil-Sen), which a burst cannot
move. It must be flat:

* memory within 300 KiB a minute. The long program runs about 1,000 tasks a second on two cores: an
  entry (500 bytes) forgotten for each hundredth task would be 300 KiB a minute. What grows by
  design is far below: 100 bytes for each process that has ever died (``Ownership.lost``), some
  10 KiB a minute here. The samples of a Python process scatter by 500 KiB.
* descriptors within 0.5 a minute: a worker dies every 3 s, so that one forgotten for each death
  would be 20 a minute.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np

import freehold as fh
from freehold.testing import Cluster

SAMPLE_EVERY = 5.0
WORKER_DIES_EVERY = 3.0
NODE_DIES_EVERY = 20.0
WARM_UP = 1 / 3
"""Share of the time that does not count: heaps and pools grow to their working size."""

MEMORY_BOUND = 300.0
"""KiB a minute."""

DESCRIPTOR_BOUND = 0.5
"""A minute."""

GUEST = """
import sys
import freehold as fh
fh.init(address=sys.argv[1], log_to_driver=False)

@fh.remote
def double(x):
    return 2 * x

@fh.remote
def spread(refs):
    return [double.remote(ref) for ref in refs]

refs = [double.remote(i) for i in range(100)]
assert fh.get(fh.get(spread.remote(refs))) == [4 * i for i in range(100)]
print("half", flush=True)
big = fh.put(bytes(1 << 20))
assert fh.get([double.remote(fh.put(i)) for i in range(100)]) == [2 * i for i in range(100)]
"""

# --- the load ------------------------------------------------------------------------------------


@fh.remote(max_retries=-1)
def plus(value: Any, x: int) -> Any:
    """A small task."""
    return value + x


@fh.remote(max_retries=-1)
def ones(size: int) -> Any:
    """A stored value."""
    return np.ones(size, np.uint8)


@fh.remote(max_retries=-1)
def children(refs: list[Any]) -> list[Any]:
    """References to tasks of its own, a put, and what it borrowed."""
    return [*(plus.remote(ref, 1) for ref in refs), fh.put(np.zeros(200_000, np.uint8)), *refs]


@fh.remote(max_retries=-1)
def total(refs: list[Any]) -> int:
    """The sum of what the references name."""
    return int(sum(int(np.sum(value)) for value in fh.get(refs)))


def one_round() -> int:
    """A mixture of everything, checked; returns the number of tasks."""
    numbers = [plus.remote(i, i) for i in range(60)]
    arrays = [ones.remote(300_000) for _ in range(4)]
    summed = [plus.remote(array, 1) for array in arrays]
    nested = children.remote([*numbers[:5], *summed[:2]])
    inner = fh.get(nested)
    grand = total.remote(inner)
    check(fh.get(numbers), [2 * i for i in range(60)])
    check([int(array.sum()) for array in fh.get(summed)], [600_000] * 4)
    once, twice = sum(2 * i for i in range(5)), 2 * 600_000
    check(fh.get(grand), once + 5 + twice + 2 * 300_000 + once + twice)
    return 60 + 4 + 4 + 1 + 7 + 1


def check(found: object, wanted: object) -> None:
    """Refuse a wrong answer."""
    if found != wanted:
        raise AssertionError(f"{found!r:.200} where {wanted!r:.200} is right")


# --- the churn -----------------------------------------------------------------------------------


@dataclass
class Churn:
    """Guests that come and go, workers and nodes that die; in a thread each."""

    cluster: Cluster
    chance: random.Random
    over: threading.Event = field(default_factory=threading.Event)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(WAYS, 0))
    errors: list[str] = field(default_factory=list)

    def start(self) -> list[threading.Thread]:
        """Begin all of it."""
        ways = {"guests": (self.guest, 1.0), "workers": (self.kill_worker, WORKER_DIES_EVERY)}
        ways["nodes"] = (self.kill_node, NODE_DIES_EVERY)
        threads = [
            threading.Thread(target=self.repeat, args=(name, *way), name=name)
            for name, way in ways.items()
        ]
        for thread in threads:
            thread.start()
        return threads

    def repeat(self, name: str, act: Callable[[], None], period: float) -> None:
        """Do it each period until the end; the first error ends it."""
        while not self.over.wait(period):
            try:
                act()
                self.counts[name] += 1
            except ProcessLookupError:
                continue
            except Exception as error:
                self.errors.append(f"{name}: {error!r}")
                return

    def guest(self) -> None:
        """A program that connects, works, and ends or is killed half-way."""
        with subprocess.Popen(
            [sys.executable, "-c", GUEST, self.cluster.address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as program:
            assert program.stdout is not None
            assert program.stderr is not None
            program.stdout.readline()
            killed = self.counts["guests"] % 3 == 2
            if killed:
                program.kill()
            words = program.stderr.read()
            if program.wait() and not killed:
                raise AssertionError(f"a guest failed:\n{words}")

    def kill_worker(self) -> None:
        """Any worker of any node."""
        alive = [node.pid for node in self.cluster.nodes if node.alive]
        workers = [*named(alive, "freehold-worker")]
        if workers:
            os.kill(self.chance.choice(workers), signal.SIGKILL)

    def kill_node(self) -> None:
        """The newest node; then another takes its place."""
        self.cluster.kill_node(self.cluster.nodes[-1])
        self.cluster.add_node(num_cpus=1, object_store_memory=128 << 20)


WAYS = ("guests", "workers", "nodes")


def named(roots: list[int], name: str) -> Iterator[int]:
    """Descendants of some processes by the name of their main thread."""
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
            waiting += map(int, text.split())
            if Path(f"/proc/{pid}/comm").read_text().strip() == name:
                yield pid


# --- the samples ---------------------------------------------------------------------------------


@dataclass
class Series:
    """What one process takes, sample by sample: minutes, KiB, descriptors."""

    name: str
    pid: int
    samples: list[tuple[float, float, float]] = field(default_factory=list)

    def take(self, minutes: float) -> None:
        """One more sample. Raises OSError if the process is gone."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        (private,) = [line.split()[1] for line in status.splitlines() if "RssAnon" in line]
        descriptors = len(list(Path(f"/proc/{self.pid}/fd").iterdir()))
        self.samples.append((minutes, float(private), float(descriptors)))

    def slopes(self, since: float) -> tuple[float, float]:
        """KiB and descriptors a minute, of the samples after ``since`` minutes."""
        late = [sample for sample in self.samples if sample[0] >= since]
        return slope([(t, kib) for t, kib, _ in late]), slope([(t, fds) for t, _, fds in late])


def slope(points: list[tuple[float, float]]) -> float:
    """The median of the slopes between any two points (Theil-Sen): 29 % of them may be wild."""
    found = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in combinations(points, 2)]
    return median(found) if found else 0.0


def verdict(series: list[Series], since: float) -> tuple[list[str], bool]:
    """A line for each process, and whether all of them are flat."""
    lines, flat = [], True
    for one in series:
        memory, descriptors = one.slopes(since)
        level = one.samples[-1]
        fine = memory <= MEMORY_BOUND and descriptors <= DESCRIPTOR_BOUND
        flat &= fine
        lines.append(
            f"{one.name:8} {level[1] / 1024:7.1f} MiB {memory:+8.1f} KiB/min   "
            f"{level[2]:4.0f} descriptors {descriptors:+6.2f}/min   {'' if fine else 'GROWS'}"
        )
    return lines, flat


def soak(minutes: float, seed: int) -> bool:
    """Run it; print what was found. True if nothing grows and nothing went wrong."""
    with Cluster(2, num_cpus=2, object_store_memory=128 << 20) as cluster:
        fh.init(address=cluster.address, log_to_driver=False)
        cluster.add_node(num_cpus=1, object_store_memory=128 << 20)
        first = cluster.nodes[0].pid
        (head,) = named([first], "freehold-head")
        series = [
            Series("head", head),
            Series("node 1", first),
            Series("node 2", cluster.nodes[1].pid),
            Series("program", os.getpid()),
        ]
        churn = Churn(cluster, random.Random(seed))
        threads = churn.start()
        began = sampled = time.monotonic()
        tasks = 0
        try:
            while (now := time.monotonic()) < began + 60 * minutes and not churn.errors:
                tasks += one_round()
                if now >= sampled + SAMPLE_EVERY:
                    sampled = now
                    for one in series:
                        one.take((now - began) / 60)
        finally:
            churn.over.set()
            for thread in threads:
                thread.join()
    lines, flat = verdict(series, minutes * WARM_UP)
    did = ", ".join(f"{count} {name}" for name, count in churn.counts.items())
    print(f"{minutes:g} minutes: {tasks:,} tasks; {did} came and went")
    print("\n".join([*lines, *churn.errors]))
    return flat and not churn.errors


@click.command(help=__doc__.partition("\n")[0])
@click.option("--minutes", default=20.0, show_default=True, type=click.FloatRange(0.5))
@click.option("--seed", default=1, show_default=True)
def main(minutes: float, seed: int) -> None:
    """The command line. Exits with 1 if something grows."""
    sys.exit(0 if soak(minutes, seed) else 1)


if __name__ == "__main__":
    main()
