"""Small values and many references: put, get, a list of 10,000, and wait.

The list is got in two ways: `get` of 10,000 references that the program owns, and `get` of one
value that holds 10,000 references of a task's own puts, so that the program becomes a borrower of
each and gives them all back. A wait is `wait(refs)` for one of 1,000 tasks, until none is left.
"""

from __future__ import annotations

from typing import Any

from bench.clock import batch_rate, rate
from bench.engines import cluster, dask_client, load
from bench.figure import Figure, Metric, Samples, Target, attempt

REFS = 10_000
TASKS = 1000
CLIENTS = 2


def zero() -> int:
    """The task whose result is waited for."""
    return 0


def list_of_refs(name: str) -> list[Any]:
    """The task whose value holds references, to values of its own."""
    engine = load(name)
    return [engine.put(1) for _ in range(REFS)]


class Client:
    """An actor that puts."""

    def __init__(self, name: str) -> None:
        self.engine = load(name)

    def run(self) -> None:
        """A batch of puts, each dropped at once."""
        for _ in range(TASKS):
            self.engine.put(0)


def shared(name: str) -> Samples:
    """Put, get, wait."""
    with cluster(name) as engine:
        yield from attempt("put", lambda: rate(lambda: engine.put(0)))
        ref = engine.put(0)
        yield from attempt("get", lambda: rate(lambda: engine.get(ref)))
        yield from attempt("two_clients_put", lambda: from_clients(engine))
        yield from attempt("get_10k", lambda: listed(engine))
        yield from attempt("get_holding_10k", lambda: holding(engine))
        yield from attempt("wait_1k", lambda: batch_rate(lambda: wait(engine), TASKS))


def from_clients(engine: Any) -> float:
    """Puts a second of two actors together."""
    kind = engine.remote(Client)
    clients = [kind.remote(engine.__name__) for _ in range(CLIENTS)]
    return batch_rate(lambda: engine.get([c.run.remote() for c in clients]), CLIENTS * TASKS)


def listed(engine: Any) -> float:
    """Values a second of one get of 10,000 references."""
    refs = [engine.put(1) for _ in range(REFS)]
    return batch_rate(lambda: engine.get(refs), REFS)


def holding(engine: Any) -> float:
    """Gets a second of a value that holds 10,000 references."""
    ref = engine.remote(list_of_refs).remote(engine.__name__)
    found = engine.get(ref)
    if len(found) != REFS or engine.get(found[-1]) != 1:
        raise AssertionError("the list has lost references")
    del found
    return rate(lambda: engine.get(ref))


def wait(engine: Any) -> None:
    """One by one until none is left."""
    task = engine.remote(zero)
    left = [task.remote() for _ in range(TASKS)]
    while left:
        _, left = engine.wait(left)


def dask() -> Samples:
    """scatter and gather."""
    with dask_client() as client:
        yield from attempt("put", lambda: rate(lambda: client.scatter(0, hash=False)))
        future = client.scatter(0, hash=False)
        yield from attempt("get", lambda: rate(lambda: client.gather(future)))
        futures = client.scatter([1] * REFS, hash=False)
        yield from attempt("get_10k", lambda: batch_rate(lambda: client.gather(futures), REFS))


FIGURE = Figure(
    name="small_objects",
    title="Small values and many references",
    metrics=(
        Metric("put", "/s", "higher", "put of a number, dropped at once", (Target(10, "ray"),)),
        Metric("get", "/s", "higher", "get of one reference, repeated", (Target(5, "ray"),)),
        Metric("two_clients_put", "/s", "higher", "puts by two actors at a time, together"),
        Metric("get_10k", "/s", "higher", "values a second of get with 10,000 references"),
        Metric(
            "get_holding_10k",
            "/s",
            "higher",
            "gets a second of a value that holds 10,000 references",
            (Target(3, "ray"),),
        ),
        Metric(
            "wait_1k",
            "/s",
            "higher",
            "1,000 tasks submitted, then waited for one by one; tasks a second",
            (Target(10, "ray"),),
            spent_on="in the program: every wait checks each reference that is left, 0.1 us each, "
            "and a task costs 25 us besides",
        ),
    ),
    shared=shared,
    own={"dask": dask},
    main=True,
)
