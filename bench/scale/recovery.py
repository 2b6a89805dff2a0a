"""How long a job takes longer when a node dies half-way, as the cluster grows.

One driver, four tasks of half a second for each processor, results in its own memory. When half of
the time is over the last node, with all that runs there, loses its power: the streams to it end. A
*cut* is worse: the node goes on, but nobody hears of it any more, until the head declares it dead
after ten seconds of silence (``core.membership.DEAD_AFTER``).
"""

from __future__ import annotations

from typing import Any, Final

from bench.scale.cluster import WARM, Measured, fan_out
from freehold.sim.world import SECOND

CPUS: Final = 2
PER_CPU: Final = 4
SECONDS: Final = 0.5


def measure(nodes: int) -> dict[str, Any]:
    """The job's time without a death, with one, and with a cut."""
    quiet, runs = job(nodes, "")
    found: dict[str, Any] = {"undisturbed": quiet, "tasks": runs}
    for how in ("killed", "cut"):
        seconds, again = job(nodes, how)
        found[how] = {"seconds": seconds, "longer": seconds - quiet, "run_again": again - runs}
    return found


def job(nodes: int, how: str) -> tuple[float, int]:
    """Virtual seconds of the job, and how many executions were begun."""
    count = nodes * CPUS * PER_CPU
    cluster = Measured(nodes, CPUS, [fan_out([SECONDS] * count)], [0])
    cluster.warm_up()
    victim: Any = cluster.node_of(nodes - 1)

    def strike() -> None:
        if how == "killed":
            victim.die("no power")
            return
        for other in (*cluster.nodes.values(), cluster.head):
            for pair in ((victim, other), (other, victim)):
                ends = [process.address.node for process in pair]
                cluster.network.hold(*ends, 10_000 * SECOND)

    if how:
        half = WARM + SECONDS * PER_CPU / 2 + SECONDS / 4
        cluster.world.at(int(half * SECOND), strike)
    return cluster.run_drivers(), sum(cluster.meter.runs.values())
