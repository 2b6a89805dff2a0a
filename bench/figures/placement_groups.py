"""Placement groups: fifty of one small bundle, made, waited for and removed."""

from __future__ import annotations

from bench.clock import batch_rate
from bench.engines import cluster, groups
from bench.figure import Figure, Metric, Samples

GROUPS = 50
BUNDLE = {"CPU": 0.01}


def shared(name: str) -> Samples:
    """Make all, wait for each, remove all."""
    with cluster(name) as engine:
        create, remove = groups(engine)

        def batch() -> None:
            made = [create([BUNDLE]) for _ in range(GROUPS)]
            if not all(group.wait(timeout_seconds=30) for group in made):
                raise AssertionError("a group was not placed within 30 s")
            for group in made:
                remove(group)

        yield "rate", batch_rate(batch, GROUPS)


FIGURE = Figure(
    name="placement_groups",
    title="Placement groups",
    metrics=(
        Metric(
            "rate",
            "/s",
            "higher",
            "groups of one bundle made, awaited and removed",
            spent_on="2.2 ms of processor time a group, of which the program takes 1.0, one "
            "request at a time; the head, which journals each step, and the node the rest",
        ),
    ),
    shared=shared,
    main=True,
)
