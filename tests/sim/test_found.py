"""The smallest cases of bugs that the simulator has found, kept as data: they do not change when
the generator does. Each failed on the code of its day (docs/track-record.md)."""

from __future__ import annotations

import pytest

from freehold.sim.cluster import run_case
from freehold.sim.generate import Case, Fault, NodeSpec
from freehold.sim.ops import Call, Exit, Function, Get, Invoke, Make, Program, Put, Sleep

pytestmark = pytest.mark.sim

LARGE = 4 << 20


def call(at: int, function: int, deps=(), nested=(), sizes=(10,), cpus=1.0) -> Call:
    """A call with the usual options; what it returns is called ``v<at>``."""
    return Call(at, f"v{at}", function, tuple(deps), tuple(nested), tuple(sizes), cpus)


def program(main, *others) -> Program:
    """A program of bodies, each a list of operations, or a pair of those and what is returned."""
    pairs = [body if isinstance(body, tuple) else (body, ()) for body in (main, *others)]
    return Program(tuple(Function(tuple(ops), tuple(returns)) for ops, returns in pairs))


NOTHING: list = []
EMPTY = program(NOTHING)

SELF_LEASE = Case(
    seed=35,
    profile="pressure",
    nodes=(NodeSpec(1, 14_000),),
    programs=(program([call(14, 1)], [call(8, 2)], ([Put(2, "v2", 10)], ["v2"])),),
    homes=(0,),
    faults=(),
    start_millis=50.0,
)
UNWANTED_RESULT = Case(
    seed=16,
    profile="pressure",
    nodes=(NodeSpec(1, 30_000),),
    programs=(program([call(14, 1, sizes=(2000,))], ([Put(1, "v1", 10)], ["v1"])),),
    homes=(1,),
    faults=(),
)
LATE_COPY = Case(
    seed=47,
    profile="calm",
    nodes=(NodeSpec(2, LARGE), NodeSpec(1, LARGE)),
    programs=(program([call(5, 1, sizes=(8000,)), call(10, 1, ["v5"])], NOTHING),),
    homes=(1,),
    faults=(),
    style="wild",
    tail=0.1,
    start_millis=50.0,
)
BROKEN_PULL = Case(
    seed=36,
    profile="storm",
    nodes=(NodeSpec(2, 18_000), NodeSpec(1, 16_000), NodeSpec(1, 26_000)),
    programs=(program([call(47, 1, sizes=(2000,), cpus=2), Get(52, ("v47",))], NOTHING),),
    homes=(2,),
    faults=(Fault(0.01406, "fail pull", 0.595894859513067, 0.0521),),
    start_millis=50.0,
)
YOUNG_WORKER = Case(
    seed=25,
    profile="crash",
    nodes=(NodeSpec(1, 24_000),),
    programs=(
        program(
            [call(17, 2), call(20, 1, ["v17"]), Get(21, ("v20",))],
            [Exit(10, 9)],
            ([Put(9, "v9", 10)], ["v9"]),
        ),
    ),
    homes=(0,),
    faults=(),
    start_millis=50.0,
)
PING_PONG = Case(
    seed=14,
    profile="cancel",
    nodes=(NodeSpec(1, LARGE),),
    programs=(
        EMPTY,
        program(
            [call(15, 1)],
            [
                call(6, 2, sizes=(10, 10), cpus=0.5),
                call(7, 2, ["v6_1"]),
                call(8, 2, nested=["v7"]),
                call(11, 2, ["v6_1"], cpus=2),
            ],
            [Get(1, ("n0",))],
        ),
    ),
    homes=(0, 1),
    faults=(),
    start_millis=50.0,
)
LATE_REQUEST = Case(
    seed=79,
    profile="crash",
    nodes=(NodeSpec(2, LARGE), NodeSpec(4, LARGE)),
    programs=(
        program(
            [call(12, 3), call(14, 1, sizes=(5000,)), Get(15, ("v12",))],
            [call(8, 2), call(11, 2)],
            NOTHING,
            [Sleep(4, 0.05)],
        ),
    ),
    homes=(0,),
    faults=(Fault(0.02933, "kill worker", 0.7098425178728702, 0.2345),),
    style="tailed",
)
LAST_SEAL = Case(
    seed=0,
    profile="crash",
    nodes=(NodeSpec(1, LARGE),),
    programs=(program([call(22, 1), call(23, 1)], [Put(6, "v6", 5000), Exit(7, 9)]),),
    homes=(0,),
    faults=(),
)

CLAIM_IN_CIRCLES = Case(
    seed=41539,
    profile="crash",
    nodes=(NodeSpec(1, LARGE),),
    programs=(
        program(
            [call(21, 3), call(23, 3, ["v21"])],
            NOTHING,
            NOTHING,
            ([call(4, 5), Exit(11, 2)], ["v4"]),
            NOTHING,
            NOTHING,
        ),
    ),
    homes=(0,),
    faults=(),
)
FREED_WHEN_REBORN = Case(
    seed=43162,
    profile="handoff",
    nodes=(NodeSpec(1, LARGE),),
    programs=(
        program(
            [call(29, 2, sizes=(2000,)), call(34, 4), Get(35, ("v34",), None, True)],
            NOTHING,
            ([call(16, 4), Get(17, ("v16",))], ["v16.0"]),
            NOTHING,
            ([call(4, 5, sizes=(10, 10))], ["v4_1"]),
            NOTHING,
        ),
    ),
    homes=(0,),
    faults=(Fault(0.035, "kill worker", 0.8),),
    start_millis=50.0,
)
REMAINS = Case(
    seed=21,
    profile="crash",
    nodes=(NodeSpec(1, LARGE),),
    programs=(
        EMPTY,
        program([Call(21, "v21", 2, (), (), (5000, 10, 1001), 1, 0)], NOTHING, NOTHING),
    ),
    homes=(0, 0),
    faults=(Fault(0.03303, "kill writer", 0.843),),
    style="wild",
    tail=0.1,
    start_millis=50.0,
)

CLAIMED_TWICE = Case(
    seed=3057,
    profile="lives",
    nodes=(NodeSpec(1, LARGE),),
    programs=(
        program(
            [
                Make(39, "v39", 2),
                Invoke(62, "v62", "v39", 1, (), (), (10,), 3),
                Make(83, "v83", 2, ("v62",)),
            ],
            ([Put(37, "v37", 10)], ("v37",)),
            NOTHING,
        ),
    ),
    homes=(0,),
    faults=(),
    tail=0.1,
)

FOUND = {
    "a worker that leased itself freed its reference under way": SELF_LEASE,
    "a stored result with references inside leaked when nobody wanted it": UNWANTED_RESULT,
    "a copy that arrived after its object was freed leaked": LATE_COPY,
    "a pull that broke once counted as the loss of the value": BROKEN_PULL,
    "a young worker waited for the introduction of an owner long dead": YOUNG_WORKER,
    "a task given back went straight back, for ever": PING_PONG,
    "a request that came after its owner's death was granted for ever": LATE_REQUEST,
    "a dead worker's last seal came after its death report": LAST_SEAL,
    "a claim went back and forth between a submitter and the dead": CLAIM_IN_CIRCLES,
    "what was reborn was freed before its maker had it in hand": FREED_WHEN_REBORN,
    "a call whose actor is gone was claimed once more": CLAIMED_TWICE,
    "what a dead attempt had stored stayed in the store": REMAINS,
}


@pytest.mark.parametrize("case", FOUND.values(), ids=FOUND.keys())
def test_it_holds_now(case, must_hold):
    """Goal: a bug that was found stays mended. Method: its smallest case."""
    must_hold(run_case(case))
