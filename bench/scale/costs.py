"""What things cost in the simulated clusters: links and processor time, each with its source.

The simulator's own links and processes are for finding bugs. These are for finding out what a
cluster could do; ``predict`` measures the processor times on the machine that it runs on.
"""

from __future__ import annotations

from typing import Final

#: One way between two processes of a machine: half of a unix-socket round trip with wake-ups
#: (57 to 93 us, docs/benchmarks.md).
LOCAL_NS: Final = 35_000
#: One way between two machines of one data centre: half of a TCP round trip of 0.2 ms, which large
#: clouds promise within a placement group, and a wake-up.
REMOTE_NS: Final = 120_000
#: Bytes that a link carries in the time of one latency: frames larger than that take longer. 10
#: Gbit/s is 1.25 bytes a nanosecond.
BYTES_PER_LATENCY: Final = 150_000
#: Of a machine's network card: 10 Gbit/s.
LINK_BYTES_PER_SECOND: Final = 1.25e9
#: Processor time of handling one message, with what is sent in answer.
MESSAGE_NS: Final = {
    "head": 20_000,
    "node": 20_000,
    "driver": 10_000,
    "worker": 10_000,
    "operator": 0,
}
