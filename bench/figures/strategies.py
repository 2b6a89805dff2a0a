"""Strategies against the number of partitions: 2 GB sorted with 512 MiB of memory for data.

The paper's ablation (Exoshuffle, figure 6 and its text): `simple` makes a part for each block and
partition, so with many partitions its parts are many and small, and the disk and the driver pay for
each; the push strategies merge them first, so their time hardly depends on the number. In memory,
with few partitions, `simple` wins since it moves every byte once: that is in `sort`. Whole
processes, as there. *Growth* is the time for the most partitions over that for the fewest. The
lines of code of each strategy stand beside the paper's.
"""

from __future__ import annotations

import sys
from itertools import product

from bench.clock import MIB
from bench.engines import scale
from bench.figure import Figure, Metric, Samples, Target
from bench.figures.sort import call, command, each, prepare

SIZE, ROOM = 2, 512 * MIB
PARTITIONS = (100, 500, 2000)
STRATEGIES = {
    "simple": "215 in the paper, 2,600 in Spark",
    "merge": "265 in the paper",
    "push": "256 in the paper, 6,700 in Magnet",
    "push_pipelined": "256 in the paper",
}
LIMIT = 300.0
SPENT_ON = (
    "in what each partition costs whatever the strategy, a task and a file of 1 MB (2,000 of them "
    "add some 10 s). What the paper's strategies save, seeks of a disk and files of fetched parts, "
    "costs little here: parts are spilled many to a file and come back from the page cache, and "
    "`simple` grows no faster than the others, which copy every byte once more"
)


def program(name: str) -> Samples:
    """Each strategy with each number of partitions, and the lines that each strategy has."""
    told = [line.split() for line in call(sys.executable, "-m", "freehold.shuffle").splitlines()]
    lines = {words[0]: float(words[1]) for words in told[1:]}
    yield from ((f"{strategy}_lines", lines[strategy]) for strategy in STRATEGIES)
    run = command(name, int(ROOM * scale()))
    cases = {
        f"{strategy}_{count}": (*run, "--partitions", str(count), "--strategy", strategy)
        for count, strategy in product(PARTITIONS, STRATEGIES)
    }
    seconds: dict[str, float] = {}
    for case, value in each(cases, LIMIT):
        seconds[case] = value
        yield case, value
    for strategy in STRATEGIES:
        fewest, most = (f"{strategy}_{count}" for count in (PARTITIONS[0], PARTITIONS[-1]))
        yield f"{strategy}_growth", seconds[most] / seconds[fewest]


FIGURE = Figure(
    name="strategies",
    title=f"Strategies against partitions: {SIZE * scale():g} GB, a quarter of it in memory",
    metrics=(
        *(
            Metric(f"{strategy}_{count}", "s", "lower", f"`{strategy}` into {count} partitions")
            for count, strategy in product(PARTITIONS, STRATEGIES)
        ),
        *(
            Metric(
                f"{strategy}_growth",
                "x",
                "lower",
                f"the time of `{strategy}` for {PARTITIONS[-1]:,} partitions over {PARTITIONS[0]}",
                (Target(1.2),) if strategy.startswith("push") else (),
                spent_on=SPENT_ON,
            )
            for strategy in STRATEGIES
        ),
        *(
            Metric(f"{strategy}_lines", "lines", "neither", f"of the strategy; {elsewhere}")
            for strategy, elsewhere in STRATEGIES.items()
        ),
    ),
    shared=program,
    limit=LIMIT * len(PARTITIONS) * len(STRATEGIES) + 60,
    prepare=prepare(SIZE),
)
