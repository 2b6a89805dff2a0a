"""How well tasks are spread: makespan against the ideal, with load that comes in where it likes.

Ten tasks for each processor, of half a second, or of lengths with a heavy tail (Pareto, 1.5). The
*ideal* is what no scheduler can beat: all work divided by all processors, or the longest task.
*Utilisation* is the ideal over the makespan of the drivers. *Hops*: redirections for each lease.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from bench.scale.cluster import Measured, fan_out
from freehold.sim.ops import Call, Function, Get, Program, Sleep

CPUS: Final = 4
PER_CPU: Final = 10
SECONDS: Final = 0.5
#: Nodes to a driver, where there are several, as in the evaluation of the Ownership paper.
NODES_PER_DRIVER: Final = 5

Times = Callable[[int], list[float]]


def equal(count: int) -> list[float]:
    """Tasks of half a second."""
    return [SECONDS] * count


def heavy(count: int) -> list[float]:
    """Lengths of mean ``SECONDS`` with a heavy tail, the longest 40 times the shortest; in steps,
    because a length is a function.
    """
    chance = random.Random(count)
    drawn = [min(chance.paretovariate(1.5), 40.0) for _ in range(count)]
    scale = SECONDS * count / sum(drawn)
    return [round(scale * 1.25 ** round(_log(each)), 4) for each in drawn]


def _log(ratio: float) -> float:
    """Steps of a quarter."""
    steps = 0.0
    while ratio > 1.125:
        ratio, steps = ratio / 1.25, steps + 1
    return steps


def spread(nodes: int) -> list[int]:
    """A driver on every fifth node."""
    return list(range(0, nodes, NODES_PER_DRIVER))


#: Name -> where the drivers are, and how long their tasks take.
LOADS: Final[dict[str, tuple[Callable[[int], list[int]], Times]]] = {
    "drivers spread": (spread, equal),
    "drivers on one node": (lambda nodes: [0] * len(spread(nodes)), equal),
    "one driver": (lambda nodes: [0], equal),
    "heavy tail": (spread, heavy),
}


def measure(nodes: int) -> dict[str, Any]:
    """All loads on one cluster size."""
    found: dict[str, Any] = {name: one(nodes, *load) for name, load in LOADS.items()}
    found["locality"] = locality(nodes)
    return found


def one(nodes: int, where: Callable[[int], list[int]], times: Times) -> dict[str, float]:
    """One load on a cluster of its own."""
    homes = where(nodes)
    each = nodes * CPUS * PER_CPU // len(homes)
    lengths = [times(each) for _ in homes]
    cluster = Measured(nodes, CPUS, [fan_out(part) for part in lengths], homes)
    cluster.warm_up()
    makespan = cluster.run_drivers()
    work = sum(map(sum, lengths))
    ideal = max(work / (nodes * CPUS), *map(max, lengths))
    counts = cluster.meter.messages("driver")
    return {
        "makespan": makespan,
        "ideal": ideal,
        "utilisation": ideal / makespan,
        "hops": counts["LeaseRedirected"] / max(1, counts["LeaseGranted"]),
        "leases": counts["LeaseGranted"],
    }


#: Bytes of a value that is worth going to.
STORED: Final = 1 << 20


def locality(nodes: int) -> dict[str, float]:
    """Each driver makes a stored value for each of its processors, then calls four tasks on each
    value: how many run where their argument lies?
    """
    homes = spread(nodes)
    values = nodes * CPUS // len(homes)
    ops: list[Any] = [Call(at, f"v{at}", 1, sizes=(STORED,)) for at in range(values)]
    makers = [op.var for op in ops]
    ops += [
        Call(len(ops) + at, f"u{at}", 2, deps=(makers[at % values],)) for at in range(4 * values)
    ]
    ops.append(Get(len(ops), tuple(op.var for op in ops if op.deps)))
    program = Program(
        (Function(tuple(ops)), Function((Sleep(0, 0.1),)), Function((Sleep(0, 0.1),)))
    )
    cluster = Measured(nodes, CPUS, [program] * len(homes), homes)
    cluster.warm_up()
    makespan = cluster.run_drivers()
    made = {span.path: span.node for span in cluster.meter.spans}
    users = [
        (span, number)
        for span in cluster.meter.spans
        if (number := int(span.path.partition("/")[2])) >= values
    ]
    near = sum(
        span.node == made[f"{span.path.partition('/')[0]}/{(number - values) % values}"]
        for span, number in users
    )
    ideal = 5 * values * len(homes) * 0.1 / (nodes * CPUS)
    return {
        "near": near / len(users),
        "makespan": makespan,
        "ideal": ideal,
        "utilisation": ideal / makespan,
    }
