"""Messages and bytes for each task, at the owner, the nodes and the head, as the cluster grows.

The load of the Ownership paper's throughput figure, smaller: a driver on every fifth node, each of
which calls batches of short tasks (1 ms) for its five nodes and gets the results. The head's
messages are not divided by tasks, because none of them has to do with one: they are listed by kind,
and a second run with twice as many tasks shows that there are no more of them for it.
"""

from __future__ import annotations

from typing import Any, Final

from bench.scale.cluster import Measured, fan_out

CPUS: Final = 2
NODES_PER_DRIVER: Final = 5
PER_NODE: Final = 20
BATCHES: Final = 2
SECONDS: Final = 0.001

#: What goes on at the head whether there are tasks or not: who is there, and news of it.
ABOUT_NODES: Final = frozenset(
    """Heartbeat NodeReport News NodeChanged JobStarted JobEnded JoinCluster Joined
    ProcessLost""".split()
)


def measure(nodes: int) -> dict[str, Any]:
    """The counts of one cluster size."""
    once, twice = run(nodes, PER_NODE), run(nodes, 2 * PER_NODE)
    return {**once, "twice": twice}


def run(nodes: int, per_node: int) -> dict[str, Any]:
    """One run: per task at driver, worker and node; at the head by kind."""
    homes = list(range(0, nodes, NODES_PER_DRIVER))
    tasks = nodes * per_node // len(homes)
    program = fan_out([SECONDS] * tasks, rounds=BATCHES)
    cluster = Measured(nodes, CPUS, [program] * len(homes), homes)
    cluster.warm_up()
    seconds = cluster.run_drivers()
    count = len(cluster.meter.spans)
    meter = cluster.meter
    return {
        "tasks": count,
        "seconds": seconds,
        "pushed": meter.sent["driver", "PushTask"],
        "done": meter.received["driver", "TaskDone"],
        "messages": {
            kind: sum(meter.messages(kind).values()) / count for kind in ("driver", "worker")
        },
        "node_messages": {
            name: number / count
            for name, number in meter.messages("node").items()
            if name not in ABOUT_NODES
        },
        "bytes": {
            kind: (meter.bytes[kind, "in"] + meter.bytes[kind, "out"]) / count
            for kind in ("driver", "worker")
        },
        "head": dict(meter.messages("head")),
        "head_about_tasks": sum(
            number for name, number in meter.messages("head").items() if name not in ABOUT_NODES
        ),
    }
