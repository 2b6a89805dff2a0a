"""What the head has to do for the cluster itself: heartbeats, and news of who has room.

*Idle*: nothing but heartbeats. *Busy*: a driver on every node whose tasks, of 20 to 200 ms, come in
bursts of two for each processor, so that what is free on a node changes all the time and every node
has news whenever it may tell them. The tasks themselves are not the head's business: ``messages``
counts that.
"""

from __future__ import annotations

import random
from typing import Any, Final

from bench.scale.cluster import WARM, Measured
from freehold.sim.ops import Call, Function, Get, Program, Sleep
from freehold.sim.world import SECOND

CPUS: Final = 2
#: Virtual seconds that are counted.
SPAN: Final = 5.0


def bursts(seed: int, rounds: int = 40) -> Program:
    """Tasks of a few lengths, and pauses in which leases go back."""
    chance = random.Random(seed)
    ops: list[Any] = []
    for _ in range(rounds):
        at = len(ops)
        names = [f"v{at + number}" for number in range(2 * CPUS)]
        ops += [Call(at + number, name, chance.randint(1, 4)) for number, name in enumerate(names)]
        ops += [
            Get(len(ops), tuple(names)),
            Sleep(len(ops) + 1, round(chance.uniform(0.2, 0.4), 3)),
        ]
    lengths = (0.02, 0.05, 0.1, 0.2)
    return Program((Function(tuple(ops)), *(Function((Sleep(0, each),)) for each in lengths)))


def measure(nodes: int) -> dict[str, Any]:
    """Messages and bytes a second at the head, idle and busy; and how long its messages take."""
    idle = counted(Measured(nodes, CPUS, [], []))
    programs = [bursts(number) for number in range(nodes)]
    busy = counted(Measured(nodes, CPUS, programs, range(nodes)))
    return {"idle": idle, "busy": busy}


def counted(cluster: Measured) -> dict[str, Any]:
    """Run for a while and count."""
    cluster.warm_up()
    world, meter = cluster.world, cluster.meter
    begin = WARM + (1.0 if cluster.case.programs else 0.0)
    for when in (begin, begin + SPAN):
        world.at(int(when * SECOND), lambda: None)
    cluster.until(lambda: world.now_ns >= begin * SECOND)
    meter.counting = True
    cluster.until(lambda: world.now_ns >= (begin + SPAN) * SECOND)
    sent = sum(count for (who, _), count in meter.sent.items() if who == "head")
    received = sum(count for (who, _), count in meter.received.items() if who == "head")
    return {
        "received": received / SPAN,
        "sent": sent / SPAN,
        "bytes_in": meter.bytes["head", "in"] / SPAN,
        "bytes_out": meter.bytes["head", "out"] / SPAN,
        "kinds": {name: count / SPAN for name, count in meter.messages("head").items()},
    }
